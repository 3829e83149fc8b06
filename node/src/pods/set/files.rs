//! Static pods among the others: they come and go with their files, whatever the API says.

use super::{Done, Set, Uid};
use crate::{
    pods::{
        machine::{Event, Machine, Note, Verdict},
        spec::Pod,
        statics::{Static, mirrored, mirrors::Wanted},
        status,
        time::Time,
    },
    report,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::watch;

/// What the set knows of files.
#[derive(Default)]
pub(super) struct Files {
    /// What the files say, by namespace and name.
    asked: BTreeMap<(String, String), Static>,
    /// The objects of those that there are.
    objects: HashMap<Uid, Arc<Value>>,
    /// Names of pods whose directories are being removed.
    leaving: BTreeSet<(String, String)>,
    /// Which of them shall have mirrors.
    wanted: watch::Sender<Wanted>,
}

impl Set {
    /// Tells which static pods there are.
    pub fn mirrors(&self) -> watch::Receiver<Wanted> {
        self.files.wanted.subscribe()
    }

    /// The files say this now. A pod whose file was changed or removed ends; its successor begins after that.
    pub(super) fn files(&mut self, statics: Vec<Static>) {
        self.ask(statics);
        let stale = |(uid, entry): (&Uid, &super::Entry)| {
            let name = (entry.pod.metadata.namespace.clone(), entry.pod.metadata.name.clone());
            let asked = self.files.asked.get(&name).is_some_and(|asked| *asked.pod.metadata.uid == **uid);
            (entry.pod.from_file && !asked).then(|| uid.clone())
        };
        let stale: Vec<Uid> = self.pods.iter().filter_map(stale).collect();
        for uid in stale {
            self.event(&uid, Event::Gone);
        }
        let names: Vec<(String, String)> = self.files.asked.keys().cloned().collect();
        for name in names {
            self.begin(&name);
        }
    }

    pub(super) fn ask(&mut self, statics: Vec<Static>) {
        let name = |pod: &Pod| (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        self.files.asked = statics.into_iter().map(|pod| (name(&pod.pod), pod)).collect();
    }

    /// The pods of the files, with what the API last heard of them.
    pub(super) fn asked(&self) -> Vec<Pod> {
        let known = |pod: &Static| {
            let stored = self.mirror_of(&pod.pod).map(|mirror| mirror.status);
            let mut pod = pod.pod.clone();
            if let Some(stored) = stored {
                pod.status = crate::pods::spec::StoredStatus { qos_class: pod.status.qos_class.clone(), ..stored };
            }
            pod
        };
        self.files.asked.values().map(known).collect()
    }

    /// Removes what is left of a pod on disk. A file's pod of its name waits for that: with the same content it has the same directory.
    pub(super) fn remove_directory(&mut self, uid: &Uid, name: (String, String)) {
        self.files.leaving.insert(name.clone());
        let (work, uid) = (self.work.clone(), uid.clone());
        self.tasks.spawn(async move {
            work.remove_directory(&uid).await;
            Done::Removed(name)
        });
    }

    pub(super) fn removed(&mut self, name: &(String, String)) {
        self.files.leaving.remove(name);
        self.begin(name);
    }

    /// The API has a pod of the name of a file's, which is here and stays: the other one cannot run, and says so.
    pub(super) fn turn_away(&mut self, pod: &Pod) {
        let about = super::report::about(pod, &pod.metadata.uid.as_str().into());
        if pod.deletion_grace().is_some() {
            return self.reports.delete(about);
        }
        if matches!(pod.status.phase.as_str(), "Failed" | "Succeeded") {
            return;
        }
        let (reason, message) = ("NameConflict", "this node has a static pod of that name");
        self.record(pod, &Note { container: None, warning: true, reason: reason.into(), message: message.into() });
        let mut machine = Machine::new(pod, Time::now());
        machine.verdict = Some(Verdict { reason: reason.into(), message: format!("Pod was rejected: {message}") });
        self.reports.status(about, status::status(pod, &mut machine, self.work.options.node_ip, Time::now()));
    }

    /// Begins the static pod of that name, unless one is there, or is still ending.
    pub(super) fn begin(&mut self, name: &(String, String)) {
        if self.names.contains_key(name) || self.files.leaving.contains(name) {
            return;
        }
        let Some(asked) = self.files.asked.get(name) else { return };
        let pod = asked.pod.clone();
        let uid: Uid = pod.metadata.uid.as_str().into();
        let machine = Machine::new(&pod, Time::now());
        self.insert(pod, machine);
        self.publish();
        self.pump(&uid);
    }

    /// Says which static pods there are.
    pub(super) fn publish(&mut self) {
        for asked in self.files.asked.values() {
            let uid = asked.pod.metadata.uid.as_str();
            if self.pods.contains_key(uid) && !self.files.objects.contains_key(uid) {
                self.files.objects.insert(uid.into(), Arc::new(asked.json.clone()));
            }
        }
        let pods = &self.pods;
        self.files.objects.retain(|uid, _| pods.contains_key(uid));
        let wanted: Wanted = self
            .files
            .objects
            .iter()
            .filter_map(|(uid, json)| {
                let metadata = &pods.get(uid)?.pod.metadata;
                Some(((metadata.namespace.clone(), metadata.name.clone()), json.clone()))
            })
            .collect();
        self.files.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    /// What mirrors it in the API.
    fn mirror_of(&self, pod: &Pod) -> Option<Pod> {
        let json = self.work.objects.get("pods", &pod.metadata.namespace, &pod.metadata.name)?;
        Pod::parse(&json).ok().filter(|mirror| mirrored(&mirror.metadata) == Some(&pod.metadata.uid))
    }

    /// As whom the API knows the pod; None for a static one that has no mirror yet.
    pub(super) fn known_as(&self, pod: &Pod, uid: &Uid) -> Option<report::About> {
        if !pod.from_file {
            return Some(super::report::about(pod, uid));
        }
        self.mirror_of(pod).map(|mirror| super::report::about(pod, &mirror.metadata.uid.as_str().into()))
    }
}
