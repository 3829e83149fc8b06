//! Records of what Raft keeps: log ids, log entries, and how far the state file is.

use super::{Corrupt, Reader, Writer, read_txn, write_txn};
use crate::raft::{Entry, LogId, Membership, Node, Proposal, StoredMembership};
use openraft::EntryPayload;
use openraft::impls::leader_id_adv::LeaderId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far a state file (or a snapshot) is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    pub log_id: Option<LogId>,
    pub membership: StoredMembership,
    pub revision: u64,
}

pub(super) fn write_log_id(w: &mut Writer, id: &LogId) {
    w.u64(id.leader_id.term);
    w.u64(id.leader_id.node_id);
    w.u64(id.index);
}

pub(super) fn read_log_id(r: &mut Reader<'_>) -> Result<LogId, Corrupt> {
    let leader_id = LeaderId { term: r.u64("the term")?, node_id: r.u64("the leader")? };
    Ok(LogId { leader_id, index: r.u64("the index")? })
}

fn write_option(w: &mut Writer, id: Option<&LogId>) {
    w.u8(id.is_some() as u8);
    if let Some(id) = id {
        write_log_id(w, id);
    }
}

fn read_option(r: &mut Reader<'_>) -> Result<Option<LogId>, Corrupt> {
    if r.flag("the log id")? { read_log_id(r).map(Some) } else { Ok(None) }
}

fn write_membership(w: &mut Writer, membership: &Membership) {
    w.u32(membership.get_joint_config().len() as u32);
    for config in membership.get_joint_config() {
        w.u32(config.len() as u32);
        config.iter().for_each(|id| w.u64(*id));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    w.u32(nodes.len() as u32);
    for (id, node) in nodes {
        w.u64(*id);
        w.str(&node.addr);
    }
}

fn read_membership(r: &mut Reader<'_>) -> Result<Membership, Corrupt> {
    let mut configs = Vec::new();
    for _ in 0..r.count("the voters")? {
        configs.push((0..r.count("the voters")?).map(|_| r.u64("the voters")).collect::<Result<BTreeSet<_>, _>>()?);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..r.count("the members")? {
        nodes.insert(r.u64("the members")?, Node { addr: r.str("the members")?.to_owned() });
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| Corrupt::Value("the membership"))
}

pub(super) fn write_entry(w: &mut Writer, entry: &Entry) {
    write_log_id(w, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => w.u8(0),
        EntryPayload::Normal(proposal) => {
            w.u8(1);
            write_txn(w, &proposal.0);
        }
        EntryPayload::Membership(membership) => {
            w.u8(2);
            write_membership(w, membership);
        }
    }
}

/// An entry's record as it stands in the log.
pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut w = Writer::new(128);
    write_entry(&mut w, entry);
    w.finish()
}

pub(crate) fn decode_entry(record: &[u8]) -> Result<Entry, Corrupt> {
    let mut r = Reader::new(record)?;
    let log_id = read_log_id(&mut r)?;
    let payload = match r.u8("the payload")? {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Proposal(Arc::new(read_txn(&mut r)?))),
        2 => EntryPayload::Membership(read_membership(&mut r)?),
        _ => return Err(Corrupt::Value("the payload")),
    };
    r.end()?;
    Ok(Entry { log_id, payload })
}

pub(crate) fn encode_applied(applied: &Applied) -> Vec<u8> {
    let mut w = Writer::new(128);
    w.u64(applied.revision);
    write_option(&mut w, applied.log_id.as_ref());
    write_option(&mut w, applied.membership.log_id().as_ref());
    write_membership(&mut w, applied.membership.membership());
    w.finish()
}

pub(crate) fn decode_applied(record: &[u8]) -> Result<Applied, Corrupt> {
    let mut r = Reader::new(record)?;
    let revision = r.u64("the revision")?;
    let log_id = read_option(&mut r)?;
    let membership = StoredMembership::new(read_option(&mut r)?, read_membership(&mut r)?);
    r.end()?;
    Ok(Applied { log_id, membership, revision })
}
