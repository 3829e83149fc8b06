//! What upstream's specs of environments, users, volumes and init containers (`test/e2e/common/{node,storage}`, `test/e2e/{node,storage}`) see in a container: the same pods, with
//! busybox for upstream's images, and what each container says at its end.
//!
//! A row is a container. All of a case's pods are made at once, and a container's words are its termination message, so that one look at the list tells everything.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Result, eventually, is_root, main as suite};
use serde_json::{Value, json};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("environments", environments),
    ("users_and_rights", users_and_rights),
    ("init_containers", init_containers),
    ("configuration_as_files", configuration_as_files),
    ("facts_as_files", facts_as_files),
    ("empty_directories", empty_directories),
    ("paths_in_volumes", paths_in_volumes),
    ("files_follow_their_objects", files_follow_their_objects),
    ("all_containers_begin_again", all_containers_begin_again),
    ("jobs_whose_containers_begin_again", jobs_whose_containers_begin_again),
];

fn main() -> ExitCode {
    if !is_root() {
        println!("SKIPPED, ALL OF THEM: containers need root, and this user is not.");
        return ExitCode::SUCCESS;
    }
    suite(Mode::Whole, CASES)
}

const IMAGE: &str = "busybox:v1";

/// A container that says what its script prints.
fn container(name: &str, script: &str, more: Value) -> Value {
    let mut container = json!({ "name": name, "image": IMAGE, "command": ["sh", "-c", format!("exec > /dev/termination-log 2>&1\n{script}")] });
    merge(&mut container, more);
    container
}

/// Fields of the second replace those of the first.
fn merge(into: &mut Value, more: Value) {
    for (field, value) in more.as_object().into_iter().flatten() {
        into[field] = value.clone();
    }
}

/// A pod that ends, with these containers and more of a spec.
fn pod(ns: &str, name: &str, containers: &[Value], more: Value) -> Value {
    let mut spec = json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": containers });
    merge(&mut spec, more);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns, "labels": { "spec": name }, "annotations": { "builder": "bar" } }, "spec": spec })
}

/// A namespace in which the image can be had.
fn begin(cluster: &Cluster, name: &str) -> Result<String> {
    cluster.import_busybox()?;
    cluster.namespace(name)
}

fn apply(cluster: &Cluster, objects: &[Value]) -> Result {
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).map(drop)
}

/// Waits until every pod of a namespace has ended; what their containers said, by `POD/CONTAINER`.
fn said(cluster: &Cluster, ns: &str) -> Result<Vec<(String, String)>> {
    let list = eventually("all have ended", 120, || {
        let list = cluster.get(&["-n", ns, "pods"])?;
        let open =
            list["items"].as_array().context("no list")?.iter().find(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
        ensure!(open.is_none(), "{}", open.map(|pod| pod["status"].to_string()).unwrap_or_default());
        Ok(list)
    })?;
    let mut said = Vec::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        for one in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let key = format!("{}/{}", text(&pod["metadata"]["name"]), text(&one["name"]));
            said.push((key, text(&one["state"]["terminated"]["message"])));
        }
    }
    Ok(said)
}

/// Makes the pods, each container with what it has to say, and compares: all that differ are told at once.
fn all_say(cluster: &Cluster, ns: &str, pods: &[(Value, Vec<&str>)]) -> Result {
    apply(cluster, &pods.iter().map(|(pod, _)| pod.clone()).collect::<Vec<_>>())?;
    let said = said(cluster, ns)?;
    let mut wrong = Vec::new();
    for (pod, wanted) in pods {
        let containers = pod["spec"]["containers"].as_array().context("containers")?;
        ensure!(containers.len() == wanted.len(), "{} rows for {} containers", wanted.len(), containers.len());
        for (container, wanted) in containers.iter().zip(wanted) {
            let key = format!("{}/{}", pod["metadata"]["name"].as_str().unwrap_or_default(), container["name"].as_str().unwrap_or_default());
            let found = said.iter().find(|(name, _)| *name == key).map(|(_, text)| text.trim_end());
            if found != Some(wanted) {
                wrong.push(format!("{key} says {found:?}, not {wanted:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn env(pairs: &[(&str, &str)]) -> Value {
    json!({ "env": pairs.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>() })
}

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

fn resource(name: &str, resource: &str) -> Value {
    json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource } } })
}

/// common/node/{expansion, containers, downwardapi, configmap, secrets}.
fn environments(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "env")?;
    let data = json!({ "data_1": "value-1", "data_2": "value-2" });
    let meta = |name: &str| json!({ "name": name, "namespace": ns });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta("s"), "stringData": data });
    apply(cluster, &[json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("c"), "data": data }), secret])?;
    let key = |kind: &str, of: &str| json!({ "env": [{ "name": "ONE", "valueFrom": { kind: { "name": of, "key": "data_1" } } }] });
    let from = |kind: &str, of: &str| json!({ "envFrom": [{ kind: { "name": of } }, { "prefix": "p-", kind: { "name": of } }] });
    // A shell hides variables that are no names of its own; it is the first process.
    let all = "tr '\\0' '\\n' < /proc/1/environ | grep data_ | sort";
    let prefixed = "data_1=value-1\ndata_2=value-2\np-data_1=value-1\np-data_2=value-2";
    let values = pod(
        &ns,
        "values",
        &[
            container("composed", "echo $FOOBAR", env(&[("FOO", "foo-value"), ("BAR", "bar-value"), ("FOOBAR", "$(FOO);;$(BAR) $$(FOO) $(NONE)")])),
            container("command", "TEST_VAR=wrong echo \"$(TEST_VAR)\"", env(&[("TEST_VAR", "test-value")])),
            container("config-map", "echo $ONE", key("configMapKeyRef", "c")),
            container("secret", "echo $ONE", key("secretKeyRef", "s")),
            container("all-of-a-map", all, from("configMapRef", "c")),
            container("all-of-a-secret", all, from("secretRef", "s")),
        ],
        json!({}),
    );
    let facts = json!({ "env": [field("NAME", "metadata.name"), field("SPACE", "metadata.namespace"), field("LABEL", "metadata.labels['spec']"), field("ACCOUNT", "spec.serviceAccountName")] });
    let given = json!({ "env": [resource("CPU", "limits.cpu"), resource("MEMORY", "limits.memory"), resource("CPU_ASKED", "requests.cpu"), resource("MEMORY_ASKED", "requests.memory")],
        "resources": { "requests": { "cpu": "250m", "memory": "32Mi" }, "limits": { "cpu": "1250m", "memory": "64Mi" } } });
    let node = &cluster.get(&["nodes"])?["items"][0]["status"];
    let host =
        node["addresses"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "InternalIP")).context("no address")?["address"].clone();
    let host = host.as_str().unwrap_or_default();
    let told = pod(
        &ns,
        "told",
        &[
            container("facts", "echo $NAME $SPACE $LABEL $ACCOUNT", facts),
            container("hosts", "echo $HOST $HOSTS", json!({ "env": [field("HOST", "status.hostIP"), field("HOSTS", "status.hostIPs")] })),
            container("given", "echo $CPU $MEMORY $CPU_ASKED $MEMORY_ASKED", given),
            // The pod's address is the one of its device, its uid that of its directory: both are compared below.
            container(
                "own",
                "test -n \"$UID_\" && test \"$IP\" = $(hostname -i) && test \"$IP\" = \"$IPS\" && echo same",
                json!({ "env": [field("UID_", "metadata.uid"), field("IP", "status.podIP"), field("IPS", "status.podIPs")] }),
            ),
            // Without a limit it is what the node has.
            container(
                "default",
                "test $CPU -ge 1 && test $MEMORY -gt 1000000 && echo some",
                json!({ "env": [resource("CPU", "limits.cpu"), resource("MEMORY", "limits.memory")] }),
            ),
        ],
        json!({}),
    );
    // The image's own command is `sh`; arguments alone are given to it.
    let mut arguments = container("arguments", "", json!({ "args": ["-c", "echo $0 $FROM > /dev/termination-log", "of", "image"] }));
    arguments.as_object_mut().context("an object")?.remove("command");
    let both = json!({ "name": "both", "image": IMAGE, "command": ["sh", "-c", "echo $0 $1 $(VALUE) > /dev/termination-log"], "args": ["$(VALUE)", "two"], "env": [{ "name": "VALUE", "value": "one" }] });
    let commands = pod(&ns, "commands", &[both], json!({}));
    let hosts = format!("{host} {host}");
    all_say(
        cluster,
        &ns,
        &[
            (values, vec!["foo-value;;bar-value $(FOO) $(NONE)", "test-value", "value-1", "value-1", prefixed, prefixed]),
            (told, vec![&format!("told {ns} told default"), &hosts, "2 67108864 1 33554432", "same", "some"]),
            (commands, vec!["one two one"]),
        ],
    )
}

/// common/node/{security_context, sysctl, kubelet, kubelet_etc_hosts}, node/security_context.
fn users_and_rights(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "users")?;
    let context = |value: Value| json!({ "securityContext": value });
    let who = "echo $(id -u) $(id -g)";
    let of_pod = pod(
        &ns,
        "of-pod",
        &[
            container("as-the-pod", who, json!({})),
            container("its-own", who, context(json!({ "runAsUser": 65534, "runAsGroup": 2003 }))),
            container("groups", "id -G", json!({})),
        ],
        context(json!({ "runAsUser": 1001, "runAsGroup": 2002, "fsGroup": 3000, "supplementalGroups": [4000] })),
    );
    let escalates = |allowed: bool| context(json!({ "runAsUser": 1000, "allowPrivilegeEscalation": allowed }));
    let bit = "grep NoNewPrivs /proc/self/status | tr '\\t' ' '";
    let rights = pod(
        &ns,
        "rights",
        &[
            container("writes", "touch /new && echo written", context(json!({ "readOnlyRootFilesystem": false }))),
            container("reads", "touch /new 2> /dev/null || echo refused", context(json!({ "readOnlyRootFilesystem": true }))),
            container("plain", "ip link add dummy0 type dummy 2>&1 | grep -o 'Operation not permitted'", context(json!({ "privileged": false }))),
            container("stays", bit, escalates(false)),
            container("rises", bit, escalates(true)),
            container("drops", "chown 1:1 /tmp 2> /dev/null || echo refused", context(json!({ "capabilities": { "drop": ["CHOWN"] } }))),
        ],
        json!({}),
    );
    let aliases = json!({ "hostAliases": [{ "ip": "123.45.67.89", "hostnames": ["foo", "bar"] }], "volumes": [{ "name": "v", "hostPath": { "path": "/etc/hosts" } }] });
    let own = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/etc/hosts" }] });
    let managed = "head -1 /etc/hosts";
    let names = pod(
        &ns,
        "names",
        &[
            container("managed", managed, json!({})),
            container("aliases", "grep 123.45 /etc/hosts | tr '\\t' ' '", json!({})),
            container("its-own", "grep -c Kubernetes /etc/hosts", own),
            container("name", "hostname; grep -c names /etc/hosts", json!({})),
        ],
        aliases,
    );
    let host = pod(&ns, "host", &[container("c", managed, json!({}))], json!({ "hostNetwork": true }));
    let sysctl = json!({ "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] });
    let kernel = pod(&ns, "kernel", &[container("c", "cat /proc/sys/kernel/shm_rmid_forced", json!({}))], context(sysctl));
    all_say(
        cluster,
        &ns,
        &[
            (of_pod, vec!["1001 2002", "65534 2003", "2002 3000 4000"]),
            (rights, vec!["written", "refused", "Operation not permitted", "NoNewPrivs: 1", "NoNewPrivs: 0", "refused"]),
            (names, vec!["# Kubernetes-managed hosts file.", "123.45.67.89 foo bar", "0", "names\n1"]),
            (host, vec!["# Kubernetes-managed hosts file (host network)."]),
            (kernel, vec!["1"]),
        ],
    )
}

/// common/node/init_container, in all four turns of it.
fn init_containers(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "init")?;
    let of = |name: &str, policy: &str, first: &str, main: &str| {
        let init = json!([container("init1", first, json!({})), container("init2", "true", json!({}))]);
        pod(&ns, name, &[container("run1", main, json!({}))], json!({ "restartPolicy": policy, "initContainers": init }))
    };
    let pods = [
        of("never", "Never", "true", "true"),
        of("always", "Always", "true", "exec sleep 1000"),
        of("fails", "Always", "false", "true"),
        of("fails-for-good", "Never", "false", "true"),
    ];
    apply(cluster, &pods)?;
    let condition = |status: &Value, kind: &str| {
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == kind).unwrap_or_default()
    };
    eventually("all are where they should be", 120, || {
        let status = cluster.status(&ns, "never")?;
        let init = status["initContainerStatuses"].as_array().context("no init containers")?;
        ensure!(status["phase"] == "Succeeded" && condition(&status, "Initialized")["status"] == "True", "{status}");
        ensure!(init.iter().all(|one| one["ready"] == true && one["state"]["terminated"]["exitCode"] == 0), "{status}");
        let status = cluster.status(&ns, "always")?;
        ensure!(status["phase"] == "Running" && condition(&status, "Initialized")["status"] == "True", "{status}");
        let status = cluster.status(&ns, "fails")?;
        let init = &status["initContainerStatuses"];
        ensure!(status["phase"] == "Pending" && init[0]["restartCount"].as_u64() >= Some(1), "{status}");
        ensure!(init[0]["lastState"]["terminated"]["exitCode"] == 1 && init[1]["state"]["waiting"].is_object(), "{status}");
        ensure!(status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing", "{status}");
        ensure!(condition(&status, "Initialized")["message"] == "containers with incomplete status: [init1 init2]", "{status}");
        let status = cluster.status(&ns, "fails-for-good")?;
        let init = &status["initContainerStatuses"];
        ensure!(
            status["phase"] == "Failed" && init[0]["state"]["terminated"]["exitCode"] == 1 && init[1]["state"]["waiting"].is_object(),
            "{status}"
        );
        ensure!(status["containerStatuses"][0]["state"]["waiting"].is_object(), "{status}");
        Ok(())
    })
}

/// Volumes and their mounts below `/v`, read only.
fn mounted(volumes: &[(&str, Value)]) -> (Value, Value) {
    let volume = |(name, source): &(&str, Value)| {
        let mut volume = source.clone();
        volume["name"] = json!(name);
        volume
    };
    let mounts: Vec<Value> = volumes.iter().map(|(name, _)| json!({ "name": name, "mountPath": format!("/v/{name}"), "readOnly": true })).collect();
    (volumes.iter().map(volume).collect(), json!({ "volumeMounts": mounts }))
}

/// common/storage/{configmap_volume, secrets_volume, projected_configmap, projected_secret, projected_combined}.
fn configuration_as_files(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "files")?;
    let (data, meta) = (json!({ "data-1": "value-1", "data-2": "value-2", "data-3": "value-3" }), json!({ "name": "o", "namespace": ns }));
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data, "binaryData": { "dump.bin": "3q2+7w==" } });
    apply(cluster, &[map, json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data })])?;
    let items = |mode: Value| json!([{ "key": "data-2", "path": "path/to/data-2", "mode": mode }]);
    let with = |more: Value| {
        // The same as a volume and as one of several sources; a mode is the volume's, items are the source's.
        let (mut map, mut secret) = (json!({ "name": "o" }), json!({ "secretName": "o" }));
        let mut projected = [json!({ "sources": [{ "configMap": { "name": "o" } }] }), json!({ "sources": [{ "secret": { "name": "o" } }] })];
        for (field, value) in more.as_object().into_iter().flatten() {
            (map[field], secret[field]) = (value.clone(), value.clone());
            for (one, kind) in projected.iter_mut().zip(["configMap", "secret"]) {
                if field == "items" { one["sources"][0][kind][field] = value.clone() } else { one[field] = value.clone() }
            }
        }
        let [pmap, psecret] = projected;
        [
            ("map", json!({ "configMap": map })),
            ("secret", json!({ "secret": secret })),
            ("pmap", json!({ "projected": pmap })),
            ("psecret", json!({ "projected": psecret })),
        ]
    };
    let each = |file: &str| format!("for d in map secret pmap psecret; do cat /v/$d/{file}; stat -L -c ' %A %u:%g' /v/$d/{file}; done");
    let one = |name: &str, more: Value, file: &str, spec: Value| {
        let (volumes, mounts) = mounted(&with(more));
        let mut all = json!({ "volumes": volumes });
        merge(&mut all, spec);
        pod(&ns, name, &[container("c", &each(file), mounts)], all)
    };
    let nobody = || json!({ "securityContext": { "runAsUser": 1000, "runAsGroup": 0 } });
    let group = || json!({ "securityContext": { "runAsUser": 1000, "fsGroup": 1001 } });
    let four = |line: &str| [line; 4].join("\n");
    let projected = json!({ "projected": { "sources": [{ "configMap": { "name": "o", "items": [{ "key": "data-1", "path": "map" }] } }, { "secret": { "name": "o", "items": [{ "key": "data-1", "path": "secret" }] } },
        { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } }] } });
    let again = json!({ "configMap": { "name": "o" } });
    let (volumes, mounts) = mounted(&[("all", projected), ("twice", again.clone()), ("and-again", again)]);
    let many = [
        container("combined", "cat /v/all/map /v/all/secret /v/all/name", mounts.clone()),
        container("several", "cat /v/twice/data-1 /v/and-again/data-1", mounts.clone()),
        container("binary", "od -An -tx1 /v/twice/dump.bin", mounts.clone()),
        container("read-only", "echo x > /v/twice/data-1 || true", mounts),
    ];
    let many = pod(&ns, "many", &many, json!({ "volumes": volumes }));
    all_say(
        cluster,
        &ns,
        &[
            (one("plain", json!({}), "data-1", json!({})), vec![&four("value-1 -rw-r--r-- 0:0")]),
            (one("mode", json!({ "defaultMode": 0o400 }), "data-1", json!({})), vec![&four("value-1 -r-------- 0:0")]),
            (one("nobody", json!({}), "data-1", nobody()), vec![&four("value-1 -rw-r--r-- 0:0")]),
            (one("group", json!({ "defaultMode": 0o440 }), "data-1", group()), vec![&four("value-1 -r--r----- 0:1001")]),
            (one("mapped", json!({ "items": items(Value::Null) }), "path/to/data-2", json!({})), vec![&four("value-2 -rw-r--r-- 0:0")]),
            (one("item-mode", json!({ "items": items(json!(0o400)) }), "path/to/data-2", json!({})), vec![&four("value-2 -r-------- 0:0")]),
            (one("mapped-nobody", json!({ "items": items(Value::Null) }), "path/to/data-2", nobody()), vec![&four("value-2 -rw-r--r-- 0:0")]),
            (many, vec!["value-1value-1many", "value-1value-1", " de ad be ef", "sh: can't create /v/twice/data-1: Read-only file system"]),
        ],
    )
}

/// common/storage/{downwardapi_volume, projected_downwardapi}.
fn facts_as_files(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "facts")?;
    let of = |path: &str, resource: &str, divisor: &str| json!({ "path": path, "resourceFieldRef": { "containerName": "limited", "resource": resource, "divisor": divisor } });
    let at = |path: &str, field: &str| json!({ "path": path, "fieldRef": { "fieldPath": field } });
    let own = |path: &str, resource: &str| json!({ "path": path, "resourceFieldRef": { "containerName": "free", "resource": resource } });
    let mut items = vec![
        at("podname", "metadata.name"),
        at("labels", "metadata.labels"),
        at("annotations", "metadata.annotations"),
        at("uid", "metadata.uid"),
        of("cpu_limit", "limits.cpu", "1m"),
        of("memory_limit", "limits.memory", "1Mi"),
        of("cpu_request", "requests.cpu", "1m"),
        of("memory_request", "requests.memory", "1Mi"),
        own("cpu_node", "limits.cpu"),
        own("memory_node", "limits.memory"),
    ];
    items.push(json!({ "path": "private", "mode": 0o400, "fieldRef": { "fieldPath": "metadata.name" } }));
    let (plain, projected) =
        (json!({ "downwardAPI": { "items": items } }), json!({ "projected": { "sources": [{ "downwardAPI": { "items": items } }] } }));
    let (strict, strict2) = (
        json!({ "downwardAPI": { "items": items, "defaultMode": 0o400 } }),
        json!({ "projected": { "sources": [{ "downwardAPI": { "items": items } }], "defaultMode": 0o400 } }),
    );
    let (volumes, mounts) = mounted(&[("plain", plain), ("projected", projected), ("strict", strict), ("strict2", strict2)]);
    let script = "for d in plain projected; do cd /v/$d; echo $(cat podname) $(cat labels) $(grep ^builder= annotations); for f in cpu_limit memory_limit cpu_request memory_request; do echo -n \"$(cat $f) \"; done
stat -L -c '%A' podname private; test $(cat cpu_node) -ge 1 && test $(cat memory_node) -gt 1000000 && test -s uid && echo some; done; stat -L -c '%A' /v/strict/podname /v/strict2/podname";
    let mut limited = container("limited", script, mounts);
    limited["resources"] = json!({ "requests": { "cpu": "250m", "memory": "32Mi" }, "limits": { "cpu": "1250m", "memory": "64Mi" } });
    let both = pod(&ns, "facts", &[limited, container("free", "true", json!({}))], json!({ "volumes": volumes }));
    let half = "facts spec=\"facts\" builder=\"bar\"\n1250 64 250 32 -rw-r--r--\n-r--------\nsome\n";
    all_say(cluster, &ns, &[(both, vec![&format!("{half}{half}-r--------\n-r--------"), ""])])
}

/// common/storage/empty_dir, storage/empty_dir_wrapper.
fn empty_directories(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "empty")?;
    let script = "stat -c '%A' /memory /disk; df -T /memory | tail -1 | awk '{ print $2 }'
for m in 644 666 777; do for d in /memory /disk; do echo mount-tester > $d/$m; chmod $m $d/$m; cat $d/$m; stat -c '%a %u' $d/$m; done; done";
    let lines = |user: u32| {
        let files: String = ["644", "666", "777"].iter().map(|mode| format!("mount-tester\n{mode} {user}\n").repeat(2)).collect();
        format!("drwxrwxrwx\ndrwxrwxrwx\ntmpfs\n{}", files.trim_end())
    };
    let volumes = json!({ "volumes": [{ "name": "memory", "emptyDir": { "medium": "Memory" } }, { "name": "disk", "emptyDir": {} }] });
    let mounts = || json!({ "volumeMounts": [{ "name": "memory", "mountPath": "/memory" }, { "name": "disk", "mountPath": "/disk" }] });
    let of = |name: &str, user: u32| {
        let mut more = mounts();
        more["securityContext"] = json!({ "runAsUser": user });
        pod(&ns, name, &[container("c", script, more)], volumes.clone())
    };
    let shared = pod(
        &ns,
        "shared",
        &[
            container("reader", "until cat /disk/shared 2> /dev/null; do sleep 0.1; done", mounts()),
            container("writer", "echo Hello from the other one > /disk/new; mv /disk/new /disk/shared", mounts()),
        ],
        volumes.clone(),
    );
    let (root, other) = (lines(0), lines(1001));
    all_say(cluster, &ns, &[(of("root", 0), vec![&root]), (of("other", 1001), vec![&other]), (shared, vec!["Hello from the other one", ""])])
}

/// storage/subpath, and what common/node/expansion says of `subPathExpr`.
fn paths_in_volumes(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "paths")?;
    let meta = json!({ "name": "o", "namespace": ns });
    let data = json!({ "configmap-key": "configmap-value", "passwd": "ours" });
    apply(
        cluster,
        &[
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data }),
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": { "secret-key": "secret-value" } }),
        ],
    )?;
    let volumes = json!([
        { "name": "map", "configMap": { "name": "o" } },
        { "name": "secret", "secret": { "secretName": "o" } },
        { "name": "facts", "downwardAPI": { "items": [{ "path": "downward/podname", "fieldRef": { "fieldPath": "metadata.name" } }] } },
        { "name": "all", "projected": { "sources": [{ "configMap": { "name": "o", "items": [{ "key": "configmap-key", "path": "projected/configmap-key" }] } }] } },
        { "name": "dir", "emptyDir": {} },
    ]);
    let at = |volume: &str, path: &str, to: &str| json!({ "volumeMounts": [{ "name": volume, "mountPath": to, "subPath": path }] });
    let by_name = json!({ "env": [field("POD_NAME", "metadata.name"), field("NOTE", "metadata.annotations['builder']")], "volumeMounts": [
        { "name": "dir", "mountPath": "/part", "subPathExpr": "$(NOTE)/$(POD_NAME)" }, { "name": "dir", "mountPath": "/whole" }] });
    let pod_ = pod(
        &ns,
        "paths",
        &[
            container("secret", "cat /at", at("secret", "secret-key", "/at")),
            container("map", "cat /at", at("map", "configmap-key", "/at")),
            container("over-a-file", "cat /etc/passwd", at("map", "passwd", "/etc/passwd")),
            container("facts", "cat /at/podname", at("facts", "downward", "/at")),
            container("projected", "cat /at/configmap-key", at("all", "projected", "/at")),
            container("by-expression", "touch /whole/bar/paths/test.log && ls /part", by_name),
        ],
        json!({ "volumes": volumes }),
    );
    all_say(cluster, &ns, &[(pod_, vec!["secret-value", "configmap-value", "ours", "paths", "configmap-value", "test.log"])])?;
    // What leads out, or to nowhere yet.
    let waits = |name: &str, value: Value| {
        let mut env = json!({ "name": "POD_NAME" });
        merge(&mut env, value);
        let mounts = json!({ "env": [env], "volumeMounts": [{ "name": "dir", "mountPath": "/part", "subPathExpr": "$(POD_NAME)/x" }] });
        pod(&ns, name, &[container("c", "exec sleep 1000", mounts)], json!({ "volumes": [{ "name": "dir", "emptyDir": {} }] }))
    };
    let later = json!({ "valueFrom": { "fieldRef": { "fieldPath": "metadata.annotations['mysubpath']" } } });
    let names = ["up", "absolute", "later"];
    apply(cluster, &[waits("up", json!({ "value": ".." })), waits("absolute", json!({ "value": "/tmp" })), waits("later", later)])?;
    for name in names {
        eventually("it waits", 60, || {
            let status = cluster.status(&ns, name)?;
            let reason = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
            // Without a value the path is absolute: `/x`.
            ensure!(status["phase"] == "Pending" && reason == "CreateContainerConfigError", "{status}");
            Ok(())
        })?;
    }
    cluster.kubectl(&["-n", &ns, "annotate", "pod", "later", "mysubpath=mypath"])?.ok()?;
    cluster.ready(&ns, "later").map(drop)
}

/// The updates of common/storage: what is optional comes and goes, and labels and annotations change.
fn files_follow_their_objects(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "follow")?;
    let kubectl = |words: &[&str]| cluster.kubectl(&[&["-n", &ns], words].concat())?.ok().map(drop);
    for name in ["gone", "changed"] {
        kubectl(&["create", "cm", name, "--from-literal=data-1=value-1"])?;
        kubectl(&["create", "secret", "generic", name, "--from-literal=data-1=value-1"])?;
    }
    let mut volumes = Vec::new();
    for name in ["gone", "changed", "made"] {
        let source = json!({ "name": name, "optional": true });
        volumes.push((format!("m-{name}"), json!({ "configMap": source })));
        volumes.push((format!("s-{name}"), json!({ "secret": { "secretName": name, "optional": true } })));
        volumes.push((format!("p-{name}"), json!({ "projected": { "sources": [{ "configMap": source }, { "secret": source }] } })));
    }
    let at = |path: &str, field: &str| json!({ "path": path, "fieldRef": { "fieldPath": field } });
    let facts = json!([at("labels", "metadata.labels"), at("annotations", "metadata.annotations")]);
    volumes.push(("facts".into(), json!({ "downwardAPI": { "items": facts } })));
    let named: Vec<(&str, Value)> = volumes.iter().map(|(name, source)| (name.as_str(), source.clone())).collect();
    let (volumes, mounts) = mounted(&named);
    apply(cluster, &[pod(&ns, "watches", &[container("c", "exec sleep 1000", mounts)], json!({ "volumes": volumes }))])?;
    cluster.ready(&ns, "watches")?;
    let look = || cluster.kubectl(&["-n", &ns, "exec", "watches", "--", "sh", "-c", "cd /v; for f in */*; do echo \"$f $(cat $f)\"; done"])?.ok();
    let before = look()?;
    for file in ["m-gone", "s-gone", "p-gone", "m-changed", "s-changed", "p-changed"] {
        ensure!(before.contains(&format!("{file}/data-1 value-1")), "{before}");
    }
    ensure!(!before.contains("-made/data-1"), "{before}");
    for kind in ["cm", "secret"] {
        kubectl(&["delete", kind, "gone"])?;
        let data = if kind == "cm" {
            r#"{"data":{"data-1":null,"data-3":"value-3"}}"#
        } else {
            r#"{"stringData":{"data-3":"value-3"},"data":{"data-1":null}}"#
        };
        kubectl(&["patch", kind, "changed", "-p", data])?;
    }
    kubectl(&["create", "cm", "made", "--from-literal=data-1=value-1"])?;
    kubectl(&["create", "secret", "generic", "made", "--from-literal=data-1=value-1"])?;
    kubectl(&["label", "pod", "watches", "key3=value3"])?;
    kubectl(&["annotate", "pod", "watches", "builder=foo", "--overwrite"])?;
    eventually("all files follow", 120, || {
        let now = look()?;
        for kind in ["m", "s", "p"] {
            ensure!(!now.contains(&format!("{kind}-gone/data-1")) && !now.contains(&format!("{kind}-changed/data-1")), "{now}");
            ensure!(now.contains(&format!("{kind}-changed/data-3 value-3")) && now.contains(&format!("{kind}-made/data-1 value-1")), "{now}");
        }
        ensure!(now.contains("key3=\"value3\"") && now.contains("builder=\"foo\""), "{now}");
        Ok(())
    })
}

/// KEP-5532, as common/node/container_restart_policy has it.
fn all_containers_begin_again(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "again")?;
    let rules = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    let asks = json!({ "restartPolicy": "Never", "restartPolicyRules": rules, "volumeMounts": [{ "name": "w", "mountPath": "/mnt" }] });
    let sidecar = container("sidecar", "exec sleep 1000", json!({ "restartPolicy": "Always" }));
    let once = "test -f /mnt/done && exec sleep 1000; touch /mnt/done; exit 42";
    let containers = [container("source", once, asks), container("regular", "exec sleep 1000", json!({}))];
    let init = json!([container("init", "true", json!({})), sidecar]);
    let one = pod(&ns, "again", &containers, json!({ "initContainers": init, "volumes": [{ "name": "w", "emptyDir": {} }] }));
    apply(cluster, &[one])?;
    eventually("all of them have begun again, once", 120, || {
        let status = cluster.status(&ns, "again")?;
        for list in ["initContainerStatuses", "containerStatuses"] {
            for one in status[list].as_array().context("no containers")? {
                ensure!(one["restartCount"] == 1 && one["lastState"]["terminated"]["reason"] == "RestartingAllContainers", "{status}");
                ensure!(one["state"]["running"].is_object() || one["name"] == "init" && one["state"]["terminated"]["exitCode"] == 0, "{status}");
            }
        }
        let restarting = status["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "AllContainersRestarting").cloned());
        ensure!(status["phase"] == "Running" && restarting.is_some_and(|one| one["status"] == "False"), "{status}");
        Ok(())
    })
}

/// apps/job: tasks that sometimes fail and are started again where they are.
fn jobs_whose_containers_begin_again(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "retries")?;
    let once = container(
        "c",
        "test -f /data/tried && exit 0; touch /data/tried; exit 1",
        json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }),
    );
    let spec = json!({ "restartPolicy": "OnFailure", "containers": [once], "volumes": [{ "name": "data", "emptyDir": {} }] });
    let spec = json!({ "parallelism": 2, "completions": 4, "backoffLimit": 6, "template": { "spec": spec } });
    apply(cluster, &[json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "retries", "namespace": ns }, "spec": spec })])?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=complete", "job/retries", "--timeout=120s"])?.ok()?;
    let (job, pods) = (cluster.get(&["-n", &ns, "job", "retries"])?, cluster.get(&["-n", &ns, "pods"])?);
    ensure!(job["status"]["succeeded"] == 4 && job["status"]["failed"].is_null(), "{}", job["status"]);
    let pods = pods["items"].as_array().context("no list")?;
    let again = |pod: &&Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && pod["status"]["phase"] == "Succeeded";
    ensure!(pods.len() == 4 && pods.iter().all(|pod| again(&pod)), "{pods:?}");
    Ok(())
}
