//! Faults of the machine and of others: what fails says so and names the remedy, everything else goes on, and all is well once the fault is gone.

use anyhow::{Context, ensure};
use coracle_tests::{Alone, Background, Cluster, Mode, Output, Registry, Result, eventually, is_root, waiting};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// Those that wait longest begin first.
const CASES: &[Alone] = &[
    ("modules_that_misbehave", modules_that_misbehave),
    ("a_registry_that_hangs", a_registry_that_hangs),
    ("a_full_disk_refuses_writes_only", a_full_disk_refuses_writes_only),
    ("a_late_pod_is_named_at_the_end", a_late_pod_is_named_at_the_end),
    ("a_crowd_of_connections_passes", a_crowd_of_connections_passes),
    ("a_second_interrupt_ends_at_once", a_second_interrupt_ends_at_once),
    ("processes_without_descriptors_leave_others_alone", processes_without_descriptors_leave_others_alone),
    ("a_small_limit_is_said_at_the_start", a_small_limit_is_said_at_the_start),
    ("strangers_are_refused", strangers_are_refused),
];

fn main() -> ExitCode {
    waiting(CASES)
}

fn pod(name: &str, image: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{image}', {container}}}\n"
    )
}

const HTTP: &str = "ports: [{containerPort: 8080}]";

fn ready(cluster: &Cluster, name: &str) -> Result<String> {
    cluster.ready("default", name)
}

fn answers(cluster: &Cluster, ip: &str) -> Result {
    ensure!(cluster.host.get(&format!("http://{ip}:8080/served"))? == "1\n");
    Ok(())
}

/// Waits until `kubectl describe pod` has a warning and all of the words.
fn warned(cluster: &Cluster, name: &str, seconds: u64, words: &[&str]) -> Result {
    eventually(&format!("{name} says {words:?}"), seconds, || {
        let text = cluster.kubectl(&["describe", "pod", name])?.ok()?;
        ensure!(text.contains("Warning"), "{text}");
        for word in words {
            ensure!(text.contains(word), "{word:?} is missing in\n{text}");
        }
        Ok(())
    })
}

/// A small ext4 in a file, mounted until dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(file: &Path, at: &Path, mebibytes: u64) -> Result<Self> {
        fs::create_dir_all(at)?;
        File::create(file)?.set_len(mebibytes << 20)?;
        Output::of(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(file), "")?.ok()?;
        Output::of(Command::new("mount").args(["-o", "loop"]).arg(file).arg(at), "")?.ok()?;
        Ok(Self { at: at.into() })
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Takes every free byte.
    fn fill(&self) -> Result {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        for size in [1 << 20, 4096] {
            let zeros = vec![0; size];
            // Allocation is delayed: only after a sync is it certain that the space is taken.
            while file.write_all(&zeros).and_then(|()| file.sync_data()).is_ok() {}
        }
        Ok(())
    }

    fn clear(&self) -> Result {
        fs::remove_file(self.filler())?;
        Output::of(Command::new("sync").arg("-f").arg(&self.at), "")?.ok().map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: after a failure the cluster may still run on it.
        let _ = Output::of(Command::new("umount").arg("-l").arg(&self.at), "");
    }
}

fn a_full_disk_refuses_writes_only() -> Result {
    if !is_root() {
        eprintln!("not root: no file system can be mounted, so this is not tested");
        return Ok(());
    }
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    let disk = Disk::mount(&cluster.dir().join("disk.img"), &cluster.data_dir(), 160)?;
    cluster.up()?;
    cluster.import("web", "web:v1")?;
    cluster.import("probe", "probe:v1")?;
    cluster.apply(&pod("steady", "web:v1", HTTP))?;
    cluster.apply(&pod("ticker", "probe:v1", "args: [count, '0', '5']"))?;
    // Writes a file to its emptyDir now and then, until it cannot.
    let files: String = (0..400).map(|n| format!(", sleep, '300', --, write, /scratch/{n}, {}, --", "x".repeat(100))).collect();
    let scribe = format!("args: [hello, --{files}, hello], volumeMounts: [{{name: scratch, mountPath: /scratch}}]");
    let scribe = pod("scribe", "probe:v1", &scribe)
        .replace("  containers:", "  restartPolicy: Never\n  volumes: [{name: scratch, emptyDir: {}}]\n  containers:");
    cluster.apply(&scribe)?;
    let ip = ready(&cluster, "steady")?;
    ready(&cluster, "ticker")?;
    ready(&cluster, "scribe")?;
    // Prints what was acknowledged, until something is refused.
    let script = format!(
        "i=0; while i=$((i+1)); do kubectl --kubeconfig {} create cm c$i --from-literal=v=$i -o 'jsonpath={{.metadata.name}}{{\"\\n\"}}' || exit 0; done",
        cluster.kubeconfig().display()
    );
    let mut writer = Background::start(cluster.host.command("sh").arg("-c").arg(script))?;
    eventually("a few writes", 30, || {
        ensure!(writer.lines().len() >= 3);
        Ok(())
    })?;
    disk.fill()?;
    writer.wait(30)?;
    let lines = writer.lines();
    let refused = lines.last().context("the writer said nothing")?;
    let data = cluster.data_dir();
    ensure!(refused.contains("full") && refused.contains(&*data.to_string_lossy()) && refused.contains("free"), "{lines:?}");
    let acknowledged: Vec<&String> = lines.iter().filter(|line| line.starts_with('c') && !line.contains(' ')).collect();
    let all_there = || -> Result {
        let names = cluster.kubectl(&["get", "cm", "-o", "name"])?.ok()?;
        for name in &acknowledged {
            ensure!(names.lines().any(|line| line == format!("configmap/{name}")), "{name} was acknowledged and is gone");
        }
        Ok(())
    };
    all_there()?;
    answers(&cluster, &ip)?;
    let said = cluster.kubectl(&["label", "cm", "c1", "color=blue"])?.err()?;
    ensure!(said.contains("full") && said.contains("free"), "{said}");
    ensure!(cluster.get(&["cm", "c1"])?["metadata"]["labels"]["color"].is_null(), "what was refused did not happen");
    cluster.kubectl(&["logs", "steady"])?.ok()?;
    let said = cluster.coracle(&["image", "import", &cluster.dir().join("probe.wasm").to_string_lossy(), "--name", "late:v1"])?.err()?;
    ensure!(said.contains("No space left on device") && said.contains("probe.wasm"), "{said}");
    ensure!(!cluster.coracle(&["image", "list"])?.ok()?.contains("late"), "nothing half done");
    ensure!(cluster.get(&["pod", "steady"])?["status"]["containerStatuses"][0]["restartCount"] == 0);

    // Others fill what the cluster itself left, and it starts again, and again: it reads, and refuses to write.
    for _ in 0..2 {
        cluster.kill()?;
        disk.fill()?;
        cluster.up()?;
        all_there()?;
        let said = cluster.kubectl(&["label", "cm", "c1", "color=blue"])?.err()?;
        ensure!(said.contains("full") && said.contains("free"), "{said}");
    }
    cluster.kill()?;
    disk.clear()?;
    cluster.up()?;
    all_there()?;
    answers(&cluster, &ip)?;
    eventually("writes again", 20, || cluster.kubectl(&["label", "cm", "c1", "color=blue"])?.ok())?;
    // A guest is told by its write. One that only prints is not bothered, and its log says what is missing.
    eventually("the scribe's end is told", 40, || {
        let status = cluster.get(&["pod", "scribe"])?["status"].clone();
        ensure!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 1, "{status}");
        Ok(())
    })?;
    eventually("the ticker's log goes on", 20, || {
        let text = cluster.kubectl(&["logs", "ticker"])?.ok()?;
        let (_, after) = text.split_once("lines were dropped: the disk was full\n").context("nothing is said of the lines that are missing")?;
        ensure!(after.contains("line "), "{after}");
        Ok(())
    })?;
    ensure!(cluster.get(&["pod", "ticker"])?["status"]["containerStatuses"][0]["restartCount"] == 0);
    cluster.apply(&pod("after", "web:v1", HTTP))?;
    answers(&cluster, &ready(&cluster, "after")?)?;
    let (code, lines) = cluster.terminate()?;
    ensure!(code == 0, "{code}: {lines:?}");
    // Before the folder goes that it is mounted in.
    drop(disk);
    cluster.stop()
}

/// How many descriptors a process has open.
fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Sets the soft limit of a process that runs; its own raising of it was at its start.
fn limit(pid: u32, descriptors: usize) -> Result {
    // As its own user: even for root another's limits may be out of reach (a machine without CAP_SYS_RESOURCE).
    let owner = fs::metadata(format!("/proc/{pid}"))?;
    let mut command = Command::new("prlimit");
    if is_root() && owner.uid() != 0 {
        command = Command::new("setpriv");
        command.args(["--reuid", &owner.uid().to_string(), "--regid", &owner.gid().to_string(), "--clear-groups", "prlimit"]);
    }
    Output::of(command.args(["--pid", &pid.to_string(), &format!("--nofile={descriptors}:")]), "")?.ok().map(drop)
}

/// The processes of the wasm runtime: its supervisor, then the hosts.
fn runtime_processes(cluster: &Cluster) -> Result<Vec<u32>> {
    let data = cluster.data_dir();
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        if words.contains("wasm-supervisor") && words.contains(&*data.to_string_lossy()) {
            pids.push(pid);
        }
    }
    // The parent is older than what it forked; nothing here lives long enough for ids to begin anew.
    pids.sort_unstable();
    ensure!(pids.len() >= 2, "no wasm runtime: {pids:?}");
    Ok(pids)
}

fn a_small_limit_is_said_at_the_start() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    let up = |limit: u32| -> Result<Command> {
        let whole = cluster.up_command()?;
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(whole.get_program()).args(whole.get_args());
        Ok(command)
    };
    let said = Output::of(&mut up(32)?, "")?.err()?;
    ensure!(said.contains("limit of open files is 32") && said.contains("ulimit -n"), "{said}");
    let mut few = Background::start(&mut up(128)?)?;
    eventually("it is ready", 30, || {
        let lines = few.lines();
        ensure!(lines.iter().any(|line| line.starts_with("ready")), "{lines:?}");
        ensure!(lines.iter().any(|line| line.contains("limit of open files is 128")), "{lines:?}");
        Ok(())
    })?;
    cluster.import("web", "web:v1")?;
    cluster.apply(&pod("fits", "web:v1", HTTP))?;
    answers(&cluster, &ready(&cluster, "fits")?)?;
    few.signal("TERM")?;
    ensure!(few.wait(40)? == 0, "{:?}", few.lines());
    Ok(())
}

fn a_crowd_of_connections_passes() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    cluster.apply(&pod("steady", "web:v1", HTTP))?;
    let ip = ready(&cluster, "steady")?;
    let pid = cluster.pid()?;
    limit(pid, descriptors(pid)? + 8)?;
    // Connections that say nothing, held by one process until it is killed.
    let script = "for i in $(seq 64); do exec {fd}<>/dev/tcp/127.0.0.1/6443; done; echo held; exec sleep 600";
    let crowd = Background::start(cluster.host.command("bash").args(["-c", script]))?;
    eventually("the crowd is there", 20, || {
        ensure!(crowd.lines().iter().any(|line| line == "held"), "{:?}", crowd.lines());
        Ok(())
    })?;
    eventually("it is said what is wrong", 20, || {
        ensure!(cluster.log().contains("limit of open files"), "{}", cluster.log());
        Ok(())
    })?;
    answers(&cluster, &ip)?;
    // Who says nothing is shown out, so that the crowd does not even have to go.
    eventually("the API answers beside the crowd", 60, || cluster.get(&["cm", "kube-root-ca.crt"]))?;
    drop(crowd);
    eventually("the API takes writes", 20, || cluster.kubectl(&["create", "cm", "after"])?.ok())?;
    let complaints = cluster.log().lines().filter(|line| line.contains("limit of open files")).count();
    ensure!(complaints < 20, "said {complaints} times");
    ensure!(cluster.get(&["pod", "steady"])?["status"]["containerStatuses"][0]["restartCount"] == 0);
    cluster.apply(&pod("after", "web:v1", HTTP))?;
    limit(pid, 1024)?;
    answers(&cluster, &ready(&cluster, "after")?)?;
    cluster.stop()
}

fn processes_without_descriptors_leave_others_alone() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    cluster.apply(&pod("steady", "web:v1", HTTP))?;
    let ip = ready(&cluster, "steady")?;
    let many = "ports: [{containerPort: 8080}, {containerPort: 8081}, {containerPort: 8082}, {containerPort: 8083}, {containerPort: 8084}, {containerPort: 8085}, {containerPort: 8086}, {containerPort: 8087}]";
    let mut processes = vec![("agent", cluster.pid()?)];
    let runtime = runtime_processes(&cluster)?;
    processes.extend(["supervisor", "host"].into_iter().zip(runtime.iter().copied()));
    for (name, pid) in processes {
        limit(pid, descriptors(pid)? + 6)?;
        cluster.apply(&pod(name, "web:v1", many))?;
        warned(&cluster, name, 40, &["descriptors", "ulimit -n"]).with_context(|| format!("the {name} has no descriptors left"))?;
        answers(&cluster, &ip)?;
        limit(pid, 1024)?;
        answers(&cluster, &ready(&cluster, name)?)?;
    }
    ensure!(runtime_processes(&cluster)? == runtime, "nobody was ended");
    ensure!(cluster.get(&["pod", "steady"])?["status"]["containerStatuses"][0]["restartCount"] == 0);
    cluster.stop()
}

fn a_registry_that_hangs() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    let registry = Registry::start(&cluster.host, 5000)?;
    let image = cluster.offer(&registry, "web", "team/web:v1")?;
    registry.freeze()?;
    cluster.apply(&pod("hung", &image, HTTP))?;
    eventually("it is pulled", 20, || {
        ensure!(cluster.kubectl(&["describe", "pod", "hung"])?.ok()?.contains(&format!("Pulling image \"{image}\"")));
        Ok(())
    })?;
    cluster.apply(&pod("other", "web:v1", HTTP))?;
    answers(&cluster, &ready(&cluster, "other")?)?;
    warned(&cluster, "hung", 60, &["Failed to pull image", &registry.address, "did not answer within"])?;
    let pod = cluster.get(&["pod", "hung"])?;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    ensure!(waiting["reason"] == "ErrImagePull" || waiting["reason"] == "ImagePullBackOff", "{waiting}");
    registry.thaw()?;
    eventually("it is pulled after all", 60, || {
        let pod = cluster.get(&["pod", "hung"])?;
        ensure!(pod["status"]["containerStatuses"][0]["ready"] == true, "{}", pod["status"]);
        Ok(())
    })?;
    cluster.stop()
}

/// Answers requests, were it not that its instances never begin.
const NEVER_BEGINS: &str = r#"(component
  (import "wasi:http/types@0.2.0" (instance $types (export "incoming-request" (type (sub resource))) (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $code (func $spin (loop (br 0))) (start $spin) (func (export "handle") (param i32 i32)))
  (core instance $made (instantiate $code))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam)) (canon lift (core func $made "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

fn modules_that_misbehave() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    cluster.apply(&pod("steady", "web:v1", HTTP))?;
    let ip = ready(&cluster, "steady")?;
    // Those without a container cannot run on any machine: they are refused when they are imported.
    let bad: [(&str, &str, &str, &[&str]); 5] = [
        ("thief", r#"(module (import "env" "steal" (func)) (func (export "_start")))"#, "", &["imports from \"env\"", "granted"]),
        (
            "stranger",
            r#"(component (import "acme:vault/open@1.0.0" (instance $i)) (instance $run) (export "wasi:cli/run@0.2.0" (instance $run)))"#,
            "",
            &["imports acme:vault/open@1.0.0", "granted"],
        ),
        ("giant", r#"(module (memory 65536) (func (export "_start")))"#, "", &["4096 MiB", "lower its initial memory"]),
        ("spinner", r#"(module (func $spin (loop (br 0))) (start $spin) (func (export "_start")))"#, "args: []", &["does not start", "30s"]),
        ("sleeper", NEVER_BEGINS, HTTP, &["does not start", "30s"]),
    ];
    for (name, text, container, words) in bad {
        let file = cluster.dir().join(format!("{name}.wasm"));
        fs::write(&file, wat::parse_str(text)?)?;
        let imported = cluster.coracle(&["image", "import", &file.to_string_lossy(), "--name", &format!("{name}:v1")])?;
        if container.is_empty() {
            let why = imported.err()?;
            ensure!(words.iter().all(|word| why.contains(word)), "{name}: {why}");
            continue;
        }
        imported.ok()?;
        cluster.apply(&pod(name, &format!("{name}:v1"), container))?;
    }
    for (name, _, _, words) in bad.into_iter().filter(|(_, _, container, _)| !container.is_empty()) {
        // Two starts of 30 s, and the restart between them, come before the first warning.
        warned(&cluster, name, 90, words)?;
        let state = cluster.get(&["pod", name])?["status"]["containerStatuses"][0].clone();
        ensure!(state["ready"] == false, "{name}: {state}");
        answers(&cluster, &ip)?;
    }
    cluster.apply(&pod("after", "web:v1", HTTP))?;
    answers(&cluster, &ready(&cluster, "after")?)?;
    cluster.stop()
}

fn strangers_are_refused() -> Result {
    let (cluster, other) = (Cluster::stopped(Mode::Whole, &[])?, Cluster::stopped(Mode::Whole, &[])?);
    other.up()?;
    cluster.up()?;
    let file = cluster.dir().join("stranger.kubeconfig");
    let config = file.to_string_lossy().into_owned();
    fs::copy(other.kubeconfig(), &file)?;
    other.stop()?;
    let with = |config: &str, words: &[&str]| -> Result<Output> {
        let mut command = cluster.host.command("kubectl");
        command.args(["--kubeconfig", config]).args(words).env("HOME", cluster.dir());
        Output::of(&mut command, "")
    };
    let said = with(&config, &["get", "ns"])?.err()?;
    ensure!(said.contains("certificate signed by unknown authority"), "{said}");
    // Who trusts anybody is still a stranger.
    let name = with(&config, &["config", "view", "-o", "jsonpath={.clusters[0].name}"])?.ok()?;
    with(&config, &["config", "set-cluster", &name, "--insecure-skip-tls-verify=true"])?.ok()?;
    let said = with(&config, &["get", "ns"])?.err()?;
    ensure!(said.contains("You must be logged in to the server"), "{said}");
    let said = with(&config, &["create", "ns", "intruder"])?.err()?;
    ensure!(said.contains("You must be logged in to the server"), "{said}");

    cluster.kubectl(&["create", "serviceaccount", "short"])?.ok()?;
    cluster.kubectl(&["create", "clusterrolebinding", "short", "--clusterrole=view", "--serviceaccount=default:short"])?.ok()?;
    let token = cluster.kubectl(&["create", "token", "short"])?.ok()?.trim().to_string();
    let file = cluster.dir().join("token.kubeconfig");
    let config = file.to_string_lossy().into_owned();
    fs::copy(cluster.kubeconfig(), &file)?;
    with(&config, &["config", "set-context", "--current", "--user=bearer"])?.ok()?;
    let try_token = |token: &str| {
        with(&config, &["config", "set-credentials", "bearer", &format!("--token={token}")])?.ok()?;
        with(&config, &["get", "cm"])
    };
    eventually("a good token is taken", 10, || try_token(&token)?.ok())?;
    let (body, signature) = token.rsplit_once('.').context("no token")?;
    let flipped: String = signature.chars().rev().collect();
    for bad in ["garbage", &format!("{body}.{flipped}"), &format!("{body}."), &format!("{token}x")] {
        let said = try_token(bad)?.err()?;
        ensure!(said.contains("You must be logged in to the server"), "{bad}: {said}");
    }
    cluster.kubectl(&["delete", "serviceaccount", "short"])?.ok()?;
    let said = try_token(&token)?.err()?;
    ensure!(said.contains("You must be logged in to the server"), "its account is gone: {said}");
    ensure!(!cluster.kubectl(&["get", "ns", "-o", "name"])?.ok()?.contains("intruder"));
    cluster.stop()
}

/// A cluster with a pod that has a long grace and a request that never ends.
fn busy() -> Result<(Cluster, Background)> {
    let cluster = Cluster::start(Mode::Whole)?;
    let manifest = pod("busy", "web:v1", HTTP).replace("PeriodSeconds: 1\n", "PeriodSeconds: 300\n");
    cluster.apply(&manifest)?;
    cluster.apply(&pod("calm", "web:v1", HTTP))?;
    ready(&cluster, "calm")?;
    let ip = ready(&cluster, "busy")?;
    let url = format!("http://{ip}:8080/");
    let request = Background::start(cluster.host.command("curl").args(["-sS", "-v", "-m", "120", &format!("{url}sleep?100000")]))?;
    eventually("the request is on its way", 10, || {
        ensure!(request.lines().iter().any(|line| line.contains("GET /sleep")), "{:?}", request.lines());
        Ok(())
    })?;
    Ok((cluster, request))
}

fn a_late_pod_is_named_at_the_end() -> Result {
    let (cluster, _request) = busy()?;
    let (code, lines) = cluster.terminate()?;
    ensure!(code == 0, "{code}: {lines:?}");
    ensure!(lines.iter().any(|line| line.contains("late: pod default/busy")), "{lines:?}");
    ensure!(!lines.iter().any(|line| line.contains("default/calm")), "{lines:?}");
    ensure!(runtime_processes(&cluster).is_err(), "it was killed");
    Ok(())
}

fn a_second_interrupt_ends_at_once() -> Result {
    let (cluster, _request) = busy()?;
    let interrupt = || Output::of(Command::new("kill").arg("-INT").arg(cluster.pid()?.to_string()), "")?.ok();
    interrupt()?;
    eventually("it says that it stops", 5, || {
        ensure!(cluster.log().contains("second Ctrl-C"), "{}", cluster.log());
        Ok(())
    })?;
    interrupt()?;
    let gone = PathBuf::from(format!("/proc/{}/cmdline", cluster.pid()?));
    eventually("it is gone", 5, || {
        // Nobody has waited for it yet: a process that ended has no command line any more.
        ensure!(fs::read(&gone).unwrap_or_default().is_empty(), "{}", cluster.log());
        Ok(())
    })?;
    ensure!(cluster.log().contains("ended at once"), "{}", cluster.log());
    Ok(())
}
