//! Workloads through kube-rs: waiting for conditions, `scale`, `status` and `log`, evictions, tokens and namespaces.

use super::{impatient, namespace, refusal, soon};
use anyhow::{Context as _, Result, ensure};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        authentication::v1::{TokenRequest, TokenReview},
        batch::v1::Job,
        core::v1::{Namespace, Node, Pod, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::wait::{Condition as _, await_condition, conditions},
};
use serde_json::{Value, json};

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}

fn deployment(name: &str, replicas: u32) -> Result<Deployment> {
    object(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": "hello:v1", "ports": [{"containerPort": 8080}]}]},
            },
        },
    }))
}

pub async fn workloads_and_their_subresources(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-workloads").await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), &ns);
    let pods = Api::<Pod>::namespaced(client.clone(), &ns);
    deployments.create(&PostParams::default(), &deployment("shop", 2)?).await?;
    soon("the rollout", await_condition(deployments.clone(), "shop", conditions::is_deployment_completed())).await?;

    let mut scale = deployments.get_scale("shop").await?;
    ensure!(scale.status.as_ref().is_some_and(|status| status.replicas == 2 && status.selector.as_deref() == Some("app=shop")), "{scale:?}");
    deployments.patch_scale("shop", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}}))).await?;
    let three = |deployment: Option<&Deployment>| {
        deployment.is_some_and(|deployment| deployment.status.as_ref().is_some_and(|status| status.ready_replicas == Some(3)))
    };
    soon("three replicas", await_condition(deployments.clone(), "shop", three)).await?;
    scale.spec.get_or_insert_default().replicas = Some(1);
    ensure!(refusal(deployments.replace_scale("shop", &PostParams::default(), &scale).await)?.is_conflict(), "an old version loses");

    let marked = deployments
        .patch_status("shop", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"annotations": {"x": "y"}}, "spec": {"replicas": 9}})))
        .await?;
    ensure!(marked.spec.and_then(|spec| spec.replicas) == Some(3), "a status's writer does not touch the specification");
    let before = deployments.get("shop").await?.metadata.generation;
    deployments.restart("shop").await?;
    soon("the restart", await_condition(deployments.clone(), "shop", conditions::is_deployment_completed())).await?;
    ensure!(deployments.get("shop").await?.metadata.generation > before);
    // Some(x) with another uid must not delete.
    let stranger = DeleteParams::default().preconditions(Preconditions { uid: Some("other".into()), resource_version: None });
    ensure!(refusal(deployments.delete("shop", &stranger).await)?.is_conflict());
    soon("no deployment", async { kube::runtime::wait::delete::delete_and_finalize(deployments.clone(), "shop", &DeleteParams::foreground()).await })
        .await?;
    ensure!(pods.list(&ListParams::default().labels("app=shop")).await?.items.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()));

    jobs_and_logs(&Api::namespaced(client.clone(), &ns), &pods).await?;
    let nodes = Api::<Node>::all(client);
    ensure!(nodes.get_status("test-node").await?.status.is_some_and(|status| status.allocatable.is_some()));
    Ok(())
}

async fn jobs_and_logs(jobs: &Api<Job>, pods: &Api<Pod>) -> Result<()> {
    let job: Job = object(json!({
        "metadata": {"name": "count"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "count", "image": "probe:v1", "args": ["count", "3", "10"]}]}}},
    }))?;
    jobs.create(&PostParams::default(), &job).await?;
    soon("the job", await_condition(jobs.clone(), "count", conditions::is_job_completed())).await?;
    let pod = pods.list(&ListParams::default().labels("batch.kubernetes.io/job-name=count")).await?.items.pop().context("its pod")?;
    ensure!(pods.logs(&pod.name_any(), &LogParams::default()).await? == "line 1\nline 2\nline 3\n");
    let follow = LogParams { follow: true, tail_lines: Some(2), timestamps: true, ..LogParams::default() };
    let lines: Vec<String> = pods.log_stream(&pod.name_any(), &follow).await?.lines().try_collect().await?;
    ensure!(lines.len() == 2 && lines[1].ends_with(" line 3"), "{lines:?}");
    let name = pod.name_any();
    ensure!(refusal(pods.logs(&name, &LogParams { container: Some("other".into()), ..LogParams::default() }).await)?.code == 400);
    jobs.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    soon("no pod", await_condition(pods.clone(), &name, conditions::is_deleted(&pod.uid().context("uid")?))).await?;
    Ok(())
}

pub async fn eviction_keeps_a_budget(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-eviction").await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), &ns);
    let pods = Api::<Pod>::namespaced(client.clone(), &ns);
    // The client asks again and again at a 429, and so would never say that a budget is kept.
    let evicted = Api::<Pod>::namespaced(impatient().await?, &ns);
    let budgets = Api::<PodDisruptionBudget>::namespaced(client, &ns);
    deployments.create(&PostParams::default(), &deployment("held", 2)?).await?;
    let budget = json!({"metadata": {"name": "held"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "held"}}}});
    budgets.create(&PostParams::default(), &object(budget)?).await?;
    soon("the rollout", await_condition(deployments, "held", conditions::is_deployment_completed())).await?;
    let allows = |number: i32| {
        move |budget: Option<&PodDisruptionBudget>| {
            let status = budget.and_then(|budget| budget.status.as_ref());
            status.is_some_and(|status| status.current_healthy == Some(2) && status.disruptions_allowed == Some(number))
        }
    };
    soon("the budget counts", await_condition(budgets.clone(), "held", allows(0))).await?;
    let pod = pods.list(&ListParams::default()).await?.items.pop().context("a pod")?;
    let refused = refusal(evicted.evict(&pod.name_any(), &EvictParams::default()).await)?;
    ensure!(refused.code == 429 && refused.message.contains("disruption budget"), "{refused:?}");
    budgets.patch("held", &PatchParams::default(), &Patch::Merge(json!({"spec": {"minAvailable": 1}}))).await?;
    soon("the budget allows one", await_condition(budgets, "held", allows(1))).await?;
    pods.evict(&pod.name_any(), &EvictParams::default()).await?;
    soon("the pod is gone", await_condition(pods.clone(), &pod.name_any(), conditions::is_deleted(&pod.uid().context("uid")?))).await?;
    ensure!(refusal(pods.evict("nothing", &EvictParams::default()).await)?.is_not_found());
    Ok(())
}

pub async fn tokens_and_namespaces(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-identity").await?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &ns);
    soon("the default account", await_condition(accounts.clone(), "default", |account: Option<&ServiceAccount>| account.is_some())).await?;
    let request: TokenRequest = object(json!({"spec": {"audiences": ["shop"], "expirationSeconds": 600}}))?;
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await?.status.context("status")?;
    ensure!(answer.expiration_timestamp.is_some_and(|time| time.0 > Timestamp::now()));
    let review: TokenReview = object(json!({"spec": {"audiences": ["shop"], "token": answer.token}}))?;
    let review = Api::<TokenReview>::all(client.clone()).create(&PostParams::default(), &review).await?.status.context("status")?;
    ensure!(review.authenticated == Some(true), "{review:?}");
    ensure!(review.user.and_then(|user| user.username).is_some_and(|name| name == format!("system:serviceaccount:{ns}:default")));

    let namespaces = Api::<Namespace>::all(client);
    namespaces.delete(&ns, &DeleteParams::default()).await?;
    let gone = |namespace: Option<&Namespace>| namespace.is_none();
    let terminating = |namespace: Option<&Namespace>| {
        namespace.is_some_and(|namespace| namespace.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Terminating")))
    };
    soon("the namespace goes", await_condition(namespaces.clone(), &ns, terminating.or(gone))).await?;
    soon("the namespace is gone", await_condition(namespaces, &ns, gone)).await?;
    Ok(())
}
