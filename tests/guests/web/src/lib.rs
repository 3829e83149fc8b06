//! A `wasi:http` component whose path says what to do: the whole-system tests' function.

use std::sync::atomic::{AtomicU32, Ordering};
use wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme};

static SERVED: AtomicU32 = AtomicU32::new(0);

struct Web;

wasip2::http::proxy::export!(Web);

impl wasip2::exports::http::incoming_handler::Guest for Web {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (code, text) = match path {
            "/" => (200, format!("web of {}\n", env("HOSTNAME"))),
            // 1 in a fresh instance, always.
            "/served" => (200, format!("{}\n", SERVED.fetch_add(1, Ordering::Relaxed) + 1)),
            "/env" => (200, format!("{}\n", env(query))),
            "/args" => (200, format!("{:?}\n", std::env::args().collect::<Vec<_>>())),
            "/headers" => (200, headers(&request)),
            "/read" => std::fs::read_to_string(query).map_or_else(|error| (500, format!("{error}\n")), |text| (200, text)),
            "/allocate" => {
                let block = vec![1u8; query.parse::<usize>().unwrap_or(0) << 20];
                (200, format!("{}\n", std::hint::black_box(&block).len() >> 20))
            }
            "/sleep" => {
                std::thread::sleep(std::time::Duration::from_millis(query.parse().unwrap_or(0)));
                (200, "slept\n".into())
            }
            "/loop" => loop {
                std::hint::black_box(0);
            },
            "/log" => {
                println!("{query}");
                eprintln!("{query} on stderr");
                (200, "logged\n".into())
            }
            "/panic" => panic!("asked to"),
            "/echo" => {
                let method = match request.method() {
                    Method::Get => "GET",
                    Method::Post => "POST",
                    Method::Put => "PUT",
                    _ => "other",
                };
                (200, format!("{method} {target} {}\n", body(&request)))
            }
            "/fetch" => fetch(query),
            "/connect" => match std::net::TcpStream::connect(query) {
                Ok(stream) => (200, format!("{:?}\n", stream.local_addr().map(|addr| addr.ip()))),
                Err(error) => (502, format!("{error}\n")),
            },
            _ => (404, "no such path\n".into()),
        };
        respond(out, code, &text);
    }
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| "<unset>".into())
}

fn headers(request: &IncomingRequest) -> String {
    let mut lines: Vec<String> = request.headers().entries().into_iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(&value))).collect();
    lines.sort();
    lines.concat()
}

fn body(request: &IncomingRequest) -> String {
    let Ok(body) = request.consume() else { return String::new() };
    let Ok(stream) = body.stream() else { return String::new() };
    let mut bytes = Vec::new();
    while let Ok(chunk) = stream.blocking_read(64 << 10) {
        bytes.extend(chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn fetch(authority: &str) -> (u16, String) {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some("/"));
    match wasip2::http::outgoing_handler::handle(request, None) {
        Err(error) => (502, format!("{error}\n")),
        Ok(future) => {
            future.subscribe().block();
            match future.get() {
                Some(Ok(Ok(response))) => (200, format!("fetched {}\n", response.status())),
                other => (502, format!("{other:?}\n")),
            }
        }
    }
}

fn respond(out: ResponseOutparam, code: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let _ = response.set_status_code(code);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        for chunk in text.as_bytes().chunks(4096) {
            let _ = stream.blocking_write_and_flush(chunk);
        }
    }
    let _ = OutgoingBody::finish(body, None);
}
