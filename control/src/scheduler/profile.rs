//! Profiles: which plugins look for a node, by the `schedulerName` that pods ask for (`KubeSchedulerConfiguration` of
//! `kubescheduler.config.k8s.io/v1`). A pod that asks for a profile there is none of is left alone.

use super::{
    args::{Args, Told},
    plugins::{Filter, PLUGINS, Plugin, Score},
};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};

/// The profile of pods that ask for none.
pub const DEFAULT: &str = "default-scheduler";

/// See the module.
#[derive(Clone)]
pub struct Profile {
    /// The `schedulerName`.
    pub name: String,
    /// Rules, in order, and the kinds of change after which what they refused may fit.
    pub filters: Vec<(Filter, u8)>,
    /// Preferences and their weights.
    pub scores: Vec<(Score, i64)>,
    /// Whether pods of more priority make room for themselves.
    pub preempts: bool,
    /// What plugins are told.
    pub args: Arc<Args>,
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Default for Profile {
    fn default() -> Self {
        Self::of(DEFAULT, &Sets::default(), Args::standard())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    profiles: Vec<Described>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    #[serde(default)]
    scheduler_name: String,
    #[serde(default)]
    plugins: Sets,
    #[serde(default)]
    plugin_config: Vec<Told>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Sets {
    multi_point: Set,
    filter: Set,
    score: Set,
    post_filter: Set,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Set {
    enabled: Vec<Named>,
    disabled: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    #[serde(default)]
    weight: i64,
}

impl Set {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|named| named.name == "*" || named.name == name)
    }

    fn enabled(&self, name: &str) -> Option<&Named> {
        self.enabled.iter().find(|named| named.name == name)
    }
}

impl Sets {
    /// The weight of a plugin at one of its points, 0 for its own; None if it is left out there.
    fn weight(&self, at: &Set, plugin: &Plugin) -> Option<i64> {
        if let Some(named) = at.enabled(plugin.name) {
            return Some(named.weight);
        }
        if at.disables(plugin.name) {
            return None;
        }
        match self.multi_point.enabled(plugin.name) {
            Some(named) => Some(named.weight),
            None => (!self.multi_point.disables(plugin.name)).then_some(0),
        }
    }
}

impl Profile {
    fn of(name: &str, sets: &Sets, args: Arc<Args>) -> Self {
        let mut profile = Self { name: name.to_owned(), filters: Vec::new(), scores: Vec::new(), preempts: false, args };
        for plugin in &PLUGINS {
            if let Some(filter) = plugin.filter.filter(|_| sets.weight(&sets.filter, plugin).is_some()) {
                profile.filters.push((filter, plugin.hears));
            }
            if let Some((score, own)) = plugin.score
                && let Some(weight) = sets.weight(&sets.score, plugin)
            {
                profile.scores.push((score, if weight == 0 { own } else { weight }));
            }
            profile.preempts |= plugin.name == "DefaultPreemption" && sets.weight(&sets.post_filter, plugin).is_some();
        }
        profile
    }
}

/// Reads a `KubeSchedulerConfiguration` in YAML or JSON.
///
/// # Errors
/// What is wrong with it, or what of it is not known here: a field, a plugin.
pub fn read(text: &str) -> Result<Vec<Profile>, String> {
    let configuration: Configuration = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    if configuration.kind != "KubeSchedulerConfiguration" || configuration.api_version != "kubescheduler.config.k8s.io/v1" {
        return Err(format!(
            "not a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1: {} of {}",
            configuration.kind, configuration.api_version
        ));
    }
    let mut profiles = BTreeMap::new();
    for described in &configuration.profiles {
        let name = if described.scheduler_name.is_empty() { DEFAULT } else { &described.scheduler_name };
        let sets = &described.plugins;
        for set in [&sets.multi_point, &sets.filter, &sets.score, &sets.post_filter] {
            for named in set.enabled.iter().chain(&set.disabled) {
                if named.name != "*" && !PLUGINS.iter().any(|plugin| plugin.name == named.name) {
                    return Err(format!("profile {name}: there is no plugin {}", named.name));
                }
                if !(0..=100).contains(&named.weight) {
                    return Err(format!("profile {name}: the weight of {} must be 0 to 100", named.name));
                }
            }
        }
        let args = Args::of(&described.plugin_config).map_err(|why| format!("profile {name}: {why}"))?;
        if profiles.insert(name.to_owned(), Profile::of(name, sets, Arc::new(args))).is_some() {
            return Err(format!("two profiles are called {name}"));
        }
    }
    Ok(if profiles.is_empty() { vec![Profile::default()] } else { profiles.into_values().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, number of filters, weights of scores, and whether it makes room.
    type Shape = (String, usize, Vec<i64>, bool);

    fn shape(text: &str) -> Result<Vec<Shape>, String> {
        let weights = |profile: &Profile| profile.scores.iter().map(|(_, weight)| *weight).collect();
        Ok(read(text)?.iter().map(|profile| (profile.name.clone(), profile.filters.len(), weights(profile), profile.preempts)).collect())
    }

    const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";

    #[test]
    fn profiles_turn_plugins_on_and_off() {
        let all = ("default-scheduler".to_owned(), 13, vec![3, 2, 1, 2, 2, 1, 1], true);
        assert_eq!(shape(HEAD), Ok(vec![all.clone()]), "upstream's weights");
        let text = format!(
            "{HEAD}profiles:\n- {{}}\n- schedulerName: packed\n  plugins:\n    score: {{disabled: [{{name: '*'}}], enabled: [{{name: ImageLocality, weight: 5}}]}}\n    multiPoint: {{disabled: [{{name: InterPodAffinity}}, {{name: DefaultPreemption}}]}}\n"
        );
        assert_eq!(shape(&text), Ok(vec![all, ("packed".to_owned(), 12, vec![5], false)]));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let with = |profile: &str| shape(&format!("{HEAD}profiles:\n- {profile}\n")).expect_err("refused");
        assert_eq!(with("plugins: {score: {enabled: [{name: Mine}]}}"), "profile default-scheduler: there is no plugin Mine");
        assert_eq!(
            with("plugins: {score: {enabled: [{name: ImageLocality, weight: 101}]}}"),
            "profile default-scheduler: the weight of ImageLocality must be 0 to 100"
        );
        let fit = "pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]";
        assert!(with(fit).starts_with("profile default-scheduler: pluginConfig of NodeResourcesFit: unknown variant `Best`"));
        assert!(with("extenders: []").contains("unknown field `extenders`"));
        assert!(shape("apiVersion: v1\nkind: List\n").is_err());
    }
}
