use super::*;

fn key(name: &str) -> Key {
    Key::new("pods", "default", name)
}

fn upsert(name: &str, json: &'static str) -> Feed {
    Feed::Upsert { resource: "pods".into(), namespace: "default".into(), name: name.into(), json: Bytes::from_static(json.as_bytes()) }
}

async fn feed(mirror: &Mirror, intake: &mut Intake, messages: Vec<Feed>) -> Vec<Change> {
    let mut seen = Vec::new();
    for message in messages {
        if let Some((changes, position)) = intake.take(message, || mirror.keys()) {
            seen.extend(mirror.apply(changes, position).await);
        }
    }
    seen
}

#[tokio::test]
async fn what_the_node_was_told_survives_with_its_position() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (mirror, position) = Mirror::open(dir.path()).unwrap();
        assert_eq!(position, Position::default());
        let mut intake = Intake::default();
        let messages = vec![Feed::Reset { epoch: 7 }, upsert("a", "{\"a\":1}"), upsert("b", "{}"), Feed::Synced { epoch: 7, revision: 10 }];
        feed(&mirror, &mut intake, messages).await;
        // Named but not synced: neither visible nor on disk.
        let late = feed(&mirror, &mut intake, vec![upsert("c", "{}")]).await;
        assert!(late.is_empty());
        mirror.flush().await;
    }
    let (mirror, position) = Mirror::open(dir.path()).unwrap();
    assert_eq!(position, Position { epoch: 7, revision: 10 });
    assert_eq!(mirror.get("pods", "default", "a").as_deref(), Some(&b"{\"a\":1}"[..]));
    assert_eq!(mirror.get("pods", "default", "c"), None);
}

#[tokio::test]
async fn a_reset_drops_what_is_not_named_again_and_reports_only_real_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (mirror, _) = Mirror::open(dir.path()).unwrap();
    let mut intake = Intake::default();
    feed(&mirror, &mut intake, vec![upsert("a", "{}"), upsert("b", "{}"), Feed::Synced { epoch: 1, revision: 1 }]).await;
    let again = vec![Feed::Reset { epoch: 2 }, upsert("a", "{}"), upsert("c", "{}"), Feed::Synced { epoch: 2, revision: 5 }];
    let changes = feed(&mirror, &mut intake, again).await;
    assert_eq!(changes, vec![(key("c"), Some(Bytes::from_static(b"{}"))), (key("b"), None)]);
    let names: Vec<String> = mirror.list("pods", Some("default")).into_iter().map(|(k, _)| k.name).collect();
    assert_eq!(names, ["a", "c"]);
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_reset_keeps_the_old_slice() {
    let dir = tempfile::tempdir().unwrap();
    let (mirror, _) = Mirror::open(dir.path()).unwrap();
    let mut intake = Intake::default();
    feed(&mirror, &mut intake, vec![upsert("a", "{}"), Feed::Synced { epoch: 1, revision: 1 }]).await;
    feed(&mirror, &mut intake, vec![Feed::Reset { epoch: 2 }, upsert("b", "{}")]).await;
    // The link breaks here; the next session begins with a new intake.
    assert!(mirror.get("pods", "default", "a").is_some());
    assert!(mirror.get("pods", "default", "b").is_none());
}

#[tokio::test]
async fn a_damaged_record_makes_the_node_ask_again_for_everything() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (mirror, _) = Mirror::open(dir.path()).unwrap();
        mirror.apply(vec![(key("a"), Some(Bytes::from_static(b"{}")))], Some(Position { epoch: 3, revision: 4 })).await;
        mirror.flush().await;
    }
    {
        let database = redb::Database::open(dir.path().join("mirror.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let table: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("objects");
        transaction.open_table(table).unwrap().insert("pods\0default\0a", &b"\x01\0\0\0\0{]"[..]).unwrap();
        transaction.commit().unwrap();
    }
    let (mirror, position) = Mirror::open(dir.path()).unwrap();
    assert_eq!(position, Position::default());
    assert!(mirror.get("pods", "default", "a").is_none());
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let _mirror = Mirror::open(dir.path()).unwrap();
    let mode = std::fs::metadata(dir.path().join("mirror.redb")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_long_reset_is_applied_in_parts_and_still_drops_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (mirror, _) = Mirror::open(dir.path()).unwrap();
    let mut intake = Intake::default();
    feed(&mirror, &mut intake, vec![upsert("old", "{}"), Feed::Synced { epoch: 1, revision: 1 }]).await;
    let mut messages = vec![Feed::Reset { epoch: 2 }];
    messages.extend((0..BATCH + 3).map(|n| upsert(&format!("p{n}"), "{}")));
    messages.push(Feed::Synced { epoch: 2, revision: 9 });
    feed(&mirror, &mut intake, messages).await;
    assert_eq!(mirror.list("pods", None).len(), BATCH + 3);
}

#[tokio::test]
async fn a_long_step_that_is_cut_leaves_no_position_to_go_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let mut intake = Intake::default();
    {
        let (mirror, _) = Mirror::open(dir.path()).unwrap();
        feed(&mirror, &mut intake, vec![upsert("old", "{}"), Feed::Synced { epoch: 1, revision: 1 }]).await;
        feed(&mirror, &mut intake, (0..BATCH).map(|n| upsert(&format!("p{n}"), "{}")).collect()).await;
        mirror.flush().await;
    }
    // The link broke, and so did the node. What was there and is gone again would stay for ever if only changes were told.
    let (mirror, position) = Mirror::open(dir.path()).unwrap();
    assert_eq!((mirror.list("pods", None).len(), position), (BATCH + 1, Position::default()));
    feed(&mirror, &mut Intake::default(), vec![Feed::Reset { epoch: 1 }, upsert("old", "{}"), Feed::Synced { epoch: 1, revision: 9 }]).await;
    assert_eq!(mirror.list("pods", None).len(), 1);
}
