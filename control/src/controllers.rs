//! Controllers: each one file, a pure reconcile function and a thin shell on the one in-process watch of [`runner`].

pub mod action;
pub mod api_services;
pub mod autoscaler;
pub mod backoff;
pub mod certificates;
pub mod claim;
pub mod cluster_role;
pub mod cron_job;
pub mod daemon_set;
pub mod definitions;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoints;
pub mod flow_schemas;
pub mod garbage;
pub mod history;
pub mod identity;
pub mod job;
#[cfg(test)]
mod live_tests;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod owned;
pub mod pod_control;
pub mod pod_gc;
pub mod queue;
pub mod quota;
pub mod replica_set;
pub mod resource_claims;
pub mod root_ca;
pub mod runner;
pub mod service_account;
pub mod service_cidr;
pub mod stateful_set;
pub mod token_secrets;
pub mod unserved;
pub mod volume_protection;

use coracle_api::registry::ResourceRef;
use coracle_apiserver::{Tasks, client::Client};
use coracle_link::pki::Authority;
use jiff::Timestamp;
use std::sync::Arc;

/// All rows of the registry as it is now.
pub type Kinds = Arc<dyn Fn() -> Vec<ResourceRef> + Send + Sync>;

/// Where time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a controller works with.
#[derive(Clone)]
pub struct Context {
    /// Acts as the controller's own user.
    pub client: Client,
    clock: Clock,
}

impl Context {
    /// The same, acting as a controller's service account of kube-system.
    pub fn acting_as(&self, name: &str) -> Self {
        Self { client: self.client.as_user(identity::service_account(name)), clock: Arc::clone(&self.clock) }
    }

    /// Wall-clock time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

/// What the controllers need to know.
#[derive(Clone)]
pub struct Options {
    /// The registry.
    pub kinds: Kinds,
    /// The cluster's CA, which signs what certificate requests ask for.
    pub authority: Authority,
    /// The cluster's CA bundle, PEM, published in every namespace.
    pub root_ca: String,
    /// The range of Service addresses that the cluster was made with (`10.96.0.0/16`).
    pub service_range: String,
    /// The cluster's range of pod addresses (`10.244.0.0/16`), of which each node gets a part.
    pub pod_range: node_ipam::Range,
    /// Prefix length of a node's part; 20 unless there is a reason.
    pub node_prefix: u8,
    /// Wall-clock time.
    pub clock: Clock,
}

/// Starts all controllers in this set of tasks.
pub fn start(client: &Client, options: Options, tasks: &Tasks) {
    let context = Context { client: client.clone(), clock: Arc::clone(&options.clock) };
    let controllers: Vec<Box<dyn runner::Controller>> = vec![
        Box::new(namespace::Namespaces::new(&context, Arc::clone(&options.kinds))),
        Box::new(definitions::Definitions::new(&context)),
        Box::new(api_services::ApiServices::new(&context)),
        Box::new(definitions::cleanup::Cleanup::new(&context)),
        Box::new(service_account::ServiceAccounts::new(&context)),
        Box::new(token_secrets::TokenSecrets::new(&context, options.root_ca.clone())),
        Box::new(root_ca::RootCa::new(&context, options.root_ca)),
        Box::new(cluster_role::Aggregation::new(&context)),
        Box::new(deployment::Deployments::new(&context)),
        Box::new(replica_set::ReplicaSets::new(&context, &replica_set::REPLICA_SET)),
        Box::new(replica_set::ReplicaSets::new(&context, &replica_set::REPLICATION_CONTROLLER)),
        Box::new(stateful_set::StatefulSets::new(&context)),
        Box::new(daemon_set::DaemonSets::new(&context)),
        Box::new(job::Jobs::new(&context)),
        Box::new(cron_job::CronJobs::new(&context)),
        Box::new(disruption::Disruptions::new(&context, Arc::clone(&options.kinds))),
        Box::new(endpoint_slice::EndpointSlices::new(&context)),
        Box::new(endpoints::mirror::Mirroring::new(&context)),
        Box::new(autoscaler::Autoscalers::new(&context, Arc::clone(&options.kinds))),
        Box::new(garbage::Garbage::new(&context, Arc::clone(&options.kinds))),
        Box::new(node_ipam::NodeIpam::new(&context, options.pod_range, options.node_prefix)),
        Box::new(node_lifecycle::NodeLifecycle::new(&context)),
        Box::new(node_lifecycle::Evictions::new(&context)),
        Box::new(pod_gc::PodGarbage::new(&context)),
        Box::new(quota::Quotas::new(&context)),
        Box::new(service_cidr::ServiceCidrs::new(&context, options.service_range)),
        Box::new(certificates::Certificates::new(&context, options.authority)),
        Box::new(flow_schemas::FlowSchemas::new(&context)),
        Box::new(volume_protection::VolumeProtection::new(&context)),
        Box::new(unserved::Unserved::new(&context)),
        Box::new(resource_claims::ResourceClaims::new(&context)),
    ];
    runner::start(client.store(), &client.core().telemetry.queues, controllers, tasks);
}
