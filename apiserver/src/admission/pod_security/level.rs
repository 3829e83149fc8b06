//! Levels and versions, and the labels of a namespace that name them (`pod-security-admission/api`).

use coracle_api::status::Cause;
use std::fmt;

/// How much a pod may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// The Kubernetes version whose standard is meant: its minor number, or the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Minor(u32),
    Latest,
}

/// A level of one version's standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub level: Level,
    pub version: Version,
}

/// What a namespace asks for.
#[derive(Debug)]
pub(super) struct Policy {
    pub enforce: At,
    pub audit: At,
    pub warn: At,
    /// Labels that cannot be read. What they leave open is enforced as restricted, and neither noted nor warned about.
    pub wrong: Vec<Cause>,
}

impl Level {
    fn parse(text: &str) -> Result<Level, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

impl Version {
    /// `latest` or `v1.N`, without leading zeros.
    fn parse(text: &str) -> Result<Version, &'static str> {
        const WRONG: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let minor = text.strip_prefix("v1.").filter(|minor| minor.bytes().all(|c| c.is_ascii_digit()) && (!minor.starts_with('0') || *minor == "0"));
        minor.and_then(|minor| minor.parse().ok()).map(Version::Minor).ok_or(WRONG)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

impl Policy {
    /// Reads a namespace's labels.
    pub fn of(label: impl Fn(&str) -> Option<String>) -> Policy {
        let open = At { level: Level::Privileged, version: Version::Latest };
        let mut policy = Policy { enforce: open, audit: open, warn: open, wrong: Vec::new() };
        let mut wrong = Vec::new();
        let mut read = |mode: &str, at: &mut At, otherwise: Level| {
            let mut refuse = |name: &str, text: &str, why: &str| {
                let field = format!("metadata.labels[{name}]");
                wrong.push(Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: \"{text}\": {why}"), field });
            };
            let (name, mut good) = (format!("pod-security.kubernetes.io/{mode}"), false);
            let level = label(&name);
            if let Some(text) = &level {
                let parsed = Level::parse(text);
                good = parsed.is_ok();
                at.level = parsed.unwrap_or(otherwise);
                if let Err(why) = parsed {
                    refuse(&name, text, why);
                }
            }
            let name = format!("pod-security.kubernetes.io/{mode}-version");
            let version = label(&name);
            if let Some(text) = &version {
                let parsed = Version::parse(text);
                at.version = parsed.unwrap_or(Version::Latest);
                if let Err(why) = parsed {
                    refuse(&name, text, why);
                }
            }
            (level.is_some(), good, version.is_some())
        };
        let (_, enforced, _) = read("enforce", &mut policy.enforce, Level::Restricted);
        read("audit", &mut policy.audit, Level::Privileged);
        let (warned, _, versioned) = read("warn", &mut policy.warn, Level::Privileged);
        // Who enforces also wants to be warned about what makes pods.
        if !warned && enforced && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !versioned {
                policy.warn.version = policy.enforce.version;
            }
        }
        policy.wrong = wrong;
        policy
    }

    /// Whether nothing is asked for.
    pub fn is_privileged(&self) -> bool {
        self.wrong.is_empty() && [self.enforce, self.audit, self.warn].iter().all(|at| at.level == Level::Privileged)
    }
}
