//! Workloads of every kind as kubectl shows and steers them, against one cluster.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Result, eventually, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("stateful_sets_start_in_order", stateful_sets_start_in_order),
    ("stateful_sets_roll_by_partition", stateful_sets_roll_by_partition),
    ("daemon_sets_roll_out", daemon_sets_roll_out),
    ("replication_controllers_scale", replication_controllers_scale),
    ("cron_jobs_start_by_hand", cron_jobs_start_by_hand),
    ("indexed_jobs_count_their_indexes", indexed_jobs_count_their_indexes),
    ("draining_keeps_budgets", draining_keeps_budgets),
    ("objects_in_one_line", objects_in_one_line),
    ("certificate_requests_are_judged", certificate_requests_are_judged),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

/// A namespace of one case and its kubectl.
struct Place<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl<'a> Place<'a> {
    fn new(cluster: &'a Cluster, name: &str) -> Result<Self> {
        Ok(Self { cluster, namespace: cluster.namespace(name)? })
    }

    /// What kubectl prints when it succeeds; `words` are split at spaces.
    fn ok(&self, words: &str) -> Result<String> {
        self.output(words)?.ok()
    }

    /// What kubectl prints when it fails.
    fn err(&self, words: &str) -> Result<String> {
        self.output(words)?.err()
    }

    fn output(&self, words: &str) -> Result<coracle_tests::Output> {
        let all: Vec<&str> = ["-n", &self.namespace].into_iter().chain(words.split(' ')).collect();
        self.cluster.kubectl(&all)
    }

    fn apply(&self, manifests: &str) -> Result<String> {
        self.cluster.kubectl_with(&["-n", &self.namespace, "apply", "-f", "-"], manifests)?.ok()
    }

    /// Fails unless kubectl prints all of `parts`; runs of spaces count as one.
    fn shows(&self, words: &str, parts: &[&str]) -> Result {
        let text = self.ok(words)?;
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            ensure!(squeezed.contains(part), "{part:?} is missing in what `kubectl {words}` prints:\n{text}");
        }
        Ok(())
    }

    /// Waits until kubectl prints all of `parts`.
    fn comes_to_show(&self, words: &str, parts: &[&str]) -> Result {
        eventually(words, 60, || self.shows(words, parts))
    }
}

fn template(name: &str, image: &str) -> String {
    format!(
        "  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: web, image: '{image}', ports: [{{containerPort: 8080}}]}}
"
    )
}

fn stateful_set(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: {name}}}\nspec:\n  serviceName: {name}\n  replicas: {replicas}\n{}",
        template(name, image)
    )
}

fn daemon_set(name: &str) -> String {
    format!("apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: {name}}}\nspec:\n{}", template(name, "hello:v1"))
}

fn deployment(name: &str, replicas: u32) -> String {
    format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n{}", template(name, "hello:v1"))
}

fn stateful_sets_start_in_order(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "ordered")?;
    // The first never becomes ready, so that none follows.
    place.apply(&stateful_set("db", "not.there:v1", 3))?;
    place.comes_to_show("get pods", &["db-0 0/1"])?;
    place.comes_to_show("get pods", &["ErrImage"]).or_else(|_| place.shows("get pods", &["ImagePullBackOff"]))?;
    ensure!(place.ok("get pods -o name")?.trim() == "pod/db-0");
    place.shows("get sts", &["NAME READY AGE db 0/3"])?;
    // A set that is stuck takes a new template only when its broken pod is taken away.
    place.ok("set image sts/db web=hello:v1")?;
    place.ok("delete pod db-0")?;
    place.shows("rollout status sts/db --timeout=60s", &["partitioned roll out complete: 3 new pods have been updated"])?;
    place.shows("get sts -o wide", &["NAME READY AGE CONTAINERS IMAGES db 3/3", "web hello:v1"])?;
    ensure!(place.ok("get pods -o name")?.split_whitespace().eq(["pod/db-0", "pod/db-1", "pod/db-2"]));
    ensure!(place.ok("get pod db-1 -o jsonpath={.spec.hostname}.{.spec.subdomain}")? == "db-1.db");
    place.shows("get pod db-1 --show-labels", &["apps.kubernetes.io/pod-index=1", "statefulset.kubernetes.io/pod-name=db-1"])?;
    place.shows("scale sts db --replicas=1", &["statefulset.apps/db scaled"])?;
    eventually("one pod is left", 60, || {
        let left = place.ok("get pods -o name")?;
        ensure!(left.trim() == "pod/db-0", "{left}");
        Ok(())
    })?;
    place.shows(
        "describe sts db",
        &[
            "Replicas: 1 desired",
            "Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
            "SuccessfulCreate",
            "Create Pod db-2 in StatefulSet db successful",
            "SuccessfulDelete",
            "Delete Pod db-2 in StatefulSet db successful",
        ],
    )?;
    place.shows("delete sts db --cascade=orphan", &["statefulset.apps \"db\" deleted"])?;
    ensure!(place.ok("get pod db-0 -o jsonpath={.metadata.ownerReferences}")?.is_empty(), "an orphan has no owner");
    Ok(())
}

fn stateful_sets_roll_by_partition(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "partitions")?;
    place.apply(&stateful_set("db", "hello:v1", 3))?;
    place.ok("rollout status sts/db --timeout=60s")?;
    let partition = |number: u32| {
        let patch = format!(r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"partition":{number}}}}}}}}}"#);
        cluster.kubectl(&["-n", &place.namespace, "patch", "sts", "db", "-p", &patch])?.ok()
    };
    let images = || place.ok("get pods -o jsonpath={.items[*].spec.containers[0].image}");
    partition(2)?;
    place.ok("set image sts/db web=web:v1")?;
    place.shows("rollout status sts/db --timeout=60s", &["partitioned roll out complete: 1 new pods have been updated"])?;
    ensure!(images()? == "hello:v1 hello:v1 web:v1", "{}", images()?);
    partition(0)?;
    place.shows("rollout status sts/db --timeout=60s", &["partitioned roll out complete: 3 new pods have been updated"])?;
    ensure!(images()? == "web:v1 web:v1 web:v1", "{}", images()?);
    place.shows("rollout history sts/db", &["statefulset.apps/db", "REVISION CHANGE-CAUSE 1 <none> 2 <none>"])?;
    place.shows("rollout history sts/db --revision=1", &["Image: hello:v1"])?;
    place.shows("rollout undo sts/db", &["statefulset.apps/db rolled back"])?;
    place.ok("rollout status sts/db --timeout=60s")?;
    ensure!(images()? == "hello:v1 hello:v1 hello:v1", "{}", images()?);
    place.shows("rollout history sts/db", &["2 <none> 3 <none>"])?;
    place.shows("get controllerrevisions", &["NAME CONTROLLER REVISION AGE", "statefulset.apps/db 3"])?;
    place.shows("rollout restart sts/db", &["statefulset.apps/db restarted"])?;
    place.ok("rollout status sts/db --timeout=60s").map(drop)
}

fn daemon_sets_roll_out(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "daemons")?;
    place.apply(&daemon_set("agent"))?;
    place.shows("rollout status ds/agent --timeout=60s", &["daemon set \"agent\" successfully rolled out"])?;
    place.shows("get ds", &["NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE", "agent 1 1 1 1 1 <none>"])?;
    place.shows(
        "describe ds agent",
        &[
            "Desired Number of Nodes Scheduled: 1",
            "Number of Nodes Misscheduled: 0",
            "Pods Status: 1 Running",
            "SuccessfulCreate",
            "Created pod: agent-",
        ],
    )?;
    place.ok("set image ds/agent web=web:v1")?;
    place.ok("rollout status ds/agent --timeout=60s")?;
    ensure!(place.ok("get pods -l app=agent -o jsonpath={.items[*].spec.containers[0].image}")? == "web:v1");
    place.shows("rollout history ds/agent", &["REVISION CHANGE-CAUSE 1 <none> 2 <none>"])?;
    place.shows("rollout undo ds/agent", &["daemonset.apps/agent rolled back"])?;
    place.ok("rollout status ds/agent --timeout=60s")?;
    ensure!(place.ok("get ds agent -o jsonpath={.spec.template.spec.containers[0].image}")? == "hello:v1");
    place.shows("rollout restart ds/agent", &["daemonset.apps/agent restarted"])?;
    place.ok("rollout status ds/agent --timeout=60s")?;
    let elsewhere = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"where"}}}}}"#;
    cluster.kubectl(&["-n", &place.namespace, "patch", "ds", "agent", "-p", elsewhere])?.ok()?;
    place.comes_to_show("get ds", &["agent 0 0 0 0 0 no=where"])
}

fn replication_controllers_scale(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "controllers")?;
    let body = template("old", "hello:v1").replace("{matchLabels: {app: old}}", "{app: old}");
    place.apply(&format!("apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: old}}\nspec:\n  replicas: 1\n{body}"))?;
    place.comes_to_show("get rc", &["NAME DESIRED CURRENT READY AGE old 1 1 1"])?;
    place.shows("scale rc old --replicas=2 --current-replicas=1", &["replicationcontroller/old scaled"])?;
    place.comes_to_show("get rc -o wide", &["old 2 2 2", "web hello:v1 app=old"])?;
    place.shows("expose rc old --port=80 --target-port=8080", &["service/old exposed"])?;
    place.comes_to_show("get endpointslices", &["ADDRESSTYPE PORTS ENDPOINTS", "IPv4 8080"])?;
    place.shows(
        "describe rc old",
        &["Replicas: 2 current / 2 desired", "Pods Status: 2 Running / 0 Waiting / 0 Succeeded / 0 Failed", "SuccessfulCreate"],
    )?;
    ensure!(place.err("scale rc old --replicas=5 --current-replicas=1")?.contains("Expected replicas to be 1, was 2"));
    place.ok("delete rc old")?;
    eventually("no pod is left", 60, || {
        let left = place.ok("get pods -o name")?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

fn cron_jobs_start_by_hand(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "nightly")?;
    let cron = ["-n", &place.namespace, "create", "cronjob", "tick", "--image=probe:v1", "--schedule=0 0 1 1 *", "--", "probe", "count", "1", "1"];
    ensure!(cluster.kubectl(&cron)?.ok()? == "cronjob.batch/tick created\n");
    place.shows("get cronjobs", &["NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE", "tick 0 0 1 1 * <none> False 0 <none>"])?;
    place.shows("create job now --from=cronjob/tick", &["job.batch/now created"])?;
    place.shows("wait --for=condition=complete job/now --timeout=60s", &["job.batch/now condition met"])?;
    place.shows("get jobs", &["NAME STATUS COMPLETIONS DURATION AGE", "now Complete 1/1"])?;
    ensure!(place.ok("logs job/now")? == "line 1\n");
    let job = cluster.get(&["-n", &place.namespace, "job", "now"])?;
    ensure!(
        job["metadata"]["ownerReferences"][0]["name"] == "tick" && job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    );
    place.shows(
        "describe cronjob tick",
        &["Schedule: 0 0 1 1 *", "Concurrency Policy: Allow", "Successful Job History Limit: 3", "Command: probe count 1 1"],
    )?;
    cluster.kubectl(&["-n", &place.namespace, "patch", "cronjob", "tick", "-p", r#"{"spec":{"suspend":true}}"#])?.ok()?;
    place.shows("get cj", &["tick 0 0 1 1 * <none> True"])?;
    ensure!(place.err("create cronjob bad --image=probe:v1 --schedule=never")?.contains("spec.schedule: Invalid value: \"never\""));
    // What runs every minute runs at the next one.
    let cron = ["-n", &place.namespace, "create", "cronjob", "each", "--image=probe:v1", "--schedule=* * * * *", "--", "probe", "count", "1", "1"];
    cluster.kubectl(&cron)?.ok()?;
    eventually("its first job", 90, || place.shows("get jobs", &["each-"]))?;
    place.comes_to_show("describe cronjob each", &["SuccessfulCreate", "Created job each-"])?;
    place.ok("delete cronjob tick each")?;
    eventually("its jobs go with it", 60, || {
        let left = place.ok("get jobs,pods -o name")?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

fn indexed_jobs_count_their_indexes(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "indexed")?;
    place.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: parts}
spec:
  completionMode: Indexed
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: part, image: 'probe:v1', args: [env, JOB_COMPLETION_INDEX]}]
",
    )?;
    place.ok("wait --for=condition=complete job/parts --timeout=60s")?;
    place.shows("get job parts -o wide", &["parts Complete 3/3", "part probe:v1", "batch.kubernetes.io/controller-uid="])?;
    place.shows(
        "describe job parts",
        &[
            "Parallelism: 2",
            "Completion Mode: Indexed",
            "Completed Indexes: 0-2",
            "0 Active (0 Ready) / 3 Succeeded / 0 Failed",
            "SuccessfulCreate",
            "Job completed",
        ],
    )?;
    for index in 0..3 {
        let logs = place.ok(&format!("logs -l batch.kubernetes.io/job-completion-index={index}"))?;
        ensure!(logs == format!("JOB_COMPLETION_INDEX={index}\n"), "{logs}");
    }
    place.apply(
        "apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template:
    spec: {restartPolicy: Never, containers: [{name: bad, image: 'probe:v1', args: [exit, '3']}]}
",
    )?;
    place.ok("wait --for=condition=failed job/bad --timeout=60s")?;
    place.shows("get job bad", &["bad Failed 0/1"])?;
    place.shows("describe job bad", &["BackoffLimitExceeded", "Job has reached the specified backoff limit"])
}

fn draining_keeps_budgets(_: &Cluster) -> Result {
    // Of its own, because the only node is closed for a while.
    let cluster = Cluster::start(Mode::Whole)?;
    let place = Place::new(&cluster, "drained")?;
    place.apply(&deployment("shop", 2))?;
    place.apply(&daemon_set("agent"))?;
    place.shows("create pdb guard --selector=app=shop --min-available=2", &["poddisruptionbudget.policy/guard created"])?;
    place.ok("rollout status deploy/shop --timeout=60s")?;
    place.ok("rollout status ds/agent --timeout=60s")?;
    place.comes_to_show("get pdb", &["NAME MIN AVAILABLE MAX UNAVAILABLE ALLOWED DISRUPTIONS AGE guard 2 N/A 0"])?;
    place.comes_to_show("describe pdb guard", &["Min available: 2", "Allowed disruptions: 0", "Current: 2", "Desired: 2", "Total: 2"])?;
    let refused = place.err("drain test-node --timeout=3s")?;
    ensure!(refused.contains("cannot delete DaemonSet-managed Pods"), "{refused}");
    let refused = place.err("drain test-node --ignore-daemonsets --timeout=3s")?;
    ensure!(refused.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{refused}");
    place.shows("get nodes", &["Ready,SchedulingDisabled"])?;
    place.shows("describe node test-node", &["node.kubernetes.io/unschedulable:NoSchedule", "Unschedulable: true"])?;
    let patch = r#"{"spec":{"minAvailable":0}}"#;
    cluster.kubectl(&["-n", &place.namespace, "patch", "pdb", "guard", "--type=merge", "-p", patch])?.ok()?;
    place.comes_to_show("get pdb", &["guard 0 N/A 2"])?;
    place.shows("drain test-node --ignore-daemonsets --timeout=60s", &["evicting pod drained/shop-", "node/test-node drained"])?;
    place.comes_to_show("get pods -l app=shop", &["0/1 Pending"])?;
    place.comes_to_show("describe pods -l app=shop", &["FailedScheduling", "1 node(s) were unschedulable"])?;
    place.shows("get ds agent", &["agent 1 1 1 1 1"])?;
    place.shows("uncordon test-node", &["node/test-node uncordoned"])?;
    place.ok("rollout status deploy/shop --timeout=60s")?;
    cluster.stop()
}

fn objects_in_one_line(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "oneline")?;
    place.shows("create quota few --hard=pods=5,cpu=1,memory=1Gi", &["resourcequota/few created"])?;
    place.shows("describe quota few", &["Name: few", "Resource Used Hard"])?;
    place.shows(
        "create ingress door --rule=shop.example.com/*=shop:80 --rule=shop.example.com/v2=shop:http,tls=secret --class=front",
        &["ingress.networking.k8s.io/door created"],
    )?;
    place.shows("get ingress", &["NAME CLASS HOSTS ADDRESS PORTS AGE door front shop.example.com 80, 443"])?;
    place.shows(
        "describe ingress door",
        &["Ingress Class: front", "TLS: secret terminates shop.example.com", "Host Path Backends", "shop:80", "/v2 shop:http"],
    )?;
    place.shows("create priorityclass high --value=1000 --description=first", &["priorityclass.scheduling.k8s.io/high created"])?;
    place.shows("get priorityclass high", &["NAME VALUE GLOBAL-DEFAULT AGE PREEMPTIONPOLICY", "high 1000 false", "PreemptLowerPriority"])?;
    place.shows(
        "describe priorityclass high",
        &["Value: 1000", "GlobalDefault: false", "PreemptionPolicy: PreemptLowerPriority", "Description: first"],
    )?;
    place.shows("create role reader --verb=get,list --resource=pods,deployments.apps", &["role.rbac.authorization.k8s.io/reader created"])?;
    place.shows(
        "describe role reader",
        &["Resources Non-Resource URLs Resource Names Verbs", "pods [] [] [get list]", "deployments.apps [] [] [get list]"],
    )?;
    place.shows(
        "create rolebinding readers --role=reader --user=jane --serviceaccount=oneline:default",
        &["rolebinding.rbac.authorization.k8s.io/readers created"],
    )?;
    place.shows("get rolebindings -o wide", &["NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS readers Role/reader", "jane oneline/default"])?;
    place.shows("auth can-i list deployments --as=jane", &["yes"])?;
    place
        .shows("create clusterrole one-liner --verb=get --non-resource-url=/logs/*", &["clusterrole.rbac.authorization.k8s.io/one-liner created"])?;
    place.shows("create service nodeport front --tcp=80:8080", &["service/front created"])?;
    place.shows("get service front", &["NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE front NodePort", "<none> 80:3"])?;
    place.shows("create service externalname far --external-name=example.com", &["service/far created"])?;
    place.shows("get service far", &["far ExternalName <none> example.com <none>"])?;
    place.shows(
        "describe service front",
        &["Type: NodePort", "Port: 80-8080 80/TCP", "TargetPort: 8080/TCP", "NodePort: 80-8080 3", "Session Affinity: None"],
    )?;
    place.shows("create secret generic key --from-literal=word=hidden", &["secret/key created"])?;
    place.shows("describe secret key", &["Type: Opaque", "word: 6 bytes"])?;
    place.shows("create sa robot", &["serviceaccount/robot created"])?;
    ensure!(place.ok("create token robot --duration=10m")?.split('.').count() == 3);
    place.shows("describe sa robot", &["Name: robot", "Tokens: <none>"])?;
    place.apply("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: disk}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n")?;
    place.shows("get pvc", &["NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE disk Pending"])?;
    place.shows("describe pvc disk", &["Status: Pending", "Finalizers: [kubernetes.io/pvc-protection]", "Used By: <none>"])?;
    place.apply("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\nspec: {podSelector: {matchLabels: {app: shop}}, policyTypes: [Ingress]}\n")?;
    place.shows("get netpol", &["NAME POD-SELECTOR AGE closed app=shop"])?;
    place.shows(
        "describe netpol closed",
        &["PodSelector: app=shop", "Allowing ingress traffic: <none> (Selected pods are isolated for ingress connectivity)"],
    )?;
    place.shows("delete priorityclass/high clusterrole/one-liner", &["priorityclass.scheduling.k8s.io \"high\" deleted"])
}

/// A request of `O = sailors, CN = jane`, whose key is gone.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIZE1JR0RBZ0VBTUNFeEVEQU9CZ05WQkFvTUIzTmhhV3h2Y25NeERUQUxCZ05WQkFNTUJHcGhibVV3V1RBVApCZ2NxaGtqT1BRSUJCZ2dxaGtqT1BRTUJCd05DQUFSZW11b1dyZ0YwNEhMRHNkSm11NWl3aUY4aHF4bmg4VXhiCmppUGJBeXRGb0FveUkzSUtYMUdwRytCNDFNQjJWQ0d2by9maGFIUkNKM01rNUpMYURYOXVvQUF3Q2dZSUtvWkkKemowRUF3SURTUUF3UmdJaEFPaWY5UThjSmVsQmwrOVhnbEpIbEQyS25SRVExV3FML3BHNUVidWRyb0tQQWlFQQo2U2NYZEpEa1J4b1VtVDdSOWZ0eWFPenNCaUtJb0tNN1ZJYmdFWWNRL1dzPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

fn certificate_requests_are_judged(cluster: &Cluster) -> Result {
    let place = Place::new(cluster, "certificates")?;
    for name in ["jane", "stranger"] {
        place.apply(&format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  signerName: kubernetes.io/kube-apiserver-client\n  expirationSeconds: 3600\n  usages: [client auth]\n  request: {REQUEST}\n"
        ))?;
    }
    place.shows(
        "get csr jane",
        &["NAME AGE SIGNERNAME REQUESTOR REQUESTEDDURATION CONDITION", "kubernetes.io/kube-apiserver-client", "60m Pending"],
    )?;
    place.shows("certificate approve jane", &["certificatesigningrequest.certificates.k8s.io/jane approved"])?;
    place.shows("certificate deny stranger", &["certificatesigningrequest.certificates.k8s.io/stranger denied"])?;
    place.comes_to_show("get csr", &["60m Approved,Issued", "60m Denied"])?;
    place.shows(
        "describe csr jane",
        &["Signer: kubernetes.io/kube-apiserver-client", "Status: Approved,Issued", "Subject: Common Name: jane", "Organization: sailors"],
    )?;
    let issued = cluster.get(&["csr", "jane"])?;
    ensure!(issued["status"]["certificate"].as_str().context("a certificate")?.starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS"));
    ensure!(cluster.get(&["csr", "stranger"])?["status"]["certificate"].is_null());
    place.ok("delete csr jane stranger").map(drop)
}
