//! What is given to whom, in tables.

use super::*;
use crate::scheduler::devices::model::Slice;

fn claim(devices: Value) -> Arc<Claim> {
    Arc::new(serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "c"}, "spec": {"devices": devices}})).expect("a claim"))
}

fn exact(name: &str, more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    for (field, value) in more.as_object().into_iter().flatten() {
        exactly[field] = value.clone();
    }
    if exactly["allocationMode"] == "All" {
        exactly["count"] = Value::Null;
    }
    json!({"name": name, "exactly": exactly})
}

/// Devices `a0`, `a1` … of models, in pairs on one board; with whatever is said of them beside.
fn slice(models: &[&str], more: Value) -> Slice {
    let device = |(nth, model): (usize, &&str)| {
        let mut device = json!({"name": format!("a{nth}"), "attributes": {"model": {"string": model}, "board": {"int": nth / 2}}});
        for (field, value) in more[format!("a{nth}")].as_object().into_iter().flatten() {
            device[field] = value.clone();
        }
        device
    };
    let devices: Vec<Value> = models.iter().enumerate().map(device).collect();
    let spec =
        json!({"driver": "d.example.com", "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1}, "nodeName": "n", "devices": devices});
    serde_json::from_value(json!({ "spec": spec })).expect("a slice")
}

/// What each claim is given, as `request=device`; or why not.
fn given(claims: &[Arc<Claim>], slice: &Slice, taken: &[&str], unusable: Option<&'static str>) -> Result<Option<Vec<String>>, Failure> {
    let id = |device: &str| DeviceId { driver: "d.example.com".into(), pool: "n".into(), device: device.into() };
    let ids: Vec<DeviceId> = slice.spec.devices.iter().map(|device| id(&device.name)).collect();
    let candidates = slice.spec.devices.iter().zip(&ids).map(|(device, id)| Candidate { id, device, place: &slice.spec.place });
    let pools = [Pool { name: ("d.example.com".into(), "n".into()), unusable, devices: candidates.collect() }];
    let taken: BTreeSet<DeviceId> = taken.iter().map(|device| id(device)).collect();
    let class = |selector: &str| {
        serde_json::from_value(json!({"spec": {"selectors": [{"cel": {"expression": selector}}], "config": [{"opaque": {"driver": "d"}}]}}))
            .expect("a class")
    };
    let classes = [("gpu".to_owned(), class("")), ("big".to_owned(), class("h100"))].into_iter().collect();
    // The model, in place of an expression.
    let selects = |expression: &str, candidate: &Candidate<'_>| match expression {
        "costly" => None,
        "broken" => Some(Err("CEL runtime error: broken".to_owned())),
        model => Some(Ok(model.is_empty() || candidate.device.attributes["model"]["string"] == *model)),
    };
    let share = RefCell::new(Share { cost: 1_000, tries: 50_000 });
    let taken = |id: &DeviceId| taken.contains(id);
    let allocated = allocate(claims, &Source { pools: &pools, taken: &taken, classes: &classes, selects: &selects, share: &share })?;
    let text = |allocation: &Value| {
        let results = allocation["devices"]["results"].as_array().expect("results").iter();
        results
            .map(|its| format!("{}={}", its["request"].as_str().unwrap_or_default(), its["device"].as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ")
    };
    Ok(allocated.map(|all| all.iter().map(text).collect()))
}

#[test]
fn requests_are_met_together_or_not_at_all() {
    let four = slice(&["a100", "a100", "h100", "h100"], Value::Null);
    let one = |request: Value| claim(json!({"requests": [request]}));
    let said = |claims: &[Arc<Claim>], taken: &[&str]| given(claims, &four, taken, None).expect("no mistake").map(|all| all.join(" | "));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(said(&[one(exact("r", json!({})))], &[]), some("r=a0"));
    assert_eq!(said(&[one(exact("r", json!({"count": 3})))], &["a1"]), some("r=a0 r=a2 r=a3"));
    assert_eq!(said(&[one(exact("r", json!({"count": 4})))], &["a1"]), None);
    assert_eq!(said(&[one(exact("r", json!({"deviceClassName": "big"})))], &[]), some("r=a2"));
    let h100 = json!([{"cel": {"expression": "h100"}}]);
    assert_eq!(said(&[one(exact("r", json!({"selectors": h100, "count": 2})))], &["a3"]), None);
    assert_eq!(
        said(&[one(exact("r", json!({}))), one(exact("r", json!({"count": 2})))], &["a0"]),
        some("r=a1 | r=a2 r=a3"),
        "claims of one pod share nothing"
    );
    assert_eq!(said(&[one(exact("r", json!({"allocationMode": "All", "selectors": h100})))], &[]), some("r=a2 r=a3"));
    assert_eq!(said(&[one(exact("r", json!({"allocationMode": "All"})))], &["a3"]), None, "all are not free");
    assert_eq!(said(&[one(exact("r", json!({"allocationMode": "All", "selectors": [{"cel": {"expression": "none"}}]})))], &[]), None);
    let admin = exact("r", json!({"adminAccess": true, "allocationMode": "All"}));
    assert_eq!(said(&[one(admin)], &["a0", "a1"]), some("r=a0 r=a1 r=a2 r=a3"), "an administrator has what others have too");
    // The first request has to leave the second what only that can use.
    let first =
        json!({"requests": [exact("any", json!({"count": 2})), exact("old", json!({"selectors": [{"cel": {"expression": "a100"}}], "count": 2}))]});
    assert_eq!(said(&[claim(first)], &[]), some("any=a2 any=a3 old=a0 old=a1"));
}

#[test]
fn the_first_alternative_that_there_is_is_taken() {
    let four = slice(&["a100", "a100", "h100", "h100"], Value::Null);
    let option =
        |name: &str, class: &str, count: usize| json!({"name": name, "deviceClassName": class, "allocationMode": "ExactCount", "count": count});
    let wanted = claim(json!({"requests": [{"name": "gpu", "firstAvailable": [option("big", "big", 2), option("any", "gpu", 1)]}], "config": [
        {"requests": ["gpu/any"], "opaque": {"driver": "x"}}, {"requests": ["gpu/big"], "opaque": {"driver": "y"}}, {"opaque": {"driver": "z"}},
    ]}));
    let said = |taken: &[&str]| given(std::slice::from_ref(&wanted), &four, taken, None).expect("no mistake");
    assert_eq!(said(&[]), Some(vec!["gpu/big=a2 gpu/big=a3".into()]));
    assert_eq!(said(&["a3"]), Some(vec!["gpu/any=a0".into()]));
    assert_eq!(said(&["a0", "a1", "a2", "a3"]), None);
}

#[test]
fn devices_have_in_common_what_is_wanted() {
    let four = slice(&["a100", "h100", "a100", "h100"], json!({"a3": {"attributes": {"model": {"string": "h100"}}}}));
    let said = |constraint: Value, count: usize| {
        let wanted = claim(json!({"requests": [exact("r", json!({"count": count}))], "constraints": [constraint]}));
        given(&[wanted], &four, &[], None)
    };
    let text = |text: &str| Ok(Some(vec![text.to_owned()]));
    assert_eq!(said(json!({"matchAttribute": "d.example.com/model"}), 2), text("r=a0 r=a2"));
    assert_eq!(said(json!({"matchAttribute": "d.example.com/board"}), 2), text("r=a0 r=a1"));
    assert_eq!(said(json!({"matchAttribute": "d.example.com/board"}), 3), Ok(None));
    assert_eq!(said(json!({"matchAttribute": "other.com/board"}), 1), Ok(None), "it has to be said of every device");
    assert_eq!(said(json!({"distinctAttribute": "d.example.com/model"}), 2), text("r=a0 r=a1"));
    assert_eq!(said(json!({"matchAttribute": "d.example.com/board", "requests": ["another"]}), 3), text("r=a0 r=a1 r=a2"), "it is about others");
    let all = claim(json!({"requests": [exact("r", json!({"allocationMode": "All"}))], "constraints": [{"matchAttribute": "d.example.com/model"}]}));
    let why = "claim default/c, request r: cannot add device d.example.com/n/a1 because a claim constraint would not be satisfied";
    assert_eq!(given(&[all], &four, &[], None), Err(Failure::Claim(why.into())));
}

#[test]
fn tainted_and_unusual_devices_are_left_alone() {
    let taints = json!({"taints": [{"key": "sick", "value": "yes", "effect": "NoSchedule"}]});
    let two =
        slice(&["a100", "a100", "a100"], json!({"a0": taints, "a1": {"consumesCounters": [{}]}, "a2": {"taints": [{"key": "k", "effect": "None"}]}}));
    let said = |more: Value| given(&[claim(json!({"requests": [exact("r", more)]}))], &two, &[], None).expect("no mistake");
    assert_eq!(said(json!({})), Some(vec!["r=a2".into()]));
    assert_eq!(said(json!({"tolerations": [{"key": "sick", "operator": "Equal", "value": "yes"}]})), Some(vec!["r=a0".into()]));
    assert_eq!(said(json!({"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]})), Some(vec!["r=a2".into()]));
}

#[test]
fn mistakes_are_told() {
    let one = slice(&["a100"], Value::Null);
    let said = |more: Value, unusable| given(&[claim(json!({"requests": [exact("r", more)]}))], &one, &[], unusable);
    assert_eq!(
        said(json!({"deviceClassName": "none"}), None),
        Err(Failure::Claim("claim default/c, request r: could not retrieve device class none".into()))
    );
    assert_eq!(
        said(json!({"selectors": [{"cel": {"expression": "broken"}}]}), None),
        Err(Failure::Claim("claim default/c: selector #0: CEL runtime error: broken".into()))
    );
    assert_eq!(
        said(json!({"count": 33}), None),
        Err(Failure::Claim("claim default/c: number of requested devices 33 exceeds the claim limit of 32".into()))
    );
    let all = json!({"allocationMode": "All"});
    let why = "claim default/c, request r: asks for all devices, but resource pool d.example.com/n is currently being updated";
    assert_eq!(said(all, Some(INCOMPLETE)), Err(Failure::Claim(why.into())));
    assert_eq!(said(json!({}), Some(INCOMPLETE)), Ok(None));
    assert_eq!(said(json!({}), Some(INVALID)), Err(Failure::Node("invalid resource pools were encountered")));
}

#[test]
fn a_search_without_end_is_given_up() {
    let models: Vec<&str> = vec!["a100"; 60];
    let many = slice(&models, Value::Null);
    // Every device has a board of its own but for pairs: three on one board there are not, however they are chosen.
    let requests: Vec<Value> = (0..8).map(|nth| exact(&format!("r{nth}"), json!({"count": 3}))).collect();
    let constraints: Vec<Value> =
        vec![json!({"matchAttribute": "d.example.com/model"}), json!({"requests": ["r7"], "matchAttribute": "d.example.com/board"})];
    let said = given(&[claim(json!({"requests": requests, "constraints": constraints}))], &many, &[], None);
    assert_eq!(said, Err(Failure::Node(TIMED_OUT)));
    let costly = claim(json!({"requests": [exact("r", json!({"selectors": [{"cel": {"expression": "costly"}}]}))]}));
    assert_eq!(given(&[costly], &many, &[], None), Err(Failure::Node(TIMED_OUT)), "without the claim's name: it may not be its fault");
}

#[test]
fn an_allocation_says_where_it_can_be_used() {
    let place = |value: Value| serde_json::from_value::<Place>(value).expect("a place");
    let here = place(json!({"nodeName": "n"}));
    let rack = json!({"key": "rack", "operator": "In", "values": ["1"]});
    let near = place(json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [rack]}]}}));
    let all = place(json!({"allNodes": true}));
    assert_eq!(selector(&[&all]), None);
    let name = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
    assert_eq!(selector(&[&here, &all, &here]), Some(json!({"nodeSelectorTerms": [{"matchFields": [name]}]})));
    assert_eq!(selector(&[&here, &near]), Some(json!({"nodeSelectorTerms": [{"matchExpressions": [rack], "matchFields": [name]}]})));
}
