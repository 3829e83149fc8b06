//! Registry credentials out of pull secrets (`kubernetes.io/dockerconfigjson` and the older `dockercfg`).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// User and password, by registry (and path prefix).
#[derive(Clone, Default)]
pub struct Keyring {
    entries: Vec<(String, String, String)>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Config {
    auths: BTreeMap<String, Auth>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    username: String,
    password: String,
    auth: String,
}

impl Keyring {
    /// Adds what a secret holds; what cannot be read adds nothing.
    pub fn add(&mut self, secret: &BTreeMap<String, Vec<u8>>) {
        let auths = if let Some(json) = secret.get(".dockerconfigjson") {
            serde_json::from_slice::<Config>(json).map(|c| c.auths)
        } else if let Some(json) = secret.get(".dockercfg") {
            serde_json::from_slice(json)
        } else {
            return;
        };
        for (registry, auth) in auths.unwrap_or_default() {
            let decoded = STANDARD.decode(auth.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
            let pair = match decoded.as_deref().and_then(|t| t.split_once(':')) {
                Some((user, password)) => (user.to_string(), password.to_string()),
                None => (auth.username, auth.password),
            };
            self.entries.push((normal(&registry), pair.0, pair.1));
        }
    }

    /// What to try for that repository, the most specific first.
    pub fn find(&self, registry: &str, repository: &str) -> Vec<(&str, &str)> {
        let registry = normal(registry);
        let mut found: Vec<(usize, &str, &str)> = self
            .entries
            .iter()
            .filter(|(place, ..)| {
                let (host, path) = place.split_once('/').unwrap_or((place, ""));
                let inside = path.is_empty() || repository == path || repository.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
                host_matches(host, &registry) && inside
            })
            .map(|(place, user, password)| (place.len(), user.as_str(), password.as_str()))
            .collect();
        found.sort_by_key(|(length, ..)| std::cmp::Reverse(*length));
        found.into_iter().map(|(_, user, password)| (user, password)).collect()
    }

    /// Tells keyrings apart without saying what is in them.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.entries.hash(&mut hasher);
        hasher.finish()
    }
}

/// Registries as pull secrets write them: with or without scheme and version path; Docker Hub has many names.
fn normal(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2").trim_end_matches('/');
    match bare {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        other => other.to_string(),
    }
}

/// `*.example.com` matches one label, as in kubelet's keyring.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (mut p, mut h) = (pattern.split('.'), host.split('.'));
    loop {
        match (p.next(), h.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == "*" || a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(json: &str) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add(&BTreeMap::from([(".dockerconfigjson".to_string(), json.as_bytes().to_vec())]));
        keyring
    }

    #[test]
    fn credentials_by_registry_and_path() {
        let auth = STANDARD.encode("u:p:q");
        let ring = keyring(&format!(
            r#"{{"auths":{{"https://r.example:5000/v2/":{{"auth":"{auth}"}},"r.example:5000/team":{{"username":"t","password":"x"}},
               "*.wild.example":{{"username":"w","password":"y"}},"https://index.docker.io/v1/":{{"username":"hub","password":"z"}}}}}}"#
        ));
        assert_eq!(ring.find("r.example:5000", "team/app"), [("t", "x"), ("u", "p:q")]);
        assert_eq!(ring.find("r.example:5000", "teams/app"), [("u", "p:q")]);
        assert_eq!(ring.find("a.wild.example", "b"), [("w", "y")]);
        assert!(ring.find("a.b.wild.example", "b").is_empty());
        assert_eq!(ring.find("docker.io", "library/x"), [("hub", "z")]);
        assert!(ring.find("other.example", "x").is_empty());
    }

    #[test]
    fn what_cannot_be_read_adds_nothing() {
        assert!(keyring("no json").find("a", "b").is_empty());
        assert!(keyring("{}").find("a", "b").is_empty());
    }
}
