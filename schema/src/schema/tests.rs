use super::*;
use serde_json::json;

fn schema(group: &str, version: &str, kind: &str) -> Arc<Schema> {
    Schemas::builtin().get(group, version, kind).unwrap()
}

fn decode(schema: &Schema, body: &Value) -> Value {
    schema.decode(body.to_string().as_bytes(), FieldValidation::Strict).unwrap().0
}

fn refused(schema: &Schema, body: &str) -> String {
    schema.decode(body.as_bytes(), FieldValidation::Strict).unwrap_err().message
}

#[test]
fn wrong_types_are_refused_with_gos_words() {
    let deployment = schema("apps", "v1", "Deployment");
    let prefix = "Deployment in version \"v1\" cannot be handled as a Deployment: ";
    for (body, why) in [
        (r#"{"spec":{"replicas":"3"}}"#, "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (r#"{"spec":{"replicas":1.5}}"#, "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        (
            r#"{"spec":{"replicas":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (r#"{"spec":[]}"#, "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (r#"{"metadata":{"labels":{"a":1}}}"#, "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"),
        (r#"{"metadata":{"labels":"x"}}"#, "json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string"),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"name":"a"},{"ports":[{"containerPort":"http"}]}]}}}}"#,
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.template.spec.containers.ports.containerPort of type int32",
        ),
        (
            r#"{"spec":{"template":{"spec":{"restartPolicy":1,"containers":{}}}}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.template.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            r#"{"spec":{"template":{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (r#"{"metadata":{"creationTimestamp":"soon"}}"#, "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\""),
        (
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":true}}}}"#,
            "json: cannot unmarshal bool into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32",
        ),
    ] {
        assert_eq!(refused(&deployment, body), format!("{prefix}{why}"));
    }
    let pod = schema("", "v1", "Pod");
    assert_eq!(
        refused(&pod, r#"{"spec":{"volumes":[{"name":"a","emptyDir":"x"}]}}"#),
        "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource"
    );
    let secret = schema("", "v1", "Secret");
    assert_eq!(
        refused(&secret, r#"{"data":{"a":"!!!!"}}"#),
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"
    );
}

#[test]
fn what_is_no_object_of_this_kind_is_refused() {
    let pod = schema("", "v1", "Pod");
    for (body, why) in [
        (
            "",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
        ),
        (
            "{",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({)",
        ),
        (
            "abc",
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: invalid character 'a' looking for beginning of value (616263)",
        ),
        (
            r#"{"kind":"Service","apiVersion":"v1"}"#,
            "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion",
        ),
        (
            r#"{"kind":"Pod","apiVersion":"v2"}"#,
            "Pod in version \"v2\" cannot be handled as a Pod: no kind \"Pod\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
    ] {
        assert_eq!(refused(&pod, body), why);
    }
    assert!(refused(&pod, "[1]").contains("json: cannot unmarshal array into Go value of type struct"));
    // Deep nesting is refused where values are kept, and skipped without recursion where they are not.
    let deep = "[".repeat(10_000);
    assert!(refused(&pod, &format!("{{\"metadata\":{{\"managedFields\":[{{\"fieldsV1\":{deep}")).contains("exceeded max depth"));
    assert!(refused(&pod, &format!("{{\"foo\":{deep}")).contains("unexpected end of JSON input"));
    assert_eq!(
        refused(&schema("autoscaling", "v1", "HorizontalPodAutoscaler"), r#"{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2"}"#),
        "the API version in the data (autoscaling/v2) does not match the expected API version (autoscaling/v1)"
    );
    // Options come under any group.
    let options = schema("apps", "v1", "DeleteOptions");
    let body = json!({"kind": "DeleteOptions", "apiVersion": "policy/v1", "propagationPolicy": "Foreground", "gracePeriodSeconds": 0});
    assert_eq!(decode(&options, &body), body);
}

#[test]
fn unknown_and_duplicate_fields_are_found_in_order() {
    let pod = schema("", "v1", "Pod");
    let body = r#"{"foo":1,"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}},
        "spec":{"containers":[{"name":"c","imag":"d","ports":[{"containerPort":1,"x":{}}]}],"nodeSelector":{"q":"1"}}}"#;
    let expected = [
        "unknown field \"foo\"",
        "duplicate field \"metadata.name\"",
        "duplicate field \"metadata.labels.x\"",
        "unknown field \"spec.containers[0].imag\"",
        "unknown field \"spec.containers[0].ports[0].x\"",
    ];
    let (value, warnings) = pod.decode(body.as_bytes(), FieldValidation::Warn).unwrap();
    assert_eq!(warnings, expected);
    assert_eq!(value["metadata"]["name"], "b");
    assert!(value.get("foo").is_none());
    let error = pod.decode(body.as_bytes(), FieldValidation::Strict).unwrap_err();
    assert_eq!(
        (error.code, error.message),
        (400, format!("Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {}", expected.join(", ")))
    );
    assert!(pod.decode(body.as_bytes(), FieldValidation::Ignore).unwrap().1.is_empty());
    let mut patched = json!({"spec": {"foo": 1}});
    let error = pod.canonicalize_patched(&mut patched, &[], FieldValidation::Strict, |why| Status::internal(why)).unwrap_err();
    assert_eq!(error.message, "Internal error occurred: strict decoding error: unknown field \"spec.foo\"");
}

#[test]
fn the_canonical_form_is_that_of_gos_round_trip() {
    let pod = schema("", "v1", "Pod");
    let body = json!({
        "metadata": {"name": "a", "labels": {}, "annotations": null, "creationTimestamp": null, "generation": 0,
            "deletionGracePeriodSeconds": 0, "managedFields": [], "ownerReferences": [{"name": "o"}]},
        "spec": {
            "serviceAccount": "sa", "hostNetwork": false, "terminationGracePeriodSeconds": 0, "nodeName": "",
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}, {"name": "d", "downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}}],
            "containers": [{
                "name": "c", "command": [], "env": [{"name": "E", "value": ""}],
                "resources": {"limits": {"cpu": 0.5, "memory": "1.5Gi"}, "requests": {"cpu": "1000m", "memory": 1000}},
                "livenessProbe": {"httpGet": {"port": "web"}, "initialDelaySeconds": 0},
                "securityContext": {},
            }],
        },
        "status": {"podIP": "10.0.0.1", "startTime": "2024-05-01T12:00:00+02:00"},
    });
    let expected = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "deletionGracePeriodSeconds": 0, "managedFields": [{}], "ownerReferences": [{"apiVersion": "", "kind": "", "name": "o", "uid": ""}]},
        "spec": {
            "serviceAccount": "sa", "serviceAccountName": "sa", "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "d", "downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}]}}],
            "containers": [{
                "name": "c", "env": [{"name": "E"}],
                "resources": {"limits": {"cpu": "500m", "memory": "1536Mi"}, "requests": {"cpu": "1", "memory": "1k"}},
                "livenessProbe": {"httpGet": {"port": "web"}},
                "securityContext": {},
            }],
        },
        "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "startTime": "2024-05-01T10:00:00Z"},
    });
    assert_eq!(decode(&pod, &body), expected);
    let mut again = expected.clone();
    pod.canonicalize(&mut again, FieldValidation::Strict).unwrap();
    assert_eq!(again, expected);

    let secret = schema("", "v1", "Secret");
    let folded = decode(&secret, &json!({"metadata": {"name": "s"}, "data": {"a": "YQ==", "n": null}, "stringData": {"b": "hé", "a": "z"}}));
    assert_eq!(folded["data"], json!({"a": "eg==", "b": "aMOp", "n": ""}));
    assert!(folded.get("stringData").is_none());

    let lease = schema("coordination.k8s.io", "v1", "Lease");
    let time = decode(&lease, &json!({"spec": {"renewTime": "2024-05-01T10:00:00.5Z", "leaseDurationSeconds": 40}}));
    assert_eq!(time["spec"], json!({"leaseDurationSeconds": 40, "renewTime": "2024-05-01T10:00:00.500000Z"}));
}

#[test]
fn a_deployment_gets_its_defaults() {
    let deployment = schema("apps", "v1", "Deployment");
    let mut object = decode(
        &deployment,
        &json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}}, "readinessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}]}}}}),
    );
    deployment.default(&mut object);
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"failureThreshold": 3, "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
                    "resources": {"limits": {"cpu": "1"}}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"defaultMode": 420, "secretName": "x"}}],
            }},
        },
        "status": {},
    });
    assert_eq!(object, expected);
    deployment.default(&mut object);
    assert_eq!(object, expected);
}

/// What defaults add to an object, as a merge patch on its canonical form.
fn defaults_add(schema: &Schema, body: Value, additions: Value) {
    let mut object = decode(schema, &body);
    let mut expected = crate::json_merge_patch(&object, &additions);
    schema.canonicalize(&mut expected, FieldValidation::Strict).unwrap();
    schema.default(&mut object);
    assert_eq!(object, expected, "{body}");
}

#[test]
fn kinds_get_the_defaults_of_upstream() {
    let service = schema("", "v1", "Service");
    defaults_add(
        &service,
        json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}}),
        json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}],
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}}),
    );
    defaults_add(
        &service,
        json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "a"}]}}}),
        json!({"spec": {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}, "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "a"}]}}}),
    );
    defaults_add(&service, json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}), json!({"spec": {"sessionAffinity": "None"}}));

    let pod_defaults = json!({"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "enableServiceLinks": true});
    let pod = schema("", "v1", "Pod");
    let mut spec = pod_defaults.clone();
    spec["initContainers"] = json!([{"name": "i", "image": "a@sha256:1", "imagePullPolicy": "IfNotPresent", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}]);
    spec["containers"] = json!([{"name": "c", "image": "a:1", "imagePullPolicy": "IfNotPresent", "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
        "resources": {"limits": {"memory": "1Gi", "cpu": "2"}, "requests": {"memory": "1Gi", "cpu": "500m"}},
        "lifecycle": {"preStop": {"httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}}},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}]);
    spec["volumes"] = json!([{"name": "h", "hostPath": {"path": "/x", "type": ""}},
        {"name": "p", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
            {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}]}},
        {"name": "m", "configMap": {"name": "x", "defaultMode": 256}}]);
    defaults_add(
        &pod,
        json!({"spec": {"hostNetwork": true, "initContainers": [{"name": "i", "image": "a@sha256:1", "resources": {"limits": {"cpu": "1"}}}],
            "containers": [{"name": "c", "image": "a:1", "ports": [{"containerPort": 80}], "lifecycle": {"preStop": {"httpGet": {"port": 1}}},
                "resources": {"limits": {"memory": "1Gi", "cpu": "2"}, "requests": {"cpu": "0.5"}}}],
            "volumes": [{"name": "h", "hostPath": {"path": "/x"}}, {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}, {"name": "m", "configMap": {"name": "x", "defaultMode": 256}}]}}),
        json!({"spec": spec}),
    );
    // Requests of the pod as a whole (KEP-2837): the containers' where they have some, else the limits.
    let mut object = decode(
        &pod,
        &json!({"spec": {"resources": {"limits": {"cpu": "4", "memory": "1Gi"}}, "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}, {"name": "i", "resources": {"requests": {"cpu": "3"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b", "resources": {"requests": {"cpu": "500m"}}}]}}),
    );
    pod.default(&mut object);
    assert_eq!(object["spec"]["resources"]["requests"], json!({"cpu": "3100m", "memory": "1Gi"}));

    let mut template = pod_defaults;
    template.as_object_mut().unwrap().remove("enableServiceLinks");
    defaults_add(
        &schema("batch", "v1", "Job"),
        json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}),
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": false, "template": {"spec": template}}}),
    );
    defaults_add(
        &schema("batch", "v1", "CronJob"),
        json!({"spec": {"schedule": "* * * * *"}}),
        json!({"spec": {"concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"spec": {"template": {"spec": template}}}}}),
    );
    defaults_add(
        &schema("apps", "v1", "StatefulSet"),
        json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "v"}}]}}),
        json!({"spec": {"podManagementPolicy": "OrderedReady", "replicas": 1, "revisionHistoryLimit": 10, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"}, "template": {"spec": template},
            "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}}]}}),
    );
    defaults_add(
        &schema("apps", "v1", "DaemonSet"),
        json!({}),
        json!({"spec": {"revisionHistoryLimit": 10, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}, "template": {"spec": template}}}),
    );
    defaults_add(
        &schema("rbac.authorization.k8s.io", "v1", "RoleBinding"),
        json!({"subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}], "roleRef": {"kind": "Role", "name": "r"}}),
        json!({"subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io"}}),
    );
    defaults_add(
        &schema("", "v1", "Namespace"),
        json!({"metadata": {"name": "n"}}),
        json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "n"}}, "status": {"phase": "Active"}}),
    );
    defaults_add(&schema("", "v1", "Secret"), json!({"data": {"a": "YQ=="}}), json!({"type": "Opaque"}));
    defaults_add(&schema("", "v1", "Node"), json!({"status": {"capacity": {"cpu": "2"}}}), json!({"status": {"allocatable": {"cpu": "2"}}}));
    defaults_add(
        &schema("discovery.k8s.io", "v1", "EndpointSlice"),
        json!({"addressType": "IPv4", "ports": [{"port": 80}]}),
        json!({"ports": [{"name": "", "port": 80, "protocol": "TCP"}]}),
    );
    defaults_add(&schema("scheduling.k8s.io", "v1", "PriorityClass"), json!({"value": 0}), json!({"preemptionPolicy": "PreemptLowerPriority"}));
    defaults_add(
        &schema("authentication.k8s.io", "v1", "TokenRequest"),
        json!({"spec": {"audiences": ["a"]}}),
        json!({"spec": {"expirationSeconds": 3600}}),
    );
    for kind in [("", "v1", "ServiceAccount"), ("", "v1", "ConfigMap"), ("coordination.k8s.io", "v1", "Lease"), ("node.k8s.io", "v1", "RuntimeClass")]
    {
        defaults_add(&schema(kind.0, kind.1, kind.2), json!({"metadata": {"name": "x"}}), json!({}));
    }
}

#[test]
fn every_kind_of_the_registry_has_a_schema() {
    let schemas = Schemas::builtin();
    // Metrics are told and never read from a body; upstream publishes no schema of theirs either.
    for row in coracle_api::Registry::builtin().all().into_iter().filter(|row| &*row.group != "metrics.k8s.io") {
        let connects = |name: &str| matches!(name, "exec" | "attach" | "portforward" | "proxy" | "log");
        assert!(schemas.get(&row.group, &row.version, &row.kind).is_some(), "{}", row.kind);
        for sub in row.subresources.iter().filter(|s| !connects(&s.name)) {
            assert!(schemas.get(&sub.gvk.0, &sub.gvk.1, &sub.gvk.2).is_some(), "{}/{}", row.plural, sub.name);
        }
    }
    for (group, kind) in [
        ("", "DeleteOptions"),
        ("", "Status"),
        ("", "List"),
        ("", "PodList"),
        ("", "Binding"),
        ("autoscaling", "Scale"),
        ("policy", "Eviction"),
        ("authentication.k8s.io", "SelfSubjectReview"),
        ("authorization.k8s.io", "LocalSubjectAccessReview"),
        ("authorization.k8s.io", "SelfSubjectRulesReview"),
    ] {
        assert!(schemas.get(group, "v1", kind).is_some(), "{kind}");
    }
    assert!(
        schemas.get("apps", "v1", "Foo").is_none()
            && schemas.get("apps", "v1beta1", "Deployment").is_none()
            && schemas.get("example.com", "v1", "Pod").is_none()
    );
}

/// The directives, one by one (the patches kubectl makes are covered by the properties).
#[test]
fn strategic_merge_follows_its_directives() {
    let deployment = schema("apps", "v1", "Deployment");
    let pod = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let merge = |current: &Value, patch: Value| deployment.strategic_merge(current, &patch);
    let current = pod(json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "2"}]));
    for (patch, expected) in [
        (json!([{"name": "b", "image": "3"}]), json!([{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "3"}])),
        (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b", "image": "2"}])),
        (json!([{"$patch": "replace"}, {"name": "c"}]), json!([{"name": "c"}])),
        // As upstream: what the patch adds comes first, since nothing says where among the live items it belongs.
        (json!([{"name": "c"}]), json!([{"name": "c"}, {"name": "a", "image": "1", "ports": [{"containerPort": 80}]}, {"name": "b", "image": "2"}])),
        (json!([{"name": "a", "$patch": "replace", "image": "9"}]), json!([])),
        (
            json!([{"name": "a", "image": null, "ports": [{"containerPort": 80, "name": "web"}]}]),
            json!([{"name": "a", "ports": [{"containerPort": 80, "name": "web"}]}, {"name": "b", "image": "2"}]),
        ),
    ] {
        assert_eq!(merge(&current, pod(patch.clone())).unwrap(), pod(expected), "{patch}");
    }
    let ordered = json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}}});
    assert_eq!(merge(&current, ordered).unwrap()["spec"]["template"]["spec"]["containers"][0]["name"], "b");

    let rolling = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let recreate = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(merge(&rolling, recreate).unwrap(), json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let stray = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    assert_eq!(merge(&rolling, stray).unwrap_err().message, "invalid patch format of retainKeys");
    let finalizers = json!({"metadata": {"finalizers": ["a", "b"], "labels": {"x": "1"}}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "labels": {"$patch": "replace", "y": "2"}}});
    assert_eq!(merge(&finalizers, patch).unwrap(), json!({"metadata": {"finalizers": ["c", "b"], "labels": {"y": "2"}}}));
    // Lists that apply would merge but strategic merge replaces.
    let tolerations = json!({"spec": {"template": {"spec": {"tolerations": [{"key": "a"}]}}}});
    let patch = json!({"spec": {"template": {"spec": {"tolerations": [{"key": "b"}]}}}});
    assert_eq!(merge(&tolerations, patch.clone()).unwrap(), patch);

    for (patch, why) in [
        (json!([]), "the patch is no JSON object"),
        (json!({"spec": {"$patch": "grow"}}), "unknown patch type: \"grow\""),
        (pod(json!([{"image": "x"}])), "does not contain declared merge key: name"),
        (pod(json!(["x"])), "list element types are not identical"),
        (pod(json!([{"$patch": "delete"}])), "does not contain declared merge key: name"),
        (json!({"metadata": {"$setElementOrder/finalizers": ["a"], "finalizers": ["b"]}}), "doesn't match $setElementOrder list"),
        (json!({"metadata": {"$setElementOrder": ["a"]}}), "invalid patch format of setElementOrder list"),
    ] {
        let mut current = current.clone();
        current["metadata"] = json!({});
        let error = merge(&current, patch.clone()).unwrap_err();
        assert!(error.code == 400 && error.message.contains(why), "{patch}: {error}");
    }
}

/// A patch of as many elements as a body may hold is a matter of milliseconds, not of their square.
#[test]
fn large_lists_merge_in_proportion_to_their_length() {
    let pod = schema("", "v1", "Pod");
    let names = |from: usize| (from..from + 100_000).map(|n| Value::from(format!("f{n}"))).collect::<Vec<_>>();
    let current = json!({"metadata": {"finalizers": names(0), "ownerReferences": names(0).iter().map(|n| json!({"uid": n})).collect::<Vec<_>>()}});
    let patch = json!({"metadata": {"finalizers": names(50_000), "$setElementOrder/finalizers": names(50_000), "$deleteFromPrimitiveList/finalizers": names(0),
        "ownerReferences": names(50_000).iter().map(|n| json!({"uid": n, "name": n})).collect::<Vec<_>>()}});
    let merged = pod.strategic_merge(&current, &patch).unwrap();
    assert_eq!(merged["metadata"]["ownerReferences"].as_array().unwrap().len(), 150_000);
    assert_eq!(merged["metadata"]["finalizers"].as_array().unwrap().len(), 50_000);
}
