use super::*;
use crate::wire::Said;
use coracle_runtime::{ImageContent, LocalImage, PodRef};
use std::path::PathBuf;

type Fake = &'static str;

pub fn sandbox() -> SandboxSpec {
    let pod = PodRef { namespace: "default".into(), name: "p".into(), uid: "u".into() };
    SandboxSpec::new(pod, [10, 0, 0, 2].into(), PathBuf::new())
}

pub fn start(name: &str, kind: Kind) -> Start {
    let image = LocalImage {
        reference: "i".into(),
        digest: "sha256:0".into(),
        content: ImageContent::Wasm { path: PathBuf::new(), digest: "sha256:1".into() },
        config: Default::default(),
    };
    let spec = coracle_runtime::ContainerSpec::new("u", name, image);
    let ports = if kind == Kind::Http { vec![80] } else { Vec::new() };
    Start { spec, kind, artifact: "a".into(), memory: 1 << 20, ports }
}

fn fds(names: &[Fake]) -> Vec<Arc<Fake>> {
    names.iter().map(|name| Arc::new(*name)).collect()
}

/// Two hosts, both up, an agent, and a sandbox.
fn ready() -> Supervision<Fake> {
    let mut state = Supervision::new(2, 1, String::new(), Ok(()));
    assert!(state.said(0, Said::Up).is_empty());
    assert!(state.said(1, Said::Up).is_empty());
    state.agent(true);
    state.ask(1, Ask::RunSandbox(Box::new(sandbox())), Vec::new());
    state
}

/// Commands as short words, to be compared.
fn words(commands: Vec<Command>) -> Vec<String> {
    let word = |command| match command {
        Command::Tell(host, Due::Start(id)) => format!("{host}: start {id}"),
        Command::Tell(host, Due::Stop(id, grace)) => format!("{host}: stop {id} {grace}"),
        Command::Tell(host, Due::Listeners(key)) => format!("{host}: listen {key}"),
        Command::Tell(host, Due::Log(id)) => format!("{host}: log {id}"),
        Command::Answer(Answered::Reply(Reply { id, result: Ok(_) })) => format!("reply {id}"),
        Command::Answer(Answered::Reply(Reply { id, result: Err(refusal) })) => format!("refuse {id} {}", refusal.reason),
        Command::Answer(Answered::Event(Happened::State { state: State::Running { .. }, .. })) => "running".into(),
        Command::Answer(Answered::Event(Happened::State { state: State::Exited { code, reason, .. }, .. })) => format!("exited {code} {reason}"),
        Command::Answer(Answered::Event(other)) => format!("{other:?}"),
        Command::ClearSlot(_) => "clear".into(),
        Command::Allot(_, resources) => format!("allot {}", resources.memory_limit.map_or_else(|| "all".into(), |limit| limit.to_string())),
        Command::Quit => "quit".into(),
    };
    commands.into_iter().map(word).collect()
}

/// The descriptors that go with what is due.
fn carried(state: &Supervision<Fake>, host: usize, due: Due) -> Option<String> {
    state.order(host, due).map(|(_, fds)| fds.iter().map(|fd| **fd).collect::<Vec<_>>().join(","))
}

fn exited(name: &str, code: i32, reason: &str) -> Said {
    Said::Exited { container: name.into(), code, reason: reason.into(), message: String::new(), finished: SystemTime::now() }
}

/// A served container that runs in both hosts.
fn serving() -> Supervision<Fake> {
    let mut state = ready();
    let commands = state.ask(2, Ask::Start(Box::new(start("web", Kind::Http))), fds(&["log", "code", "l0", "l1"]));
    assert_eq!(words(commands), ["clear", "allot all", "0: start u/web/0", "1: start u/web/0"]);
    assert_eq!(carried(&state, 0, Due::Start("u/web/0".into())).as_deref(), Some("log,code,l0"));
    assert_eq!(carried(&state, 1, Due::Start("u/web/0".into())).as_deref(), Some("log,code,l1"));
    assert!(state.said(0, Said::Started("u/web/0".into())).is_empty(), "not before both serve");
    assert_eq!(words(state.said(1, Said::Started("u/web/0".into()))), ["running", "reply 2"]);
    state
}

#[test]
fn a_dead_host_is_given_back_what_it_served() {
    let mut state = serving();
    state.ask(3, Ask::Listeners("u".into(), vec![("10.9.0.1:80".parse().unwrap(), 80)]), fds(&["s0", "s1"]));
    assert!(state.host_died(1, "signal 9").is_empty(), "what serves is not over");
    assert_eq!(words(state.said(1, Said::Up)), ["1: start u/web/0", "1: listen u"]);
    assert_eq!(carried(&state, 1, Due::Listeners("u".into())).as_deref(), Some("s1"));
    assert!(state.said(1, Said::Started("u/web/0".into())).is_empty(), "it was running all the time");
}

#[test]
fn a_dead_host_ends_its_processes() {
    let mut state = ready();
    let commands = state.ask(2, Ask::Start(Box::new(start("job", Kind::Command))), fds(&["log", "code"]));
    assert_eq!(words(commands), ["clear", "allot all", "0: start u/job/0"]);
    state.said(0, Said::Started("u/job/0".into()));
    let commands = state.ask(3, Ask::Start(Box::new(start("other", Kind::Command))), fds(&["log", "code"]));
    assert_eq!(words(commands), ["clear", "allot all", "1: start u/other/0"], "to the host with less to do");
    assert_eq!(words(state.host_died(0, "signal 9")), ["exited 137 Error"]);
    assert!(state.said(0, Said::Up).is_empty(), "a process is not started twice");
}

#[test]
fn other_limits_are_given_to_all_or_to_none() {
    let mut state = serving();
    let web = |memory: u64| ("u/web/0".to_owned(), Resources { memory_limit: Some(memory), cpu_request_millis: Some(70), ..Resources::default() });
    assert_eq!(words(state.resize(3, vec![web(4 << 20)], |_| 2 << 20)), ["allot 4194304", "reply 3"]);
    assert_eq!(words(state.resize(4, vec![web(2 << 20)], |_| 2 << 20)), ["refuse 4 ResizeError"], "that is used");
    assert_eq!(words(state.resize(5, vec![web(1 << 19)], |_| 0)), ["refuse 5 ResizeError"], "an instance begins with more");
    state.ask(6, Ask::Start(Box::new(start("job", Kind::Command))), fds(&["log", "code"]));
    let job = |memory: u64| ("u/job/0".to_owned(), Resources { memory_limit: Some(memory), ..Resources::default() });
    assert_eq!(words(state.resize(7, vec![web(8 << 20), job(1 << 20)], |_| 2 << 20)), ["refuse 7 ResizeError"], "neither");
    state.said(0, exited("u/job/0", 0, "Completed"));
    assert_eq!(words(state.resize(8, vec![web(8 << 20), job(1 << 20)], |_| 2 << 20)), ["allot 8388608", "reply 8"], "what has ended needs none");
    // What comes after this agent, or this host, learns of it.
    let page = state.page(None);
    let requests = page.items.iter().filter_map(|item| if let Listed::Container(one) = item { one.cpu_request_millis } else { None });
    assert_eq!(requests.collect::<Vec<_>>(), [70]);
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
    for _ in 0..5 {
        assert!(state.said(0, Said::LogFull("u/web/0".into())).is_empty());
    }
    let told = words(state.agent(true));
    assert_eq!(told.len(), NOTICES, "bounded");
    assert_eq!(told.iter().filter(|told| told.contains("LogFull")).count(), 1);
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

#[test]
fn what_is_due_is_told_as_things_are_when_there_is_room() {
    let mut state = serving();
    assert_eq!(words(state.ask(3, Ask::Log("u/web/0".into()), fds(&["new"]))), ["0: log u/web/0", "1: log u/web/0", "reply 3"]);
    assert_eq!(carried(&state, 0, Due::Start("u/web/0".into())).as_deref(), Some("new,code,l0"));
    assert_eq!(carried(&state, 0, Due::Log("u/web/0".into())).as_deref(), Some("new"));
    state.ask(5, Ask::Stop("u/web/0".into(), 0), Vec::new());
    state.said(0, exited("u/web/0", 0, "Completed"));
    assert_eq!(carried(&state, 0, Due::Start("u/web/0".into())), None, "it is over here");
    assert_eq!(carried(&state, 0, Due::Stop("u/gone/0".into(), 0)).as_deref(), Some(""), "is answered by the host");
    assert_eq!(carried(&state, 0, Due::Listeners("gone".into())), None);
}

#[test]
fn a_long_list_comes_in_pages_that_can_be_sent() {
    let mut state = Supervision::<Fake>::new(1, 1, String::new(), Ok(()));
    let mut wanted = BTreeSet::new();
    // Ids of which one begins with the other, and a container that has more environment than a page.
    for (number, key) in ["u".to_owned(), "u-1".to_owned()].into_iter().chain((0..2000).map(|n| format!("v{n}"))).enumerate() {
        let mut spec = sandbox();
        spec.pod.uid = key.clone();
        spec.dir = PathBuf::from("d".repeat(700));
        state.ask(1, Ask::RunSandbox(Box::new(spec)), Vec::new());
        let mut start = start("job", Kind::Command);
        start.spec.sandbox = key.clone();
        start.spec.log_path = PathBuf::from("l".repeat(700));
        if number < 3 {
            start.spec.env = vec![("E".into(), "e".repeat(2 * PAGE))];
        }
        wanted.extend([start.spec.id(), key]);
        state.ask(2, Ask::Start(Box::new(start)), fds(&["log", "code"]));
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = state.page(after.as_deref());
        pages += 1;
        assert!(serde_json::to_vec(&page).unwrap().len() < PAGE + 4096);
        seen.extend(page.items.into_iter().map(|item| match item {
            Listed::Sandbox(spec) => spec.pod.uid,
            Listed::Container(container) => container.status.id,
        }));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(pages > 2, "{pages}");
    let sorted: Vec<String> = wanted.iter().cloned().collect();
    let mut all = seen.clone();
    all.sort();
    assert_eq!(all, sorted, "each once");
    assert!(
        seen.windows(2).all(|pair| !pair[1].contains('/') || pair[1].starts_with(pair[0].split('/').next().unwrap())),
        "a sandbox before its containers"
    );
}
