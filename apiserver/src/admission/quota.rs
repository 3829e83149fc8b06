//! ResourceQuota: what a write takes is charged in the same transaction, so that two writes cannot pass one quota together.
//!
//! (Upstream charges before it writes, and counts again what was charged for nothing.) A write that loses the race for a quota is decided anew. What is
//! given back is counted by the quota controller.

use super::lookup;
use crate::{
    pipeline::object,
    quota::{self, Change, QUOTAS, amounts},
    resources::Cx,
};
use coracle_api::status::Status;
use coracle_store::{Expect, Op};
use serde_json::Value;

/// Adds the charges of a write to its transaction.
///
/// # Errors
/// 403 when a quota does not allow it.
pub fn charge(cx: &Cx<'_>, old: Option<&Value>, new: &Value, ops: &mut Vec<Op>) -> Result<(), Status> {
    if cx.request.namespace.is_empty() || !cx.row().namespaced() {
        return Ok(());
    }
    let id = cx.row().id();
    if !quota::handles(&id, cx.subresource(), old, new) {
        return Ok(());
    }
    let stored: Vec<_> = cx.snapshot.range(QUOTAS, Some(&cx.request.namespace), None).collect();
    let quotas = stored.iter().map(|stored| object::parse(stored)).collect::<Result<Vec<_>, _>>()?;
    let change = Change { id: &id, subresource: cx.subresource(), old, new, now: cx.now };
    let charges = quota::charge(&quotas, &change).map_err(|why| lookup::forbidden(cx, new, &why))?;
    for ((stored, mut quota), used) in stored.iter().zip(quotas).zip(charges) {
        let Some(used) = used else { continue };
        quota["status"]["used"] = amounts::to_json(&used);
        let row = cx.core.registry.by_id(QUOTAS).ok_or_else(|| Status::internal("quotas are no resource"))?;
        ops.push(Op::Put { key: stored.key.clone(), expect: Expect::Revision(stored.revision), draft: object::draft(&row, &quota) });
    }
    Ok(())
}
