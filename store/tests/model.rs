//! Random transactions against a plain model: same answers, same revisions, every held revision exact, every watch complete, also after a reopen.

mod support;

use coracle_store::{Change, Committed, Error, Expect, Key, Object, Op, Options, Scope, Snapshot, Store, Txn, Watch};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{draft, text};

/// Key → (revision, value, node).
type State = BTreeMap<Key, (u64, String, Option<String>)>;

#[derive(Clone, Debug)]
enum Kind {
    Put { value: u8, node: Option<u8> },
    Delete,
    Check,
}

#[derive(Clone, Debug)]
struct Step {
    ops: Vec<(u8, Kind, u8)>,
    reopen: bool,
}

fn key(n: u8) -> Key {
    Key::new(["pods", "nodes"][n as usize % 2], ["a", "b", ""][n as usize / 2 % 3], format!("n{}", n / 6))
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        5 => (0..3u8, proptest::option::of(0..3u8)).prop_map(|(value, node)| Kind::Put { value, node }),
        2 => Just(Kind::Delete),
        1 => Just(Kind::Check),
    ];
    let op = (0..18u8, kind, 0..4u8);
    (proptest::collection::vec(op, 1..4), proptest::bool::weighted(0.02)).prop_map(|(ops, reopen)| Step { ops, reopen })
}

/// The transaction a step is, given the state: expectations are mostly right, some wrong.
fn transaction(step: &Step, state: &State) -> Txn {
    let mut ops: Vec<Op> = Vec::new();
    for (n, kind, expect) in &step.ops {
        let key = key(*n);
        if ops.iter().any(|op| *op.key() == key) {
            continue;
        }
        let expect = match (expect, state.get(&key)) {
            (0, _) => Expect::Absent,
            (1, _) => Expect::Any,
            (_, Some((revision, ..))) => Expect::Revision(*revision),
            (2, None) => Expect::Revision(1),
            (_, None) => Expect::Absent,
        };
        ops.push(match kind {
            Kind::Put { value, node } => {
                let node = node.map(|n| format!("n{n}"));
                let fields = node.iter().map(|n| ("spec.nodeName", n.as_str())).collect();
                Op::Put { key, expect, draft: draft(&value.to_string(), fields) }
            }
            Kind::Delete => Op::Delete { key, expect },
            Kind::Check => Op::Check { key, expect },
        });
    }
    Txn { ops }
}

/// What the model says a transaction does: the failing op, or the new revision.
fn model(state: &mut State, revision: &mut u64, txn: &Txn) -> Result<u64, usize> {
    for (i, op) in txn.ops.iter().enumerate() {
        let current = state.get(op.key()).map(|(revision, ..)| *revision);
        let holds = match op.expect() {
            Expect::Absent => current.is_none(),
            Expect::Any => true,
            Expect::Revision(want) => current == Some(*want),
        };
        if !holds {
            return Err(i);
        }
    }
    let next = *revision + 1;
    for op in &txn.ops {
        match op {
            Op::Put { key, draft, .. } => {
                let value = draft.json.iter().rev().nth(2).map(|b| (*b as char).to_string()).unwrap_or_default();
                let node = draft.meta.field("spec.nodeName").map(str::to_owned);
                let same = state.get(key).is_some_and(|(_, v, n)| *v == value && *n == node);
                if !same {
                    state.insert(key.clone(), (next, value, node));
                    *revision = next;
                }
            }
            Op::Delete { key, .. } => {
                if state.remove(key).is_some() {
                    *revision = next;
                }
            }
            Op::Check { .. } => {}
        }
    }
    Ok(*revision)
}

fn stored(object: &Object) -> (u64, String, Option<String>) {
    (object.revision, text(object), object.meta.field("spec.nodeName").map(str::to_owned))
}

fn same_state(snapshot: &Snapshot, state: &State) {
    for resource in ["nodes", "pods"] {
        let have: Vec<_> = snapshot.range(resource, None, None).map(|o| (o.key.clone(), stored(o))).collect();
        let want: Vec<_> = state.iter().filter(|(k, _)| &*k.resource == resource).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(have, want, "{resource} at {}", snapshot.revision());
        assert_eq!(snapshot.count(resource, None), want.len());
        for namespace in ["", "a", "b"] {
            let want: Vec<_> = want.iter().filter(|(k, _)| &*k.namespace == namespace).map(|(k, _)| k.clone()).collect();
            assert_eq!(snapshot.range(resource, Some(namespace), None).map(|o| o.key.clone()).collect::<Vec<_>>(), want);
            assert_eq!(snapshot.count(resource, Some(namespace)), want.len());
        }
    }
}

fn drain(watch: &mut Watch) -> Vec<Arc<Change>> {
    let mut all = Vec::new();
    while let Some(batch) = watch.take().unwrap() {
        all.extend(batch);
    }
    all
}

/// Replays changes over a state, checking that each fits what was there.
fn replay(state: &mut State, changes: &[Arc<Change>]) {
    let mut last = 0;
    for change in changes {
        assert!(change.revision >= last, "in revision order");
        last = change.revision;
        let key = change.key().unwrap().clone();
        assert_eq!(change.prev.as_ref().map(|o| stored(o)), state.remove(&key), "prev is what was there");
        if let Some(new) = &change.new {
            assert_eq!(new.revision, change.revision);
            state.insert(key, stored(new));
        }
    }
}

fn answered(txn: &Txn, answer: Result<Committed, Error>, want: Result<u64, usize>) {
    match (answer, want) {
        (Ok(done), Ok(revision)) => {
            assert_eq!(done.revision, revision);
            assert_eq!(done.objects.len(), txn.ops.len());
        }
        (Err(Error::Precondition { op, .. }), Err(want)) => assert_eq!(op, want),
        (answer, want) => panic!("{txn:?}: the model says {want:?}, the store {answer:?}"),
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path());
    let mut store = Store::open(options.clone()).await.unwrap();
    let mut all = store.watch(Scope::default(), 0).unwrap();
    let mut seen = State::new();
    let (mut state, mut revision) = (State::new(), 0);
    let mut history = BTreeMap::from([(0, State::new())]);
    for step in steps {
        let txn = transaction(&step, &state);
        let want = model(&mut state, &mut revision, &txn);
        answered(&txn, store.commit(txn.clone()).await, want);
        history.insert(revision, state.clone());
        if step.reopen {
            replay(&mut seen, &drain(&mut all));
            let progress = all.progress();
            assert_eq!(progress, revision);
            store.shutdown().await;
            store = Store::open(options.clone()).await.unwrap();
            all = store.watch(Scope::default(), progress).unwrap();
        }
    }
    assert_eq!(store.snapshot().revision(), revision);
    replay(&mut seen, &drain(&mut all));
    assert_eq!(seen, state, "the watch saw everything");
    assert_eq!(history.len() as u64, revision + 1, "revisions are contiguous");
    for (revision, state) in &history {
        same_state(&store.snapshot_at(*revision).unwrap(), state);
    }
    // A watch from any revision of a narrower scope gives exactly what matches after it.
    let every = drain(&mut store.watch(Scope::default(), 0).unwrap());
    let scopes = [
        Scope::resource("pods"),
        Scope { namespace: Some("a".into()), ..Scope::resource("pods") },
        Scope { namespace: Some("b".into()), name: Some("n1".into()), ..Scope::resource("nodes") },
        Scope { field: Some(("spec.nodeName".into(), "n1".into())), ..Scope::resource("pods") },
    ];
    for scope in scopes {
        for after in [0, revision / 2, revision] {
            let have: Vec<_> = drain(&mut store.watch(scope.clone(), after).unwrap()).iter().map(|c| (c.revision, c.key().cloned())).collect();
            let want: Vec<_> = every.iter().filter(|c| c.revision > after && scope.matches(c)).map(|c| (c.revision, c.key().cloned())).collect();
            assert_eq!(have, want, "{scope:?} after {after}");
        }
    }
    store.shutdown().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_the_model(steps in proptest::collection::vec(step(), 1..200)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
