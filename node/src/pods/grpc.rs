//! A gRPC health check (`grpc.health.v1.Health/Check`) as kubelet's prober makes it: in plain text, one call, anything but SERVING is a failure.
//!
//! By hand on hyper: a request of one string and an answer of one number (Protocol Buffers' wire format) in a frame of five bytes do not earn a gRPC stack.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpStream;

/// The longest answer that is read.
const ANSWER: usize = 4 << 10;
/// Between two tries to connect within the probe's time.
const AGAIN: Duration = Duration::from_millis(100);
/// Names of `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// Names of gRPC's status codes.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNIMPLEMENTED: usize = 12;

/// Checks once; `Err` says why it failed, in kubelet's words.
///
/// # Errors
/// Nobody answers in time, or not that it serves.
pub async fn check(ip: IpAddr, port: u16, service: &str, limit: Duration) -> Result<(), String> {
    let address = SocketAddr::new(ip, port);
    let deadline = tokio::time::Instant::now() + limit;
    let connected = tokio::time::timeout_at(deadline, async {
        loop {
            // As gRPC's blocking dial: until it works or time is over.
            if let Ok(stream) = TcpStream::connect(address).await
                && let Ok(made) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await
            {
                return made;
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    let within = format!("{}s", limit.as_secs());
    let Ok((mut sender, connection)) = connected.await else {
        return Err(format!("timeout: failed to connect service \"{address}\" within {within}: context deadline exceeded"));
    };
    let call = async {
        let request = hyper::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.36")
            .body(Full::new(request(service)))
            .map_err(|error| failed(2, &error.to_string()))?;
        let response = sender.send_request(request).await.map_err(|error| failed(14, &error.to_string()))?;
        if response.status() != 200 {
            return Err(failed(2, &format!("unexpected HTTP status code received from server: {}", response.status())));
        }
        let headers = response.headers().clone();
        let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(|error| failed(13, &error.to_string()))?;
        let trailers = body.trailers().cloned().unwrap_or(headers);
        outcome(&trailers)?;
        let status = serving(&body.to_bytes()).ok_or_else(|| failed(13, "the answer is no HealthCheckResponse"))?;
        match STATUSES.get(usize::try_from(status).unwrap_or(usize::MAX)) {
            Some(&"SERVING") => Ok(()),
            Some(name) => Err(format!("service unhealthy (responded with {name:?})")),
            None => Err(format!("service unhealthy (responded with \"{status}\")")),
        }
    };
    tokio::select! {
        answer = tokio::time::timeout_at(deadline, call) => {
            answer.unwrap_or_else(|_| Err(format!("timeout: health rpc did not complete within {within}")))
        }
        ended = connection => Err(failed(14, &ended.err().map_or_else(|| "the connection was closed".into(), |error| error.to_string()))),
    }
}

fn failed(code: usize, message: &str) -> String {
    let name = CODES.get(code).copied().unwrap_or("Unknown");
    format!("error: health rpc probe failed: rpc error: code = {name} desc = {message}")
}

/// What `grpc-status` and `grpc-message` say.
fn outcome(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let message = percent_encoding::percent_decode_str(text("grpc-message").unwrap_or_default()).decode_utf8_lossy().into_owned();
    match text("grpc-status").and_then(|code| code.parse::<usize>().ok()) {
        Some(0) => Ok(()),
        Some(UNIMPLEMENTED) => Err(format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}")),
        Some(code) => Err(failed(code, &message)),
        None => Err(failed(13, "server closed the stream without sending trailers")),
    }
}

/// `HealthCheckRequest`: field 1 is the service's name.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(&message);
    frame.freeze()
}

/// `HealthCheckResponse`: field 1 is the status, 0 when it is left out; others are skipped.
fn serving(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = usize::try_from(u32::from_be_bytes(head.get(1..)?.try_into().ok()?)).ok()?;
    if head.first() != Some(&0) {
        return None;
    }
    let mut rest = message.get(..length)?;
    let mut status = 0;
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        match key & 7 {
            0 => {
                let value = number(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::{Response, body::Frame, service::service_fn};
    use std::convert::Infallible;

    /// A server whose health of `up` is good, of `down` bad, of `slow` never told, and which knows no other.
    async fn server() -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let name = String::from_utf8_lossy(body.get(7..).unwrap_or_default()).into_owned();
                    let (status, grpc, message) = match name.as_str() {
                        "up" => (1, "0", ""),
                        "down" => (2, "0", ""),
                        "slow" => std::future::pending().await,
                        "old" => (0, "12", "unknown%20method"),
                        _ => (0, "5", "unknown service"),
                    };
                    assert_eq!(path, "/grpc.health.v1.Health/Check");
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", grpc.parse().unwrap());
                    trailers.insert("grpc-message", message.parse().unwrap());
                    let data = Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
                    let frames = futures::stream::iter([Ok::<_, Infallible>(Frame::data(data)), Ok(Frame::trailers(trailers))]);
                    Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
                });
                tokio::spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer));
            }
        });
        port
    }

    #[tokio::test]
    async fn answers_become_kubelets_words() {
        let port = server().await;
        let check = |service: &'static str, limit| check([127, 0, 0, 1].into(), port, service, Duration::from_millis(limit));
        assert_eq!(check("up", 10_000).await, Ok(()));
        assert_eq!(check("down", 10_000).await.unwrap_err(), "service unhealthy (responded with \"NOT_SERVING\")");
        assert_eq!(check("other", 10_000).await.unwrap_err(), "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service");
        assert_eq!(
            check("old", 10_000).await.unwrap_err(),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown method"
        );
        assert_eq!(check("slow", 1000).await.unwrap_err(), "timeout: health rpc did not complete within 1s");
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = super::check([127, 0, 0, 1].into(), closed, "", Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(refused, format!("timeout: failed to connect service \"127.0.0.1:{closed}\" within 1s: context deadline exceeded"));
    }

    #[test]
    fn messages_are_read_whatever_else_is_in_them() {
        assert_eq!(&*request(""), [0, 0, 0, 0, 0]);
        assert_eq!(&*request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(request(&"x".repeat(300)).get(..8), Some(&[0, 0, 0, 1, 0x2f, 0x0a, 0xac, 2][..]));
        assert_eq!(serving(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(serving(&[0, 0, 0, 0, 7, 0x12, 1, b'x', 0x08, 1, 0x18, 5]), Some(1));
        for wrong in [&[][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 9, 8, 1], &[0, 0, 0, 0, 1, 0x08], &[0, 0, 0, 0, 1, 0x0f]] {
            assert_eq!(serving(wrong), None, "{wrong:?}");
        }
    }
}
