use super::*;
use coracle_runtime::{Dns, ImageConfig, ImageContent, LinuxSandbox, LocalImage, PodRef, Resources, Security};
use std::time::Duration;

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        pod: PodRef { namespace: "default".into(), name: "pod".into(), uid: "u".into() },
        hostname: "pod".into(),
        domain: String::new(),
        ip: "10.0.0.2".parse().unwrap(),
        dns: Dns::default(),
        labels: Default::default(),
        annotations: Default::default(),
        dir: "/pods/u".into(),
        linux: LinuxSandbox::default(),
    }
}

fn container() -> ContainerSpec {
    ContainerSpec {
        sandbox: "u".into(),
        name: "c".into(),
        attempt: 2,
        image: LocalImage {
            reference: "image".into(),
            digest: "sha256:0".into(),
            content: ImageContent::Oci { layers: Vec::new() },
            config: ImageConfig::default(),
        },
        command: vec!["/bin/true".into()],
        args: Vec::new(),
        env: vec![("B".into(), "pod".into()), ("C".into(), "pod".into())],
        working_dir: None,
        mounts: Vec::new(),
        ports: Vec::new(),
        resources: Resources::default(),
        log_path: "/log".into(),
        log_max_bytes: 1,
        log_max_files: 1,
        request_timeout: Duration::ZERO,
        security: Security::default(),
        stdin: false,
        stdin_once: false,
        tty: false,
        termination: coracle_runtime::Termination::default(),
        joins: None,
    }
}

fn made(spec: &ContainerSpec, sandbox: &SandboxSpec, binds: &[Bind]) -> Value {
    let user = User { uid: 5, gid: 6, groups: vec![7], home: None };
    let have = HashSet::from(["CAP_KILL".to_owned(), "CAP_SYS_ADMIN".to_owned()]);
    let input = Input {
        spec,
        sandbox,
        user: &user,
        root: Path::new("/root"),
        binds,
        devices: &[],
        processes: None,
        users: None,
        group: &group(spec, sandbox),
        unified: Some(&[2 << 20, 1 << 30]),
        have: &have,
        seccomp: None,
    };
    config(&input).unwrap()
}

#[test]
fn image_and_container_are_one_process() {
    let mut spec = container();
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    spec.image.config.env = vec![variable("A", "image"), variable("B", "image"), variable("PATH", "/x")];
    spec.image.config.working_dir = "/srv".into();
    let config = made(&spec, &sandbox(), &[]);
    assert_eq!(config["process"]["env"], json!(["PATH=/x", "HOME=/", "A=image", "B=pod", "C=pod"]));
    assert_eq!(config["process"]["cwd"], "/srv");
    assert_eq!(config["process"]["user"], json!({ "uid": 5, "gid": 6, "additionalGids": [7] }));
    assert_eq!(config["process"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
    assert_eq!(config["process"].get("noNewPrivileges"), None);
    assert_eq!(config["linux"]["cgroupsPath"], "/coracle/besteffort/podu/c-2");
    assert!(config["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    libcontainer_reads(&config);
}

fn libcontainer_reads(config: &Value) {
    serde_json::from_value::<libcontainer::oci_spec::runtime::Spec>(config.clone()).expect("libcontainer reads it");
}

#[test]
fn limits_become_control_group_values() {
    let mut spec = container();
    spec.resources = Resources {
        memory_limit: Some(1 << 20),
        cpu_limit_millis: Some(1500),
        cpu_request_millis: Some(500),
        oom_score_adj: 3,
        huge_pages: [(2 << 20, 4 << 20)].into(),
        reclaim: Reclaim { min: 4096, low: 0, high: Some(8192) },
    };
    let config = made(&spec, &sandbox(), &[]);
    assert_eq!(config["linux"]["resources"]["cpu"], json!({ "shares": 512, "period": 100_000, "quota": 150_000 }));
    assert_eq!(config["linux"]["resources"]["memory"]["limit"], 1 << 20);
    let pages = json!([{ "pageSize": "2MB", "limit": 4 << 20 }, { "pageSize": "1GB", "limit": 0 }]);
    assert_eq!(config["linux"]["resources"]["hugepageLimits"], pages, "what is not asked for cannot be had");
    assert_eq!(config["linux"]["resources"]["unified"], json!({ "memory.min": "4096", "memory.low": "0", "memory.high": "8192" }));
    libcontainer_reads(&config);
}

#[test]
fn nested_volumes_are_mounted_in_order_and_may_replace_the_pods_own_files() {
    let bind = |target: &str, source: &str| Bind { source: source.into(), target: target.into(), read_only: true };
    let binds = [bind("/a/b", "/2"), bind("/a", "/1"), bind("/dev/mqueue", "/q")];
    let config = made(&container(), &sandbox(), &binds);
    let targets: Vec<&str> = config["mounts"].as_array().unwrap().iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    let place = |target: &str| targets.iter().position(|known| *known == target).unwrap();
    assert!(place("/a") < place("/a/b"));
    assert_eq!(targets.iter().filter(|target| **target == "/dev/mqueue").count(), 1);
}

#[test]
fn namespaces_follow_the_pod() {
    let kinds = |sandbox: &SandboxSpec| {
        let config = made(&container(), sandbox, &[]);
        let list = config["linux"]["namespaces"].as_array().unwrap().clone();
        list.iter().map(|namespace| namespace["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&sandbox()), ["mount", "pid", "cgroup"]);
    let mut host = sandbox();
    host.linux.host_pid = true;
    assert_eq!(kinds(&host), ["mount", "cgroup"]);
}

#[test]
fn privileged_hides_nothing() {
    let mut spec = container();
    spec.security.privileged = true;
    let config = made(&spec, &sandbox(), &[]);
    assert_eq!(config["linux"].get("maskedPaths"), None);
    assert_eq!(config["linux"]["resources"]["devices"], json!([{ "allow": true, "access": "rwm" }]));
    assert!(config["process"]["capabilities"]["bounding"].as_array().unwrap().contains(&json!("CAP_SYS_ADMIN")));
    libcontainer_reads(&config);
}
