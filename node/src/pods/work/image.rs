//! A container's image: looked for, pulled by policy, prepared for its runtime.

use super::{Failure, Work};
use crate::{
    images::{self, credentials::Keyring},
    pods::{
        env,
        machine::Event,
        spec::{Container, Pod, Volume},
    },
};
use coracle_runtime::LocalImage;
use std::time::{Duration, Instant};

impl Work {
    pub(super) async fn pull(&self, pod: &Pod, index: usize) -> Event {
        let Some(container) = pod.container(index) else {
            return Event::ImageFailed { container: index, reason: "InvalidImageName".into(), message: "no such container".into() };
        };
        if pod.is_ephemeral(index) && self.runtime(pod).is_ok_and(|runtime| runtime.name() == "wasm") {
            let message = "ephemeral containers look at processes and files of the pod's others, and this pod's are WebAssembly components, which have none to be joined; see kubectl logs";
            return Event::ImageFailed { container: index, reason: "CreateContainerConfigError".into(), message: message.into() };
        }
        let image = match self.image(pod, index, container).await {
            Ok(image) => image,
            Err(failure) => return Event::ImageFailed { container: index, reason: failure.reason, message: failure.message },
        };
        // Compiling is part of getting the image: it is what a pod waits for the first time only.
        if let Ok(runtime) = self.runtime(pod) {
            let prepared = match runtime.supports(&image) {
                Ok(()) => runtime.prepare(&image).await,
                refused => refused,
            };
            if let Err(why) = prepared {
                self.note(pod, Some(index), true, "Failed", &format!("Failed to prepare image \"{}\": {}", container.image, why.message));
                return Event::ImageFailed { container: index, reason: why.reason, message: why.message };
            }
        }
        if let Err(failure) = self.volume_images(pod, index, container).await {
            return Event::ImageFailed { container: index, reason: failure.reason, message: failure.message };
        }
        // From here on it stays, whatever becomes of its name.
        match self.images.hold(&self.directory(&pod.metadata.uid), &image) {
            Ok(true) => Event::ImageReady { container: index, digest: image.digest },
            Ok(false) => {
                let message = format!("image {} was removed from this machine meanwhile", container.image);
                Event::ImageFailed { container: index, reason: "ErrImagePull".into(), message }
            }
            Err(why) => Event::ImageFailed { container: index, reason: why.reason.into(), message: why.message },
        }
    }

    /// The images that volumes of a container are.
    async fn volume_images(&self, pod: &Pod, index: usize, container: &Container) -> Result<(), Failure> {
        let mounted = |volume: &&Volume| container.volume_mounts.iter().any(|mount| mount.name == volume.name);
        for source in pod.spec.volumes.iter().filter(mounted).filter_map(|volume| volume.image.as_ref()) {
            let as_if = Container { image: source.reference.clone(), image_pull_policy: source.pull_policy.clone(), ..Container::default() };
            let image = self.image(pod, index, &as_if).await?;
            self.images.hold(&self.directory(&pod.metadata.uid), &image).map_err(|why| Failure {
                reason: why.reason.into(),
                message: why.message,
                fatal: false,
            })?;
        }
        Ok(())
    }

    async fn image(&self, pod: &Pod, index: usize, container: &Container) -> Result<LocalImage, Failure> {
        let reference = container.image.as_str();
        let failure = |reason: &str, message: String| Failure { reason: reason.into(), message, fatal: false };
        let present = self.images.lookup(reference).map_err(|why| {
            if why.reason != "InvalidImageName" {
                return failure(why.reason, why.message);
            }
            let message = format!("Failed to apply default image tag \"{reference}\": {}", why.message);
            self.note(pod, Some(index), true, "InspectFailed", &message);
            failure(why.reason, message)
        })?;
        let policy = match container.image_pull_policy.as_str() {
            "" if images::floating(reference) => "Always",
            "" => "IfNotPresent",
            policy => policy,
        };
        let here = present.is_some();
        match (policy, present) {
            ("Never" | "IfNotPresent", Some(image)) => {
                let message = format!("Container image \"{reference}\" already present on machine and can be accessed by the pod");
                self.note(pod, Some(index), false, "Pulled", &message);
                return Ok(image);
            }
            ("Never", None) => {
                let message = format!("Container image \"{reference}\" is not present with pull policy of Never");
                self.note(pod, Some(index), true, "ErrImageNeverPull", &message);
                return Err(failure("ErrImageNeverPull", message));
            }
            _ => {}
        }
        self.note(pod, Some(index), false, "Pulling", &format!("Pulling image \"{reference}\""));
        let began = Instant::now();
        let credentials = self.credentials(pod);
        let say = |text: &str| self.note(pod, Some(index), false, "Pulling", &format!("Still pulling image \"{reference}\": {text}"));
        match self.images.pull_saying(reference, credentials, say).await {
            Ok(pulled) => {
                let (took, waited) = (go_duration(pulled.took), go_duration(began.elapsed()));
                let message =
                    format!("Successfully pulled image \"{reference}\" in {took} ({waited} including waiting). Image size: {} bytes.", pulled.size);
                self.note(pod, Some(index), false, "Pulled", &message);
                Ok(pulled.image)
            }
            Err(why) => {
                let hint = if here { "; an image of that name is on this machine: imagePullPolicy IfNotPresent takes it" } else { "" };
                let message = format!("{}{hint}", why.message);
                self.note(pod, Some(index), true, "Failed", &format!("Failed to pull image \"{reference}\": {message}"));
                Err(failure(why.reason, message))
            }
        }
    }

    fn credentials(&self, pod: &Pod) -> Keyring {
        let mut keyring = Keyring::default();
        for reference in &pod.spec.image_pull_secrets {
            match env::data(&*self.objects, "secrets", &pod.metadata.namespace, &reference.name) {
                Ok(data) => keyring.add(&data),
                Err(_) => {
                    let message =
                        format!("Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.", reference.name);
                    self.note(pod, None, true, "FailedToRetrieveImagePullSecret", &message);
                }
            }
        }
        keyring
    }
}

/// Milliseconds and seconds as Go prints them: `820ms`, `1.234s`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}
