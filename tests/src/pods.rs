//! What tests ask of a pod again and again.

use crate::{Cluster, Output, Result, eventually};
use anyhow::ensure;
use serde_json::Value;

impl Cluster {
    /// Runs kubectl in a namespace to its end.
    pub fn kubectl_in(&self, namespace: &str, arguments: &[&str]) -> Result<Output> {
        self.kubectl(&[&["-n", namespace], arguments].concat())
    }

    /// Waits until a pod is ready; its address.
    pub fn ready(&self, namespace: &str, pod: &str) -> Result<String> {
        self.kubectl_in(namespace, &["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=60s"])?.ok()?;
        self.kubectl_in(namespace, &["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])?.ok()
    }

    /// A pod's status.
    pub fn status(&self, namespace: &str, pod: &str) -> Result<Value> {
        Ok(self.get(&["-n", namespace, "pod", pod])?["status"].clone())
    }

    /// Waits until a pod has come to its end; its status.
    pub fn finished(&self, namespace: &str, pod: &str) -> Result<Value> {
        eventually(&format!("{pod} has finished"), 60, || {
            let status = self.status(namespace, pod)?;
            ensure!(status["phase"] == "Succeeded" || status["phase"] == "Failed", "{status}");
            Ok(status)
        })
    }

    /// What a pod of one container has printed.
    pub fn logs(&self, namespace: &str, pod: &str) -> Result<String> {
        self.kubectl_in(namespace, &["logs", pod])?.ok()
    }
}
