//! One hour's life of Events: a task that sleeps until the next one is due and deletes those that are, in batches.
//!
//! (etcd's leases do this for kube-apiserver; a lease in the state machine would need a clock in apply, which DESIGN rules out.)

use coracle_store::{Error, Expect, Key, Op, Scope, Store, Txn};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Operations of one transaction.
const BATCH: usize = 100;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    last_timestamp: Option<String>,
    event_time: Option<String>,
    series: Option<SeriesTimes>,
    metadata: MetaTimes,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SeriesTimes {
    last_observed_time: Option<String>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct MetaTimes {
    creation_timestamp: Option<String>,
}

/// When an event that was read at the start is due: an hour after the last time it speaks of.
fn due(json: &[u8], now: Timestamp) -> Timestamp {
    let times: Times = serde_json::from_slice(json).unwrap_or_default();
    let all = [times.last_timestamp, times.event_time, times.series.and_then(|series| series.last_observed_time), times.metadata.creation_timestamp];
    let last = all.into_iter().flatten().filter_map(|text| text.parse::<Timestamp>().ok()).max().unwrap_or(now);
    // A clock that ran ahead must not make events immortal.
    last.min(now).saturating_add(LIFE).unwrap_or(now)
}

/// Keys by the time they are due.
#[derive(Default)]
struct Schedule {
    order: BTreeSet<(Timestamp, Key)>,
    due: HashMap<Key, (Timestamp, u64)>,
}

impl Schedule {
    fn put(&mut self, key: &Key, at: Timestamp, revision: u64) {
        self.forget(key);
        self.due.insert(key.clone(), (at, revision));
        self.order.insert((at, key.clone()));
    }

    fn forget(&mut self, key: &Key) {
        if let Some((at, _)) = self.due.remove(key) {
            self.order.remove(&(at, key.clone()));
        }
    }

    fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Up to a batch of what is due, taken out.
    fn take(&mut self, now: Timestamp) -> Vec<(Key, u64)> {
        let mut taken = Vec::new();
        while taken.len() < BATCH && self.next().is_some_and(|at| at <= now) {
            let Some((_, key)) = self.order.pop_first() else { break };
            if let Some((_, revision)) = self.due.remove(&key) {
                taken.push((key, revision));
            }
        }
        taken
    }
}

/// Runs until the store is closed.
pub async fn run(store: Store) {
    loop {
        let scope = Scope { resource: Some("events".into()), namespace: None, name: None, field: None };
        let (snapshot, mut watch) = store.list_watch(scope);
        let mut schedule = Schedule::default();
        let now = Timestamp::now();
        for object in snapshot.range("events", None, None) {
            schedule.put(&object.key, due(&object.json, now), object.revision);
        }
        drop(snapshot);
        loop {
            let now = Timestamp::now();
            let taken = schedule.take(now);
            if !taken.is_empty() {
                delete(&store, taken).await;
                continue;
            }
            let wait = match schedule.next() {
                Some(at) => Duration::try_from(at.duration_since(now)).unwrap_or_default() + Duration::from_millis(1),
                None => Duration::from_secs(86_400),
            };
            tokio::select! {
                changes = watch.next() => match changes {
                    Ok(changes) => {
                        let at = Timestamp::now().saturating_add(LIFE).unwrap_or(now);
                        for change in changes {
                            match (&change.new, &change.prev) {
                                (Some(new), _) => schedule.put(&new.key, at, new.revision),
                                (None, Some(prev)) => schedule.forget(&prev.key),
                                (None, None) => {}
                            }
                        }
                    }
                    Err(Error::Closed) => return,
                    Err(_) => break,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// All of a batch at once; if one was written meanwhile, one by one, and the written one stays.
async fn delete(store: &Store, keys: Vec<(Key, u64)>) {
    let op = |(key, revision): &(Key, u64)| Op::Delete { key: key.clone(), expect: Expect::Revision(*revision) };
    let batch = Txn { ops: keys.iter().map(op).collect() };
    if matches!(store.commit(batch).await, Err(Error::Precondition { .. })) {
        for key in &keys {
            match store.commit(Txn { ops: vec![op(key)] }).await {
                Ok(_) | Err(Error::Precondition { .. }) => {}
                Err(error) => tracing::debug!(%error, "event not expired"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("valid")
    }

    #[test]
    fn what_is_due_comes_first_and_a_write_renews() {
        let mut schedule = Schedule::default();
        let key = |name: &str| Key::new("events", "default", name);
        schedule.put(&key("a"), at(10), 1);
        schedule.put(&key("b"), at(20), 2);
        schedule.put(&key("a"), at(30), 3);
        assert_eq!(schedule.next(), Some(at(20)));
        assert_eq!(schedule.take(at(20)), vec![(key("b"), 2)]);
        schedule.forget(&key("a"));
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn an_event_lives_an_hour_after_its_last_time() {
        let now = at(10_000);
        let json = br#"{"lastTimestamp":"1970-01-01T01:00:00Z","eventTime":null,"metadata":{"creationTimestamp":"1970-01-01T00:00:00Z"}}"#;
        assert_eq!(due(json, now), at(7200));
        assert_eq!(due(br#"{"lastTimestamp":"2100-01-01T00:00:00Z"}"#, now), at(13_600));
        assert_eq!(due(b"{}", now), at(13_600));
    }

    #[tokio::test]
    async fn events_are_deleted_when_their_hour_is_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(coracle_store::Options::new(dir.path())).await.expect("a store");
        let put = async |name: &str, age: SignedDuration| {
            let last = Timestamp::now().saturating_sub(age).expect("a time");
            let (json, hole) = coracle_schema::to_draft(&serde_json::json!({"lastTimestamp": last.to_string(), "metadata": {"name": name}}));
            let draft = coracle_store::Draft { json, hole, meta: Default::default() };
            let ops = vec![Op::Put { key: Key::new("events", "default", name), expect: Expect::Absent, draft }];
            store.commit(Txn { ops }).await.expect("it is written");
        };
        // More than one batch.
        for nth in 0..BATCH + 20 {
            put(&format!("old-{nth}"), SignedDuration::from_mins(61)).await;
        }
        put("young", SignedDuration::from_mins(50)).await;
        let scope = Scope { resource: Some("events".into()), namespace: None, name: None, field: None };
        let (_, mut watch) = store.list_watch(scope);
        let expiry = tokio::spawn(run(store.clone()));
        let mut left = BATCH + 20;
        while left > 0 {
            let changes = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("they go").expect("changes");
            left -= changes.iter().filter(|change| change.new.is_none()).count();
        }
        let (snapshot, _) = store.list_watch(Scope { resource: Some("events".into()), namespace: None, name: None, field: None });
        assert_eq!(snapshot.range("events", None, None).map(|object| object.key.name.to_string()).collect::<Vec<_>>(), ["young"]);
        expiry.abort();
    }
}
