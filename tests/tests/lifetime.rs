//! Starting, stopping, dying and coming back: each case has a cluster of its own.

use anyhow::{Context, ensure};
use coracle_tests::{Alone, Background, Cluster, Mode, Output, Registry, Result, alone, binary, eventually, is_root};
use serde_json::Value;
use std::{collections::BTreeMap, process::ExitCode};

const CASES: &[Alone] = &[
    ("kill_and_restart_adopts_running_pods", kill_and_restart_adopts_running_pods),
    ("stopping_ends_the_pods_and_starting_brings_them_back", stopping_ends_the_pods_and_starting_brings_them_back),
    ("a_stop_before_it_is_ready_leaves_nothing", a_stop_before_it_is_ready_leaves_nothing),
    ("a_kubeconfig_of_somebody_else_is_kept", a_kubeconfig_of_somebody_else_is_kept),
    ("no_acknowledged_write_is_lost_and_no_event", no_acknowledged_write_is_lost_and_no_event),
    ("a_kill_while_pods_begin_is_made_good", a_kill_while_pods_begin_is_made_good),
    ("a_second_up_is_refused", a_second_up_is_refused),
    ("cordon_keeps_new_pods_away", cordon_keeps_new_pods_away),
];

fn main() -> ExitCode {
    alone(CASES)
}

fn web(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: 'web:v1', ports: [{{containerPort: 8080}}]}}\n"
    )
}

fn ready_ip(cluster: &Cluster, name: &str) -> Result<String> {
    cluster.ready("default", name)
}

fn kill_and_restart_adopts_running_pods() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    cluster.apply(&web("steady").replace("ports:", "readinessProbe: {tcpSocket: {port: 8080}}, ports:"))?;
    cluster.kubectl(&["run", "ticker", "--image=probe:v1", "--", "count", "0", "100"])?.ok()?;
    let ip = ready_ip(&cluster, "steady")?;
    ready_ip(&cluster, "ticker")?;
    let before = cluster.get(&["pod", "ticker"])?;
    let since = || cluster.kubectl(&["get", "pod", "steady", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].lastTransitionTime}"])?.ok();
    let ready_since = since()?;
    cluster.kubectl(&["label", "pod", "steady", "app=steady"])?.ok()?;
    cluster.kubectl(&["expose", "pod", "steady", "--port=8080"])?.ok()?;
    let service = cluster.kubectl(&["get", "service", "steady", "-o", "jsonpath={.spec.clusterIP}"])?.ok()?;
    let by_service = format!("http://{service}:8080/served");
    eventually("the Service's address answers", 10, || cluster.host.get(&by_service))?;
    cluster.kill()?;
    ensure!(cluster.host.get(&format!("http://{ip}:8080/served"))? == "1\n", "the function answers while nobody watches");
    // Nor does who comes by its Service notice how the next agent begins.
    let over = std::sync::atomic::AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut refused = Vec::new();
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                refused.extend(cluster.host.get(&by_service).err().map(|why| why.to_string()));
            }
            refused
        });
        let up = cluster.up().and_then(|()| ready_ip(&cluster, "ticker"));
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        up.map(|_| client.join().unwrap_or_else(|_| vec!["the client panicked".into()]))
    })?;
    ensure!(refused.is_empty(), "{refused:?}");
    let after = cluster.get(&["pod", "ticker"])?;
    ensure!(after["metadata"]["uid"] == before["metadata"]["uid"]);
    let (old, new) = (&before["status"]["containerStatuses"][0], &after["status"]["containerStatuses"][0]);
    ensure!(
        new["restartCount"] == 0 && new["containerID"] == old["containerID"] && new["state"] == old["state"],
        "adopted, not restarted: {old} {new}"
    );
    ready_ip(&cluster, "steady")?;
    ensure!(since()? == ready_since, "it was ready all the time");
    ensure!(cluster.host.get(&format!("http://{ip}:8080/served"))? == "1\n");
    let lines = cluster.kubectl(&["logs", "ticker"])?.ok()?.lines().count();
    eventually("it goes on logging", 10, || {
        let now = cluster.kubectl(&["logs", "ticker"])?.ok()?.lines().count();
        ensure!(now > lines, "{now}");
        Ok(())
    })?;
    cluster.stop()
}

fn stopping_ends_the_pods_and_starting_brings_them_back() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    cluster.apply(&web("back"))?;
    let keeper = "apiVersion: v1\nkind: Pod\nmetadata: {name: keeper}\nspec:\n  terminationGracePeriodSeconds: 1\n  volumes: [{name: scratch, emptyDir: {}}]\n  containers:\n  - {name: main, image: 'probe:v1', args: [ls, /scratch, --, write, /scratch/kept, x, --, count, '0', '1000'], volumeMounts: [{name: scratch, mountPath: /scratch}]}\n";
    cluster.apply(keeper)?;
    let first_line = |wanted: &str| {
        eventually("what the pod has found", 30, || {
            let text = cluster.kubectl(&["logs", "keeper"])?.ok()?;
            ensure!(text.starts_with(wanted) && text.contains("line 1"), "{text}");
            Ok(())
        })
    };
    first_line("[]")?;
    let ip = ready_ip(&cluster, "back")?;
    let (code, lines) = cluster.terminate()?;
    ensure!(code == 0, "{code}: {lines:?}");
    cluster.host.get(&format!("http://{ip}:8080/")).expect_err("stopped with its cluster");
    nothing_stays_in_the_kernel(&cluster)?;
    cluster.up()?;
    let ip = ready_ip(&cluster, "back")?;
    eventually("it answers again", 20, || cluster.host.get(&format!("http://{ip}:8080/")))?;
    // It is the same pod, so its emptyDir is the same.
    first_line("[\"kept\"]")?;
    cluster.stop()
}

fn nothing_stays_in_the_kernel(cluster: &Cluster) -> Result {
    if is_root() {
        let tables = cluster.host.run("nft", &["list", "tables"])?.ok()?;
        let routes = cluster.host.run("ip", &["route", "show", "table", "all"])?.ok()?;
        ensure!(!tables.contains("coracle") && !routes.contains("10.244."), "left in the kernel: {tables}{routes}");
    }
    Ok(())
}

fn a_stop_before_it_is_ready_leaves_nothing() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    cluster.apply(&web("early"))?;
    let ip = ready_ip(&cluster, "early")?;
    cluster.kill()?;
    let mut process = Background::start(&mut cluster.up_command()?)?;
    // The API listens some time before the node is ready.
    let listening = "for i in $(seq 2000); do (echo > /dev/tcp/127.0.0.1/6443) 2> /dev/null && exit 0; sleep 0.005; done; exit 1";
    cluster.host.run("bash", &["-c", listening])?.ok()?;
    process.signal("TERM")?;
    let code = process.wait(60)?;
    ensure!(code == 0, "{code}: {:?}", process.lines());
    cluster.host.get(&format!("http://{ip}:8080/")).expect_err("stopped with its cluster");
    nothing_stays_in_the_kernel(&cluster)?;
    cluster.up()?;
    ready_ip(&cluster, "early")?;
    cluster.stop()
}

fn a_kubeconfig_of_somebody_else_is_kept() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    let text = "apiVersion: v1\nkind: Config\nclusters: [{name: production, cluster: {server: 'https://192.0.2.1'}}]\n";
    std::fs::write(cluster.kubeconfig(), text)?;
    let said = Output::of(&mut cluster.up_command()?, "")?.err()?;
    ensure!(said.contains(&*cluster.kubeconfig().to_string_lossy()) && said.contains("--kubeconfig"), "{said}");
    ensure!(std::fs::read_to_string(cluster.kubeconfig())? == text);
    std::fs::remove_file(cluster.kubeconfig())?;
    cluster.up()?;
    cluster.stop()
}

/// A watch of config maps from a version on, each event on a line.
fn watch_from(cluster: &Cluster, version: u64) -> Result<Background> {
    let path = format!("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={version}");
    Background::start(&mut cluster.kubectl_command(&["get", "--raw", &path]))
}

/// What a watcher knows: names and versions, and the version up to which it has heard.
#[derive(Default)]
struct Heard {
    held: BTreeMap<String, String>,
    upto: u64,
}

impl Heard {
    /// Takes the lines that a watch printed. What was cut short by the kill is told again.
    fn take(&mut self, lines: &[String]) -> Result {
        for event in lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let metadata = &event["object"]["metadata"];
            let (name, version) =
                (metadata["name"].as_str().with_context(|| format!("{event}"))?, metadata["resourceVersion"].as_str().context("no version")?);
            let number: u64 = version.parse()?;
            ensure!(number > self.upto, "told of {number} after {}", self.upto);
            let before = match event["type"].as_str() {
                Some("DELETED") => self.held.remove(name),
                _ => self.held.insert(name.into(), version.into()),
            };
            ensure!(before.is_some() == (event["type"] != "ADDED"), "{} of {name}, known as {before:?}", event["type"]);
            self.upto = number;
        }
        Ok(())
    }
}

fn no_acknowledged_write_is_lost_and_no_event() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    cluster.up()?;
    let mut acknowledged = BTreeMap::new();
    // kubectl's own lists have no version.
    let list: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/api/v1/namespaces/default/configmaps"])?.ok()?)?;
    let text = |item: &Value, field: &str| item["metadata"][field].as_str().unwrap_or_default().to_string();
    let mut heard = Heard { upto: text(&list, "resourceVersion").parse()?, ..Heard::default() };
    heard.held = list["items"].as_array().into_iter().flatten().map(|item| (text(item, "name"), text(item, "resourceVersion"))).collect();
    for round in 0..4 {
        let mut watch = watch_from(&cluster, heard.upto)?;
        // A writer in a process of its own prints what was acknowledged, until the server is gone.
        let script = format!(
            "i=0; while [ $i -lt 400 ]; do i=$((i+1)); kubectl --kubeconfig {} create cm r{round}-$i --from-literal=v=$i -o 'jsonpath={{.metadata.name}} {{.metadata.resourceVersion}}{{\"\\n\"}}' || exit 0; [ $((i%3)) != 0 ] || kubectl --kubeconfig {} delete cm r{round}-$((i-1)) --wait=false > /dev/null || exit 0; done",
            cluster.kubeconfig().display(),
            cluster.kubeconfig().display()
        );
        let mut command = cluster.host.command("sh");
        command.arg("-c").arg(script);
        let mut writer = Background::start(&mut command)?;
        eventually("some acknowledged writes", 60, || {
            let count = writer.lines().iter().filter(|line| line.starts_with('r')).count();
            ensure!(count >= 5 + round * 3, "{count}");
            Ok(())
        })?;
        cluster.kill()?;
        writer.wait(60)?;
        watch.wait(60)?;
        heard.take(&watch.lines())?;
        for line in writer.lines() {
            if let Some((name, version)) = line.split_once(' ').filter(|(name, version)| name.starts_with('r') && version.parse::<u64>().is_ok()) {
                acknowledged.insert(name.to_string(), version.to_string());
            }
        }
        cluster.up()?;
        let list = cluster.get(&["cm"])?;
        let held: BTreeMap<&str, &str> = list["items"]
            .as_array()
            .context("no items")?
            .iter()
            .filter_map(|item| Some((item["metadata"]["name"].as_str()?, item["metadata"]["resourceVersion"].as_str()?)))
            .collect();
        // Deleted by the writer, or just about to be when it was cut off.
        let deleted = |name: &str| {
            let index: u32 = name.rsplit('-').next().and_then(|index| index.parse().ok()).unwrap_or(0);
            index % 3 == 2
        };
        for (name, version) in acknowledged.iter().filter(|(name, _)| !deleted(name)) {
            ensure!(held.get(name.as_str()) == Some(&version.as_str()), "{name} was acknowledged at {version} and is {:?}", held.get(name.as_str()));
        }
    }
    ensure!(acknowledged.len() >= 20);
    // Who followed all the time, from where the last watch was cut off, knows what there is.
    let watch = watch_from(&cluster, heard.upto)?;
    cluster.kubectl(&["create", "cm", "last"])?.ok()?;
    eventually("the watch has come to the end", 20, || {
        ensure!(watch.lines().iter().any(|line| line.contains("\"name\":\"last\"")), "{:?}", watch.lines());
        Ok(())
    })?;
    heard.take(&watch.lines())?;
    let list = cluster.get(&["cm"])?;
    let there: BTreeMap<String, String> =
        list["items"].as_array().into_iter().flatten().map(|item| (text(item, "name"), text(item, "resourceVersion"))).collect();
    ensure!(heard.held == there, "heard of {:?}\nand there are {there:?}", heard.held);
    cluster.stop()
}

/// A module that takes the compiler seconds.
fn heavy() -> Result<Vec<u8>> {
    let sum = "local.get 0 i32.const 77 i32.add local.get 0 local.get 1 i32.xor i32.mul local.set 0 ".repeat(300);
    let functions: String = (0..500).map(|n| format!("(func $f{n} (param i32 i32) (result i32) {sum} local.get 0)")).collect();
    Ok(wat::parse_str(format!("(module (memory (export \"memory\") 1) {functions} (func (export \"_start\")))"))?)
}

fn a_kill_while_pods_begin_is_made_good() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    // While an image is pulled.
    let registry = Registry::start(&cluster.host, 5000)?;
    let image = cluster.offer(&registry, "web", "team/web:v1")?;
    registry.freeze()?;
    cluster.apply(&web("pulled").replace("web:v1", &image))?;
    eventually("it is pulled", 20, || {
        ensure!(cluster.kubectl(&["describe", "pod", "pulled"])?.ok()?.contains("Pulling image"));
        Ok(())
    })?;
    cluster.kill()?;
    registry.thaw()?;
    cluster.up()?;
    let ip = ready_ip(&cluster, "pulled")?;
    ensure!(cluster.host.get(&format!("http://{ip}:8080/served"))? == "1\n");
    // While one is compiled.
    let file = cluster.dir().join("heavy.wasm");
    std::fs::write(&file, heavy()?)?;
    cluster.coracle(&["image", "import", &file.to_string_lossy(), "--name", "heavy:v1"])?.ok()?;
    cluster.kubectl(&["run", "compiled", "--image=heavy:v1", "--restart=Never"])?.ok()?;
    let half = || -> Result<usize> {
        let files = std::fs::read_dir(cluster.data_dir().join("wasm/artifacts"))?.flatten();
        Ok(files.filter(|file| file.path().extension().is_some_and(|extension| extension == "tmp")).count())
    };
    eventually("it is compiled", 20, || {
        ensure!(half()? == 1);
        Ok(())
    })?;
    cluster.kill()?;
    cluster.up()?;
    eventually("it has run", 60, || {
        let pod = cluster.get(&["pod", "compiled"])?;
        ensure!(pod["status"]["phase"] == "Succeeded", "{}", pod["status"]);
        Ok(())
    })?;
    ensure!(half()? == 0, "nothing half done is left");
    // While pods are started.
    for round in 0..3 {
        let names: Vec<String> = (0..8).map(|n| format!("begun-{round}-{n}")).collect();
        cluster.apply(&names.iter().map(|name| web(name)).collect::<Vec<_>>().join("---\n"))?;
        if round > 0 {
            cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{}", names[round]), "--timeout=40s"])?.ok()?;
        }
        cluster.kill()?;
        cluster.up()?;
        for name in &names {
            let ip = ready_ip(&cluster, name)?;
            eventually("it answers", 20, || cluster.host.get(&format!("http://{ip}:8080/served")))?;
        }
    }
    let pods = cluster.get(&["pods", "--field-selector=status.phase=Running"])?;
    ensure!(pods["items"].as_array().map_or(0, Vec::len) == 25, "{pods}");
    cluster.stop()
}

fn a_second_up_is_refused() -> Result {
    let cluster = Cluster::stopped(Mode::Whole, &[])?;
    cluster.up()?;
    let second = Output::of(&mut cluster.up_command()?, "")?;
    let said = second.err()?;
    ensure!(said.contains(&*cluster.data_dir().to_string_lossy()) && said.contains("--data-dir"), "{said}");
    let other = cluster.dir().join("other");
    let mut command = cluster.as_user(binary()?);
    command.arg("up").arg("--data-dir").arg(&other).arg("--kubeconfig").arg(cluster.dir().join("other.kubeconfig"));
    let said = Output::of(&mut command, "")?.err()?;
    ensure!(said.contains("127.0.0.1:6443") && said.contains("--api-addr"), "{said}");
    let _held = cluster.host.datagrams("127.0.0.1:7444")?;
    command.args(["--api-addr", "127.0.0.1:7443", "--link-addr", "127.0.0.1:7444"]);
    let said = Output::of(&mut command, "")?.err()?;
    ensure!(said.contains("127.0.0.1:7444") && said.contains("--link-addr"), "{said}");
    cluster.get(&["ns", "default"])?;
    cluster.stop()
}

fn cordon_keeps_new_pods_away() -> Result {
    let cluster = Cluster::start(Mode::Whole)?;
    let kubectl = |words: &[&str]| cluster.kubectl(words)?.ok();
    ensure!(kubectl(&["cordon", "test-node"])?.contains("node/test-node cordoned"));
    ensure!(kubectl(&["get", "nodes"])?.contains("Ready,SchedulingDisabled"));
    cluster.apply(&web("kept-out"))?;
    eventually("the pod waits", 20, || {
        let text = kubectl(&["describe", "pod", "kept-out"])?;
        ensure!(text.contains("1 node(s) were unschedulable"), "{text}");
        Ok(())
    })?;
    kubectl(&["uncordon", "test-node"])?;
    ready_ip(&cluster, "kept-out")?;
    cluster.stop()
}
