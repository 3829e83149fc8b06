//! A lifecycle hook (`postStart`, `preStop`): a command in the container, a GET to the pod, or a pause.

use super::{
    exec,
    http::{PLAIN, Request},
    probe::Inside,
    spec::{Container, Handler},
};
use std::{net::IpAddr, time::Duration};

/// How long a hook may take for an answer. Kubernetes has no bound here; a container that waits for ever would never be Ready and never say why.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs it. Any answer to a GET is success, whatever its status, as with kubelet; a command is well when it exits with 0. `Ok(true)`: the answer came in plain HTTP where HTTPS was asked for.
pub async fn run(container: &Container, hook: &Handler, ip: IpAddr, inside: Option<Inside<'_>>) -> Result<bool, String> {
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(false);
    }
    if let Some(action) = &hook.exec {
        let Some(Inside { runtime, id }) = inside else { return Err("the pod has no runtime".into()) };
        return match exec::run(runtime, id, &action.command, Some(PATIENCE)).await {
            Ok((0, _)) => Ok(false),
            Ok((code, output)) => Err(format!("command terminated with exit code {code}: {output:?}")),
            Err(exec::Trouble::TimedOut(why) | exec::Trouble::Lost(why)) => Err(why),
        };
    }
    let Some(get) = &hook.http_get else { return Err("the hook names neither exec, httpGet nor sleep".into()) };
    let request = || Request::new(container, get, ip, "kube-lifecycle");
    let send = async {
        match request()?.send().await {
            Err(why) if why.ends_with(PLAIN) => request()?.plain().send().await.map(|_| true),
            answer => answer.map(|_| false),
        }
    };
    tokio::time::timeout(PATIENCE, send).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn any_answer_is_success_and_none_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        let hook = |value| serde_json::from_value::<Handler>(value).unwrap();
        let run = |hook: Handler| async move { run(&Container::default(), &hook, [127, 0, 0, 1].into(), None).await };
        assert_eq!(run(hook(json!({ "httpGet": { "port": port } }))).await, Ok(false));
        assert_eq!(run(hook(json!({ "httpGet": { "port": port, "scheme": "HTTPS" } }))).await, Ok(true), "it falls back");
        serving.abort();
        assert!(serving.await.is_err());
        assert!(run(hook(json!({ "httpGet": { "port": port } }))).await.unwrap_err().contains("refused"));
        assert_eq!(run(hook(json!({ "sleep": { "seconds": 0 } }))).await, Ok(false));
        assert!(run(hook(json!({}))).await.is_err());
    }
}
