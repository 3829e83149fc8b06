//! What a controller is built of: watchers in all their modes, stores, owner references and finalizers.

use super::{namespace, refusal, soon};
use anyhow::{Context as _, Result, bail, ensure};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, VersionMatch, WatchEvent, WatchParams},
    core::PartialObjectMeta,
    runtime::{
        Controller, WatchStreamExt as _,
        controller::Action,
        finalizer::{Event as Finalizer, finalizer},
        reflector::{self, ObjectRef},
        watcher::{self, Event, watcher},
    },
};
use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), labels: Some(BTreeMap::from([("set".into(), "one".into())])), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".into(), value.into())])),
        ..ConfigMap::default()
    }
}

/// The names of the initial objects of a watcher, up to the event that says that they are all there.
async fn initial<K: kube::Resource>(events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin)) -> Result<Vec<String>> {
    let mut names = Vec::new();
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Init => names.clear(),
            Event::InitApply(object) => names.push(object.name_any()),
            Event::InitDone => {
                names.sort();
                return Ok(names);
            }
            Event::Apply(_) | Event::Delete(_) => bail!("a change before the initial objects were complete"),
        }
    }
    bail!("the watcher ended")
}

pub async fn watchers_and_stores(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-watch").await?;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &ns);
    for number in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("map-{number}"), "first")).await?;
    }
    let names = ["map-0", "map-1", "map-2", "map-3", "map-4"];
    for (what, config) in [
        ("pages", watcher::Config::default().page_size(2)),
        ("any version", watcher::Config::default().any_semantic()),
        ("a streamed list", watcher::Config::default().streaming_lists()),
        ("without bookmarks", watcher::Config::default().disable_bookmarks()),
    ] {
        let mut events = pin!(watcher(maps.clone(), config.labels("set=one")));
        ensure!(soon(what, initial(&mut events)).await? == names, "{what}");
        maps.patch("map-0", &PatchParams::default(), &Patch::Merge(serde_json::json!({"data": {"key": what}}))).await?;
        match soon(what, async { events.try_next().await?.context("the watcher ended") }).await? {
            Event::Apply(map) => ensure!(map.data.is_some_and(|data| data["key"] == what)),
            other => bail!("{what}: {other}"),
        }
    }

    let metadata = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client, &ns);
    let mut metadata = pin!(watcher(metadata, watcher::Config::default().labels("set=one")));
    ensure!(soon("metadata", initial(&mut metadata)).await? == names);
    // What leaves a selector is deleted for those who watch with it.
    maps.patch("map-1", &PatchParams::default(), &Patch::Merge(serde_json::json!({"metadata": {"labels": {"set": "two"}}}))).await?;
    match soon("a deletion", async { metadata.try_next().await?.context("the watcher ended") }).await? {
        Event::Delete(map) => ensure!(map.name_any() == "map-1"),
        other => bail!("{other}"),
    }

    stores_follow(&maps).await?;
    plain_lists_and_watches(&maps).await
}

/// A reflector's store is what the server holds.
async fn stores_follow(maps: &Api<ConfigMap>) -> Result<()> {
    let (store, writer) = reflector::store();
    let mut applied = pin!(
        watcher(maps.clone(), watcher::Config::default().labels("set=one"))
            .default_backoff()
            .modify(|map| map.metadata.managed_fields = None)
            .reflect(writer)
            .touched_objects()
    );
    soon("four objects", async {
        for _ in 0..4 {
            applied.try_next().await?;
        }
        Ok::<_, watcher::Error>(())
    })
    .await?;
    maps.delete("map-2", &DeleteParams::default()).await?;
    soon("the deletion", applied.try_next()).await?;
    let mut names: Vec<String> = store.state().iter().map(|map| map.name_any()).collect();
    names.sort();
    ensure!(names == ["map-0", "map-3", "map-4"], "{names:?}");
    let namespace = maps.namespace().unwrap_or_default();
    ensure!(store.get(&ObjectRef::new("map-3").within(namespace)).is_some_and(|map| map.resource_version().is_some()));
    Ok(())
}

/// Lists by pages and at versions, and a bare watch from a version.
async fn plain_lists_and_watches(maps: &Api<ConfigMap>) -> Result<()> {
    let page = maps.list(&ListParams::default().labels("set=one").limit(2)).await?;
    ensure!(page.items.len() == 2 && page.metadata.remaining_item_count.is_none(), "a selector hides the count: {:?}", page.metadata);
    let token = page.metadata.continue_.clone().context("a token")?;
    maps.delete("map-4", &DeleteParams::default()).await?;
    let rest = maps.list(&ListParams::default().labels("set=one").limit(2).continue_token(&token)).await?;
    ensure!(rest.items.len() == 1 && rest.items[0].name_any() == "map-4", "pages are of one revision");
    ensure!(rest.metadata.resource_version == page.metadata.resource_version);
    let version = page.metadata.resource_version.context("a version")?;
    let exact = maps.list(&ListParams::default().labels("set=one").at(&version).matching(VersionMatch::Exact)).await?;
    ensure!(exact.items.len() == 3 && exact.metadata.resource_version.as_ref() == Some(&version));

    let mut events = pin!(maps.watch(&WatchParams::default().labels("set=one").timeout(5), &version).await?);
    match soon("the deletion again", async { events.try_next().await?.context("the watch ended") }).await? {
        WatchEvent::Deleted(map) => ensure!(map.name_any() == "map-4"),
        other => bail!("{other:?}"),
    }
    let refused = refusal(maps.list(&ListParams::default().at("not-a-version")).await)?;
    ensure!(refused.is_invalid() || refused.code == 400, "{refused:?}");
    let refused = refusal(maps.create(&PostParams::default(), &config_map("Not_A_Name", "")).await)?;
    ensure!(refused.is_invalid() && refused.details.is_some_and(|details| details.causes[0].field == "metadata.name"));
    ensure!(refusal(maps.get("nothing").await)?.is_not_found());
    ensure!(maps.get_opt("nothing").await?.is_none());
    ensure!(maps.get_metadata("map-0").await?.types.is_some_and(|types| types.kind == "PartialObjectMetadata"));
    let all = maps.list_metadata(&ListParams::default()).await?;
    ensure!(all.items.iter().any(|item| item.name_any() == "map-1"));
    Ok(())
}

#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self(error.to_string())
    }
}

const FINALIZER: &str = "kube-rs.example.com/mirror";

/// Mirrors a ConfigMap into a Secret that it owns; the mirror's journal is emptied when the map goes.
async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, Failure> {
    let namespace = map.namespace().ok_or_else(|| Failure("no namespace".into()))?;
    let maps = Api::<ConfigMap>::namespaced((*client).clone(), &namespace);
    let secrets = Api::<Secret>::namespaced((*client).clone(), &namespace);
    let step = |event: Finalizer<ConfigMap>| async move {
        match event {
            Finalizer::Apply(map) => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(map.name_any()),
                        owner_references: map.controller_owner_ref(&()).map(|owner| vec![owner]),
                        ..ObjectMeta::default()
                    },
                    string_data: map.data.clone(),
                    ..Secret::default()
                };
                match secrets.create(&PostParams::default(), &secret).await {
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {
                        let patch = serde_json::json!({"stringData": secret.string_data});
                        secrets.patch(&map.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
                    }
                    other => drop(other?),
                }
            }
            Finalizer::Cleanup(map) => {
                let journal = Api::<ConfigMap>::namespaced(secrets.into_client(), &map.namespace().unwrap_or_default());
                let patch = serde_json::json!({"data": {map.name_any(): "cleaned"}});
                journal.patch("journal", &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
        }
        Ok::<_, Failure>(Action::await_change())
    };
    finalizer(&maps, FINALIZER, map, step).await.map_err(|error| Failure(error.to_string()))
}

pub async fn controller_with_a_finalizer(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-controller").await?;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &ns);
    let secrets = Api::<Secret>::namespaced(client.clone(), &ns);
    let mut journal = config_map("journal", "");
    journal.metadata.labels = None;
    maps.create(&PostParams::default(), &journal).await?;
    let controller = Controller::new(maps.clone(), watcher::Config::default().labels("set=one"))
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client))
        .for_each(|_| futures::future::ready(()));
    let running = tokio::spawn(controller);

    maps.create(&PostParams::default(), &config_map("mirrored", "one")).await?;
    let holds = |value: &'static str| {
        move |secret: Option<&Secret>| {
            let data = secret.and_then(|secret| secret.data.as_ref()?.get("key"));
            data.is_some_and(|data| data.0 == value.as_bytes())
        }
    };
    let wait = |value| kube::runtime::wait::await_condition(secrets.clone(), "mirrored", holds(value));
    soon("the mirror", wait("one")).await?;
    maps.patch("mirrored", &PatchParams::default(), &Patch::Merge(serde_json::json!({"data": {"key": "two"}}))).await?;
    soon("the change", wait("two")).await?;
    // The owned object comes back: its deletion wakes the owner.
    secrets.delete("mirrored", &DeleteParams::default()).await?;
    soon("the mirror again", wait("two")).await?;

    kube::runtime::wait::delete::delete_and_finalize(maps.clone(), "mirrored", &DeleteParams::foreground()).await?;
    let journal = maps.get("journal").await?;
    ensure!(journal.data.is_some_and(|data| data.get("mirrored").is_some_and(|word| word == "cleaned")), "the finalizer ran first");
    soon("the collector", kube::runtime::wait::await_condition(secrets, "mirrored", |secret: Option<&Secret>| secret.is_none())).await?;
    running.abort();
    Ok(())
}
