//! A watch of the pods in the default namespace: who is Ready, and how many are gone.

use super::cluster::{Client, Cluster, send};
use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Where they are.
pub const PODS: &str = "/api/v1/namespaces/default/pods";

/// A watch of the pods.
pub struct Events {
    body: hyper::body::Incoming,
    pending: Vec<u8>,
    gone: usize,
    ready: HashMap<String, String>,
    _client: Client,
}

impl Events {
    /// Opens it.
    pub async fn open(cluster: &Cluster) -> Result<Self> {
        let mut client = cluster.connect().await?;
        let body = send(&mut client, "GET", &format!("{PODS}?watch=1"), Vec::new()).await?.into_body();
        Ok(Self { body, pending: Vec::new(), gone: 0, ready: HashMap::new(), _client: client })
    }

    async fn advance(&mut self) -> Result<()> {
        let frame =
            tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await.context("no event for a minute")?.context("the watch ended")??;
        self.pending.extend_from_slice(frame.data_ref().map(AsRef::as_ref).unwrap_or_default());
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            self.take(&serde_json::from_slice(&line)?)?;
        }
        Ok(())
    }

    fn take(&mut self, event: &Value) -> Result<()> {
        let object = &event["object"];
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_string();
        match event["type"].as_str() {
            Some("DELETED") => {
                self.ready.remove(&name);
                self.gone += 1;
            }
            Some("ERROR") => bail!("the watch failed: {object}"),
            _ => {
                let conditions = object["status"]["conditions"].as_array();
                if conditions.is_some_and(|list| list.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")) {
                    self.ready.insert(name, object["status"]["podIP"].as_str().unwrap_or_default().to_string());
                }
            }
        }
        Ok(())
    }

    /// Waits until the pod of this name is Ready.
    pub async fn until_ready(&mut self, name: &str) -> Result<()> {
        while !self.ready.contains_key(name) {
            self.advance().await?;
        }
        Ok(())
    }

    /// Waits until so many pods are gone, counted from the beginning, and forgets who was Ready.
    pub async fn until_gone(&mut self, count: usize) -> Result<()> {
        while self.gone < count {
            self.advance().await?;
        }
        self.ready.clear();
        Ok(())
    }

    /// Waits until so many pods are Ready; their addresses.
    pub async fn ready_addresses(&mut self, count: usize) -> Result<HashSet<String>> {
        while self.ready.len() < count {
            self.advance().await?;
        }
        Ok(self.ready.values().cloned().collect())
    }
}
