use super::*;
use crate::raft::{Entry, Membership, Node, Proposal, StoredMembership};
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn meta() -> Meta {
    let pair = |k: &str, v: &str| (k.into(), v.into());
    Meta {
        uid: "u-1".into(),
        labels: vec![pair("app", "x"), pair("tier", "")],
        owners: vec!["o-1".into(), "o-2".into()],
        fields: vec![pair("spec.nodeName", "n1")],
    }
}

fn txn() -> Txn {
    let draft = Draft { json: Bytes::from_static(b"{\"rv\":\"\"}"), hole: 7, meta: Arc::new(meta()) };
    Txn {
        ops: vec![
            Op::Put { key: Key::new("pods", "default", "a"), expect: Expect::Absent, draft },
            Op::Delete { key: Key::new("pods", "default", "b"), expect: Expect::Revision(7) },
            Op::Check { key: Key::new("namespaces", "", "default"), expect: Expect::Any },
        ],
    }
}

fn log_id(term: u64, index: u64) -> crate::raft::LogId {
    crate::raft::LogId { leader_id: LeaderId { term, node_id: 1 }, index }
}

fn entry() -> Entry {
    Entry { log_id: log_id(3, 9), payload: EntryPayload::Normal(Proposal(Arc::new(txn()))) }
}

fn members() -> Membership {
    Membership::new(vec![[1, 2].into(), [1, 2, 3].into()], BTreeMap::from_iter((1..=4).map(|id| (id, Node { addr: format!("10.0.0.{id}:6444") }))))
        .expect("all voters are members")
}

#[test]
fn entries_come_back_as_they_were() {
    let back = decode_entry(&encode_entry(&entry())).unwrap();
    // Txn has no equality of its own (documents are compared with their hole): its debug form shows every field.
    assert_eq!(format!("{back:?}"), format!("{:?}", entry()));
    for payload in [EntryPayload::Blank, EntryPayload::Membership(members())] {
        let entry = Entry { log_id: log_id(1, 2), payload };
        assert_eq!(format!("{:?}", decode_entry(&encode_entry(&entry)).unwrap()), format!("{entry:?}"));
    }
}

#[test]
fn progress_comes_back_as_it_was() {
    for applied in
        [Applied::default(), Applied { log_id: Some(log_id(5, 6)), membership: StoredMembership::new(Some(log_id(1, 0)), members()), revision: 77 }]
    {
        assert_eq!(decode_applied(&encode_applied(&applied)).unwrap(), applied);
    }
}

#[test]
fn objects_come_back_as_they_were() {
    let Op::Put { key, draft, .. } = &txn().ops[0] else { unreachable!() };
    let object = Object::from_draft(key.clone(), draft, 1234);
    let back = decode_object(&encode_object(&object)).unwrap();
    assert_eq!((&back.key, back.revision, &back.json, &back.meta), (&object.key, 1234, &object.json, &object.meta));
    assert!(back.same_as(draft));
}

#[test]
fn every_flipped_bit_and_every_cut_is_an_error() {
    let record = encode_entry(&entry());
    for byte in 0..record.len() {
        for bit in 0..8 {
            let mut bad = record.clone();
            bad[byte] ^= 1 << bit;
            assert!(matches!(decode_entry(&bad), Err(Corrupt::Checksum { .. })), "byte {byte} bit {bit}");
        }
        assert!(decode_entry(&record[..byte]).is_err(), "cut at {byte}");
    }
    let mut long = record;
    long.push(0);
    assert!(decode_entry(&long).is_err());
}

#[test]
fn another_version_is_named() {
    let mut body = vec![9u8, 1, 2, 3];
    body.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    assert_eq!(decode_applied(&body).unwrap_err(), Corrupt::Version(9));
}

#[test]
fn disk_order_is_list_order() {
    let keys = [("a", "", "x"), ("a", "b", "c"), ("a", "b-c", "a"), ("a.b", "", "a"), ("ab", "", "a")].map(|(r, n, m)| Key::new(r, n, m));
    assert!(keys.is_sorted());
    assert!(keys.iter().map(disk_key).is_sorted());
}

proptest! {
    /// Bytes with a good checksum and any content: an error or a value, never a panic nor a huge allocation.
    #[test]
    fn nonsense_is_refused(mut body in proptest::collection::vec(any::<u8>(), 0..200)) {
        body.insert(0, VERSION);
        body.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        let _ = decode_entry(&body);
        let _ = decode_object(&body);
        let _ = decode_applied(&body);
    }
}
