//! Pods that answer requests.

use crate::{cases, world::*};
use coracle_runtime::{Mount, Resources, Runtime, State};
use std::{net::SocketAddr, time::Duration};

cases![
    http_hello,
    http_each_request_has_a_fresh_instance,
    http_sees_env_args_and_volumes,
    http_ports,
    http_slow_request_gets_504,
    http_a_loop_does_not_hold_the_host,
    http_memory_limit,
    http_memory_limit_changes_while_it_serves,
    http_cpu_limit,
    http_failures_are_500_and_noticed,
    http_output_goes_to_the_log,
    http_sockets_and_fetch_leave_from_the_pod,
    http_drains_when_stopped,
    http_service_listeners,
    http_stats,
    http_two_protocols,
    http_old_clients_name_no_host,
];

async fn http_hello() {
    let world = World::new().await;
    let image = world.built("hello");
    let (sandbox, id) = world.run(&image, |_| {}).await;
    assert!(matches!(world.state(&id).await, Some(State::Running { .. })));
    let (status, body) = get(sandbox.ip, 8080, "/").await.unwrap();
    assert_eq!((status, body.as_str()), (200, "Hello from a coracle\n"));
    world.runtime.stop_container(&id, Duration::from_secs(5)).await.unwrap();
    assert!(get(sandbox.ip, 8080, "/").await.is_err());
    assert_eq!(world.exit(&id).await.0, 0);
    world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
    assert!(world.runtime.list().await.unwrap().is_empty());
}

async fn http_each_request_has_a_fresh_instance() {
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("web"), |_| {}).await;
    for _ in 0..20 {
        assert_eq!(get(sandbox.ip, 8080, "/served").await.unwrap(), (200, "1\n".to_owned()));
    }
}

async fn http_sees_env_args_and_volumes() {
    let world = World::new().await;
    let volume = world.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    let (sandbox, _) = world
        .run(&world.built("web"), |spec| {
            spec.env = vec![("GREETING".to_owned(), "ahoy".to_owned())];
            spec.args = vec!["one".to_owned()];
            spec.mounts = vec![Mount { host_path: volume, container_path: "/data".to_owned(), read_only: true, ..Default::default() }];
        })
        .await;
    assert_eq!(get(sandbox.ip, 8080, "/env?GREETING").await.unwrap().1, "ahoy\n");
    assert_eq!(get(sandbox.ip, 8080, "/env?FROM_IMAGE").await.unwrap().1, "yes\n");
    assert_eq!(get(sandbox.ip, 8080, "/env?PATH").await.unwrap().1, "<unset>\n", "nothing of the node's environment");
    assert_eq!(get(sandbox.ip, 8080, "/args").await.unwrap().1, "[\"main\", \"one\"]\n");
    assert_eq!(get(sandbox.ip, 8080, "/read?/data/file").await.unwrap(), (200, "content".to_owned()));
    assert_eq!(get(sandbox.ip, 8080, "/read?/etc/passwd").await.unwrap().0, 500);
    assert_eq!(get(sandbox.ip, 8080, "/read?/data/../../../etc/passwd").await.unwrap().0, 500);
}

async fn http_ports() {
    let world = World::new().await;
    let image = world.built("hello");
    let (sandbox, _) = world.run(&image, |spec| spec.ports = vec![port(8001), port(8002), port(8001)]).await;
    assert_eq!(get(sandbox.ip, 8001, "/").await.unwrap().0, 200);
    assert_eq!(get(sandbox.ip, 8002, "/").await.unwrap().0, 200);
    assert!(get(sandbox.ip, 8080, "/").await.is_err());
    // Another container of the pod may not have the same port.
    let mut other = world.container(&sandbox, &image);
    other.name = "other".to_owned();
    other.ports = vec![port(8002)];
    let id = world.runtime.create_container(other).await.unwrap();
    let error = world.runtime.start_container(&id).await.unwrap_err();
    assert!(error.message.contains("port 8002"), "{error}");
    // Nor one that something else on the machine has.
    let taken = std::net::TcpListener::bind((sandbox.ip, 0)).unwrap();
    let number = taken.local_addr().unwrap().port();
    let mut third = world.container(&sandbox, &image);
    third.name = "third".to_owned();
    third.ports = vec![port(number)];
    let id = world.runtime.create_container(third).await.unwrap();
    let error = world.runtime.start_container(&id).await.unwrap_err();
    assert!(error.message.contains("in use"), "{error}");
    drop(taken);
    world.runtime.start_container(&id).await.unwrap();
    assert_eq!(get(sandbox.ip, number, "/").await.unwrap().0, 200);
}

async fn http_slow_request_gets_504() {
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("web"), |spec| spec.request_timeout = Duration::from_millis(300)).await;
    assert_eq!(get(sandbox.ip, 8080, "/sleep?20000").await.unwrap().0, 504);
    assert_eq!(get(sandbox.ip, 8080, "/loop").await.unwrap().0, 504);
    assert_eq!(get(sandbox.ip, 8080, "/sleep?1").await.unwrap(), (200, "slept\n".to_owned()));
}

async fn http_a_loop_does_not_hold_the_host() {
    let world = World::new().await;
    let image = world.built("web");
    let (looping, id) = world.run(&image, |spec| spec.request_timeout = Duration::from_secs(30)).await;
    let (other, _) = world.run(&image, |_| {}).await;
    // More loops than hosts, so that each has some.
    let loops: Vec<_> = (0..8).map(|_| tokio::spawn(get(looping.ip, 8080, "/loop"))).collect();
    until("all loops run", async || {
        let stats = world.runtime.stats(&looping.pod.uid).await.unwrap().containers;
        stats.first().is_some_and(|(_, stats)| stats.cpu_nanos > 50_000_000)
    })
    .await;
    for _ in 0..20 {
        assert_eq!(get(other.ip, 8080, "/").await.unwrap().0, 200);
    }
    assert!(loops.iter().all(|task| !task.is_finished()), "the others were answered while the loops ran");
    world.runtime.stop_container(&id, Duration::from_millis(50)).await.unwrap();
    for task in loops {
        assert_ne!(task.await.unwrap().map(|(status, _)| status), Ok(200));
    }
}

async fn http_memory_limit() {
    let world = World::new().await;
    let (sandbox, id) = world.run(&world.built("web"), |spec| spec.resources.memory_limit = Some(32 << 20)).await;
    assert_eq!(get(sandbox.ip, 8080, "/allocate?8").await.unwrap(), (200, "8\n".to_owned()));
    assert_eq!(get(sandbox.ip, 8080, "/allocate?64").await.unwrap().0, 500);
    let notice = world.notice("MemoryLimitExceeded").await;
    assert!(notice.contains("33554432"), "{notice}");
    assert!(matches!(world.state(&id).await, Some(State::Running { .. })), "the pod stays");
    assert_eq!(get(sandbox.ip, 8080, "/allocate?8").await.unwrap().0, 200);
    // The bound is on all instances together: enough of them at once, and some get 503.
    let many: Vec<_> = (0..64).map(|_| tokio::spawn(get(sandbox.ip, 8080, "/sleep?500"))).collect();
    let mut seen = Vec::new();
    for task in many {
        seen.push(task.await.unwrap().unwrap().0);
    }
    assert!(seen.contains(&200) && seen.contains(&503), "{seen:?}");
    assert!(seen.iter().all(|status| [200, 503].contains(status)), "{seen:?}");
    until("all memory is given back", async || world.runtime.stats(&sandbox.pod.uid).await.unwrap().containers[0].1.memory_bytes == 0).await;
}

async fn http_memory_limit_changes_while_it_serves() {
    let world = World::new().await;
    let (sandbox, id) = world.run(&world.built("web"), |spec| spec.resources.memory_limit = Some(32 << 20)).await;
    let resize = async |memory: u64| {
        let resources = Resources { memory_limit: Some(memory), ..Resources::default() };
        world.runtime.resize(&sandbox.pod.uid, Resources::default(), vec![(id.clone(), resources)]).await
    };
    for (limit, status) in [(None, 500), (Some(128 << 20), 200), (Some(32 << 20), 500)] {
        if let Some(limit) = limit {
            resize(limit).await.unwrap();
        }
        // In each of the hosts.
        for _ in 0..8 {
            assert_eq!(get(sandbox.ip, 8080, "/allocate?64").await.unwrap().0, status, "{limit:?}");
        }
    }
    let error = resize(64 << 10).await.unwrap_err();
    assert!(error.message.contains("an instance begins with"), "{error}");
}

async fn http_cpu_limit() {
    let world = World::new().await;
    let begun = std::time::Instant::now();
    let (sandbox, _) = world.run(&world.built("web"), |spec| spec.resources.cpu_limit_millis = Some(20)).await;
    let used = async || Duration::from_nanos(world.runtime.stats(&sandbox.pod.uid).await.unwrap().containers[0].1.cpu_nanos);
    until("they have used some of the CPU", async || {
        assert_eq!(get(sandbox.ip, 8080, "/allocate?16").await.unwrap().0, 200);
        used().await > Duration::from_millis(100)
    })
    .await;
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?} for {:?}", used().await, begun.elapsed());
}

async fn http_failures_are_500_and_noticed() {
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("web"), |_| {}).await;
    assert_eq!(get(sandbox.ip, 8080, "/panic").await.unwrap().0, 500);
    assert!(world.notice("RequestFailed").await.contains("unreachable"));
    until("the panic is in the log", async || world.log(&sandbox).contains("asked to")).await;
    assert_eq!(get(sandbox.ip, 8080, "/nothing").await.unwrap().0, 404);
}

async fn http_output_goes_to_the_log() {
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("web"), |_| {}).await;
    get(sandbox.ip, 8080, "/log?ahoy").await.unwrap();
    let path = sandbox.dir.join("main/0.log");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(" stdout F ahoy\n") && text.contains(" stderr F ahoy on stderr\n"), "{text}");
}

async fn http_sockets_and_fetch_leave_from_the_pod() {
    let world = World::new().await;
    let image = world.built("web");
    let (client, _) = world.run(&image, |_| {}).await;
    let (server, _) = world.run(&image, |_| {}).await;
    let (status, from) = get(client.ip, 8080, &format!("/connect?{}:8080", server.ip)).await.unwrap();
    assert_eq!((status, from), (200, format!("Ok({})\n", client.ip)));
    assert_eq!(get(client.ip, 8080, &format!("/fetch?{}:8080", server.ip)).await.unwrap(), (200, "fetched 200\n".to_owned()));
    // Loopback is the pod itself, not the node.
    let node = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = node.local_addr().unwrap();
    assert_eq!(get(client.ip, 8080, &format!("/connect?{at}")).await.unwrap().0, 502);
    assert_eq!(get(client.ip, 8080, "/connect?127.0.0.1:8080").await.unwrap().0, 200);
    // What fetch binds is seen by a server of ours.
    let seen = tokio::net::TcpListener::bind((server.ip, 0)).await.unwrap();
    let at = seen.local_addr().unwrap();
    let fetch = tokio::spawn(async move { get(client.ip, 8080, &format!("/fetch?{at}")).await });
    let (stream, peer) = tokio::time::timeout(PATIENCE, seen.accept()).await.unwrap().unwrap();
    assert_eq!(peer.ip(), client.ip);
    drop(stream);
    assert_eq!(fetch.await.unwrap().unwrap().0, 502);
}

async fn http_drains_when_stopped() {
    let world = World::new().await;
    let (sandbox, id) = world.run(&world.built("web"), |_| {}).await;
    let slow = tokio::spawn(get(sandbox.ip, 8080, "/sleep?700"));
    until("the request is there", async || world.runtime.stats(&sandbox.pod.uid).await.unwrap().containers[0].1.memory_bytes > 0).await;
    world.runtime.stop_container(&id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), (200, "slept\n".to_owned()), "what was under way is finished");
}

async fn http_service_listeners() {
    let world = World::new().await;
    let image = world.built("web");
    let (one, _) = world.run(&image, |_| {}).await;
    let (two, _) = world.run(&image, |_| {}).await;
    let service = SocketAddr::new(address(), 8090);
    // Both pods stand behind one address, as endpoints of a Service do.
    world.runtime.set_service_listeners(&one.pod.uid, vec![(service, 8080)]).await.unwrap();
    world.runtime.set_service_listeners(&two.pod.uid, vec![(service, 8080)]).await.unwrap();
    for _ in 0..20 {
        assert_eq!(get(service.ip(), 8090, "/served").await.unwrap().0, 200);
    }
    world.runtime.set_service_listeners(&one.pod.uid, Vec::new()).await.unwrap();
    world.runtime.remove_sandbox(&two.pod.uid).await.unwrap();
    until("nobody listens any more", async || get(service.ip(), 8090, "/").await.is_err()).await;
    assert_eq!(get(one.ip, 8080, "/").await.unwrap().0, 200);
    // In front of a process that listens for itself.
    let probe = world.built("probe");
    let (three, _) = world.run(&probe, |spec| spec.args = vec!["listen".to_owned(), "0.0.0.0:9000".to_owned()]).await;
    world.runtime.set_service_listeners(&three.pod.uid, vec![(service, 9000)]).await.unwrap();
    until("it listens", async || world.log(&three).contains("listening on")).await;
    assert!(line(service).await.contains("you are"));
}

async fn http_stats() {
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("web"), |_| {}).await;
    let before = world.runtime.stats(&sandbox.pod.uid).await.unwrap().containers[0].1.cpu_nanos;
    for _ in 0..50 {
        get(sandbox.ip, 8080, "/").await.unwrap();
    }
    let after = world.runtime.stats(&sandbox.pod.uid).await.unwrap().containers[0].clone();
    assert!(after.1.cpu_nanos > before, "{after:?}");
    assert_eq!((after.0.as_str(), after.1.memory_bytes), ("main", 0), "idle, it holds nothing");
}

async fn http_two_protocols() {
    use http_body_util::{BodyExt, Full};
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("web"), |_| {}).await;
    let stream = tokio::net::TcpStream::connect((sandbox.ip, 8080)).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = Full::new(bytes::Bytes::from(vec![b'x'; 200_000]));
    let request = http::Request::post(format!("http://{}:8080/echo", sandbox.ip)).body(body).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(text.starts_with(b"POST /echo xxx") && text.len() > 200_000, "{} bytes", text.len());
}

async fn http_old_clients_name_no_host() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("web"), |_| {}).await;
    for (request, answer) in [("GET / HTTP/1.0\n\n", "HTTP/1.0 200 "), ("GET / HTTP/1.1\nConnection: close\n\n", "HTTP/1.1 400 ")] {
        let mut stream = tokio::net::TcpStream::connect((sandbox.ip, 8080)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with(answer), "{request:?}: {text}");
    }
}
