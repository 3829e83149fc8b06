//! Pods that are processes.

use crate::{cases, world::*};
use coracle_runtime::{Mount, Resources, Runtime};
use std::{net::SocketAddr, os::unix::fs::PermissionsExt, time::Duration};
use tokio::io::AsyncWriteExt;

cases![
    cli_hello,
    cli_exit_codes,
    cli_args_env_stdio,
    cli_volumes,
    cli_memory_limit,
    cli_memory_limit_changes_while_it_runs,
    cli_cpu_limit,
    cli_sockets_are_the_pods,
    cli_stops,
    cli_module_of_preview_1,
    cli_module_of_preview_1_has_args_and_volumes,
    cli_log_rotates,
    cli_log_rotates_after_a_failure,
    cli_leaked_handles_end_it_alone,
    cli_names_resolve,
];

async fn cli_hello() {
    let world = World::new().await;
    let (code, reason, log) = world.probe(&["hello"], |_| {}).await;
    assert_eq!((code, reason.as_str(), log.as_str()), (0, "Completed", "hello from probe\n"));
}

async fn cli_exit_codes() {
    let world = World::new().await;
    let (code, reason, _) = world.probe(&["exit", "42"], |_| {}).await;
    assert_eq!((code, reason.as_str()), (42, "Error"));
    let (code, reason, _) = world.probe(&["abort"], |_| {}).await;
    assert_eq!((code, reason.as_str()), (134, "Error"));
    let (code, _, log) = world.probe(&["cat", "/nowhere"], |_| {}).await;
    assert_eq!(code, 1, "{log}");
}

async fn cli_args_env_stdio() {
    let world = World::new().await;
    let args = ["args", "a b", "--", "env", "NAME", "--", "env", "FROM_IMAGE", "--", "stderr", "oops", "--", "stdin"];
    let (code, _, log) = world.probe(&args, |spec| spec.env = vec![("NAME".to_owned(), "coracle".to_owned())]).await;
    assert_eq!((code, log.as_str()), (0, "args [\"a b\"]\nNAME=coracle\nFROM_IMAGE=yes\noops\nstdin \"\"\n"));
}

async fn cli_volumes() {
    let world = World::new().await;
    let (read, write) = (world.dir.path().join("read"), world.dir.path().join("write"));
    for dir in [&read, &write] {
        std::fs::create_dir(dir).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    std::fs::write(read.join("file"), "content\n").unwrap();
    let mounts = vec![
        Mount { host_path: read.clone(), container_path: "/read".to_owned(), read_only: true, ..Default::default() },
        Mount { host_path: write.clone(), container_path: "/write".to_owned(), read_only: false, ..Default::default() },
    ];
    let args = ["cat", "/read/file", "--", "write", "/write/new", "hello", "--", "ls", "/write", "--", "write", "/read/file", "no"];
    let (code, _, log) = world.probe(&args, |spec| spec.mounts = mounts.clone()).await;
    assert_eq!(code, 1, "the last one is refused: {log}");
    assert!(log.starts_with("content\n[\"new\"]\nerror: "), "{log}");
    assert_eq!(std::fs::read_to_string(write.join("new")).unwrap(), "hello");
    assert_eq!(std::fs::read_to_string(read.join("file")).unwrap(), "content\n");
}

async fn cli_memory_limit() {
    let world = World::new().await;
    let (code, _, log) = world.probe(&["allocate", "8"], |spec| spec.resources.memory_limit = Some(32 << 20)).await;
    assert_eq!((code, log.as_str()), (0, "allocated 8\n"));
    let (code, reason, _) = world.probe(&["allocate", "64"], |spec| spec.resources.memory_limit = Some(32 << 20)).await;
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"));
    // Less than the guest begins with can never work.
    let sandbox = world.sandbox();
    world.runtime.run_sandbox(sandbox.clone()).await.unwrap();
    let mut spec = world.container(&sandbox, &world.built("probe"));
    spec.resources.memory_limit = Some(64 << 10);
    let error = world.runtime.create_container(spec).await.unwrap_err();
    assert!(error.fatal && error.message.contains("limits.memory"), "{error}");
}

async fn cli_memory_limit_changes_while_it_runs() {
    let world = World::new().await;
    // It takes more whenever it is told to go on.
    let teller = tokio::net::TcpListener::bind((address(), 0)).await.unwrap();
    let at = teller.local_addr().unwrap().to_string();
    let args = ["allocate", "8", "--", "connect", &at, "--", "allocate", "40", "--", "connect", &at, "--", "allocate", "120"];
    let image = world.built("probe");
    let run = world.run(&image, |spec| {
        spec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        spec.resources.memory_limit = Some(32 << 20);
    });
    let (sandbox, id) = run.await;
    let waits = async || tokio::time::timeout(PATIENCE, teller.accept()).await.unwrap().unwrap().0;
    let resize = async |memory: u64| {
        let resources = Resources { memory_limit: Some(memory), ..Resources::default() };
        world.runtime.resize(&sandbox.pod.uid, Resources::default(), vec![(id.clone(), resources)]).await
    };
    let mut waiting = waits().await;
    let error = resize(4 << 20).await.unwrap_err();
    assert!(error.message.contains("container \"main\" memory limit (4194304) below current usage ("), "{error}");
    assert_eq!(error.reason, "ResizeError");
    resize(100 << 20).await.unwrap();
    waiting.write_all(b"go on\n").await.unwrap();
    let mut waiting = waits().await;
    assert!(world.log(&sandbox).contains("allocated 40\n"), "{}", world.log(&sandbox));
    waiting.write_all(b"go on\n").await.unwrap();
    let (code, reason, message) = world.exit(&id).await;
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"));
    assert!(message.contains(&(100u64 << 20).to_string()), "{message}");
}

async fn cli_cpu_limit() {
    let world = World::new().await;
    let looping = |limit: Option<u64>| {
        move |spec: &mut coracle_runtime::ContainerSpec| (spec.args, spec.resources.cpu_limit_millis) = (vec!["loop".to_owned()], limit)
    };
    let image = world.built("probe");
    let begun = std::time::Instant::now();
    let (sandbox, id) = world.run(&image, looping(Some(100))).await;
    let used = async || Duration::from_nanos(world.runtime.stats(&sandbox.pod.uid).await.unwrap().containers[0].1.cpu_nanos);
    until("it has used some of the CPU", async || used().await > Duration::from_millis(300)).await;
    // Nine tenths of the time it waited, but for what it may use at once and one tick.
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?} for {:?}", used().await, begun.elapsed());
    // Another limit holds at once, and it can be stopped while it waits.
    let resize = |limit: u64| {
        world.runtime.resize(
            &sandbox.pod.uid,
            Resources::default(),
            vec![(id.clone(), Resources { cpu_limit_millis: Some(limit), ..Resources::default() })],
        )
    };
    resize(2000).await.unwrap();
    let before = used().await;
    until("it has used much more", async || used().await > before + Duration::from_secs(1)).await;
    resize(1).await.unwrap();
    world.runtime.stop_container(&id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(world.exit(&id).await.0, 143);
}

async fn cli_sockets_are_the_pods() {
    let world = World::new().await;
    let image = world.built("probe");
    let (server, _) = world.run(&image, |spec| spec.args = ["listen", "0.0.0.0:9000"].map(str::to_owned).to_vec()).await;
    until("it listens", async || world.log(&server).contains(&format!("listening on {}:9000", server.ip))).await;
    assert!(line(SocketAddr::new(server.ip, 9000)).await.contains("you are"));
    assert!(tokio::net::TcpStream::connect("127.0.0.1:9000").await.is_err(), "the node's loopback is not the pod's");
    // Its peer sees the pod's address, not the node's.
    let run = world.run(&image, |spec| spec.args = vec!["connect".to_owned(), format!("{}:9000", server.ip)]);
    let (client, id) = run.await;
    assert_eq!(world.exit(&id).await.0, 0, "{}", world.log(&client));
    assert_eq!(world.log(&client), format!("connected from {0}\nreceived you are {0}\n", client.ip));
    // Loopback and other pods' addresses cannot be bound.
    for refused in ["127.0.0.1:9000".to_owned(), format!("{}:9100", client.ip)] {
        let (code, _, log) = world.probe(&["listen", &refused], |_| {}).await;
        assert_eq!(code, 1, "{refused}: {log}");
    }
    // Datagrams too.
    let peer = tokio::net::UdpSocket::bind((address(), 0)).await.unwrap();
    let at = peer.local_addr().unwrap().to_string();
    let run = world.run(&image, |spec| spec.args = vec!["udp".to_owned(), "0.0.0.0:0".to_owned(), at]);
    let (client, id) = run.await;
    let mut buffer = [0; 16];
    let (length, from) = tokio::time::timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"ping"[..], client.ip));
    peer.send_to(b"pong", from).await.unwrap();
    assert_eq!(world.exit(&id).await.0, 0, "{}", world.log(&client));
    assert!(world.log(&client).contains("received pong"));
}

async fn cli_stops() {
    let world = World::new().await;
    let image = world.built("probe");
    for args in [vec!["loop"], vec!["sleep", "1000000"]] {
        let (_, id) = world.run(&image, |spec| spec.args = args.iter().map(|arg| (*arg).to_owned()).collect()).await;
        world.runtime.stop_container(&id, Duration::from_secs(30)).await.unwrap();
        let (code, reason, _) = world.exit(&id).await;
        assert_eq!((code, reason.as_str()), (143, "Error"));
        world.runtime.stop_container(&id, Duration::from_secs(30)).await.unwrap();
        world.runtime.remove_container(&id).await.unwrap();
        world.runtime.remove_container(&id).await.unwrap();
        assert_eq!(world.state(&id).await, None);
    }
}

async fn cli_module_of_preview_1_has_args_and_volumes() {
    let world = World::new().await;
    // Reads the file that its first argument names in its first volume, prints it, and writes it to `copy`; its exit code is the first error.
    let module = r#"(module
        (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "copy")
        (data (i32.const 16) "\00\10\00\00\40\00\00\00")
        (func $must (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
        (func (export "_start")
            (call $must (call $args (i32.const 1024) (i32.const 2048)))
            (call $must (call $open (i32.const 3) (i32.const 0) (i32.load (i32.const 1028)) (i32.const 4) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 512)))
            (call $must (call $read (i32.load (i32.const 512)) (i32.const 16) (i32.const 1) (i32.const 20)))
            (call $must (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 516)))
            (call $must (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 512)))
            (call $must (call $write (i32.load (i32.const 512)) (i32.const 16) (i32.const 1) (i32.const 516)))))"#;
    let image = world.image("module", &wat::parse_str(module).unwrap());
    let data = world.dir.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(data.join("note"), "from the volume\n").unwrap();
    let run = world.run(&image, |spec| {
        spec.args = vec!["note".to_owned()];
        spec.mounts = vec![Mount { host_path: data.canonicalize().unwrap(), container_path: "/data".into(), read_only: false, ..Default::default() }];
    });
    let (sandbox, id) = run.await;
    let (code, _, message) = world.exit(&id).await;
    assert_eq!((code, world.log(&sandbox).as_str()), (0, "from the volume\n"), "{message}");
    assert_eq!(std::fs::read_to_string(data.join("copy")).unwrap(), "from the volume\n");
}

async fn cli_module_of_preview_1() {
    let world = World::new().await;
    let module = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "hello from a module\n")
        (data (i32.const 0) "\10\00\00\00\14\00\00\00")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $exit (i32.const 7))))"#;
    let image = world.image("module", &wat::parse_str(module).unwrap());
    let (sandbox, id) = world.run(&image, |_| {}).await;
    let (code, reason, _) = world.exit(&id).await;
    assert_eq!((code, reason.as_str()), (7, "Error"));
    assert_eq!(world.log(&sandbox), "hello from a module\n");
    let loops = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#).unwrap();
    let (_, id) = world.run(&world.image("loops", &loops), |_| {}).await;
    world.runtime.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(world.exit(&id).await.0, 143);
    let grows = r#"(module (memory (export "memory") 1) (func (export "_start")
        (if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))))"#;
    let (_, id) = world.run(&world.image("grows", &wat::parse_str(grows).unwrap()), |spec| spec.resources.memory_limit = Some(1 << 20)).await;
    let (code, reason, message) = world.exit(&id).await;
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"), "{message}");
}

async fn cli_log_rotates() {
    let world = World::new().await;
    let image = world.built("probe");
    let (sandbox, id) = world
        .run(&image, |spec| {
            spec.args = ["count", "3000", "1"].map(str::to_owned).to_vec();
            spec.log_max_bytes = 20_000;
            spec.log_max_files = 3;
        })
        .await;
    assert_eq!(world.exit(&id).await.0, 0);
    let mut names: Vec<String> =
        std::fs::read_dir(sandbox.dir.join("main")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["0.log", "0.log.1", "0.log.2"]);
    let sizes: Vec<u64> = names.iter().map(|name| std::fs::metadata(sandbox.dir.join("main").join(name)).unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size < 4 * 20_000), "{sizes:?}");
    // No line is lost from one file to the next.
    let all: String = ["0.log.2", "0.log.1", "0.log"].map(|name| std::fs::read_to_string(sandbox.dir.join("main").join(name)).unwrap()).concat();
    let numbers: Vec<u32> = all.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(*numbers.last().unwrap(), 3000);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

async fn cli_log_rotates_after_a_failure() {
    let world = World::new().await;
    let sandbox = world.sandbox();
    world.runtime.run_sandbox(sandbox.clone()).await.unwrap();
    // In the way of the first rotation.
    let (log, rotated) = (sandbox.dir.join("main/0.log"), sandbox.dir.join("main/0.log.1"));
    std::fs::create_dir_all(rotated.join("full")).unwrap();
    let mut spec = world.container(&sandbox, &world.built("probe"));
    spec.args = ["count", "0", "1"].map(str::to_owned).to_vec();
    spec.log_max_bytes = 2000;
    spec.log_max_files = 2;
    let id = world.runtime.create_container(spec).await.unwrap();
    world.runtime.start_container(&id).await.unwrap();
    // No line is written any more, so the failures are behind it.
    until("the log is as full as it may be", async || std::fs::metadata(&log).is_ok_and(|meta| meta.len() > 4 * 2000)).await;
    std::fs::remove_dir_all(&rotated).unwrap();
    until("it is rotated", async || rotated.is_file()).await;
    until("and goes on", async || std::fs::read_to_string(&log).is_ok_and(|log| log.contains(" stdout F line "))).await;
    world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
}

async fn cli_leaked_handles_end_it_alone() {
    let world = World::new().await;
    let (web, _) = world.run(&world.built("hello"), |_| {}).await;
    let (_, hosts) = world.processes();
    // Asks for stdout again and again, and drops none.
    let leaks = r#"(component
        (import "wasi:io/streams@0.2.0" (instance $streams (export "output-stream" (type (sub resource)))))
        (alias export $streams "output-stream" (type $stream))
        (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (alias outer 1 $stream (type $outer))
            (export "output-stream" (type $of (eq $outer)))
            (export "get-stdout" (func (result (own $of))))))
        (core func $get (canon lower (func $stdout "get-stdout")))
        (core module $code
            (import "" "get" (func $get (result i32)))
            (func (export "run") (result i32) (loop (drop (call $get)) (br 0)) unreachable))
        (core instance $instance (instantiate $code (with "" (instance (export "get" (func $get))))))
        (func $run (result (result)) (canon lift (core func $instance "run")))
        (instance $exported (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $exported)))"#;
    let (_, id) = world.run(&world.image("leaks", &wat::parse_str(leaks).unwrap()), |_| {}).await;
    let (code, reason, message) = world.exit(&id).await;
    assert_eq!((code, reason.as_str()), (134, "Error"), "{message}");
    assert_eq!(get(web.ip, 8080, "/").await.unwrap().0, 200);
    assert_eq!(world.processes().1, hosts, "no host has died of it");
}

async fn cli_names_resolve() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind(SocketAddr::new(address(), 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let (server, name) = dns(at.ip()).await;
    let image = world.built("probe");
    let mut sandbox = world.sandbox();
    sandbox.dns.servers = vec![server];
    sandbox.dns.searches = vec!["default.svc.cluster.local".to_owned(), "cluster.local".to_owned()];
    sandbox.dns.options = vec!["ndots:5".to_owned()];
    world.runtime.run_sandbox(sandbox.clone()).await.unwrap();
    let mut spec = world.container(&sandbox, &image);
    spec.args = vec!["connect".to_owned(), format!("{name}:{}", at.port())];
    let id = world.runtime.create_container(spec).await.unwrap();
    world.runtime.start_container(&id).await.unwrap();
    let (mut stream, from) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    assert_eq!(from.ip(), sandbox.ip);
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"welcome\n").await.unwrap();
    assert_eq!(world.exit(&id).await.0, 0, "{}", world.log(&sandbox));
}
