use crate::world::World;
use coracle_runtime::Runtime;

pub async fn what_cannot_be_executed_says_why() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    for (program, words) in [
        ("/none", "exec: \"/none\": stat /none: no such file or directory"),
        ("none", "exec: \"none\": executable file not found in $PATH"),
        ("/bin/data", "exec: \"/bin/data\": permission denied"),
        ("/bin", "exec: \"/bin\": is a directory"),
        ("/bin/broken", "exec /bin/broken: exec format error"),
    ] {
        let spec = world.container(&sandbox, &[program]);
        let why = world.start(&spec).await.unwrap_err();
        assert_eq!(why.reason, "StartError", "{}", why.message);
        assert!(why.message.ends_with(words), "{}", why.message);
        assert!(!sandbox.dir.join("runtime/oci/containers").join(format!("{}-0", spec.name)).exists());
    }
    let mut spec = world.container(&sandbox, &["true"]);
    spec.working_dir = Some("/bin/data".into());
    assert!(world.start(&spec).await.is_err(), "a file is no working directory");
    let mut spec = world.container(&sandbox, &["true"]);
    spec.image.content = coracle_runtime::ImageContent::Oci { layers: vec![world.path("gone")] };
    let why = world.start(&spec).await.unwrap_err();
    assert!(why.message.contains("gone"), "{}", why.message);
    assert!(world.runtime.list().await.unwrap()[0].containers.is_empty());
    assert_eq!(world.finish(&world.container(&sandbox, &["true"])).await.0, 0, "the pod is as good as before");
}

pub async fn image_and_pod_say_who_and_where() {
    let world = World::new().await;
    let image = |spec: &mut coracle_runtime::ContainerSpec| {
        let list = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let config = &mut spec.image.config;
        (config.user, config.working_dir, config.entrypoint, config.cmd) = ("web".into(), "/home".into(), list(&["sh", "-c"]), list(&["exit 9"]));
    };
    let script = "id -u; id -g; id -G; pwd; echo $HOME; cat /etc/hostname";
    assert_eq!(world.shell(script, image).await, "33\n33\n33 4\n/home\n/home\nthe-pod");
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &[]);
    image(&mut spec);
    assert_eq!(world.finish(&spec).await.0, 9, "the image's own command line");
    (spec.name, spec.args) = ("args".into(), vec!["exit 8".into()]);
    assert_eq!(world.finish(&spec).await.0, 8);
    let out = world
        .shell("id -u; id -g; id -G; pwd", |spec| {
            (spec.security.run_as_user, spec.security.run_as_group) = (Some(1000), Some(2000));
            spec.security.supplemental_groups = vec![3000];
            spec.working_dir = Some("/made/for/it".into());
        })
        .await;
    assert_eq!(out, "1000\n2000\n2000 3000\n/made/for/it");
}

pub async fn root_is_refused_where_it_must_not_be() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["true"]);
    spec.security.run_as_non_root = true;
    let why = world.start(&spec).await.unwrap_err();
    assert_eq!(why.reason, "CreateContainerConfigError");
    assert!(why.message.contains("image will run as root"), "{}", why.message);
    spec.security.run_as_user = Some(5);
    assert_eq!(world.finish(&spec).await.0, 0);
}
