"""Kubernetes' own client for Python, as a program of one case: `main.py CASE` with the cluster of KUBECONFIG."""

import base64
import sys
import tempfile
import threading
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.informer import informer as informers
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

PATIENCE = 60


def eventually(what, probe):
    """The first true answer of `probe`, within the patience of a test."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if answer := probe():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not in time: {what}")


def refused(code, call):
    """The answer's body, which must be a refusal with `code`."""
    try:
        call()
    except ApiException as error:
        assert error.status == code, f"{error.status}, not {code}: {error.body}"
        return error.body
    raise AssertionError(f"it was to be refused with {code}")


def namespace(name):
    client.CoreV1Api().create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    return name


def deployment(name, replicas=1):
    labels = {"app": name}
    container = client.V1Container(name="web", image="hello:v1", ports=[client.V1ContainerPort(container_port=8080)])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1),
    )
    return client.V1Deployment(
        metadata=client.V1ObjectMeta(name=name, labels=labels),
        spec=client.V1DeploymentSpec(replicas=replicas, selector=client.V1LabelSelector(match_labels=labels), template=template),
    )


def typed_objects():
    ns = namespace("python-typed")
    core, apps = client.CoreV1Api(), client.AppsV1Api()
    assert client.VersionApi().get_code().git_version.startswith("v1.36")
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    assert {"apps", "batch", "apiextensions.k8s.io"} <= groups, groups

    secret = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="key-"), string_data={"word": "hidden"})
    made = core.create_namespaced_secret(ns, secret)
    assert made.metadata.name.startswith("key-") and base64.b64decode(made.data["word"]) == b"hidden" and made.type == "Opaque"
    assert made.metadata.creation_timestamp.tzinfo is not None

    apps.create_namespaced_deployment(ns, deployment("shop", 2))
    eventually("two pods", lambda: apps.read_namespaced_deployment("shop", ns).status.available_replicas == 2)
    apps.patch_namespaced_deployment("shop", ns, {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "1"}]}]}}}})
    container = apps.read_namespaced_deployment("shop", ns).spec.template.spec.containers[0]
    assert container.image == "hello:v1" and container.env[0].value == "1", "a dictionary is merged strategically"
    apps.patch_namespaced_deployment("shop", ns, [{"op": "remove", "path": "/spec/template/spec/containers/0/env"}])
    assert apps.read_namespaced_deployment("shop", ns).spec.template.spec.containers[0].env is None

    def scaled():
        scale = apps.read_namespaced_deployment_scale("shop", ns)
        scale.spec.replicas = 1
        try:
            return apps.replace_namespaced_deployment_scale("shop", ns, scale).spec.replicas == 1
        except ApiException as error:
            # The controller writes the status meanwhile.
            assert error.status == 409, error

    eventually("the scale", scaled)
    eventually("one pod", lambda: apps.read_namespaced_deployment_status("shop", ns).status.replicas == 1)

    for number in range(7):
        core.create_namespaced_config_map(ns, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"map-{number}", labels={"page": "yes"})))
    names, token = [], None
    while token is None or token:
        page = core.list_namespaced_config_map(ns, label_selector="page=yes", limit=3, _continue=token or "")
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert names == [f"map-{number}" for number in range(7)], names
    dry = core.create_namespaced_config_map(ns, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="dry")), dry_run="All")
    assert dry.metadata.uid
    assert "NotFound" in refused(404, lambda: core.read_namespaced_config_map("dry", ns))
    assert "AlreadyExists" in refused(409, lambda: core.create_namespaced_config_map(ns, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="map-1"))))
    stale = core.read_namespaced_config_map("map-1", ns)
    core.patch_namespaced_config_map("map-1", ns, {"data": {"a": "b"}})
    assert "the object has been modified" in refused(409, lambda: core.replace_namespaced_config_map("map-1", ns, stale))
    strict = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "strict"}, "dta": {}}
    assert 'unknown field \\"dta\\"' in refused(400, lambda: core.create_namespaced_config_map(ns, strict, field_validation="Strict"))

    batch = client.BatchV1Api()
    pod = {"restartPolicy": "Never", "containers": [{"name": "say", "image": "probe:v1", "args": ["count", "2", "1"]}]}
    batch.create_namespaced_job(ns, {"metadata": {"name": "say"}, "spec": {"template": {"spec": pod}}})
    eventually("the job", lambda: batch.read_namespaced_job("say", ns).status.succeeded == 1)
    pod = core.list_namespaced_pod(ns, label_selector="job-name=say").items[0].metadata.name
    log = core.read_namespaced_pod_log(pod, ns, _preload_content=False)
    assert log.data == b"line 1\nline 2\n", log.data
    core.delete_collection_namespaced_config_map(ns, label_selector="page=yes")
    assert not core.list_namespaced_config_map(ns, label_selector="page=yes").items
    apps.delete_namespaced_deployment("shop", ns, propagation_policy="Foreground")
    eventually("no deployment", lambda: not apps.list_namespaced_deployment(ns).items)


def watches():
    ns = namespace("python-watches")
    core = client.CoreV1Api()

    def config_map(name):
        return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"seen": "yes"}))

    core.create_namespaced_config_map(ns, config_map("before"))
    seen = []
    watching = watch.Watch()
    for event in watching.stream(core.list_namespaced_config_map, ns, label_selector="seen=yes", timeout_seconds=PATIENCE):
        seen.append((event["type"], event["object"].metadata.name))
        match seen[-1]:
            case ("ADDED", "before"):
                core.create_namespaced_config_map(ns, config_map("after"))
            case ("ADDED", "after"):
                core.patch_namespaced_config_map("after", ns, {"data": {"a": "b"}})
            case ("MODIFIED", "after"):
                core.delete_namespaced_config_map("after", ns)
            case ("DELETED", "after"):
                watching.stop()
    assert seen == [("ADDED", "before"), ("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "after")], seen
    # From a version on, and ended by the server in time.
    events = watch.Watch().stream(core.list_namespaced_config_map, ns, resource_version=watching.resource_version, timeout_seconds=1)
    assert list(events) == []

    follower = informers.SharedInformer(core.list_namespaced_config_map, namespace=ns, label_selector="seen=yes")
    deleted = []
    follower.add_event_handler(informers.DELETED, lambda map: deleted.append(map.metadata.name))
    follower.start()
    try:
        eventually("the cache", lambda: follower.cache.get_by_key(f"{ns}/before"))
        core.create_namespaced_config_map(ns, config_map("later"))
        eventually("the addition", lambda: follower.cache.get_by_key(f"{ns}/later"))
        core.delete_namespaced_config_map("later", ns)
        eventually("the deletion", lambda: deleted == ["later"])
        assert follower.cache.get_by_key(f"{ns}/later") is None
    finally:
        follower.stop()


def dynamic_client_and_custom_resources():
    ns = namespace("python-dynamic")
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer", "minimum": 1}, "colour": {"type": "string", "default": "red"}}}},
    }
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "kites.python.example.com"},
        "spec": {
            "group": "python.example.com",
            "scope": "Namespaced",
            "names": {"plural": "kites", "singular": "kite", "kind": "Kite"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}],
        },
    }

    def kite(name, **spec):
        return {"apiVersion": "python.example.com/v1", "kind": "Kite", "metadata": {"name": name}, "spec": spec}

    extensions = client.ApiextensionsV1Api()
    extensions.create_custom_resource_definition(definition)

    def established():
        conditions = extensions.read_custom_resource_definition("kites.python.example.com").status.conditions or []
        return any(condition.type == "Established" and condition.status == "True" for condition in conditions)

    eventually("the kind", established)
    with tempfile.TemporaryDirectory() as folder:
        anything = dynamic.DynamicClient(client.ApiClient(), cache_file=f"{folder}/discovery.json")
        kites = anything.resources.get(api_version="python.example.com/v1", kind="Kite")
        made = kites.create(namespace=ns, body=kite("one", size=3, unknown=1))
        assert made.spec.colour == "red" and "unknown" not in made.spec.to_dict(), made
        made = kites.patch(namespace=ns, name="one", body={"spec": {"size": 4}}, content_type="application/merge-patch+json")
        assert made.spec.size == 4 and made.metadata.generation == 2
        kites.status.patch(namespace=ns, name="one", body={"status": {"a": 1}}, content_type="application/merge-patch+json")
        stale = made.to_dict()
        kites.replace(namespace=ns, body=made.to_dict() | {"spec": {"size": 5}})
        try:
            kites.replace(namespace=ns, body=stale)
            raise AssertionError("an old version wins")
        except ConflictError:
            pass
        custom = client.CustomObjectsApi()
        place = ("python.example.com", "v1", ns, "kites")
        assert "spec.size" in refused(422, lambda: custom.create_namespaced_custom_object(*place, kite("two", size=0)))
        custom.create_namespaced_custom_object(*place, kite("two", size=1))
        assert len(custom.list_namespaced_custom_object(*place)["items"]) == 2
        events = kites.watch(namespace=ns, timeout=PATIENCE)
        assert {next(events)["object"].metadata.name for _ in range(2)} == {"one", "two"}
        kites.delete(namespace=ns, name="one")
        event = next(events)
        assert (event["type"], event["object"].metadata.name) == ("DELETED", "one"), event

        applied = kites.server_side_apply(namespace=ns, name="three", body=kite("three", size=1), field_manager="first")
        assert [entry.operation for entry in applied.metadata.managedFields] == ["Apply"]
        try:
            kites.server_side_apply(namespace=ns, name="three", body=kite("three", size=2), field_manager="second")
            raise AssertionError("another's field is taken without force")
        except ConflictError as error:
            assert 'conflict with \\"first\\": .spec.size' in str(error.body), error.body
        applied = kites.server_side_apply(namespace=ns, name="three", body=kite("three", size=2), field_manager="second", force_conflicts=True)
        assert applied.spec.size == 2

        services = anything.resources.get(api_version="v1", kind="Service")
        made = services.create(namespace=ns, body={"apiVersion": "v1", "kind": "Service", "metadata": {"name": "door"}, "spec": {"ports": [{"port": 80}]}})
        assert made.spec.clusterIP and made.spec.ports[0].protocol == "TCP"
        assert len(services.get(namespace=ns).items) == 1
        services.delete(namespace=ns, name="door")
        try:
            services.get(namespace=ns, name="door")
            raise AssertionError("it is still there")
        except NotFoundError:
            pass
    extensions.delete_custom_resource_definition("kites.python.example.com")
    eventually("the kind goes", lambda: "kites.python.example.com" not in [crd.metadata.name for crd in extensions.list_custom_resource_definition().items])


MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: listed}
  data: {number: "1"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 0
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: web, image: 'hello:v1'}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
"""


def files_of_manifests():
    ns = namespace("python-manifests")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(MANIFESTS)
        file.flush()
        utils.create_from_yaml(client.ApiClient(), file.name, namespace=ns)
        try:
            utils.create_from_yaml(client.ApiClient(), file.name, namespace=ns)
            raise AssertionError("they were there")
        except utils.FailToCreateError as error:
            assert [refusal.status for refusal in error.api_exceptions] == [409] * 4, error
    assert client.CoreV1Api().read_namespaced_config_map("listed", ns).data == {"number": "1"}
    assert client.AppsV1Api().read_namespaced_deployment("shop", ns).spec.strategy.rolling_update.max_surge == "25%"
    assert client.RbacAuthorizationV1Api().read_namespaced_role("reader", ns).rules[0].verbs == ["get"]
    token = client.CoreV1Api().create_namespaced_service_account_token(
        "default", ns, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[], expiration_seconds=600))
    )
    own = client.Configuration.get_default_copy()
    own.cert_file = own.key_file = None
    own.api_key = {"authorization": f"Bearer {token.status.token}"}
    stranger = client.CoreV1Api(client.ApiClient(own))
    body = refused(403, lambda: stranger.list_namespaced_pod(ns))
    assert f'User \\"system:serviceaccount:{ns}:default\\" cannot list resource' in body, body


def leader_election():
    ns = namespace("python-election")
    led, done = [], threading.Event()

    def candidate(name):
        def lead():
            led.append(name)
            done.wait(PATIENCE)

        lock = ConfigMapLock("crown", ns, name)
        settings = electionconfig.Config(lock, lease_duration=4, renew_deadline=3, retry_period=1, onstarted_leading=lead, onstopped_leading=None)
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

    for name in ("first", "second", "third"):
        candidate(name)
    eventually("a leader", lambda: led)
    key = "control-plane.alpha.kubernetes.io/leader"
    read = client.CoreV1Api().read_namespaced_config_map
    before = read("crown", ns)
    assert f'"holderIdentity": "{led[0]}"' in before.metadata.annotations[key], before.metadata.annotations
    eventually("a renewal", lambda: read("crown", ns).metadata.annotations[key] != before.metadata.annotations[key])
    assert len(led) == 1, led
    done.set()


if __name__ == "__main__":
    config.load_kube_config()
    cases = [typed_objects, watches, dynamic_client_and_custom_resources, files_of_manifests, leader_election]
    {case.__name__: case for case in cases}[sys.argv[1]]()
