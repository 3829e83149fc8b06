//! Volumes: configuration and facts as files, empty directories, paths in volumes, and what changes while a container runs.

use super::{all_say, apply, begin, container, field, merge, pod, said};
use anyhow::ensure;
use coracle_tests::{Cluster, Result, eventually};
use serde_json::{Value, json};

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
pub fn configuration_as_files(cluster: &Cluster) -> Result {
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
pub fn facts_as_files(cluster: &Cluster) -> Result {
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
pub fn empty_directories(cluster: &Cluster) -> Result {
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
pub fn paths_in_volumes(cluster: &Cluster) -> Result {
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
pub fn files_follow_their_objects(cluster: &Cluster) -> Result {
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

/// storage/empty_dir_wrapper: many volumes of many pods, made at once.
pub fn many_volumes_at_once(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "many")?;
    let names: Vec<String> = (0..50).map(|at| format!("racey-{at}")).collect();
    let map =
        |name: &String| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": ns }, "data": { "data-1": name } });
    apply(cluster, &names.iter().map(map).collect::<Vec<_>>())?;
    let source = |name: &str| json!({ "configMap": { "name": name, "items": [{ "key": "data-1", "path": "data-1" }] } });
    let sources: Vec<(&str, Value)> = names.iter().map(|name| (name.as_str(), source(name))).collect();
    let (volumes, mounts) = mounted(&sources);
    let script = "for d in /v/*; do test $(cat $d/data-1) = ${d#/v/} && echo ok; done | grep -c ok";
    let of = |at: usize| pod(&ns, &format!("racer-{at}"), &[container("c", script, mounts.clone())], json!({ "volumes": volumes }));
    let pods: Vec<(Value, Vec<&str>)> = (0..5).map(|at| (of(at), vec!["50"])).collect();
    all_say(cluster, &ns, &pods)
}

/// "Should fail non-optional pod creation due to ... does not exist", of both kinds: who waits says for what, and goes on once it is there.
pub fn what_is_missing_is_waited_for(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "missing")?;
    let meta = |name: &str| json!({ "name": name, "namespace": ns });
    let (map, secret) = (
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("there") }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta("there") }),
    );
    apply(cluster, &[map, secret])?;
    let item = json!([{ "key": "data-1", "path": "data-1" }]);
    let sources = [
        ("map", json!({ "configMap": { "name": "none" } }), "configmap \"none\" not found"),
        ("secret", json!({ "secret": { "secretName": "none" } }), "secret \"none\" not found"),
        ("map-key", json!({ "configMap": { "name": "there", "items": item } }), "references non-existent configmap key: data-1"),
        ("secret-key", json!({ "secret": { "secretName": "there", "items": item } }), "references non-existent secret key: data-1"),
    ];
    let pods: Vec<Value> = sources
        .iter()
        .map(|(name, source, _)| {
            let (volumes, mounts) = mounted(&[("volume", source.clone())]);
            pod(&ns, name, &[container("c", "cat /v/volume/data-1", mounts)], json!({ "volumes": volumes }))
        })
        .collect();
    apply(cluster, &pods)?;
    for (name, _, why) in &sources {
        eventually(name, 60, || {
            let events = cluster
                .kubectl(&[
                    "-n",
                    &ns,
                    "get",
                    "events",
                    "--field-selector",
                    &format!("involvedObject.name={name},reason=FailedMount"),
                    "-o",
                    "jsonpath={.items[*].message}",
                ])?
                .ok()?;
            ensure!(events.contains("MountVolume.SetUp failed for volume \"volume\"") && events.contains(why), "{events}");
            ensure!(cluster.status(&ns, name)?["phase"] == "Pending");
            Ok(())
        })?;
    }
    let data = json!({ "data-1": "value-1" });
    let objects = ["none", "there"].iter().flat_map(|name| {
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(name), "data": data });
        [map, json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta(name), "stringData": data })]
    });
    apply(cluster, &objects.collect::<Vec<_>>())?;
    let said = said(cluster, &ns)?;
    ensure!(said.len() == 4 && said.iter().all(|(_, text)| text == "value-1"), "{said:?}");
    Ok(())
}
