use super::*;
use crate::pods::{
    machine::{Event, Exit, Image, Sandbox, Why},
    observe, status, step,
};

const START: Time = Time(1_700_000_000_000);

fn resources(cpu: &str, memory: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } })
}

fn pod(generation: i64, first: Value, second: Value, policy: &Value) -> Pod {
    let containers =
        json!([{ "name": "a", "image": "i", "resources": first, "resizePolicy": policy }, { "name": "b", "image": "i", "resources": second }]);
    let meta = json!({ "name": "p", "namespace": "ns", "uid": "u", "generation": generation });
    serde_json::from_value(json!({ "metadata": meta, "spec": { "containers": containers } })).unwrap()
}

fn simple(generation: i64, cpu: &str, memory: &str) -> Pod {
    pod(generation, resources(cpu, memory), json!({}), &json!([]))
}

/// Both containers run, with what the pod says.
fn running(pod: &Pod) -> Machine {
    let mut machine = Machine::new(pod, START);
    machine.sandbox = Sandbox::Ready;
    for (state, container) in machine.containers.iter_mut().zip(pod.all_containers()) {
        (state.run, state.created, state.given) = (Run::Running { since: START, stopping: None }, true, container.resources.clone());
        state.image_ref = container.image.clone();
    }
    machine
}

/// What the set does with a change that is granted: the pod as the agent has it from then on.
fn granted(before: &Pod, machine: &mut Machine, mut after: Pod) -> Pod {
    let wanted = keep(&mut after, before);
    machine.resize.want(wanted);
    assert_eq!(after.spec.containers[0].resources, before.spec.containers[0].resources, "until it is granted");
    let after = with(&after, machine.resize.wanted().expect("a change"));
    assert_eq!(machine.resize.grant(&after).reason, "ResizeStarted");
    after
}

fn condition(pod: &Pod, machine: &mut Machine, kind: &str) -> Option<Value> {
    let status = status::status(pod, machine, [127, 0, 0, 1].into(), START);
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == kind && condition["$patch"].is_null()).cloned()
}

fn tell(pod: &Pod, machine: &mut Machine, event: Event) -> Vec<Note> {
    let mut notes = Vec::new();
    observe::observe(pod, machine, event, START, &mut notes);
    notes
}

#[test]
fn what_the_pod_says_of_itself_is_granted_and_given_too() {
    let of = |generation: i64, memory: &str| {
        let mut pod = simple(generation, "100m", "16Mi");
        pod.spec.resources = serde_json::from_value(resources("1", memory)).unwrap();
        pod
    };
    let before = of(1, "64Mi");
    let mut machine = running(&before);
    let memory =
        |pod: &Pod, machine: &mut Machine| status::status(pod, machine, [127, 0, 0, 1].into(), START)["resources"]["limits"]["memory"].clone();
    let mut after = of(2, "128Mi");
    let wanted = keep(&mut after, &before);
    machine.resize.want(wanted);
    assert_eq!(memory(&after, &mut machine), "64Mi", "until it is granted");
    // The next agent knows as much.
    let mut adopted = of(2, "128Mi");
    adopted.status.resources = Some(serde_json::from_value(resources("1", "64Mi")).unwrap());
    let wanted = restore(&mut adopted, &machine);
    assert_eq!((&adopted.spec.resources, wanted.as_deref()), (&before.spec.resources, machine.resize.wanted()));

    let after = with(&after, machine.resize.wanted().expect("a change"));
    machine.resize.grant(&after);
    assert_eq!(action(&after, &machine, START), Some(Action::Resize(vec![(1, 0)])), "one has limits of its own, the other the pod's");
    machine.resize.begin();
    let notes = tell(&after, &mut machine, Event::Resized(Ok(Vec::new())));
    assert_eq!(notes.iter().map(|note| note.reason.as_str()).collect::<Vec<_>>(), ["ResizeCompleted"]);
    assert_eq!(memory(&after, &mut machine), "128Mi");
}

#[test]
fn what_is_granted_is_given_without_a_restart() {
    let before = simple(1, "100m", "64Mi");
    let mut machine = running(&before);
    let after = granted(&before, &mut machine, simple(2, "200m", "64Mi"));
    assert_eq!(condition(&after, &mut machine, "PodResizeInProgress").unwrap()["observedGeneration"], 2);
    let actions = step::step(&after, &machine, START);
    assert_eq!(actions, [Action::Resize(vec![(0, 0)])]);
    observe::begin(&after, &mut machine, &actions[0], START, &mut Vec::new());
    assert_eq!(step::step(&after, &machine, START), [], "asked for once");
    let of = |machine: &mut Machine| status::status(&after, machine, [127, 0, 0, 1].into(), START)["containerStatuses"][0].clone();
    let first = of(&mut machine);
    let second = status::status(&after, &mut machine, [127, 0, 0, 1].into(), START)["containerStatuses"][1].clone();
    assert_eq!((&second["resources"], second.get("allocatedResources")), (&json!({}), None), "there, though nothing is asked for");
    let waiting = status::status(&after, &mut Machine::new(&after, START), [127, 0, 0, 1].into(), START)["containerStatuses"][0].clone();
    assert_eq!((waiting.get("resources"), waiting.get("allocatedResources")), (None, None), "nothing is told of what was not made");
    assert_eq!((&first["resources"]["limits"]["cpu"], &first["allocatedResources"]["cpu"]), (&json!("100m"), &json!("200m")), "granted, not given");
    let notes = tell(&after, &mut machine, Event::Resized(Ok(vec![(0, 0, after.spec.containers[0].resources.clone())])));
    assert_eq!(notes[0].reason, "ResizeCompleted");
    assert!(notes[0].message.starts_with("Pod resize completed: {"), "{}", notes[0].message);
    assert_eq!(of(&mut machine)["resources"]["limits"]["cpu"], "200m");
    assert_eq!(condition(&after, &mut machine, "PodResizeInProgress"), None);
    assert_eq!(step::step(&after, &machine, START), []);
}

#[test]
fn what_cannot_be_given_is_tried_again() {
    let before = simple(1, "100m", "64Mi");
    let mut machine = running(&before);
    let after = granted(&before, &mut machine, simple(2, "100m", "32Mi"));
    for round in 0..2 {
        let now = START.after(round * AGAIN);
        assert_eq!(step::step(&after, &machine, now), [Action::Resize(vec![(0, 0)])]);
        observe::begin(&after, &mut machine, &Action::Resize(vec![(0, 0)]), now, &mut Vec::new());
        let mut notes = Vec::new();
        observe::observe(&after, &mut machine, Event::Resized(Err("in use".into())), now, &mut notes);
        assert_eq!(notes.len(), usize::from(round == 0), "said once");
        assert_eq!(step::step(&after, &machine, now), []);
        assert_eq!(step::wake(&after, &machine, now), Some(now.after(AGAIN)));
        let condition = condition(&after, &mut machine, "PodResizeInProgress").unwrap();
        assert_eq!((&condition["reason"], &condition["message"]), (&json!("Error"), &json!("in use")));
    }
    // It is taken back: nothing is left to do but the pod's own group.
    let back = granted(&after, &mut machine, simple(3, "100m", "64Mi"));
    assert_eq!(step::step(&back, &machine, START), [Action::Resize(vec![])]);
    assert_eq!(tell(&back, &mut machine, Event::Resized(Ok(vec![])))[0].reason, "ResizeCompleted");
}

#[test]
fn a_policy_of_restarts_is_followed() {
    let policy =
        json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }, { "resourceName": "cpu", "restartPolicy": "NotRequired" }]);
    let before = pod(1, resources("100m", "64Mi"), resources("1", "1Gi"), &policy);
    let mut machine = running(&before);
    let after = granted(&before, &mut machine, pod(2, resources("100m", "128Mi"), resources("2", "1Gi"), &policy));
    let actions = step::step(&after, &machine, START);
    let [stop @ Action::Stop { container: 0, why: Why::Resized, .. }] = &*actions else { panic!("{actions:?}") };
    let mut notes = Vec::new();
    observe::begin(&after, &mut machine, stop, START, &mut notes);
    assert_eq!(notes[0].message, "Container a resize requires restart");
    assert_eq!(step::step(&after, &machine, START), [], "it has its part of the whole until it has ended");
    let exit = Exit { code: 143, reason: "Error".into(), message: String::new(), started: None, finished: START };
    tell(&after, &mut machine, Event::Exited { container: 0, attempt: 0, exit });
    machine.containers[0].image = Image::Ready;
    assert_eq!(step::step(&after, &machine, START), [Action::Resize(vec![(1, 0)])], "the pod and the other one, before it begins anew");
    observe::begin(&after, &mut machine, &Action::Resize(vec![(1, 0)]), START, &mut notes);
    assert_eq!(step::step(&after, &machine, START), []);
    tell(&after, &mut machine, Event::Resized(Ok(vec![(1, 0, after.spec.containers[1].resources.clone())])));
    assert_eq!(step::step(&after, &machine, START), [Action::Start { container: 0, attempt: 1 }]);
    observe::begin(&after, &mut machine, &Action::Start { container: 0, attempt: 1 }, START, &mut notes);
    tell(&after, &mut machine, Event::Started { container: 0, attempt: 1 });
    assert_eq!(machine.containers[0].given, after.spec.containers[0].resources);
    assert_eq!(condition(&after, &mut machine, "PodResizeInProgress"), None);
}

#[test]
fn what_is_refused_is_said_and_may_be_granted_later() {
    let before = simple(1, "100m", "64Mi");
    let mut machine = running(&before);
    let mut after = simple(2, "100", "64Mi");
    let wanted = keep(&mut after, &before);
    machine.resize.want(wanted);
    let asked = with(&after, machine.resize.wanted().unwrap());
    let said = machine.resize.refuse(&asked, DEFERRED, "no room".into()).unwrap();
    assert_eq!((said.reason.as_str(), said.warning), ("ResizeDeferred", true));
    assert!(said.message.starts_with("Pod resize Deferred: {") && said.message.contains("\"error\":\"no room\""), "{}", said.message);
    assert_eq!(machine.resize.refuse(&asked, DEFERRED, "no room still".into()), None, "no news");
    assert!(machine.resize.waits());
    let pending = condition(&after, &mut machine, "PodResizePending").unwrap();
    assert_eq!((&pending["reason"], &pending["message"], &pending["observedGeneration"]), (&json!("Deferred"), &json!("no room still"), &json!(2)));
    assert_eq!(step::step(&after, &machine, START), [], "nothing is given that was not granted");
    // The wish is taken back, and the condition goes.
    let mut back = simple(3, "100m", "64Mi");
    let wanted = keep(&mut back, &after);
    machine.resize.want(wanted);
    assert!(!machine.resize.waits() && condition(&back, &mut machine, "PodResizePending").is_none());
    let status = status::status(&back, &mut machine, [127, 0, 0, 1].into(), START);
    assert!(status["conditions"].as_array().unwrap().contains(&json!({ "type": "PodResizePending", "$patch": "delete" })));
}

#[test]
fn another_agent_goes_on_where_one_was() {
    let mut there = simple(2, "200m", "64Mi");
    let mut machine = running(&there);
    machine.containers[0].given = serde_json::from_value(resources("100m", "64Mi")).unwrap();
    let wanted = restore(&mut there, &machine).expect("a change that was not given");
    assert_eq!(there.spec.containers[0].resources, machine.containers[0].given);
    assert_eq!(wanted[1], serde_json::from_value(resources("200m", "64Mi")).unwrap(), "after the pod's own");
    let mut other = simple(2, "200m", "64Mi");
    assert_eq!(restore(&mut other, &Machine::new(&there, START)), None, "what never ran was given nothing");
}
