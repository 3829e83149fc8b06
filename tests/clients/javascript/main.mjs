// Kubernetes' own client for JavaScript, as a program of one case: `node main.mjs CASE` with the cluster of KUBECONFIG.

import assert from 'node:assert/strict';
import * as k8s from '@kubernetes/client-node';

const PATIENCE = 60_000;
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

/** The first true answer of `probe`, within the patience of a test. */
async function eventually(what, probe) {
    const end = Date.now() + PATIENCE;
    while (Date.now() < end) {
        const answer = await probe();
        if (answer) return answer;
        await new Promise((resume) => setTimeout(resume, 50));
    }
    assert.fail(`not in time: ${what}`);
}

async function namespaceOf(name) {
    await core.createNamespace({ body: { metadata: { name } } });
    return name;
}

const configMap = (name, data = {}) => ({ metadata: { name, labels: { seen: 'yes' } }, data });

const deployment = (name, replicas) => ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name },
    spec: {
        replicas,
        selector: { matchLabels: { app: name } },
        template: {
            metadata: { labels: { app: name } },
            spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'web', image: 'hello:v1' }] },
        },
    },
});

/** An informer's cache and its events follow the server, also after the server ended its watch. */
async function informers() {
    const namespace = await namespaceOf('javascript-informers');
    await core.createNamespacedConfigMap({ namespace, body: configMap('before') });
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'seen=yes' });
    const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, 'seen=yes');
    const events = [];
    let connects = 0;
    for (const verb of ['add', 'update', 'delete']) informer.on(verb, (map) => events.push(`${verb} ${map.metadata.name}`));
    informer.on('connect', () => connects++);
    let failure;
    informer.on('error', (error) => (failure = error));
    await informer.start();
    assert.deepEqual(events, ['add before']);
    await core.createNamespacedConfigMap({ namespace, body: configMap('after') });
    await eventually('the addition', () => informer.get('after', namespace));
    const body = [{ op: 'add', path: '/data', value: { a: 'b' } }];
    await core.patchNamespacedConfigMap({ namespace, name: 'after', body });
    await eventually('the change', () => informer.get('after', namespace)?.data?.a === 'b');
    await core.deleteNamespacedConfigMap({ namespace, name: 'after' });
    await eventually('the deletion', () => !informer.get('after', namespace));
    assert.deepEqual(events, ['add before', 'add after', 'update after', 'delete after']);
    assert.deepEqual(informer.list(namespace).map((map) => map.metadata.name), ['before']);
    assert.equal(failure, undefined);
    await informer.stop();
}

/** Bare watches: bookmarks, initial events, changes from a version on, and and the end of their time. */
async function watches() {
    const namespace = await namespaceOf('javascript-watches');
    await core.createNamespacedConfigMap({ namespace, body: configMap('one') });
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const watch = new k8s.Watch(config);
    const collect = (query, enough) =>
        new Promise((resolve, reject) => {
            const seen = [];
            const see = (type, object) => {
                seen.push([type, object]);
                if (enough(seen)) {
                    resolve(seen);
                    started.then((controller) => controller.abort());
                }
            };
            const started = watch.watch(path, query, see, (error) => (error && !enough(seen) ? reject(error) : resolve(seen)));
            started.catch(reject);
        });
    const initial = await collect(
        { sendInitialEvents: true, resourceVersionMatch: 'NotOlderThan', allowWatchBookmarks: true, labelSelector: 'seen=yes' },
        (seen) => seen.at(-1)[0] === 'BOOKMARK',
    );
    assert.deepEqual(initial.map(([type]) => type), ['ADDED', 'BOOKMARK']);
    const bookmark = initial[1][1];
    assert.equal(bookmark.metadata.annotations['k8s.io/initial-events-end'], 'true');

    const resourceVersion = bookmark.metadata.resourceVersion;
    await core.replaceNamespacedConfigMap({ namespace, name: 'one', body: configMap('one', { a: 'b' }) });
    await core.deleteNamespacedConfigMap({ namespace, name: 'one' });
    const changes = await collect({ resourceVersion, labelSelector: 'seen=yes' }, (seen) => seen.length === 2);
    assert.deepEqual(changes.map(([type, map]) => [type, map.data.a]), [['MODIFIED', 'b'], ['DELETED', 'b']]);
    assert.ok(BigInt(changes[1][1].metadata.resourceVersion) > BigInt(changes[0][1].metadata.resourceVersion));
    const ended = await collect({ resourceVersion, labelSelector: 'seen=no', timeoutSeconds: 1 }, () => false);
    assert.deepEqual(ended, []);
}

/** The patches of a typed client, each by its content type. */
async function patches() {
    const namespace = await namespaceOf('javascript-patches');
    const name = 'shop';
    const made = await apps.createNamespacedDeployment({ namespace, body: deployment(name, 0) });
    assert.ok(made.metadata.creationTimestamp instanceof Date);
    const patch = (strategy, body) => apps.patchNamespacedDeployment({ namespace, name, body }, k8s.setHeaderOptions('Content-Type', strategy));
    const containers = [{ name: 'side', image: 'hello:v1' }];
    const strategic = await patch(k8s.PatchStrategy.StrategicMergePatch, { spec: { template: { spec: { containers } } } });
    assert.deepEqual(strategic.spec.template.spec.containers.map((container) => container.name), ['side', 'web']);
    const merged = await patch(k8s.PatchStrategy.MergePatch, { spec: { template: { spec: { containers } } } });
    assert.deepEqual(merged.spec.template.spec.containers.map((container) => container.name), ['side']);
    const json = await patch(k8s.PatchStrategy.JsonPatch, [{ op: 'replace', path: '/spec/template/spec/containers/0/name', value: 'main' }]);
    assert.equal(json.spec.template.spec.containers[0].name, 'main');
    assert.equal(json.metadata.generation, 4);
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name });
    assert.equal(scale.spec.replicas ?? 0, 0);
    await assert.rejects(patch(k8s.PatchStrategy.MergePatch, { spec: { replicas: 'many' } }), { code: 422 });
    await assert.rejects(patch(k8s.PatchStrategy.MergePatch, { spec: { replicas: -1 } }), { code: 422 });
    await assert.rejects(apps.readNamespacedDeployment({ namespace, name: 'nothing' }), { code: 404 });
}

/** The client of objects whose kind is not compiled in: what tools that apply manifests use. */
async function objectsOfAnyKind() {
    const namespace = await namespaceOf('javascript-objects');
    const objects = k8s.KubernetesObjectApi.makeApiClient(config);
    const manifests = k8s.loadAllYaml(`
apiVersion: v1
kind: ConfigMap
metadata: {name: plain, namespace: ${namespace}}
data: {word: one}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: ${namespace}}
spec:
  schedule: "0 3 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: say, image: 'probe:v1'}]}}}}
`);
    for (const manifest of manifests) {
        await assert.rejects(objects.read(manifest), { code: 404 });
        const made = await objects.create(manifest);
        assert.equal(made.kind, manifest.kind);
    }
    const changed = { ...manifests[0], data: { word: 'two' } };
    const patched = await objects.patch(changed, undefined, undefined, undefined, undefined, k8s.PatchStrategy.MergePatch);
    assert.equal(patched.data.word, 'two');
    const replaced = await objects.replace({ ...patched, data: { word: 'three' } });
    await assert.rejects(objects.replace({ ...patched, data: { word: 'four' } }), { code: 409 });
    assert.equal((await objects.read(manifests[0])).data.word, 'three');
    assert.notEqual(replaced.metadata.resourceVersion, patched.metadata.resourceVersion);
    const list = await objects.list('batch/v1', 'CronJob', namespace);
    assert.deepEqual(list.items.map((item) => item.metadata.name), ['nightly']);
    const own = { ...manifests[0], metadata: { name: 'applied', namespace } };
    const apply = (manager, word, force) =>
        objects.patch({ ...own, data: { word } }, undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
    assert.equal((await apply('first', 'one')).data.word, 'one');
    await assert.rejects(apply('second', 'two'), { code: 409 });
    assert.equal((await apply('second', 'two', true)).data.word, 'two');
    await objects.delete(manifests[1]);
    await eventually('the deletion', () => objects.read(manifests[1]).then(() => false, (error) => error.code === 404));
}

await { informers, watches, patches, objectsOfAnyKind }[process.argv[2]]();
// A watch that was ended may hold its socket for a while.
process.exit(0);
