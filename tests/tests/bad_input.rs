//! Bad input gets a clear error and disturbs nothing.

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Output, Result, binary, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("bodies_malformed_and_oversized", bodies_malformed_and_oversized),
    ("absurd_selectors_and_patches", absurd_selectors_and_patches),
    ("unknown_things", unknown_things),
    ("flags_that_cannot_work", flags_that_cannot_work),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

/// A request with the administrator's certificate: code and body.
fn request(cluster: &Cluster, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<(u16, String)> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str| dir.path().join(name);
    for (name, field) in [("cert", "client-certificate-data"), ("key", "client-key-data")] {
        let path = format!("jsonpath={{.users[0].user.{field}}}");
        let text = cluster.kubectl(&["config", "view", "--raw", "-o", &path])?.ok()?;
        let decoded = Output::of(std::process::Command::new("base64").arg("-d"), &text)?.ok()?;
        std::fs::write(file(name), decoded)?;
    }
    std::fs::write(file("body"), body)?;
    let mut command = cluster.host.command("curl");
    command.args(["-sk", "-m", "20", "-X", method, "-w", "\n%{http_code}", "--cert"]).arg(file("cert")).arg("--key").arg(file("key"));
    command.args(["-H", &format!("Content-Type: {content_type}"), "-H", "Expect:"]);
    if method != "GET" {
        command.arg("--data-binary").arg(format!("@{}", file("body").display()));
    }
    let text = Output::of(command.arg(format!("https://127.0.0.1:6443{path}")), "")?.ok()?;
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
    Ok((code.parse()?, body.to_string()))
}

fn bodies_malformed_and_oversized(cluster: &Cluster) -> Result {
    let path = "/api/v1/namespaces/default/configmaps";
    let json = "application/json";
    let expect = |body: &[u8], content_type: &str, code: u16, words: &[&str]| -> Result {
        let (got, text) = request(cluster, "POST", path, content_type, body)?;
        ensure!(
            got == code && words.iter().all(|word| text.contains(word)) && text.contains("\"kind\":\"Status\""),
            "wanted {code} {words:?}, got {got} {text}"
        );
        Ok(())
    };
    expect(b"{\"kind\":", json, 400, &["BadRequest"])?;
    expect(b"", json, 400, &[])?;
    expect(b"[]", json, 400, &[])?;
    expect(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":7}}"#, json, 400, &["cannot unmarshal"])?;
    expect(br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}"#, json, 400, &[])?;
    expect(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"../etc"}}"#, json, 422, &["metadata.name"])?;
    expect(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}"#, json, 422, &["name or generateName is required"])?;
    expect(&[b'['; 100_000], json, 400, &[])?;
    expect(&vec![b' '; (3 << 20) + 1], json, 413, &["RequestEntityTooLarge"])?;
    let large = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"large"}},"data":{{"k":"{}"}}}}"#, "x".repeat(1_100_000));
    expect(large.as_bytes(), json, 422, &["Too long"])?;
    expect(b"\xff\xfe", "application/xml", 415, &["UnsupportedMediaType"])?;
    cluster.get(&["ns", "default"]).map(drop)
}

fn absurd_selectors_and_patches(cluster: &Cluster) -> Result {
    let list = |query: &str| request(cluster, "GET", &format!("/api/v1/pods?{query}"), "application/json", b"");
    for query in
        ["labelSelector=a%20in", "labelSelector=%21%21a", "fieldSelector=spec.containers%3Dx", "limit=-1x", "continue=zzz", "resourceVersion=abc"]
    {
        let (code, text) = list(query)?;
        ensure!(code == 400 && text.contains("\"kind\":\"Status\""), "{query}: {code} {text}");
    }
    // A long one is a selector like others, up to a bound; one that cannot be read is not guessed at.
    let long = |count: usize| (0..count).map(|index| format!("k{index}")).collect::<Vec<_>>().join(",");
    let (code, text) = list(&format!("labelSelector={}", long(500)))?;
    ensure!(code == 200, "{code} {text}");
    for query in [format!("labelSelector={}", long(1_500)), "watch=%ff".into(), "fieldSelector=%zz".into(), "labelSelector=a%3".into()] {
        let (code, text) = list(&query)?;
        ensure!(code == 400 && text.contains("\"kind\":\"Status\""), "{code} {text}");
    }
    cluster.kubectl(&["create", "cm", "patched", "--from-literal=a=b"])?.ok()?;
    let many: Vec<String> = (0..10_001).map(|_| r#"{"op":"add","path":"/data/a","value":"c"}"#.to_string()).collect();
    let (code, text) = request(
        cluster,
        "PATCH",
        "/api/v1/namespaces/default/configmaps/patched",
        "application/json-patch+json",
        format!("[{}]", many.join(",")).as_bytes(),
    )?;
    ensure!(code == 413 && text.contains("The allowed maximum operations in a JSON patch is 10000, got 10001"), "{code} {text}");
    let (code, text) = request(cluster, "PATCH", "/api/v1/namespaces/default/configmaps/patched", "application/json-patch+json", b"{}")?;
    ensure!(code == 400, "{code} {text}");
    let (code, text) = request(cluster, "PATCH", "/api/v1/namespaces/default/configmaps/patched", "application/merge-patch+json", b"{\"data\":7}")?;
    ensure!(code == 422 && text.contains("cannot unmarshal number into"), "{code} {text}");
    ensure!(cluster.get(&["cm", "patched"])?["data"]["a"] == "b");
    Ok(())
}

fn unknown_things(cluster: &Cluster) -> Result {
    for (path, wanted) in [
        ("/api/v1/nothings", 404),
        ("/apis/none.example/v1/things", 404),
        ("/api/v1/namespaces/default/pods/none", 404),
        ("/api/v9", 404),
        ("/nowhere", 404),
    ] {
        let (code, text) = request(cluster, "GET", path, "application/json", b"")?;
        ensure!(code == wanted, "{path}: {code} {text}");
    }
    let (code, text) = request(cluster, "PUT", "/api/v1/pods", "application/json", b"{}")?;
    ensure!(code == 405, "{code} {text}");
    Ok(())
}

fn flags_that_cannot_work(cluster: &Cluster) -> Result {
    let up = |arguments: &[&str]| -> Result<String> {
        let mut command = cluster.host.command("timeout");
        command.arg("20").arg(binary()?).arg("up").args(arguments);
        Output::of(&mut command, "")?.err()
    };
    let dir = cluster.dir();
    let file = dir.join("a-file");
    std::fs::write(&file, "")?;
    let said = up(&["--data-dir", &file.to_string_lossy(), "--api-addr", "127.0.0.1:7443"])?;
    ensure!(said.contains(&*file.to_string_lossy()), "{said}");
    let said = up(&["--data-dir", &dir.join("d1").to_string_lossy(), "--api-addr", "nonsense"])?;
    ensure!(said.contains("nonsense"), "{said}");
    let said = up(&["--data-dir", &dir.join("d2").to_string_lossy(), "--api-addr", "192.0.2.1:7443"])?;
    ensure!(said.contains("192.0.2.1:7443"), "{said}");
    Ok(())
}
