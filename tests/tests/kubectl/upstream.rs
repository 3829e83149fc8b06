//! What upstream's `kubectl/kubectl` specs run that no other case does.

use super::deployment;
use anyhow::{Context as _, ensure};
use coracle_tests::{Background, Cluster, Result, eventually, has};
use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
};

/// An application that other cases know, as a ReplicationController.
fn controller(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: {name}, labels: {{app: demo}}}}\nspec:\n  replicas: 1\n  selector: {{app: demo}}\n  \
         template:\n    metadata: {{labels: {{app: demo}}}}\n    spec: {{containers: [{{name: web, image: 'web:v1', ports: [{{containerPort: 8080}}]}}]}}\n"
    )
}

pub fn differences_and_dry_runs(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("upstream-diff")?;
    let kubectl = |arguments: &[&str]| cluster.kubectl_in(&ns, arguments);
    cluster.apply(&deployment(&ns, "httpd", "hello:v1", 1))?;
    // A difference is the exit code 1, and both images.
    let changed = cluster.kubectl_with(&["diff", "-f", "-"], &deployment(&ns, "httpd", "web:v1", 1))?;
    ensure!(changed.code == 1, "{changed:?}");
    has(&changed.stdout, &["-      - image: hello:v1", "+      - image: web:v1"])?;
    let same = cluster.kubectl_with(&["diff", "-f", "-"], &deployment(&ns, "httpd", "hello:v1", 1))?;
    ensure!(same.code == 0 && same.stdout.is_empty(), "{same:?}");
    let image = || kubectl(&["get", "pod", "httpd", "-o", "jsonpath={.spec.containers[0].image}"])?.ok();
    kubectl(&["run", "httpd", "--image=hello:v1", "--labels=run=httpd"])?.ok()?;
    // Without a revision: its node writes its status meanwhile.
    let mut pod = cluster.get(&["-n", &ns, "pod", "httpd"])?;
    pod["spec"]["containers"][0]["image"] = "web:v1".into();
    pod["metadata"]["resourceVersion"] = serde_json::Value::Null;
    let pod = pod.to_string();
    has(&cluster.kubectl_with(&["-n", &ns, "replace", "-f", "-", "--dry-run=server"], &pod)?.ok()?, &["pod/httpd replaced (server dry run)"])?;
    ensure!(image()? == "hello:v1", "a dry run changed the image");
    has(
        &kubectl(&["patch", "pod", "httpd", "-p", r#"{"spec":{"containers":[{"name":"httpd","image":"web:v1"}]}}"#, "--dry-run=server"])?.ok()?,
        &["pod/httpd patched"],
    )?;
    ensure!(image()? == "hello:v1", "a dry run changed the image");
    has(&cluster.kubectl_with(&["-n", &ns, "replace", "-f", "-"], &pod)?.ok()?, &["pod/httpd replaced"])?;
    ensure!(image()? == "web:v1", "the image is replaced: {}", image()?);
    kubectl(&["delete", "pod", "httpd", "--now"])?.ok()?;
    has(&kubectl(&["run", "once", "--restart=Never", "--image=hello:v1"])?.ok()?, &["pod/once created"])?;
    ensure!(kubectl(&["get", "pod", "once", "-o", "jsonpath={.spec.restartPolicy}"])?.ok()? == "Never");
    Ok(())
}

pub fn controllers_are_exposed_and_marked(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("upstream-rc")?;
    let kubectl = |arguments: &[&str]| cluster.kubectl_in(&ns, arguments);
    cluster.kubectl_with(&["-n", &ns, "create", "-f", "-"], &controller("primary"))?.ok()?;
    eventually("its pod is ready", 60, || has(&kubectl(&["get", "rc", "primary", "--no-headers"])?.ok()?, &["primary   1     1     1"]))?;
    let told = kubectl(&["describe", "rc", "primary"])?.ok()?;
    has(
        &told,
        &[
            "Name:         primary",
            "Selector:     app=demo",
            "Replicas:     1 current / 1 desired",
            "Pods Status:  1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
        ],
    )?;
    has(&kubectl(&["expose", "rc", "primary", "--name=rm2", "--port=1234", "--target-port=8080"])?.ok()?, &["service/rm2 exposed"])?;
    has(&kubectl(&["expose", "service", "rm2", "--name=rm3", "--port=2345", "--target-port=8080"])?.ok()?, &["service/rm3 exposed"])?;
    for (service, port) in [("rm2", "1234"), ("rm3", "2345")] {
        let found =
            kubectl(&["get", "service", service, "-o", "jsonpath={.spec.ports[0].port} {.spec.ports[0].targetPort} {.spec.selector.app}"])?.ok()?;
        ensure!(found == format!("{port} 8080 demo"), "{service}: {found}");
        let slices = ["get", "endpointslices", "-l", &format!("kubernetes.io/service-name={service}"), "-o", "jsonpath={.items[*].ports[*].port}"];
        eventually("it has an endpoint", 60, || {
            let ports = kubectl(&slices)?.ok()?;
            ensure!(ports == "8080", "{ports}");
            Ok(())
        })?;
    }
    let pod = kubectl(&["get", "pods", "-l", "app=demo", "-o", "name"])?.ok()?;
    let pod = pod.trim();
    has(&kubectl(&["label", pod, "testing-label=testing-label-value"])?.ok()?, &["labeled"])?;
    has(&kubectl(&["get", pod, "-L", "testing-label"])?.ok()?, &["TESTING-LABEL", "testing-label-value"])?;
    has(&kubectl(&["label", pod, "testing-label-"])?.ok()?, &["unlabeled"])?;
    let bare = kubectl(&["get", pod, "-L", "testing-label"])?.ok()?;
    ensure!(!bare.contains("testing-label-value"), "{bare}");
    kubectl(&["patch", pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#])?.ok()?;
    ensure!(kubectl(&["get", pod, "-o", "jsonpath={.metadata.annotations.x}"])?.ok()? == "y");
    has(&kubectl(&["scale", "rc", "primary", "--replicas=2", "--timeout=1m"])?.ok()?, &["replicationcontroller/primary scaled"])?;
    eventually("two pods", 60, || has(&kubectl(&["get", "rc", "primary", "--no-headers"])?.ok()?, &["primary   2     2     2"]))?;
    kubectl(&["delete", "rc", "primary", "--grace-period=0", "--force"])?.ok()?;
    eventually("its pods go", 60, || {
        let left = kubectl(&["get", "pods", "-l", "app=demo", "-o", "name"])?.ok()?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

pub fn a_proxy_serves_the_api(cluster: &Cluster) -> Result {
    let serving = |proxy: &Background| {
        eventually("it serves", 60, || {
            let found = proxy.lines().iter().find_map(|line| line.split("Starting to serve on ").nth(1).map(str::to_owned));
            found.with_context(|| format!("{:?}", proxy.lines()))
        })
    };
    let proxy = Background::start(&mut cluster.kubectl_command(&["proxy", "--port=0", "--disable-filter"]))?;
    let address = serving(&proxy)?;
    let told = cluster.host.get(&format!("http://{}/api/", address.trim()))?;
    has(&told, &["\"kind\": \"APIVersions\"", "\"versions\": [\n    \"v1\"\n  ]"])?;
    drop(proxy);
    let socket = cluster.dir().join("proxy.sock");
    let proxy = Background::start(&mut cluster.kubectl_command(&["proxy", &format!("--unix-socket={}", socket.display())]))?;
    serving(&proxy)?;
    let mut stream = UnixStream::connect(&socket)?;
    stream.write_all(b"GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    has(&told, &["HTTP/1.1 200 OK", "\"versions\":[\"v1\"]"])
}
