//! Metrics that other servers tell of: of pods and objects (`custom.metrics.k8s.io`) and of what is outside of the cluster (`external.metrics.k8s.io`).
//!
//! They are asked before a look is made, so that the look itself stays pure; each as the autoscaler's own user, through the API like anybody's request.

use super::{pass::Autoscaler, replicas::Used};
use coracle_api::{quantity::Quantity, registry::ResourceRef, selector::Selector};
use coracle_apiserver::client::Client;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Over what time a metric is measured that does not say it, as upstream takes it.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Metrics of one autoscaler that are asked for at once.
const AT_ONCE: usize = 4;
/// What may stand in a path or query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'*');

/// The group of metrics of objects and pods.
pub const CUSTOM: &str = "custom.metrics.k8s.io";
/// The group of metrics of what is outside.
pub const EXTERNAL: &str = "external.metrics.k8s.io";

/// What was told of one metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// It is measured by the nodes.
    Local,
    /// By pod.
    Pods(BTreeMap<String, Used>),
    /// Thousandths: one value of an object, or all of an outside metric.
    Values(Vec<i64>),
}

/// What was told of each metric of a spec, in its order; or why not, in upstream's words.
pub type Readings = Vec<Result<Reading, String>>;

#[derive(Deserialize)]
struct Told {
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(default)]
    described_object: Named,
    timestamp: Option<Timestamp>,
    #[serde(alias = "window")]
    window_seconds: Option<i64>,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// One question: a path, and how client-go names what it asks for.
#[derive(Debug, PartialEq)]
struct Asked {
    path: String,
    named: String,
}

fn plain(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

fn query(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| format!("{key}={}", plain(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// The values of an answer, thousandths.
fn read(body: &[u8]) -> Result<Vec<(Item, i64)>, String> {
    let told: Told = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let value = |item: Item| {
        let value = Quantity::parse(&item.value).map_err(|error| error.to_string())?.millis();
        Ok((item, value))
    };
    told.items.into_iter().map(value).collect()
}

/// Why a server did not tell, as client-go words it: its own sentence, or one for the code.
fn refused(code: u16, body: &[u8], named: &str) -> String {
    let said = serde_json::from_slice::<Value>(body).ok().and_then(|status| Some(status["message"].as_str()?.to_owned()));
    let generic = |text: &str| format!("{text} (get {named})");
    match (code, said) {
        (404, Some(said)) if said == "the server could not find the requested resource" => generic(&said),
        (503, Some(said)) if said == "service unavailable" || said.starts_with("error trying to reach service") => {
            generic("the server is currently unable to handle the request")
        }
        (_, Some(said)) if !said.is_empty() => said,
        (404, _) => generic("the server could not find the requested resource"),
        (503, _) => generic("the server is currently unable to handle the request"),
        (code, _) => format!("an error on the server (\"unknown\") has prevented the request from succeeding (get {named}): {code}"),
    }
}

/// Where the metric of an object is asked for.
fn of_object(version: &str, namespace: &str, about: &Value, metric: &str, selector: &str, rows: &[ResourceRef]) -> Result<Asked, String> {
    let text = |field: &str| about[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    let base = format!("/apis/{CUSTOM}/{version}/namespaces/{}", plain(namespace));
    let query = query(&[("metricLabelSelector", selector)]);
    if (group, text("kind")) == ("", "Namespace") {
        return Ok(Asked { path: format!("{base}/metrics/{}{query}", plain(metric)), named: format!("metrics.{CUSTOM} {metric}") });
    }
    let row = rows.iter().find(|row| *row.group == *group && *row.kind == *text("kind"));
    let row = row.ok_or_else(|| {
        let kind = if group.is_empty() { text("kind").to_owned() } else { format!("{}.{group}", text("kind")) };
        format!("unable to map kind {kind} to resource: no matches for kind \"{}\" in group \"{group}\"", text("kind"))
    })?;
    let resource = if group.is_empty() { row.plural.to_string() } else { format!("{}.{group}", row.plural) };
    let name = text("name");
    Ok(Asked { path: format!("{base}/{}/{}/{}{query}", plain(&resource), plain(name), plain(metric)), named: format!("{resource}.{CUSTOM} {name}") })
}

/// Asks for one metric.
struct Inquiry<'a> {
    client: &'a Client,
    namespace: &'a str,
    /// Of the target's pods.
    pods: &'a str,
    /// The version of custom metrics that is served, if any.
    custom: Option<&'a str>,
    rows: &'a [ResourceRef],
}

impl Inquiry<'_> {
    async fn get(&self, asked: &Asked) -> Result<Vec<(Item, i64)>, String> {
        let answer = tokio::time::timeout(PATIENCE, self.client.get_path(&asked.path)).await;
        let (code, body) = answer.map_err(|_| format!("no answer within {} s (get {})", PATIENCE.as_secs(), asked.named))?;
        if code == 200 { read(&body) } else { Err(refused(code, &body, &asked.named)) }
    }

    async fn ask(&self, spec: &Value) -> Result<Reading, String> {
        let source = |field: &'static str| &spec[field];
        let selector = |metric: &Value| match &metric["selector"] {
            Value::Null => Ok(String::new()),
            selector => Selector::from_object(selector).map(|selector| selector.to_string()).map_err(|error| error.to_string()),
        };
        let custom = |why: String| format!("unable to fetch metrics from custom metrics API: {why}");
        let version = || self.custom.ok_or_else(|| custom(format!("no custom metrics API ({CUSTOM}) registered")));
        match spec["type"].as_str() {
            Some("Pods") => {
                let metric = &source("pods")["metric"];
                let name = metric["name"].as_str().unwrap_or_default();
                let query = query(&[("labelSelector", self.pods), ("metricLabelSelector", &selector(metric)?)]);
                let path = format!("/apis/{CUSTOM}/{}/namespaces/{}/pods/*/{}{query}", version()?, plain(self.namespace), plain(name));
                let told = self.get(&Asked { path, named: format!("pods.{CUSTOM} *") }).await.map_err(custom)?;
                if told.is_empty() {
                    return Err("no metrics returned from custom metrics API".into());
                }
                let used = |(item, value): (Item, i64)| {
                    let window = item.window_seconds.map_or(WINDOW, SignedDuration::from_secs);
                    (item.described_object.name, Used { at: item.timestamp.unwrap_or(Timestamp::UNIX_EPOCH), window, value })
                };
                Ok(Reading::Pods(told.into_iter().map(used).collect()))
            }
            Some("Object") => {
                let object = source("object");
                let metric = object["metric"]["name"].as_str().unwrap_or_default();
                let selector = selector(&object["metric"])?;
                let asked = of_object(version()?, self.namespace, &object["describedObject"], metric, &selector, self.rows).map_err(custom)?;
                let told = self.get(&asked).await.map_err(custom)?;
                match told.as_slice() {
                    [(_, value)] => Ok(Reading::Values(vec![*value])),
                    many => Err(custom(format!("the custom metrics API server returned {} results when we asked for exactly one", many.len()))),
                }
            }
            Some("External") => {
                let metric = &source("external")["metric"];
                let name = metric["name"].as_str().unwrap_or_default();
                let query = query(&[("labelSelector", &selector(metric)?)]);
                let path = format!("/apis/{EXTERNAL}/v1beta1/namespaces/{}/{}{query}", plain(self.namespace), plain(name));
                let told = self.get(&Asked { path, named: format!("{name}.{EXTERNAL}") }).await;
                let told = told.map_err(|why| format!("unable to fetch metrics from external metrics API: {why}"))?;
                match told.is_empty() {
                    true => Err("no metrics returned from external metrics API".into()),
                    false => Ok(Reading::Values(told.into_iter().map(|(_, value)| value).collect())),
                }
            }
            _ => Ok(Reading::Local),
        }
    }
}

/// Asks for all metrics of an autoscaler that nodes do not measure; `pods` is the selector of its target.
pub async fn ask(client: &Client, autoscaler: &Autoscaler<'_>, pods: &str, kinds: impl FnOnce() -> Vec<ResourceRef>) -> Readings {
    let specs = &autoscaler.spec.metrics;
    let local = |spec: &Value| !matches!(spec["type"].as_str(), Some("Pods" | "Object" | "External"));
    if specs.iter().all(local) {
        return specs.iter().map(|_| Ok(Reading::Local)).collect();
    }
    let custom = client.core().remote_version(CUSTOM, &["v1beta2", "v1beta1"]);
    let rows = kinds();
    let inquiry = Inquiry { client, namespace: &autoscaler.metadata.namespace, pods, custom, rows: &rows };
    let asked: Vec<_> = specs.iter().map(|spec| inquiry.ask(spec)).collect();
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_read_in_both_versions() {
        let told = json!({"items": [
            {"describedObject": {"kind": "Pod", "name": "a"}, "metric": {"name": "m"}, "timestamp": "2026-01-02T03:00:00Z", "windowSeconds": 30, "value": "1500m"},
            {"describedObject": {"kind": "Pod", "name": "b"}, "metricName": "m", "timestamp": "2026-01-02T03:00:00Z", "window": 5, "value": "2k"},
        ]});
        let told = read(told.to_string().as_bytes()).expect("readable");
        let told: Vec<(&str, Option<i64>, i64)> =
            told.iter().map(|(item, value)| (&*item.described_object.name, item.window_seconds, *value)).collect();
        assert_eq!(told, [("a", Some(30), 1500), ("b", Some(5), 2_000_000)]);
        assert!(read(b"{}").is_err() && read(br#"{"items": [{"value": "many"}]}"#).is_err());
    }

    #[test]
    fn refusals_are_worded_as_clients_word_them() {
        let status = |message: &str| json!({"kind": "Status", "message": message}).to_string();
        let what = |code: u16, body: &str| refused(code, body.as_bytes(), "queue.external.metrics.k8s.io");
        let missing = "the server could not find the requested resource (get queue.external.metrics.k8s.io)";
        assert_eq!(what(404, "404 page not found"), missing);
        assert_eq!(what(404, &status("the server could not find the requested resource")), missing);
        assert_eq!(what(404, &status("the server could not find the metric m for pods")), "the server could not find the metric m for pods");
        let away = "the server is currently unable to handle the request (get queue.external.metrics.k8s.io)";
        assert_eq!((what(503, &status("service unavailable")), what(503, "gone")), (away.into(), away.into()));
    }

    #[test]
    fn objects_are_asked_for_by_their_resource() {
        let rows: Vec<ResourceRef> = coracle_api::registry::builtin().into_iter().map(std::sync::Arc::new).collect();
        let ask = |about: Value, selector: &str| of_object("v1beta2", "default", &about, "hits/s", selector, &rows);
        let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"});
        let asked = ask(ingress, "verb=GET,a in (b,c)").expect("a path");
        let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/ingresses.networking.k8s.io/main/hits%2Fs";
        assert_eq!(asked.path, format!("{path}?metricLabelSelector=verb%3DGET%2Ca%20in%20%28b%2Cc%29"));
        assert_eq!(asked.named, "ingresses.networking.k8s.io.custom.metrics.k8s.io main");
        let namespace = ask(json!({"apiVersion": "v1", "kind": "Namespace", "name": "other"}), "").expect("a path");
        assert_eq!(namespace.path, "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/metrics/hits%2Fs");
        let nothing = ask(json!({"apiVersion": "example.com/v1", "kind": "Foo", "name": "x"}), "").expect_err("no such kind");
        assert_eq!(nothing, "unable to map kind Foo.example.com to resource: no matches for kind \"Foo\" in group \"example.com\"");
    }
}
