//! Programs in containers and ports of pods, through the real kubectl: over WebSockets, and over SPDY as older clients speak it.

use anyhow::ensure;
use coracle_tests::{Background, Case, Cluster, Mode, Output, Result, eventually, has, is_root, main as suite};
use std::{
    fs,
    process::{Command, ExitCode},
};

const CASES: &[Case] = &[
    ("programs_have_streams_and_exit_codes", programs_have_streams_and_exit_codes),
    ("a_program_that_ends_early_is_heard", a_program_that_ends_early_is_heard),
    ("files_are_copied_both_ways", files_are_copied_both_ways),
    ("terminals_are_terminals", terminals_are_terminals),
    ("attached_clients_see_the_programs_output", attached_clients_see_the_programs_output),
    ("a_pod_is_run_and_removed", a_pod_is_run_and_removed),
    ("ports_of_pods_are_forwarded", ports_of_pods_are_forwarded),
    ("what_cannot_be_run_says_why", what_cannot_be_run_says_why),
];

/// As kubectl speaks today, and as before 1.30.
const SPEECHES: [(&str, &str); 2] = [("websocket", "true"), ("spdy", "false")];
/// More than any buffer on the way.
const MUCH: usize = 8 << 20;

fn main() -> ExitCode {
    if !is_root() {
        println!("SKIPPED, ALL OF THEM: containers need root, and this user is not.");
        return ExitCode::SUCCESS;
    }
    suite(Mode::Whole, CASES)
}

/// A pod `box` with a web server on 8080 that runs until it is deleted.
fn running(cluster: &Cluster, name: &str) -> Result<String> {
    let ns = cluster.namespace(name)?;
    cluster.import_busybox()?;
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: box, namespace: {ns}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    image: busybox:v1\n    command: [sh, -c, 'mkdir /www; echo served > /www/index.html; httpd -p 8080 -h /www; while true; do echo tick; sleep 1; done']\n"
    ))?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/box", "--timeout=60s"])?.ok()?;
    Ok(ns)
}

/// kubectl in one of the two speeches.
fn speaking(cluster: &Cluster, websockets: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = cluster.kubectl_command(arguments);
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
    Output::of(&mut command, input)
}

fn programs_have_streams_and_exit_codes(cluster: &Cluster) -> Result {
    let ns = running(cluster, "programs")?;
    for (speech, on) in SPEECHES {
        let ended = speaking(cluster, on, &["-n", &ns, "exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], "")?;
        ensure!(ended.code == 7 && ended.stdout == "out\n" && ended.stderr.contains("err\n"), "{speech}: {ended:?}");
        let text = "a line\n".repeat(MUCH / 7);
        let counted = speaking(cluster, on, &["-n", &ns, "exec", "-i", "box", "--", "wc", "-c"], &text)?.ok()?;
        ensure!(counted.trim() == text.len().to_string(), "{speech}: what goes in ends, and comes whole: {counted}");
        let script = format!("head -c {MUCH} /dev/zero | tr '\\0' x; echo end");
        let much = speaking(cluster, on, &["-n", &ns, "exec", "box", "--", "sh", "-c", &script], "")?.ok()?;
        ensure!(much.len() == MUCH + 4 && much.ends_with("xend\n"), "{speech}: {} of {MUCH} bytes came", much.len());
    }
    Ok(())
}

/// Its output, exit code and reason come to a client that is in the middle of sending.
fn a_program_that_ends_early_is_heard(cluster: &Cluster) -> Result {
    let ns = running(cluster, "early")?;
    let input = "a line\n".repeat(MUCH / 7);
    let early = "head -c 1 > /dev/null; echo over; echo sorry >&2; exit 3";
    let file = cluster.dir().join("early");
    fs::write(&file, &input)?;
    for (speech, on) in SPEECHES {
        // As if by chance it is not lost: more than once.
        for _ in 0..5 {
            let ended = speaking(cluster, on, &["-n", &ns, "exec", "-i", "box", "--", "sh", "-c", early], &input)?;
            ensure!(ended.code == 3 && ended.stdout == "over\n" && ended.stderr.contains("sorry"), "{speech}: {ended:?}");
        }
        let name = format!("early-{speech}");
        let run = ["-n", &ns, "run", &name, "-i", "--rm", "--restart=Never", "--image=busybox:v1", "--", "sh", "-c", early];
        let ended = speaking(cluster, on, &run, &input)?;
        ensure!(ended.code == 3 && ended.stdout.contains("over\n"), "{speech}: {ended:?}");
        let refused = speaking(cluster, on, &["cp", &file.to_string_lossy(), &format!("{ns}/box:/none/there")], "")?.err()?;
        has(&refused, &["/none"]).map_err(|why| why.context(speech))?;
    }
    Ok(())
}

fn files_are_copied_both_ways(cluster: &Cluster) -> Result {
    let ns = running(cluster, "copies")?;
    let (here, back) = (cluster.dir().join("copied"), cluster.dir().join("copied-back"));
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|n| [(n % 251) as u8]).collect();
    fs::write(&here, &bytes)?;
    let there = format!("{ns}/box:/tmp/copied");
    cluster.kubectl(&["cp", &here.to_string_lossy(), &there])?.ok()?;
    cluster.kubectl(&["cp", &there, &back.to_string_lossy()])?.ok()?;
    ensure!(fs::read(&back)? == bytes, "what came back is something else");
    Ok(())
}

/// That command in a terminal of its own (script(1)), and what is done there before.
fn scripted(kubectl: &Command, before: &str) -> Command {
    let words = std::iter::once(kubectl.get_program()).chain(kubectl.get_args());
    let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{before} {}", line.join(" ")), "/dev/null"]).env("TERM", "xterm");
    script.envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script
}

fn terminals_are_terminals(cluster: &Cluster) -> Result {
    let ns = running(cluster, "terminals")?;
    for (speech, on) in SPEECHES {
        // stty gives its terminal a size before kubectl looks at it.
        let kubectl = cluster.kubectl_command(&["-n", &ns, "exec", "-it", "box", "--", "sh", "-c", "tty; sleep 1; stty size; exit 3"]);
        let ended = Output::of(scripted(&kubectl, "stty rows 33 cols 77;").env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", on), "")?;
        ensure!(ended.stdout.contains("/dev/pts/") && ended.stdout.contains("33 77"), "{speech}: {ended:?}");
        ensure!(ended.code == 3, "{speech}: {ended:?}");
        let name = format!("tty-{speech}");
        let run = "read line; echo got $line; tty";
        let kubectl =
            cluster.kubectl_command(&["-n", &ns, "run", &name, "-it", "--rm", "--restart=Never", "--image=busybox:v1", "--", "sh", "-c", run]);
        let ended = Output::of(scripted(&kubectl, "").env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", on), "typed\n")?;
        ensure!(ended.code == 0 && ended.stdout.contains("got typed") && ended.stdout.contains("/dev/pts/"), "{speech}: {ended:?}");
    }
    Ok(())
}

fn attached_clients_see_the_programs_output(cluster: &Cluster) -> Result {
    let ns = running(cluster, "attached")?;
    for (speech, on) in SPEECHES {
        let mut command = cluster.kubectl_command(&["-n", &ns, "attach", "box"]);
        let attached = Background::start(command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", on))?;
        eventually(&format!("output by {speech}"), 30, || {
            let lines = attached.lines();
            ensure!(lines.iter().filter(|line| *line == "tick").count() >= 2, "{lines:?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn a_pod_is_run_and_removed(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("run")?;
    cluster.import_busybox()?;
    let arguments = ["-n", &ns, "run", "once", "-i", "--rm", "--restart=Never", "--image=busybox:v1", "--", "sh"];
    let ran = cluster.kubectl_with(&arguments, "echo from $((6 * 7))\n")?.ok()?;
    has(&ran, &["from 42"])?;
    let left = cluster.kubectl(&["-n", &ns, "get", "pods", "-o", "name"])?.ok()?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

fn ports_of_pods_are_forwarded(cluster: &Cluster) -> Result {
    let ns = running(cluster, "ports")?;
    cluster.kubectl(&["-n", &ns, "run", "hello", "--image=hello:v1", "--port=8080"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/hello", "--timeout=60s"])?.ok()?;
    for (port, (speech, on)) in [18080, 18090].into_iter().zip(SPEECHES) {
        for (port, pod, says) in [(port, "box", "served"), (port + 1, "hello", "Hello")] {
            let mut command = cluster.kubectl_command(&["-n", &ns, "port-forward", &format!("pod/{pod}"), &format!("{port}:8080")]);
            let _forwarding = Background::start(command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", on))?;
            let url = format!("http://127.0.0.1:{port}/");
            let body = eventually(&format!("{pod} by {speech}"), 30, || cluster.host.get(&url))?;
            has(&body, &[says])?;
            // Several at once over one connection.
            std::thread::scope(|scope| {
                let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| cluster.host.get(&url))).collect();
                asked
                    .into_iter()
                    .try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")).and_then(|body| has(&body, &[says])))
            })?;
        }
    }
    Ok(())
}

fn what_cannot_be_run_says_why(cluster: &Cluster) -> Result {
    let ns = running(cluster, "refused")?;
    cluster.kubectl(&["-n", &ns, "run", "hello", "--image=hello:v1", "--port=8080"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=Ready", "pod/hello", "--timeout=60s"])?.ok()?;
    for (speech, on) in SPEECHES {
        let exec = |pod: &str, program: &str| speaking(cluster, on, &["-n", &ns, "exec", pod, "--", program], "")?.err();
        has(&exec("box", "/nonsense")?, &["no such file or directory"]).map_err(|why| why.context(speech))?;
        has(&exec("hello", "date")?, &["nothing can be run in a wasm container"]).map_err(|why| why.context(speech))?;
        has(&exec("nobody", "ls")?, &["pods \"nobody\" not found"]).map_err(|why| why.context(speech))?;
    }
    Ok(())
}
