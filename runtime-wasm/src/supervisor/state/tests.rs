use super::*;
use coracle_runtime::{Dns, ImageContent, LocalImage, PodRef, Resources};
use std::{path::PathBuf, time::Duration};

type Fake = &'static str;

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        pod: PodRef { namespace: "default".into(), name: "p".into(), uid: "u".into() },
        hostname: "p".into(),
        ip: [10, 0, 0, 2].into(),
        dns: Dns::default(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        dir: PathBuf::new(),
        linux: coracle_runtime::LinuxSandbox::default(),
    }
}

fn start(name: &str, kind: Kind) -> Start {
    let image = LocalImage {
        reference: "i".into(),
        digest: "sha256:0".into(),
        content: ImageContent::Wasm { path: PathBuf::new(), digest: "sha256:1".into() },
        config: Default::default(),
    };
    let spec = coracle_runtime::ContainerSpec {
        sandbox: "u".into(),
        name: name.into(),
        attempt: 0,
        image,
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        ports: Vec::new(),
        resources: Resources::default(),
        log_path: PathBuf::new(),
        log_max_bytes: 0,
        log_max_files: 0,
        request_timeout: Duration::ZERO,
        security: coracle_runtime::Security::default(),
    };
    let ports = if kind == Kind::Http { vec![80] } else { Vec::new() };
    Start { spec, kind, artifact: "a".into(), ports }
}

fn fds(names: &[Fake]) -> Vec<Arc<Fake>> {
    names.iter().map(|name| Arc::new(*name)).collect()
}

/// Two hosts, both up, an agent, and a sandbox.
fn ready() -> Supervision<Fake> {
    let mut state = Supervision::new(2, 1);
    assert!(state.said(0, Said::Up).is_empty());
    assert!(state.said(1, Said::Up).is_empty());
    state.agent(true);
    state.ask(1, Ask::RunSandbox(Box::new(sandbox())), Vec::new());
    state
}

/// Commands as short words, to be compared.
fn words(commands: Vec<Command<Fake>>) -> Vec<String> {
    let order = |order: &Order| match order {
        Order::Start { start, .. } => format!("start {}", start.spec.name),
        Order::Stop(name, grace) => format!("stop {name} {grace}"),
        Order::Listeners(_, _, addresses) => format!("listen {}", addresses.len()),
        Order::Log(name) => format!("log {name}"),
    };
    let word = |command| match command {
        Command::Order(host, what, fds) => {
            let fds: Vec<Fake> = fds.iter().map(|fd| **fd).collect();
            format!("{host}: {} {}", order(&what), fds.join(",")).trim_end().to_owned()
        }
        Command::Tell(Answered::Reply(Reply { id, result: Ok(_) })) => format!("reply {id}"),
        Command::Tell(Answered::Reply(Reply { id, result: Err(refusal) })) => format!("refuse {id} {}", refusal.reason),
        Command::Tell(Answered::Event(Happened::State { state: State::Running { .. }, .. })) => "running".into(),
        Command::Tell(Answered::Event(Happened::State { state: State::Exited { code, reason, .. }, .. })) => format!("exited {code} {reason}"),
        Command::Tell(Answered::Event(other)) => format!("{other:?}"),
        Command::ClearSlot(_) => "clear".into(),
        Command::Quit => "quit".into(),
    };
    commands.into_iter().map(word).collect()
}

fn exited(name: &str, code: i32, reason: &str) -> Said {
    Said::Exited { container: name.into(), code, reason: reason.into(), message: String::new(), finished: SystemTime::now() }
}

/// A served container that runs in both hosts.
fn serving() -> Supervision<Fake> {
    let mut state = ready();
    let commands = state.ask(2, Ask::Start(Box::new(start("web", Kind::Http))), fds(&["log", "code", "l0", "l1"]));
    assert_eq!(words(commands), ["clear", "0: start web log,code,l0", "1: start web log,code,l1"]);
    assert!(state.said(0, Said::Started("u/web/0".into())).is_empty(), "not before both serve");
    assert_eq!(words(state.said(1, Said::Started("u/web/0".into()))), ["running", "reply 2"]);
    state
}

#[test]
fn a_dead_host_is_given_back_what_it_served() {
    let mut state = serving();
    state.ask(3, Ask::Listeners("u".into(), vec![("10.9.0.1:80".parse().unwrap(), 80)]), fds(&["s0", "s1"]));
    assert!(state.host_died(1, "signal 9").is_empty(), "what serves is not over");
    assert_eq!(words(state.said(1, Said::Up)), ["1: start web log,code,l1", "1: listen 1 s1"]);
    assert!(state.said(1, Said::Started("u/web/0".into())).is_empty(), "it was running all the time");
}

#[test]
fn a_dead_host_ends_its_processes() {
    let mut state = ready();
    let commands = state.ask(2, Ask::Start(Box::new(start("job", Kind::Command))), fds(&["log", "code"]));
    assert_eq!(words(commands), ["clear", "0: start job log,code"]);
    state.said(0, Said::Started("u/job/0".into()));
    let commands = state.ask(3, Ask::Start(Box::new(start("other", Kind::Command))), fds(&["log", "code"]));
    assert_eq!(words(commands), ["clear", "1: start other log,code"], "to the host with less to do");
    assert_eq!(words(state.host_died(0, "signal 9")), ["exited 137 Error"]);
    assert!(state.said(0, Said::Up).is_empty(), "a process is not started twice");
}

#[test]
fn what_fails_to_start_leaves_nothing_behind() {
    let mut state = ready();
    state.ask(2, Ask::Start(Box::new(start("web", Kind::Http))), fds(&["log", "code", "l0", "l1"]));
    let failure = Refusal { reason: "StartError".into(), message: "loops".into(), fatal: false };
    assert_eq!(words(state.said(0, Said::Failed("u/web/0".into(), failure))), ["1: stop u/web/0 0"]);
    assert_eq!(words(state.said(1, exited("u/web/0", 0, "Completed"))), ["refuse 2 StartError"]);
    let again = state.ask(4, Ask::Start(Box::new(start("web", Kind::Http))), fds(&["log", "code", "l0", "l1"]));
    assert_eq!(words(again)[0], "clear");
}

#[test]
fn stopping_waits_for_all_hosts_even_if_one_dies() {
    let mut state = serving();
    assert_eq!(words(state.ask(5, Ask::Stop("u/web/0".into(), 100), Vec::new())), ["0: stop u/web/0 100", "1: stop u/web/0 100"]);
    assert!(state.said(0, exited("u/web/0", 0, "Completed")).is_empty());
    assert_eq!(words(state.host_died(1, "signal 9")), ["exited 0 Completed", "reply 5"]);
    assert_eq!(words(state.ask(6, Ask::Stop("u/web/0".into(), 100), Vec::new())), ["reply 6"], "again is no error");
}

#[test]
fn a_sandbox_goes_when_its_last_container_has() {
    let mut state = serving();
    assert_eq!(words(state.ask(5, Ask::RemoveSandbox("u".into()), Vec::new())), ["0: stop u/web/0 0", "1: stop u/web/0 0"]);
    assert!(state.said(0, exited("u/web/0", 0, "Completed")).is_empty());
    assert_eq!(words(state.said(1, exited("u/web/0", 0, "Completed"))), ["exited 0 Completed", "reply 5"]);
    assert_eq!(words(state.ask(6, Ask::RemoveSandbox("u".into()), Vec::new())), ["reply 6"]);
}

#[test]
fn an_absent_agent_is_told_what_matters_later() {
    let mut state = serving();
    state.agent(false);
    let notice = |n: usize| Said::Notice { container: "u/web/0".into(), warning: true, reason: format!("R{n}"), message: String::new() };
    for n in 0..NOTICES + 5 {
        assert!(state.said(0, notice(n)).is_empty());
    }
    let told = state.agent(true);
    assert_eq!(told.len(), NOTICES, "bounded");
    assert!(state.agent(true).is_empty());
}

#[test]
fn ports_and_descriptors_are_checked() {
    let mut state = serving();
    let mut other = start("other", Kind::Http);
    assert_eq!(words(state.ask(7, Ask::Start(Box::new(other.clone())), fds(&["log", "code", "l0", "l1"]))), ["refuse 7 RunContainerError"]);
    other.ports = vec![81];
    assert_eq!(words(state.ask(8, Ask::Start(Box::new(other)), fds(&["log", "code"]))), ["refuse 8 RunContainerError"]);
}

#[test]
fn a_host_that_is_away_has_nothing_to_stop() {
    let mut state = serving();
    state.host_died(0, "signal 9");
    state.host_died(1, "signal 9");
    assert_eq!(words(state.ask(5, Ask::Stop("u/web/0".into(), 100), Vec::new())), ["exited 0 Completed", "reply 5"]);
    assert!(state.said(0, Said::Up).is_empty());
}
