//! The objects every cluster has from its first moment: system namespaces with what each namespace has, default roles, priority and
//! runtime classes, and the `kubernetes` Service.
//!
//! Written as whole transactions straight into the store rather than one by one through the pipeline: a hundred fsyncs at first start
//! would be most of the time to ready. What is there already is left as it is, but for three things that follow the version and the
//! configuration: default roles get what they lack, the `kubernetes` Service's port and endpoint follow the API's address, and the CA
//! in `kube-root-ca.crt` is the controllers' business.

mod objects;

pub use objects::{companions, dns_address, first_address};

use crate::{
    auth::policy,
    pipeline::{Config, Core, managers, object},
    resources::flow_control::standard,
};
use coracle_api::{names::rfc3339, registry::ResourceRef, status::Status};
use coracle_schema::managed::{self, OneVersion, Writer};
use coracle_store::{Error, Expect, Key, Op, Snapshot, Txn};
use jiff::Timestamp;
use serde_json::Value;

/// Operations in one transaction (the store takes 128).
const CHUNK: usize = 120;
/// Manager of what the server makes of itself.
const SERVER: &str = "kube-apiserver";
/// Manager of what a namespace comes with: in Kubernetes controllers make it.
const COMPANION: &str = "kube-controller-manager";
/// How often a start may lose a race against another member's start.
const TRIES: usize = 5;

/// Makes what is missing; safe at every start, and of several members at once.
///
/// # Errors
/// The store's, as 500 and 503.
pub async fn run(core: &Core) -> Result<(), Status> {
    for _ in 0..TRIES {
        let ops = plan(core, &core.store.snapshot(), Timestamp::now())?;
        if ops.is_empty() {
            return Ok(());
        }
        if commit(core, ops).await? {
            return Ok(());
        }
    }
    Err(Status::internal("the first objects of the cluster could not be written: others kept writing them at the same time"))
}

/// False when somebody else wrote one of them in between.
async fn commit(core: &Core, mut ops: Vec<Op>) -> Result<bool, Status> {
    while !ops.is_empty() {
        let rest = ops.split_off(ops.len().min(CHUNK));
        match core.store.commit(Txn { ops: std::mem::replace(&mut ops, rest) }).await {
            Ok(_) => {}
            Err(Error::Precondition { .. }) => return Ok(false),
            Err(error) => return Err(crate::pipeline::handle::store_error(error)),
        }
    }
    Ok(true)
}

/// What is missing or out of date, as operations; namespaces come first.
fn plan(core: &Core, snapshot: &Snapshot, now: Timestamp) -> Result<Vec<Op>, Status> {
    let config: &Config = &core.config;
    let mut ops = Vec::new();
    for name in objects::NAMESPACES {
        put(core, snapshot, &mut ops, objects::namespace(name), SERVER, now)?;
        for object in companions(name, &config.ca_pem) {
            put(core, snapshot, &mut ops, object, COMPANION, now)?;
        }
    }
    let mut wanted = objects::classes();
    wanted.push(objects::service_cidr(config, &rfc3339(now)));
    wanted.extend(objects::api_service(config));
    wanted.extend(objects::dns_service(snapshot, config));
    wanted.extend(objects::api_services(&core.registry, &rfc3339(now)));
    wanted.extend(core.aggregation.authentication(&config.ca_pem));
    wanted.extend([standard::levels(), standard::schemas()].concat());
    for object in wanted {
        put(core, snapshot, &mut ops, object, SERVER, now)?;
    }
    objects::addresses(snapshot, config, |object| put(core, snapshot, &mut ops, object, SERVER, now))?;
    for object in [policy::cluster_roles(), policy::cluster_role_bindings(), policy::roles(), policy::role_bindings()].concat() {
        put(core, snapshot, &mut ops, object, SERVER, now)?;
    }
    Ok(ops)
}

fn put(core: &Core, snapshot: &Snapshot, ops: &mut Vec<Op>, object: Value, manager: &str, now: Timestamp) -> Result<(), Status> {
    let (row, key) = row_and_key(core, &object)?;
    match snapshot.get(&key) {
        None => ops.push(Op::Put { key, expect: Expect::Absent, draft: draft(core, &row, object, manager, now) }),
        Some(stored) => {
            let is = object::parse(&stored)?;
            let new = match &*row.group {
                "rbac.authorization.k8s.io" => policy::updated(&is, &object),
                _ => objects::follow_address(&is, &object),
            };
            if let Some(mut new) = new {
                track(core, &row, Some(&is), &mut new, manager, now);
                ops.push(Op::Put { key, expect: Expect::Revision(stored.revision), draft: object::draft(&row, &new) });
            }
        }
    }
    Ok(())
}

fn row_and_key(core: &Core, object: &Value) -> Result<(ResourceRef, Key), Status> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("/apiVersion").split_once('/').unwrap_or(("", text("/apiVersion")));
    let row = core.registry.by_kind(group, version, text("/kind"));
    let row = row.ok_or_else(|| Status::internal(format_args!("no registry row for {} {}", text("/apiVersion"), text("/kind"))))?;
    let key = Key::new(row.id(), text("/metadata/namespace"), text("/metadata/name"));
    Ok((row, key))
}

/// These writes are somebody's, too, although they take no part in the pipeline.
fn track(core: &Core, row: &ResourceRef, old: Option<&Value>, new: &mut Value, manager: &str, now: Timestamp) {
    if let Some(schema) = core.schemas.get(&row.group, &row.version, &row.kind) {
        let writer = Writer { manager, subresource: "", now: &rfc3339(now), reach: managers::reach(row, ""), versions: &OneVersion };
        let list = schema.track(old, new, &writer);
        managed::put(new, list);
    }
}

fn draft(core: &Core, row: &ResourceRef, mut object: Value, manager: &str, now: Timestamp) -> coracle_store::Draft {
    object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
    object["metadata"]["creationTimestamp"] = rfc3339(now).into();
    if row.generation {
        object["metadata"]["generation"] = 1.into();
    }
    if let Some(schema) = core.schemas.get(&row.group, &row.version, &row.kind) {
        schema.default(&mut object);
    }
    track(core, row, None, &mut object, manager, now);
    object::draft(row, &object)
}

/// [`companions`] as operations for the transaction that makes their namespace.
pub fn companion_ops(core: &Core, namespace: &str, now: Timestamp) -> Result<Vec<Op>, Status> {
    let snapshot = core.store.snapshot();
    let mut ops = Vec::new();
    for object in companions(namespace, &core.config.ca_pem) {
        put(core, &snapshot, &mut ops, object, COMPANION, now)?;
    }
    Ok(ops)
}

#[cfg(test)]
pub(crate) mod tests;
