//! What containers are given and may do: environments, users and rights, init containers.

use super::{IMAGE, all_say, apply, begin, container, env, field, pod, resource};
use anyhow::{Context, ensure};
use coracle_tests::{Cluster, Result, eventually};
use serde_json::{Value, json};

/// common/node/{expansion, containers, downwardapi, configmap, secrets}.
pub fn environments(cluster: &Cluster) -> Result {
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
    // As common/node/file_key_ref: an init container writes what the others are given.
    let mount = json!([{ "name": "config", "mountPath": "/data" }]);
    let writes = container(
        "writes",
        "printf \"# of mine\\nONE='val 1' # more\\nTWO='it is \\$HOME,\\n2'\\n\" > /data/config.env",
        json!({ "volumeMounts": mount }),
    );
    let from_file = |name: &str, key: &str, more: Value| {
        let mut reference = json!({ "volumeName": "config", "path": "config.env", "key": key });
        super::merge(&mut reference, more);
        json!({ "name": name, "valueFrom": { "fileKeyRef": reference } })
    };
    let optional = from_file("NONE", "NONE", json!({ "optional": true }));
    let variables = [from_file("A", "ONE", json!({})), from_file("B", "TWO", json!({})), optional];
    let files = pod(
        &ns,
        "files",
        &[container("given", "echo \"$A/$B/${NONE-none}\"", json!({ "env": variables }))],
        json!({ "initContainers": [writes], "volumes": [{ "name": "config", "emptyDir": {} }] }),
    );
    let hosts = format!("{host} {host}");
    all_say(
        cluster,
        &ns,
        &[
            (values, vec!["foo-value;;bar-value $(FOO) $(NONE)", "test-value", "value-1", "value-1", prefixed, prefixed]),
            (told, vec![&format!("told {ns} told default"), &hosts, "2 67108864 1 33554432", "same", "some"]),
            (files, vec!["val 1/it is $HOME,\n2/none"]),
            (commands, vec!["one two one"]),
        ],
    )
}

/// common/node/{security_context, sysctl, kubelet, kubelet_etc_hosts}, node/security_context.
pub fn users_and_rights(cluster: &Cluster) -> Result {
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
pub fn init_containers(cluster: &Cluster) -> Result {
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
