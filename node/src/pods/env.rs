//! A container's variables: sources, order and expansion as the Kubernetes API documents them
//! (<https://kubernetes.io/docs/tasks/inject-data-application/>), and the service variables.

mod file;

use super::{
    downward::{self, Facts},
    spec::{Container, EnvSource, KeyRef, Pod},
};
use crate::mirror::Objects;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// Variables in order of definition; the last definition of a name wins and keeps its first place.
pub type Env = Vec<(String, String)>;

/// What a config map or secret holds, decoded.
pub type Data = BTreeMap<String, Vec<u8>>;

/// Why variables cannot be had; `CreateContainerConfigError` with these words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The object is not there (yet).
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name.
        name: String,
    },
    /// Anything else.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Holder {
    data: BTreeMap<String, String>,
    binary_data: BTreeMap<String, String>,
}

/// A config map's or a secret's data. `resource` is `configmaps` or `secrets`.
pub fn data(objects: &dyn Objects, resource: &'static str, namespace: &str, name: &str) -> Result<Data, Error> {
    let kind = if resource == "secrets" { "secret" } else { "configmap" };
    let json = objects.get(resource, namespace, name).ok_or_else(|| Error::Missing { kind, name: name.into() })?;
    let holder: Holder = serde_json::from_slice(&json).map_err(|e| Error::Invalid(format!("read {kind} {namespace}/{name}: {e}")))?;
    let decode = |(key, text): (String, String)| {
        let bytes = STANDARD.decode(&text).map_err(|e| Error::Invalid(format!("{kind} {namespace}/{name}: key {key} is no base64: {e}")))?;
        Ok((key, bytes))
    };
    if resource == "secrets" {
        return holder.data.into_iter().map(decode).collect();
    }
    let mut data: Data = holder.binary_data.into_iter().map(decode).collect::<Result<_, Error>>()?;
    data.extend(holder.data.into_iter().map(|(key, text)| (key, text.into_bytes())));
    Ok(data)
}

/// All variables of a container, services' included. `volumes` is the directory of its pod's volumes.
pub fn resolve(pod: &Pod, container: &Container, facts: &Facts, services: &Env, objects: &dyn Objects, volumes: &Path) -> Result<Env, Error> {
    let namespace = pod.metadata.namespace.as_str();
    let mut result = Vars::default();
    for from in &container.env_from {
        let sources = [(&from.config_map_ref, "configmaps"), (&from.secret_ref, "secrets")];
        for (reference, resource) in sources.into_iter().filter_map(|(r, resource)| r.as_ref().map(|r| (r, resource))) {
            let found = match data(objects, resource, namespace, &reference.name) {
                Err(Error::Missing { .. }) if reference.optional => continue,
                other => other?,
            };
            for (key, value) in found {
                let name = format!("{}{key}", from.prefix);
                // What cannot be a name in an environment block is left out, as kubelet does.
                if !name.is_empty() && !name.contains('=') && !name.contains('\0') {
                    result.set(name, text(&value));
                }
            }
        }
    }
    let services: HashMap<&str, &str> = services.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for variable in &container.env {
        let value = match &variable.value_from {
            None => expand(&variable.value, |name| result.get(name).or_else(|| services.get(name).copied())),
            Some(source) => match from_source(pod, container, facts, source, objects, volumes)? {
                Some(value) => value,
                None => continue,
            },
        };
        result.set(variable.name.clone(), value);
    }
    for (name, value) in services {
        if result.get(name).is_none() {
            result.set(name.into(), value.into());
        }
    }
    Ok(result.list)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    source: &EnvSource,
    objects: &dyn Objects,
    volumes: &Path,
) -> Result<Option<String>, Error> {
    if let Some(reference) = &source.field_ref {
        return downward::field(pod, facts, &reference.field_path).map(Some).map_err(Error::Invalid);
    }
    if let Some(reference) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), facts, reference).map(Some).map_err(Error::Invalid);
    }
    if let Some(reference) = &source.config_map_key_ref {
        return key(pod, reference, "configmaps", "ConfigMap", objects);
    }
    if let Some(reference) = &source.secret_key_ref {
        return key(pod, reference, "secrets", "Secret", objects);
    }
    if let Some(reference) = &source.file_key_ref {
        return file::read(pod, reference, volumes);
    }
    Err(Error::Invalid(
        "valueFrom names a source that this node does not know; use configMapKeyRef, secretKeyRef, fieldRef, resourceFieldRef or fileKeyRef".into(),
    ))
}

fn key(pod: &Pod, reference: &KeyRef, resource: &'static str, title: &str, objects: &dyn Objects) -> Result<Option<String>, Error> {
    let namespace = &pod.metadata.namespace;
    match data(objects, resource, namespace, &reference.name) {
        Err(Error::Missing { .. }) if reference.optional => Ok(None),
        Err(error) => Err(error),
        Ok(data) => match data.get(&reference.key) {
            Some(value) => Ok(Some(text(value))),
            None if reference.optional => Ok(None),
            None => Err(Error::Invalid(format!("couldn't find key {} in {title} {namespace}/{}", reference.key, reference.name))),
        },
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[derive(Default)]
struct Vars {
    list: Env,
    index: HashMap<String, usize>,
}

impl Vars {
    fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).and_then(|i| self.list.get(*i)).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(index) => self.list[*index].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }
}

/// `$(NAME)` by its value, `$$` by `$`; what cannot be resolved stays as it is.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => result.push_str(value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

/// As [`expand`], where every name has to mean something (`subPathExpr`).
///
/// # Errors
/// One does not, in kubelet's words.
pub fn expand_all<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, String> {
    let missing = std::cell::Cell::new(None);
    let expanded = expand(text, |name| {
        let found = lookup(name);
        if found.is_none() {
            missing.set(Some(format!("missing value for {name:?}")));
        }
        found
    });
    missing.take().map_or(Ok(expanded), Err)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Service {
    metadata: ServiceMeta,
    spec: ServiceSpec,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceMeta {
    name: String,
}
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    ports: Vec<ServicePort>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServicePort {
    name: String,
    port: u16,
    protocol: String,
}

/// Variables of the Services: those of the pod's namespace if it wants them, and always that of the API server
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
pub fn services(pod: &Pod, objects: &dyn Objects, api_server: Option<std::net::SocketAddr>) -> Env {
    let mut env = Env::new();
    let master = objects.get("services", "default", "kubernetes");
    if let Some(service) = master.as_deref().and_then(|json| serde_json::from_slice::<Service>(json).ok()) {
        variables(&service, &mut env);
    }
    if pod.spec.enable_service_links != Some(false) {
        for (key, json) in objects.list("services", Some(&pod.metadata.namespace)) {
            if key.name == "kubernetes" && key.namespace == "default" {
                continue;
            }
            if let Ok(service) = serde_json::from_slice::<Service>(&json) {
                variables(&service, &mut env);
            }
        }
    }
    if let Some(address) = api_server {
        // Where pods reach the API server when no Service address leads there.
        env.retain(|(name, _)| !["KUBERNETES_SERVICE_", "KUBERNETES_PORT"].iter().any(|prefix| name.starts_with(prefix)));
        let host = address.ip().to_string();
        let master = Service {
            metadata: ServiceMeta { name: "kubernetes".into() },
            spec: ServiceSpec { cluster_ip: host, ports: vec![ServicePort { name: "https".into(), port: address.port(), protocol: "TCP".into() }] },
        };
        variables(&master, &mut env);
    }
    env
}

fn variables(service: &Service, env: &mut Env) {
    let ip = service.spec.cluster_ip.as_str();
    let Some(first) = service.spec.ports.first() else { return };
    if ip.is_empty() || ip == "None" {
        return;
    }
    let upper = |text: &str| text.to_uppercase().replace(['-', '.'], "_");
    let name = upper(&service.metadata.name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    let protocol = |port: &ServicePort| if port.protocol.is_empty() { "tcp".to_string() } else { port.protocol.to_lowercase() };
    env.push((format!("{name}_SERVICE_HOST"), ip.into()));
    env.push((format!("{name}_SERVICE_PORT"), first.port.to_string()));
    for port in service.spec.ports.iter().filter(|p| !p.name.is_empty()) {
        env.push((format!("{name}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string()));
    }
    env.push((format!("{name}_PORT"), format!("{}://{host}:{}", protocol(first), first.port)));
    for port in &service.spec.ports {
        let protocol = protocol(port);
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.push((prefix.clone(), format!("{protocol}://{host}:{}", port.port)));
        env.push((format!("{prefix}_PROTO"), protocol));
        env.push((format!("{prefix}_PORT"), port.port.to_string()));
        env.push((format!("{prefix}_ADDR"), ip.into()));
    }
}

#[cfg(test)]
mod tests;
