//! What definitions of custom resources bring: schemas, patterns, column paths; and the schedules of CronJobs.

use crate::text;
use coracle_apiserver::{custom::jsonpath::Path, resources::cron_job::schedule::Schedule};
use coracle_schema::structural::{Structural, Validation};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

/// An array of a structural schema and an object for it. Pruning and defaulting are done after once, and what is valid stays so.
pub fn structural_schemas(data: &[u8]) {
    let Ok(Value::Array(pair)) = serde_json::from_slice::<Value>(data) else { return };
    let [schema, object] = &pair[..] else { return };
    let Ok(shape) = Structural::parse(schema) else { return };
    let mut object = object.clone();
    shape.prune(&mut object);
    shape.drop_nulls(&mut object);
    shape.default(&mut object);
    let mut again = object.clone();
    assert_eq!(shape.prune(&mut again), Vec::<String>::new(), "pruned twice");
    shape.default(&mut again);
    assert_eq!(again, object, "defaults twice");
    let judge = |old| Validation { value: &object, old, base: "" }.run(shape.root()).len();
    assert!(judge(Some(&object)) <= judge(None), "an object that did not change is judged harder than a new one");
}

/// Between the braces of a column's path.
pub fn json_paths(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(path) = Path::parse(text) else { return };
    let object =
        json!({"spec": {"list": [{"name": "a", "size": 1}, {"name": "b", "size": 2.5}], "map": {"k.with/dots": [true, null]}}, "status": {}});
    assert!(path.find(&object).len() <= 4096);
}

/// A schedule's times come one after the other, at whole seconds.
pub fn schedules(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(schedule) = Schedule::parse(text) else { return };
    let mut after: Timestamp = "2026-03-29T00:30:00.5Z".parse().expect("a time");
    let zone = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC);
    for _ in 0..4 {
        let Some(next) = schedule.next(after, &zone) else { return };
        assert!(next > after && next.subsec_nanosecond() == 0, "{next} after {after}");
        after = next;
    }
}
