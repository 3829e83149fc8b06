//! kube-rs: the client, its runtime and its derive, as a program of one case.
//!
//! `kube-rs CASE` works with the cluster of KUBECONFIG, and fails with a sentence about what was not so.

mod custom;
mod streams;
mod watch;
mod workloads;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    core::Status,
};
use std::time::Duration;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let case = std::env::args().nth(1).context("which case?")?;
    let client = Client::try_default().await?;
    match case.as_str() {
        "watchers_and_stores" => watch::watchers_and_stores(client).await,
        "controller_with_a_finalizer" => watch::controller_with_a_finalizer(client).await,
        "workloads_and_their_subresources" => workloads::workloads_and_their_subresources(client).await,
        "eviction_keeps_a_budget" => workloads::eviction_keeps_a_budget(client).await,
        "tokens_and_namespaces" => workloads::tokens_and_namespaces(client).await,
        "custom_resources" => custom::custom_resources(client).await,
        "applied_fields_have_managers" => custom::applied_fields_have_managers(client).await,
        "leases_elect_one" => custom::leases_elect_one(client).await,
        "exec_attach_and_port_forward" => streams::exec_attach_and_port_forward(client).await,
        other => bail!("no case {other}"),
    }
}

/// A client that takes the first answer.
async fn impatient() -> Result<Client> {
    let mut config = Config::infer().await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// A new namespace of the case's own.
async fn namespace(client: &Client, name: &str) -> Result<String> {
    let namespace = Namespace { metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(name.into())
}

/// What `future` answers, within the patience of a test.
async fn soon<T, E: Into<anyhow::Error>>(what: &str, future: impl Future<Output = Result<T, E>>) -> Result<T> {
    let answer = tokio::time::timeout(PATIENCE, future).await;
    answer.with_context(|| format!("not in time: {what}"))?.map_err(|error| error.into().context(what.to_owned()))
}

/// The status with which the server refused.
fn refusal<T>(answer: kube::Result<T>) -> Result<Box<Status>> {
    match answer {
        Ok(_) => bail!("it was to be refused"),
        Err(kube::Error::Api(status)) => Ok(status),
        Err(error) => Err(error.into()),
    }
}
