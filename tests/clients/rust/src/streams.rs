//! What goes over WebSockets: `exec`, `attach` and `portforward`, in a container and a component.

use super::{namespace, refusal, soon};
use anyhow::{Context as _, Result, ensure};
use futures::SinkExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess, PostParams, TerminalSize},
    runtime::wait::{await_condition, conditions},
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

async fn running(pods: &Api<Pod>, name: &str, container: Value) -> Result<()> {
    let pod = json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    soon(name, await_condition(pods.clone(), name, conditions::is_pod_running())).await?;
    Ok(())
}

/// All that a stream has.
async fn whole(stream: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut text = String::new();
    stream.context("a stream that was asked for")?.read_to_string(&mut text).await?;
    Ok(text)
}

/// Reads until the text is there.
async fn until(stream: &mut (impl AsyncRead + Unpin), wanted: &str) -> Result<String> {
    let (mut seen, mut part) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let count = soon(wanted, stream.read(&mut part)).await?;
        ensure!(count > 0, "it ended before it said {wanted}: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..count]);
    }
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

/// What a program said on both streams, and the code it ended with, or else its status (`Success`).
async fn said(mut process: AttachedProcess) -> Result<(String, String, String)> {
    let status = process.take_status().context("a status")?;
    let (out, err) = (process.stdout(), process.stderr());
    let (out, err, status) = soon("the end", async { Ok::<_, anyhow::Error>((whole(out).await?, whole(err).await?, status.await)) }).await?;
    soon("the connection's end", process.join()).await?;
    let status = status.context("no status came")?;
    let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = causes.into_iter().find(|cause| cause.reason.as_deref() == Some("ExitCode")).and_then(|cause| cause.message);
    Ok((out, err, code.or(status.status).unwrap_or_default()))
}

pub async fn exec_attach_and_port_forward(client: Client) -> Result<()> {
    let ns = namespace(&client, "kube-rs-streams").await?;
    let pods = Api::<Pod>::namespaced(client, &ns);
    let script = "while read line; do echo got $line; done";
    running(&pods, "box", json!({"name": "main", "image": "busybox:v1", "stdin": true, "command": ["sh", "-c", script]})).await?;
    exec(&pods).await?;
    terminal(&pods).await?;

    // Attached, a program goes on with what it is told.
    let mut attached = pods.attach("box", &AttachParams::default().stdin(true).stdout(true).stderr(false)).await?;
    let (mut stdin, mut stdout) = (attached.stdin().context("stdin")?, attached.stdout().context("stdout")?);
    stdin.write_all(b"a word\n").await?;
    ensure!(until(&mut stdout, "got a word\n").await?.ends_with("got a word\n"));
    attached.abort();
    let other = AttachParams::default().container("other");
    ensure!(pods.attach("box", &other).await.is_err(), "there is no such container");
    ensure!(refusal(pods.get("nothing").await)?.is_not_found());

    running(&pods, "web", json!({"name": "web", "image": "hello:v1", "ports": [{"containerPort": 8080}]})).await?;
    soon(
        "a listener",
        await_condition(pods.clone(), "web", |pod: Option<&Pod>| {
            let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        }),
    )
    .await?;
    let mut forwarded = pods.portforward("web", &[8080, 8081]).await?;
    let mut stream = forwarded.take_stream(8080).context("the port's stream")?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await?;
    ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let error = forwarded.take_error(8081).context("the other port's errors")?;
    let mut closed = forwarded.take_stream(8081).context("the other port's stream")?;
    // Whoever refuses says so on the stream of errors.
    closed.write_all(b"anybody there?").await?;
    let error = soon("an error", async { Ok::<_, anyhow::Error>(error.await) }).await?.context("no error came")?;
    ensure!(error.contains("8081"), "{error}");
    forwarded.abort();
    Ok(())
}

async fn exec(pods: &Api<Pod>) -> Result<()> {
    let quiet = AttachParams::default();
    let both = pods.exec("box", ["sh", "-c", "echo out; echo err >&2; exit 3"], &quiet).await?;
    let (out, err, code) = said(both).await?;
    ensure!((out.as_str(), err.as_str(), code.as_str()) == ("out\n", "err\n", "3"), "{out}{err}{code}");
    let missing = said(pods.exec("box", ["no-such-program"], &quiet).await?).await?;
    ensure!(missing.2 != "3" && !missing.2.contains("Success"), "{missing:?}");

    // A program that reads to the end of what it is sent.
    let mut counting = pods.exec("box", ["wc", "-c"], &AttachParams::default().stdin(true).stderr(false)).await?;
    let mut stdin = counting.stdin().context("stdin")?;
    stdin.write_all(&vec![b'x'; 200_000]).await?;
    stdin.shutdown().await?;
    drop(stdin);
    let mut stdout = counting.stdout().context("stdout")?;
    until(&mut stdout, "200000\n").await?;
    counting.abort();
    Ok(())
}

/// A terminal, which changes its size.
async fn terminal(pods: &Api<Pod>) -> Result<()> {
    let mut shell = pods.exec("box", ["sh"], &AttachParams::interactive_tty()).await?;
    let mut size = shell.terminal_size().context("the terminal's size")?;
    size.send(TerminalSize { width: 123, height: 45 }).await?;
    let (mut stdin, mut stdout) = (shell.stdin().context("stdin")?, shell.stdout().context("stdout")?);
    // The size goes a way of its own: it is asked for until it has come.
    stdin.write_all(b"until [ \"$(stty size)\" = '45 123' ]; do sleep 0.1; done; echo it is $(stty size)\n").await?;
    until(&mut stdout, "it is 45 123\r\n").await?;
    let status = shell.take_status().context("a status")?;
    stdin.write_all(b"exit\n").await?;
    let status = soon("the shell's end", async { status.await.context("no status came") }).await?;
    ensure!(status.status.as_deref() == Some("Success"), "{status:?}");
    Ok(())
}
