//! Bad input gets a clear error and disturbs nothing.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Output, Result, binary, is_root, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("bodies_malformed_and_oversized", bodies_malformed_and_oversized),
    ("absurd_selectors_and_patches", absurd_selectors_and_patches),
    ("a_huge_patch_costs_little", a_huge_patch_costs_little),
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
    command.args(["-sk", "-A", "tests", "-m", "20", "-X", method, "-w", "\n%{http_code}", "--cert"]).arg(file("cert")).arg("--key").arg(file("key"));
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
    expect(b"{\"kind\":", json, 400, &["BadRequest", "must be of type ConfigMap", "json parse error: unexpected end of JSON input"])?;
    expect(b"", json, 400, &["must be of type ConfigMap", "unexpected end of JSON input (<empty>)"])?;
    expect(b"[]", json, 400, &["cannot unmarshal array into Go value"])?;
    expect(
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":7}}"#,
        json,
        400,
        &["cannot unmarshal number", "metadata.name of type string"],
    )?;
    expect(br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}"#, json, 400, &["Secret in version", "cannot be handled as a ConfigMap"])?;
    expect(
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"../etc"}}"#,
        json,
        422,
        &["metadata.name", "../etc", "lowercase RFC 1123 subdomain"],
    )?;
    expect(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{}}"#, json, 422, &["name or generateName is required"])?;
    expect(&[b'['; 100_000], json, 400, &["json parse error"])?;
    expect(&vec![b' '; (3 << 20) + 1], json, 413, &["RequestEntityTooLarge", "limit is 3145728"])?;
    let large = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"large"}},"data":{{"k":"{}"}}}}"#, "x".repeat(1_100_000));
    expect(large.as_bytes(), json, 422, &["Too long", "1048576"])?;
    expect(b"\xff\xfe", "application/xml", 415, &["UnsupportedMediaType", "application/json"])?;
    cluster.get(&["ns", "default"]).map(drop)
}

fn absurd_selectors_and_patches(cluster: &Cluster) -> Result {
    let list = |query: &str| request(cluster, "GET", &format!("/api/v1/pods?{query}"), "application/json", b"");
    for (query, words) in [
        ("labelSelector=a%20in", "found '', expected: '('"),
        ("labelSelector=%21%21a", "found '!', expected: identifier"),
        ("fieldSelector=spec.containers%3Dx", "field label not supported: spec.containers"),
        ("limit=-1x", "-1x"),
        ("continue=zzz", "continue key is not valid"),
        ("resourceVersion=abc", "abc"),
    ] {
        let (code, text) = list(query)?;
        ensure!(code == 400 && text.contains("\"kind\":\"Status\"") && text.contains(words), "{query}: {code} {text}");
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

/// Ten thousand operations, as many as there may be, in the shapes that cost most: the process grows by no more than a few times the bytes it was sent.
fn a_huge_patch_costs_little(cluster: &Cluster) -> Result {
    cluster.kubectl(&["create", "cm", "grown", "--from-literal=a=b"])?.ok()?;
    let patch = |count: usize, operation: &dyn Fn(usize) -> String| {
        let operations: Vec<String> = (0..count).map(operation).collect();
        let path = "/api/v1/namespaces/default/configmaps/grown";
        request(cluster, "PATCH", path, "application/json-patch+json", format!("[{}]", operations.join(",")).as_bytes())
    };
    let filling = "x".repeat(200);
    let add = |index: usize| format!(r#"{{"op":"add","path":"/data/k{}","value":"{filling}"}}"#, index % 500);
    let status = |field: &str| -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid()?))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).context("no such field")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    // What a first request makes for good is none of the patches'.
    ensure!(patch(1, &add)?.0 == 200);
    // From here on the kernel keeps the peak anew.
    std::fs::write(format!("/proc/{}/clear_refs", cluster.pid()?), "5")?;
    let before = status("VmRSS")?;
    ensure!(patch(10_000, &add)?.0 == 200);
    ensure!(patch(10_000, &|index| format!(r#"{{"op":"add","path":"/data/n{index}","value":""}}"#))?.0 == 200);
    for (count, operation, wanted) in [
        (10_001, &add as &dyn Fn(usize) -> String, "The allowed maximum operations in a JSON patch is 10000"),
        (10_000, &|index| format!(r#"{{"op":"copy","from":"/data","path":"/metadata/x{index}"}}"#), "the accumulated size increase of copy"),
        (10_000, &|_| r#"{"op":"copy","from":"","path":"/data/self"}"#.to_string(), "the accumulated size increase of copy"),
    ] {
        let (code, text) = patch(count, operation)?;
        ensure!(code == 413 && text.contains(wanted), "{code} {text}");
    }
    let grown = status("VmHWM")?.saturating_sub(before);
    ensure!(grown < 96 << 10, "{grown} KiB more than {before} at the peak");
    ensure!(cluster.get(&["cm", "grown"])?["data"].as_object().is_some_and(|data| data.len() == 10_501));
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
    let nonsense = dir.join("nonsense.conf");
    std::fs::write(&nonsense, "these are no name servers\nnameserver here\n")?;
    let nonsense = nonsense.to_string_lossy();
    let data = dir.join("d3");
    let rest = ["--data-dir", &*data.to_string_lossy(), "--api-addr", "127.0.0.1:7443"];
    for (flags, words) in [
        (&["--pod-cidr", "10.0.0.1/8"][..], &["--pod-cidr", "no IPv4 range such as"][..]),
        (&["--service-cidr", "10.244.1.0/24"], &["--pod-cidr 10.244.0.0/16 and --service-cidr 10.244.1.0/24 overlap"]),
        (&["--node-name", "Bad_Name"], &["--node-name", "lowercase RFC 1123 subdomain"]),
        (&["--resolv-conf", "/nowhere"], &["--resolv-conf /nowhere"]),
        (&["--resolv-conf", "/"], &["--resolv-conf /", "Is a directory"]),
        (&["--resolv-conf", &nonsense], &["--resolv-conf", &nonsense, "names no name server", "nameserver 192.0.2.53"]),
        (&["--scheduler-config", "/nowhere"], &["--scheduler-config /nowhere"]),
    ] {
        let said = up(&[&rest[..], flags].concat())?;
        ensure!(words.iter().all(|word| said.contains(word)), "{flags:?}: {said}");
    }
    // Nothing of it has touched the cluster that runs; a second one, with all of its own but the machine's network, is refused as well.
    if is_root() {
        let said = up(&rest)?;
        ensure!(said.contains("another cluster has this machine's network") && said.contains("ip netns"), "{said}");
    }
    cluster.get(&["ns", "default"]).map(drop)
}
