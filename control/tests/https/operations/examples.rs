//! A small good object of every kind, and what its status may become.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::registry::Resource;
use serde_json::{Value, json};

/// How a row is called here: resource id, and for another form of a resource its group and version.
pub fn id(row: &Resource) -> String {
    match row.stored_as {
        None => row.id(),
        Some(_) => format!("{}.{}", row.plural, row.api_version()),
    }
}

/// Names of three objects of a kind.
pub fn names(id: &str) -> [&'static str; 3] {
    match id {
        "ipaddresses.networking.k8s.io" => ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
        _ => ["one", "two", "three"],
    }
}

/// A request for a client certificate, as kubectl sends it.
pub fn request() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "e2e");
    let key = rcgen::KeyPair::generate().expect("a key");
    STANDARD.encode(params.serialize_request(&key).and_then(|request| request.pem()).expect("a request"))
}

fn devices() -> Value {
    json!({"devices": {"requests": [{"name": "d", "exactly": {"deviceClassName": "c"}}]}})
}

/// Of a kind that nobody has.
fn widgets() -> Value {
    json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}]})
}

fn pod_spec() -> Value {
    json!({"schedulerName": "nobody", "containers": [{"name": "c", "image": "web:1"}]})
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": pod_spec()})
}

fn selector() -> Value {
    json!({"matchLabels": {"app": "a"}})
}

/// What stands in the object besides its metadata, by resource id; `nth` tells three of a kind apart where they must differ.
pub fn body(id: &str, nth: usize) -> Option<Value> {
    Some(match id {
        "configmaps" => json!({"data": {"k": "v"}}),
        "endpoints" => json!({"subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 80}]}]}),
        "events" => {
            json!({"involvedObject": {"kind": "Pod", "name": "p", "namespace": "operations"}, "reason": "Tested", "type": "Normal", "message": "m"})
        }
        "events.events.k8s.io/v1" => json!({
            "regarding": {"kind": "Pod", "name": "p", "namespace": "operations"}, "reason": "Tested", "type": "Normal", "note": "m",
            "action": "Test", "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": "example.com/tests", "reportingInstance": "t-1",
        }),
        "limitranges" => json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "100"}}]}}),
        "namespaces" => json!({}),
        "nodes" => json!({"spec": {"unschedulable": true}}),
        "persistentvolumeclaims" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "persistentvolumes" => json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "none",
            "csi": {"driver": "csi.example.com", "volumeHandle": format!("volume-{nth}")}}}),
        "pods" => json!({"spec": pod_spec()}),
        "resourcequotas" => json!({"spec": {"hard": {"count/widgets.example.com": "5"}}}),
        "secrets" => json!({"stringData": {"k": "v"}}),
        "serviceaccounts" => json!({}),
        "services" => json!({"spec": {"type": "LoadBalancer", "selector": {"app": "a"}, "ports": [{"port": 80}]}}),
        "mutatingwebhookconfigurations.admissionregistration.k8s.io" | "validatingwebhookconfigurations.admissionregistration.k8s.io" => {
            let client = json!({"service": {"name": "hook", "namespace": "operations"}});
            json!({"webhooks": [{"name": "a.example.com", "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "rules": [{"operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}]}]})
        }
        "validatingadmissionpolicies.admissionregistration.k8s.io" => {
            json!({"spec": {"matchConstraints": widgets(), "validations": [{"expression": "object.spec.size < 10"}]}})
        }
        "mutatingadmissionpolicies.admissionregistration.k8s.io" => {
            let adds = json!({"expression": "Object{metadata: Object.metadata{annotations: {'a': 'b'}}}"});
            json!({"spec": {"matchConstraints": widgets(), "reinvocationPolicy": "Never", "failurePolicy": "Fail",
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": adds}]}})
        }
        "validatingadmissionpolicybindings.admissionregistration.k8s.io" => {
            json!({"spec": {"policyName": "replicalimit-policy.example.com", "validationActions": ["Deny"]}})
        }
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io" => json!({"spec": {"policyName": "replicalimit-policy.example.com"}}),
        "podtemplates" => json!({"template": template()}),
        "replicationcontrollers" => json!({"spec": {"replicas": 0, "selector": {"app": "a"}, "template": template()}}),
        "controllerrevisions.apps" => json!({"revision": 1, "data": {"spec": {}}}),
        "daemonsets.apps" => {
            let mut template = template();
            template["spec"]["nodeSelector"] = json!({"nowhere": "yes"});
            json!({"spec": {"selector": selector(), "template": template}})
        }
        "statefulsets.apps" => json!({"spec": {"replicas": 0, "selector": selector(), "template": template(), "serviceName": "s"}}),
        "cronjobs.batch" => {
            let mut template = json!({"spec": pod_spec()});
            template["spec"]["restartPolicy"] = "Never".into();
            json!({"spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": template}}}})
        }
        "horizontalpodautoscalers.autoscaling" | "horizontalpodautoscalers.autoscaling/v1" => {
            json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"}, "maxReplicas": 3}})
        }
        "poddisruptionbudgets.policy" => json!({"spec": {"minAvailable": 1, "selector": selector()}}),
        "deployments.apps" => json!({"spec": {"replicas": 0, "selector": selector(), "template": template()}}),
        "replicasets.apps" => json!({"spec": {"replicas": 0, "selector": selector(), "template": template()}}),
        "jobs.batch" => {
            let mut template = json!({"spec": pod_spec()});
            template["spec"]["restartPolicy"] = "Never".into();
            json!({"spec": {"suspend": true, "template": template}})
        }
        "leases.coordination.k8s.io" => json!({"spec": {"holderIdentity": "me", "leaseDurationSeconds": 30}}),
        "endpointslices.discovery.k8s.io" => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.9"]}], "ports": [{"name": "http", "port": 80}]})
        }
        "ingressclasses.networking.k8s.io" => json!({"spec": {"controller": "example.com/controller"}}),
        "ingresses.networking.k8s.io" => json!({"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}}),
        "ipaddresses.networking.k8s.io" => {
            json!({"spec": {"parentRef": {"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "g"}}})
        }
        "networkpolicies.networking.k8s.io" => json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": selector()}]}]}}),
        "servicecidrs.networking.k8s.io" => json!({"spec": {"cidrs": [format!("198.51.100.{}/28", 16 * nth)]}}),
        "runtimeclasses.node.k8s.io" => json!({"handler": "wasm"}),
        "clusterrolebindings.rbac.authorization.k8s.io" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "u"}]})
        }
        "clusterroles.rbac.authorization.k8s.io" | "roles.rbac.authorization.k8s.io" => {
            json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})
        }
        "rolebindings.rbac.authorization.k8s.io" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]})
        }
        "certificatesigningrequests.certificates.k8s.io" => {
            json!({"spec": {"request": request(), "signerName": "example.com/e2e", "usages": ["digital signature", "client auth"], "expirationSeconds": 3600}})
        }
        "flowschemas.flowcontrol.apiserver.k8s.io" => {
            let rule = json!({"subjects": [{"kind": "User", "user": {"name": "u"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]});
            json!({"spec": {"priorityLevelConfiguration": {"name": "global-default"}, "matchingPrecedence": 9999, "rules": [rule]}})
        }
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io" => {
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}})
        }
        "deviceclasses.resource.k8s.io" => json!({"spec": {"selectors": [{"cel": {"expression": "device.driver == 'd.example.com'"}}]}}),
        "resourceclaims.resource.k8s.io" => json!({"spec": devices()}),
        "resourceclaimtemplates.resource.k8s.io" => json!({"spec": {"spec": devices()}}),
        "resourceslices.resource.k8s.io" => json!({"spec": {"driver": "d.example.com", "allNodes": true, "devices": [{"name": "d"}],
            "pool": {"name": format!("pool-{nth}"), "generation": 1, "resourceSliceCount": 1}}}),
        "priorityclasses.scheduling.k8s.io" => json!({"value": 7}),
        "csidrivers.storage.k8s.io" => json!({"spec": {"podInfoOnMount": true}}),
        "csinodes.storage.k8s.io" => json!({"spec": {"drivers": [{"name": "csi.example.com", "nodeID": "n"}]}}),
        "csistoragecapacities.storage.k8s.io" => json!({"storageClassName": "c", "capacity": "1Gi"}),
        "storageclasses.storage.k8s.io" => json!({"provisioner": "example.com/p"}),
        "volumeattachments.storage.k8s.io" => {
            json!({"spec": {"attacher": "csi.example.com", "nodeName": "n", "source": {"persistentVolumeName": format!("volume-{nth}")}}})
        }
        "volumeattributesclasses.storage.k8s.io" => json!({"driverName": "csi.example.com", "parameters": {"speed": "high"}}),
        _ => return None,
    })
}

/// A field that upstream's specs change, by its pointer, and what it becomes one after the other.
pub fn changes(id: &str) -> Option<(&'static str, [Value; 2])> {
    Some(match id {
        "validatingadmissionpolicies.admissionregistration.k8s.io" => ("/spec/failurePolicy", [json!("Ignore"), json!("Fail")]),
        "validatingadmissionpolicybindings.admissionregistration.k8s.io" => ("/spec/validationActions", [json!(["Warn"]), json!(["Deny"])]),
        "mutatingadmissionpolicies.admissionregistration.k8s.io" => ("/spec/reinvocationPolicy", [json!("IfNeeded"), json!("Never")]),
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io" => {
            ("/spec/policyName", [json!("new-policy.example.com"), json!("replicalimit-policy.example.com")])
        }
        "flowschemas.flowcontrol.apiserver.k8s.io" => ("/spec/matchingPrecedence", [json!(9999), json!(9000)]),
        "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io" => ("/spec/limited/nominalConcurrencyShares", [json!(4), json!(6)]),
        "configmaps" => ("/data/valueName", [json!("value"), json!("updated")]),
        "leases.coordination.k8s.io" => ("/spec/holderIdentity", [json!("holder2"), json!("holder3")]),
        _ => return None,
    })
}

/// A merge patch of the status, for kinds that have one.
pub fn status(id: &str) -> Option<Value> {
    let condition = json!({"type": "Tested", "status": "True", "reason": "E2E", "message": "m", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let plain = json!({"type": "Tested", "status": "True", "reason": "E2E", "message": "m"});
    Some(match id {
        "namespaces"
        | "nodes"
        | "persistentvolumeclaims"
        | "pods"
        | "replicationcontrollers"
        | "daemonsets.apps"
        | "deployments.apps"
        | "replicasets.apps"
        | "statefulsets.apps"
        | "jobs.batch" => {
            json!({"conditions": [plain]})
        }
        "horizontalpodautoscalers.autoscaling" | "horizontalpodautoscalers.autoscaling/v1" => {
            json!({"currentReplicas": 2, "desiredReplicas": 2, "lastScaleTime": "2026-01-02T03:04:05Z"})
        }
        "cronjobs.batch" => json!({"lastScheduleTime": "2026-01-02T03:04:05Z"}),
        "poddisruptionbudgets.policy" => json!({"conditions": [condition]}),
        "persistentvolumes" => json!({"message": "StatusPatched", "reason": "E2E"}),
        "resourcequotas" => json!({"hard": {"count/widgets.example.com": "5"}, "used": {"count/widgets.example.com": "1"}}),
        "services" | "ingresses.networking.k8s.io" => {
            let mut ingress = json!({"ip": "203.0.113.1"});
            if id == "services" {
                ingress["ipMode"] = "VIP".into();
            }
            json!({"loadBalancer": {"ingress": [ingress]}})
        }
        "certificatesigningrequests.certificates.k8s.io" => json!({"conditions": [plain]}),
        "servicecidrs.networking.k8s.io"
        | "validatingadmissionpolicies.admissionregistration.k8s.io"
        | "flowschemas.flowcontrol.apiserver.k8s.io"
        | "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io" => {
            json!({"conditions": [condition]})
        }
        "resourceclaims.resource.k8s.io" => {
            json!({"allocation": {"devices": {"results": [{"request": "d", "driver": "d.example.com", "pool": "p", "device": "d"}]}}})
        }
        "volumeattachments.storage.k8s.io" => json!({"attached": true}),
        _ => return None,
    })
}

/// Kinds whose writes of the status keep labels and annotations as they are.
pub const STATUS_ALONE: &[&str] = &[
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "resourceclaims.resource.k8s.io",
    "servicecidrs.networking.k8s.io",
    "volumeattachments.storage.k8s.io",
];

/// Kinds that a controller changes or removes meanwhile, so that their conditions are not compared.
pub const BUSY: &[&str] = &[
    "nodes",
    "replicationcontrollers",
    "daemonsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "cronjobs.batch",
    "jobs.batch",
    "horizontalpodautoscalers.autoscaling",
    "horizontalpodautoscalers.autoscaling/v1",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "servicecidrs.networking.k8s.io",
    "poddisruptionbudgets.policy",
];
