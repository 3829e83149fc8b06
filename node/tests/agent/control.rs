//! A control plane that is a map: the feed, API requests as a node makes them, streams to the node.

use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use coracle_link::{
    Connection, Connector, Error, Stream, memory,
    pki::Subject,
    protocol::{Feed, LogOptions, Open, Reply},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

type Key = (String, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    statuses: BTreeMap<String, Vec<Value>>,
    tokens: Vec<Value>,
    revision: u64,
    feed: Option<mpsc::UnboundedSender<Feed>>,
    resumed: bool,
    connection: Option<Arc<dyn Connection>>,
}

#[derive(Clone)]
pub struct Control {
    state: Arc<Mutex<State>>,
    up: Arc<watch::Sender<bool>>,
}

struct Dialler(Control);

#[async_trait]
impl Connector for Dialler {
    async fn connect(&self) -> Result<Arc<dyn Connection>, Error> {
        if !*self.0.up.borrow() {
            return Err(Error::Closed("cut".into()));
        }
        let subject = |name: &str| Subject { common_name: name.into(), organizations: Vec::new() };
        let (node, control) = memory::pair(subject("control"), subject("system:node:n1"));
        self.0.state.lock().connection = Some(control.clone());
        tokio::spawn(serve(self.0.clone(), control));
        Ok(node)
    }
}

/// Waits until `look` finds something.
pub async fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = json!("n1");
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1 }, "spec": spec })
}

async fn serve(control: Control, connection: Arc<dyn Connection>) {
    while let Ok(mut stream) = connection.accept().await {
        let control = control.clone();
        tokio::spawn(async move {
            let Ok(Some(frame)) = stream.recv().await else { return };
            match Open::decode(&frame).unwrap() {
                Open::Subscribe { epoch, revision } => control.feed(stream, epoch, revision).await,
                Open::Call { method, path, body, .. } => {
                    let (code, body) = control.call(&method, &path, &body);
                    let _ = stream.send(Reply { code, body: Bytes::from(body.to_string()) }.encode()).await;
                    let _ = stream.finish().await;
                }
                other => panic!("a node opened {other:?}"),
            }
        });
    }
}

fn key(object: &Value) -> Key {
    let resource = match object["kind"].as_str().unwrap() {
        "Pod" => "pods",
        "ConfigMap" => "configmaps",
        "Secret" => "secrets",
        "Service" => "services",
        "Node" => "nodes",
        "Lease" => "leases",
        "Event" => "events",
        other => panic!("{other}"),
    };
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_string();
    (resource.into(), text("namespace"), text("name"))
}

fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(fields) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, value) in fields {
                if value.is_null() {
                    target.as_object_mut().unwrap().remove(name);
                } else {
                    merge(&mut target[name], value);
                }
            }
        }
        other => *target = other.clone(),
    }
}

impl Control {
    pub fn new() -> Self {
        let state = State { revision: 1, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), up: Arc::new(watch::Sender::new(true)) }
    }

    pub fn connector(&self) -> Arc<dyn Connector> {
        Arc::new(Dialler(self.clone()))
    }

    pub fn cut(&self) {
        self.up.send_replace(false);
        if let Some(connection) = self.state.lock().connection.take() {
            connection.close("cut");
        }
    }

    pub fn heal(&self) {
        self.up.send_replace(true);
    }

    pub fn resumed(&self) -> bool {
        self.state.lock().resumed
    }

    pub async fn subscribed(&self) {
        wait("the subscription", || self.state.lock().feed.as_ref().map(|_| ())).await;
    }

    /// Everything once, then what changes: only a fresh mirror gets a reset.
    async fn feed(&self, mut stream: Box<dyn Stream>, epoch: u64, revision: u64) {
        let (sender, mut changes) = mpsc::unbounded_channel();
        let mut first = Vec::new();
        {
            let mut state = self.state.lock();
            if epoch == 1 && revision > 0 {
                state.resumed = true;
            } else {
                first.push(Feed::Reset { epoch: 1 });
            }
            for (key, object) in state.objects.iter().filter(|(k, _)| ["pods", "configmaps", "secrets", "services"].contains(&k.0.as_str())) {
                first.push(upsert(key, object));
            }
            first.push(Feed::Synced { epoch: 1, revision: state.revision });
            state.feed = Some(sender);
        }
        for feed in first {
            if stream.send(feed.encode()).await.is_err() {
                return;
            }
        }
        while let Some(feed) = changes.recv().await {
            if stream.send(feed.encode()).await.is_err() {
                return;
            }
        }
    }

    pub fn put(&self, object: Value) {
        let key = key(&object);
        let mut state = self.state.lock();
        state.objects.insert(key.clone(), object.clone());
        state.tell(upsert(&key, &object));
    }

    pub fn delete(&self, name: &str, grace: i64) {
        let mut pod = self.object("pods", "default", name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.put(pod);
    }

    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&(resource.into(), namespace.into(), name.into())).cloned()
    }

    pub async fn status(&self, pod: &str, want: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let last = self.last_status(pod);
            if let Some(status) = last.as_ref().filter(|s| want(s)) {
                return status.clone();
            }
            assert!(Instant::now() < deadline, "the status of {pod} is {last:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub fn last_status(&self, pod: &str) -> Option<Value> {
        self.state.lock().statuses.get(pod)?.last().cloned()
    }

    pub fn status_reports(&self, pod: &str) -> usize {
        self.state.lock().statuses.get(pod).map_or(0, Vec::len)
    }

    pub fn token_requests(&self) -> Vec<Value> {
        self.state.lock().tokens.clone()
    }

    /// The reasons of a pod's events in the order of their times, once the named one is there.
    pub async fn events(&self, pod: &str, until: &str) -> Vec<String> {
        wait(until, || {
            let reasons = self.told(pod, "reason");
            reasons.iter().any(|r| r == until).then_some(reasons)
        })
        .await
    }

    /// What the pod's events say.
    pub fn messages(&self, pod: &str) -> Vec<String> {
        self.told(pod, "message")
    }

    fn told(&self, pod: &str, field: &str) -> Vec<String> {
        let state = self.state.lock();
        let mut events: Vec<&Value> =
            state.objects.iter().filter(|((r, ..), e)| r == "events" && e["involvedObject"]["name"] == pod).map(|(_, e)| e).collect();
        events.sort_by_key(|e| e["metadata"]["name"].as_str().unwrap_or_default());
        events.iter().map(|e| e[field].as_str().unwrap().to_string()).collect()
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut state = self.state.lock();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        // Behind api/v1 or apis/group/version.
        let parts = &parts[if parts[0] == "api" { 2 } else { 3 }..];
        let (namespace, rest) = if parts[0] == "namespaces" { (parts[1], &parts[2..]) } else { ("", parts) };
        let missing = (404, json!({ "kind": "Status", "code": 404, "message": "not found" }));
        let key = |name: &str| (rest[0].to_string(), namespace.to_string(), name.to_string());
        match (method, rest) {
            ("POST", ["serviceaccounts", _, "token"]) => {
                state.tokens.push(body);
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!({ "iat": now, "exp": now + 3600 }).to_string());
                (201, json!({ "status": { "token": format!("h.{claims}.s") } }))
            }
            ("POST", [_]) => {
                let key = key(body["metadata"]["name"].as_str().unwrap());
                state.objects.insert(key, body.clone());
                (201, body)
            }
            ("PATCH", [_, name]) | ("PATCH", [_, name, "status"]) => {
                let key = key(name);
                let Some(object) = state.objects.get_mut(&key) else { return missing };
                if body["metadata"]["uid"].is_string() && body["metadata"]["uid"] != object["metadata"]["uid"] {
                    return (409, json!({ "message": "uid" }));
                }
                merge(object, &body);
                let object = object.clone();
                if key.0 == "pods" {
                    state.statuses.entry(name.to_string()).or_default().push(object["status"].clone());
                    state.tell(upsert(&key, &object));
                }
                (200, object)
            }
            ("DELETE", [_, name]) => {
                assert_eq!(body["gracePeriodSeconds"], 0);
                let key = key(name);
                if state.objects.remove(&key).is_none() {
                    return missing;
                }
                state.tell(Feed::Remove { resource: key.0, namespace: key.1, name: key.2 });
                (200, json!({}))
            }
            _ => panic!("{method} {path}"),
        }
    }

    fn connection(&self) -> Arc<dyn Connection> {
        self.state.lock().connection.clone().unwrap()
    }

    async fn ask(&self, open: Open, input: &str) -> (u16, String) {
        let connection = self.connection();
        let mut stream = connection.open().await.unwrap();
        stream.send(open.encode()).await.unwrap();
        let reply = Reply::decode(&stream.recv().await.unwrap().unwrap()).unwrap();
        if reply.code != 200 || !reply.body.is_empty() {
            return (reply.code, String::from_utf8(reply.body.to_vec()).unwrap());
        }
        if !input.is_empty() {
            stream.send(Bytes::copy_from_slice(input.as_bytes())).await.unwrap();
        }
        // A log's reader holds its half open for as long as it listens.
        if !matches!(open, Open::Logs { .. }) {
            stream.finish().await.unwrap();
        }
        let mut text = Vec::new();
        while let Some(frame) = stream.recv().await.unwrap() {
            text.extend_from_slice(&frame);
        }
        (200, String::from_utf8(text).unwrap())
    }

    pub async fn logs(&self, pod: &str, previous: bool) -> (u16, String) {
        let options = LogOptions { previous, ..LogOptions::default() };
        let open = Open::Logs { namespace: "default".into(), pod: pod.into(), uid: format!("uid-{pod}"), container: "c".into(), options };
        self.ask(open, "").await
    }

    pub async fn dial(&self, pod: &str, port: u16, input: &str) -> (u16, String) {
        self.ask(Open::Dial { namespace: "default".into(), pod: pod.into(), uid: format!("uid-{pod}"), port }, input).await
    }

    pub async fn stats(&self) -> Value {
        let (code, body) = self.ask(Open::Stats, "").await;
        assert_eq!(code, 200);
        serde_json::from_str(&body).unwrap()
    }
}

impl State {
    fn tell(&mut self, feed: Feed) {
        self.revision += 1;
        let synced = Feed::Synced { epoch: 1, revision: self.revision };
        if let Some(sender) = &self.feed {
            let _ = sender.send(feed);
            let _ = sender.send(synced);
        }
    }
}

fn upsert(key: &Key, object: &Value) -> Feed {
    Feed::Upsert { resource: key.0.clone(), namespace: key.1.clone(), name: key.2.clone(), json: Bytes::from(object.to_string()) }
}
