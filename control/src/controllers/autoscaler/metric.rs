//! What one metric of an autoscaler wants, and how it is shown: of resources of pods, as nodes measure them, and of what other servers tell
//! (upstream's `computeReplicasForMetric`).

use super::{
    behavior::Behavior,
    pass::{Autoscaler, Sources},
    remote::Reading,
    replicas::{Aim, Question, Tolerances, calculate, propose},
};
use coracle_api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What a metric wants.
pub struct Metric {
    /// How many.
    pub replicas: i64,
    /// As conditions name it.
    pub name: String,
    /// For the status.
    pub status: Value,
}

/// Why a metric cannot be told.
pub struct Failure {
    /// Of the condition and the event.
    pub reason: &'static str,
    /// Of both.
    pub message: String,
    /// `failed to get cpu resource metric value`: what the whole look failed at.
    pub what: String,
}

/// One metric of a spec.
pub struct Asked<'a> {
    /// Whose it is.
    pub autoscaler: &'a Autoscaler<'a>,
    /// As it is written.
    pub spec: &'a Value,
    /// Its place in the spec.
    pub index: usize,
    /// Replicas that the target wants now.
    pub current: i64,
    /// What was measured and told.
    pub sources: &'a dyn Sources,
    /// The time.
    pub now: Timestamp,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn millis(value: &Value) -> Option<i64> {
    value.as_str().and_then(|text| Quantity::parse(text).ok()).map(|quantity| quantity.millis())
}

/// Thousandths as a number that has no unit.
fn plain(millis: i64) -> String {
    Quantity::from_millis(millis).to_string()
}

/// A label selector as Go prints it, which is part of what conditions say.
fn printed(selector: &Value) -> String {
    if selector.is_null() {
        return "nil".into();
    }
    let labels: String = selector["matchLabels"].as_object().into_iter().flatten().map(|(key, value)| format!("{key}: {},", text(value))).collect();
    let requirement = |expression: &Value| {
        let values: Vec<&str> = expression["values"].as_array().into_iter().flatten().map(text).collect();
        let (key, operator) = (text(&expression["key"]), text(&expression["operator"]));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    };
    let expressions: String = selector["matchExpressions"].as_array().into_iter().flatten().map(requirement).collect();
    format!("&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}")
}

/// What one metric wants.
///
/// # Errors
/// Why that cannot be told.
pub fn one(asked: &Asked<'_>) -> Result<Metric, Failure> {
    match text(&asked.spec["type"]) {
        "Resource" | "ContainerResource" => resource(asked),
        "Pods" => pods(asked).map_err(|message| Failure { reason: "FailedGetPodsMetric", message, what: "failed to get pods metric value".into() }),
        "Object" => object(asked),
        "External" => external(asked),
        other => Err(Failure {
            reason: "InvalidMetricSourceType",
            message: format!("unknown metric source type \"{other}\""),
            what: "failed to get metric value".into(),
        }),
    }
}

impl Asked<'_> {
    fn tolerances(&self) -> Tolerances {
        tolerances(self.autoscaler.spec.behavior.as_ref())
    }

    /// The values that were told, in one sum, thousandths.
    fn sum(&self) -> Result<i64, String> {
        match self.sources.told(self.index)? {
            Reading::Values(values) => Ok(values.into_iter().fold(0, i64::saturating_add)),
            Reading::Local | Reading::Pods(_) => Err("it was not asked for".into()),
        }
    }

    /// Replicas for a value that is to be so large for all of them together.
    fn by_ratio(&self, value: i64, target: i64) -> Result<i64, String> {
        let ratio = value as f64 / target as f64;
        let tolerances = self.tolerances();
        if tolerances.hold(ratio) {
            return Ok(self.current);
        }
        let pods = self.sources.selected()?;
        if pods.is_empty() {
            return Err(format!("unable to calculate ready pods: {NO_PODS}"));
        }
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        Ok(most(ratio * ready as f64))
    }

    /// Replicas, and the value of each now, for a value that is to be so large for each of them.
    fn by_average(&self, value: i64, target: i64) -> (i64, i64) {
        let present = self.sources.present();
        let ratio = value as f64 / (target as f64 * present as f64);
        let replicas = if self.tolerances().hold(ratio) { present } else { most(value as f64 / target as f64) };
        (replicas, (value as f64 / present as f64).ceil() as i64)
    }
}

/// A count that is not above what a count can be.
fn most(replicas: f64) -> i64 {
    replicas.ceil().min(f64::from(i32::MAX)) as i64
}

fn pods(asked: &Asked<'_>) -> Result<Metric, String> {
    let source = &asked.spec["pods"];
    let name = text(&source["metric"]["name"]);
    let told = asked.sources.told(asked.index).map_err(|why| format!("unable to get metric {name}: {why}"))?;
    let Reading::Pods(mut used) = told else { return Err("it was not asked for".into()) };
    let pods: Vec<_> = asked
        .sources
        .selected()?
        .into_iter()
        .map(|pod| {
            let used = used.remove(&*pod.metadata.name);
            (pod, used)
        })
        .collect();
    if pods.is_empty() {
        return Err(NO_PODS.into());
    }
    let aim = Aim::Average(millis(&source["target"]["averageValue"]).unwrap_or(0));
    let question = Question { resource: "", container: None, aim, current: asked.current, tolerances: asked.tolerances(), now: asked.now };
    let proposal = calculate(&question, &pods)?;
    let status = json!({"type": "Pods", "pods": {"metric": source["metric"], "current": {"averageValue": plain(proposal.average)}}});
    Ok(Metric { replicas: proposal.replicas, name: format!("pods metric {name}"), status })
}

fn object(asked: &Asked<'_>) -> Result<Metric, Failure> {
    let source = &asked.spec["object"];
    let (name, about, target) = (text(&source["metric"]["name"]), &source["describedObject"], &source["target"]);
    let (kind, namespace) = (text(&about["kind"]), &asked.autoscaler.metadata.namespace);
    let failed = |more: String| {
        move |message: String| Failure { reason: "FailedGetObjectMetric", message, what: format!("failed to get object metric value{more}") }
    };
    let value = || asked.sum().map_err(|why| format!("unable to get metric {name}: {why} on {kind} {namespace}/{}", text(&about["name"])));
    let metric = |replicas: i64, name: String, current: Value| {
        let object = json!({"metric": source["metric"], "describedObject": about, "current": current});
        Metric { replicas, name, status: json!({"type": "Object", "object": object}) }
    };
    if let Some(wanted) = millis(&target["value"]).filter(|_| target["type"] == "Value") {
        let value = value().map_err(failed(String::new()))?;
        let replicas = asked.by_ratio(value, wanted).map_err(failed(String::new()))?;
        return Ok(metric(replicas, format!("{kind} metric {name}"), json!({"value": plain(value)})));
    }
    if let Some(wanted) = millis(&target["averageValue"]).filter(|_| target["type"] == "AverageValue") {
        let value = value().map_err(failed(format!(": failed to get {name} object metric")))?;
        let (replicas, each) = asked.by_average(value, wanted);
        let name = format!("external metric {name}({})", printed(&source["metric"]["selector"]));
        return Ok(metric(replicas, name, json!({"averageValue": plain(each)})));
    }
    Err(failed(String::new())("invalid object metric source: neither a value target nor an average value target was set".into()))
}

fn external(asked: &Asked<'_>) -> Result<Metric, Failure> {
    let source = &asked.spec["external"];
    let (name, target) = (text(&source["metric"]["name"]), &source["target"]);
    let (namespace, selector) = (&asked.autoscaler.metadata.namespace, printed(&source["metric"]["selector"]));
    let failed = |more: String| {
        move |message: String| Failure {
            reason: "FailedGetExternalMetric",
            message,
            what: format!("failed to get {name} external metric value{more}"),
        }
    };
    let value = || asked.sum().map_err(|why| format!("unable to get external metric {namespace}/{name}/{selector}: {why}"));
    let metric = |replicas: i64, current: Value| {
        let external = json!({"metric": source["metric"], "current": current});
        Metric { replicas, name: format!("external metric {name}({selector})"), status: json!({"type": "External", "external": external}) }
    };
    if let Some(wanted) = millis(&target["averageValue"]) {
        let value = value().map_err(failed(format!(": failed to get {name} external metric")))?;
        let (replicas, each) = asked.by_average(value, wanted);
        return Ok(metric(replicas, json!({"averageValue": plain(each)})));
    }
    if let Some(wanted) = millis(&target["value"]) {
        let failed = || failed(format!(": failed to get external metric {name}"));
        let value = value().map_err(failed())?;
        let replicas = asked.by_ratio(value, wanted).map_err(failed())?;
        return Ok(metric(replicas, json!({"value": plain(value)})));
    }
    Err(failed(String::new())("invalid external metric source: neither a value target nor an average value target was set".into()))
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";

fn resource(asked: &Asked<'_>) -> Result<Metric, Failure> {
    let Asked { spec, current, sources, now, .. } = *asked;
    let of_container = spec["type"] == "ContainerResource";
    let field = if of_container { "containerResource" } else { "resource" };
    let source = &spec[field];
    let (name, container) = (source["name"].as_str().unwrap_or_default(), source["container"].as_str().filter(|_| of_container));
    let target = &source["target"];
    let aim = millis(&target["averageValue"]).map(Aim::Average).or_else(|| target["averageUtilization"].as_i64().map(Aim::Utilization));
    let tolerances = asked.tolerances();
    let proposal = match aim {
        None => Err("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set".to_owned()),
        Some(aim) => {
            let what = if matches!(aim, Aim::Average(_)) { "usage" } else { "utilization" };
            let question = Question { resource: name, container, aim, current, tolerances, now };
            let answer = sources.pods(name, container).and_then(|pods| propose(&question, &pods));
            answer.map_err(|why| format!("failed to get {name} {what}: {why}"))
        }
    };
    let proposal = proposal.map_err(|message| match container {
        None => Failure { reason: "FailedGetResourceMetric", message, what: format!("failed to get {name} resource metric value") },
        Some(container) => {
            Failure { reason: "FailedGetContainerResourceMetric", message, what: format!("failed to get {container} container metric value") }
        }
    })?;
    let mut current = json!({"averageValue": amount(name, proposal.average)});
    let shown = match (proposal.utilization, container) {
        (None, _) => format!("{name} resource"),
        (Some(_), None) => format!("{name} resource utilization (percentage of request)"),
        (Some(_), Some(_)) => format!("{name} container resource utilization (percentage of request)"),
    };
    if let Some(utilization) = proposal.utilization {
        current["averageUtilization"] = utilization.into();
    }
    let mut status = json!({"type": spec["type"]});
    status[field] = json!({"name": name, "current": current});
    if let Some(container) = container {
        status[field]["container"] = container.into();
    }
    Ok(Metric { replicas: proposal.replicas, name: shown, status })
}

fn tolerances(behavior: Option<&Behavior>) -> Tolerances {
    let part = |text: &Option<String>| text.as_deref().and_then(|text| Quantity::parse(text).ok()).map(|quantity| quantity.approximate());
    let default = Tolerances::default();
    match behavior {
        None => default,
        Some(behavior) => Tolerances {
            down: part(&behavior.scale_down.tolerance).unwrap_or(default.down),
            up: part(&behavior.scale_up.tolerance).unwrap_or(default.up),
        },
    }
}

/// Thousandths as a quantity: memory in bytes where they are whole.
fn amount(resource: &str, millis: i64) -> String {
    match resource {
        "memory" if millis % 1000 == 0 => Quantity::from_bytes(millis / 1000).to_string(),
        _ => Quantity::from_millis(millis).to_string(),
    }
}
