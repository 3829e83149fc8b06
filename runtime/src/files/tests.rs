use super::*;
use crate::Standard;
use std::{fs, os::unix::fs::symlink, path::Path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Two mounts, one of them read-only, and something outside.
fn world() -> (tempfile::TempDir, Vec<Mount>) {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    for name in ["data/sub", "fixed"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    fs::write(base.join("secret"), "outside").unwrap();
    fs::write(base.join("data/one"), "first").unwrap();
    fs::write(base.join("data/sub/two"), "second").unwrap();
    fs::write(base.join("fixed/key"), "value").unwrap();
    symlink("key", base.join("fixed/inside")).unwrap();
    symlink("../secret", base.join("data/out")).unwrap();
    symlink(base.join("secret"), base.join("data/absolute")).unwrap();
    let mount =
        |name: &str, path: &str, read_only| Mount { host_path: base.join(name), container_path: path.into(), read_only, ..Default::default() };
    (dir, vec![mount("data", "/data", false), mount("fixed", "/etc/fixed", true)])
}

async fn run_with(mounts: &[Mount], command: &str, input: Vec<u8>) -> (i32, Vec<u8>, String) {
    run_as(mounts, command, input, None).await
}

async fn run_as(mounts: &[Mount], command: &str, input: Vec<u8>, whom: Option<Identity>) -> (i32, Vec<u8>, String) {
    let streams = Standard { stdin: true, stdout: true, stderr: true };
    // Tests run beside each other; a container may not have many at once.
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let container = format!("u/{}/0", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let spec = ExecSpec { container, command: words(command), streams, ..ExecSpec::default() };
    let Session { stdin, stdout, stderr, exit, .. } = run(spec, mounts.to_vec(), whom).unwrap();
    let (mut stdin, mut stdout, mut stderr) = (stdin.unwrap(), stdout.unwrap(), stderr.unwrap());
    let (mut out, mut err) = (Vec::new(), String::new());
    let feed = async move {
        // It may end before it has read all.
        _ = stdin.write_all(&input).await;
        drop(stdin);
    };
    let (_, a, b, code) = tokio::join!(feed, stdout.read_to_end(&mut out), stderr.read_to_string(&mut err), exit);
    (a.and(b).map(|_| code.unwrap()).unwrap(), out, err)
}

async fn text(mounts: &[Mount], command: &str) -> (i32, String, String) {
    let (code, out, err) = run_with(mounts, command, Vec::new()).await;
    (code, String::from_utf8(out).unwrap(), err)
}

#[test]
fn what_kubectl_runs_is_understood_and_nothing_else_is() {
    let program = |text: &str| parse(&words(text));
    assert_eq!(program("tar cf - /data/one"), Some(Program::Pack(vec!["/data/one".into()])));
    assert_eq!(program("tar -xmf - -C /data"), Some(Program::Unpack("/data".into())));
    assert_eq!(program("tar --no-same-permissions --no-same-owner -xmf -"), Some(Program::Unpack("/".into())));
    assert_eq!(program("test -d /data"), Some(Program::Test('d', "/data".into())));
    for other in ["sh -c ls", "tar xf file", "tar cf - --to-command=sh", "tar", "cat", "cat -n x", "ls -R /", "test -x /a", "rm /data/one", ""] {
        assert_eq!(program(other), None, "{other}");
    }
    let spec = ExecSpec { container: "u/c/0".into(), command: words("sh"), ..ExecSpec::default() };
    assert!(run(spec, Vec::new(), None).unwrap_err().message.contains("nothing can be run in a wasm container"));
}

#[tokio::test]
async fn files_are_seen_at_their_mounts_and_nowhere_else() {
    let (_dir, mounts) = world();
    assert_eq!(text(&mounts, "cat /data/one /etc/fixed/inside").await, (0, "firstvalue".into(), String::new()));
    assert_eq!(text(&mounts, "ls /").await.1, "data\netc\n");
    assert_eq!(text(&mounts, "ls /data").await.1, "absolute\none\nout\nsub\n");
    assert!(text(&mounts, "ls -l /data").await.1.contains("- 0644            5 one\n"));
    for (path, found) in [("-d /data/sub", 0), ("-d /data/one", 1), ("-f /data/one", 0), ("-d /etc", 0), ("-e /nothing", 1), ("-e /data/out", 1)] {
        assert_eq!(text(&mounts, &format!("test {path}")).await.0, found, "{path}");
    }
    for outside in ["/data/out", "/data/absolute", "/data/../../secret", "/etc/passwd", "/data/sub/../../../etc/passwd"] {
        let (code, out, err) = text(&mounts, &format!("cat {outside}")).await;
        assert!(code == 1 && out.is_empty() && err.starts_with("cat: "), "{outside}: {code} {out} {err}");
    }
}

#[tokio::test]
async fn what_is_packed_can_be_unpacked() {
    let (dir, mounts) = world();
    let long = "n".repeat(180);
    fs::write(dir.path().join("data/sub").join(&long), vec![7; 100_000]).unwrap();
    let (code, archive, err) = run_with(&mounts, "tar cf - /data/sub", Vec::new()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    fs::create_dir(dir.path().join("data/copy")).unwrap();
    let (code, _, err) = run_with(&mounts, "tar -xmf - -C /data/copy", archive).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let copy = dir.path().join("data/copy/data/sub");
    assert_eq!(fs::read_to_string(copy.join("two")).unwrap(), "second");
    assert_eq!(fs::read(copy.join(&long)).unwrap(), vec![7; 100_000]);
    // A link is packed as one, unless it is what was asked for.
    let entries =
        |archive: Vec<u8>| tar::Archive::new(&*archive).entries().unwrap().map(|entry| entry.unwrap().header().entry_type()).collect::<Vec<_>>();
    let (_, archive, _) = run_with(&mounts, "tar cf - /etc/fixed/inside", Vec::new()).await;
    assert_eq!(entries(archive), [tar::EntryType::Regular]);
    let (_, archive, _) = run_with(&mounts, "tar cf - /etc/fixed", Vec::new()).await;
    assert_eq!(entries(archive), [tar::EntryType::Directory, tar::EntryType::Symlink, tar::EntryType::Regular]);
}

fn archive(make: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    make(&mut builder);
    builder.into_inner().unwrap()
}

fn file(builder: &mut tar::Builder<Vec<u8>>, name: &[u8], kind: tar::EntryType, target: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_size(content.len() as u64);
    if !target.is_empty() {
        header.set_link_name_literal(target).unwrap();
    }
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

#[tokio::test]
async fn a_hostile_archive_stays_in_its_volume() {
    use tar::EntryType::{Block, Link, Regular, Symlink, XHeader};
    let (dir, mounts) = world();
    let outside = |dir: &Path| fs::read_to_string(dir.join("secret")).unwrap();
    for (name, make) in [
        ("..", archive(|b| file(b, b"../secret", Regular, "", b"x"))),
        (
            "through a link",
            archive(|b| {
                file(b, b"way", Symlink, "..", b"");
                file(b, b"way/secret", Regular, "", b"x");
            }),
        ),
        (
            "through an absolute link",
            archive(|b| {
                file(b, b"way", Symlink, &dir.path().display().to_string(), b"");
                file(b, b"way/secret", Regular, "", b"x");
            }),
        ),
        ("a hard link", archive(|b| file(b, b"hard", Link, "../secret", b""))),
        ("a device", archive(|b| file(b, b"disk", Block, "", b""))),
        (
            "a pax path",
            archive(|b| {
                file(b, b"pax", XHeader, "", b"18 path=../secret\n");
                file(b, b"innocent", Regular, "", b"x");
            }),
        ),
        ("a long name without end", archive(|b| file(b, b"pax", XHeader, "", &vec![b'x'; 100 << 10]))),
    ] {
        let (code, _, err) = run_with(&mounts, "tar xf - -C /data", make).await;
        assert!(code == 2 && err.starts_with("tar: "), "{name}: {code} {err}");
        assert_eq!(outside(dir.path()), "outside", "{name}");
    }
    // What is there already is replaced, not followed; nothing gets set-uid.
    let plain = archive(|b| file(b, b"/out", Regular, "", b"new"));
    assert_eq!(run_with(&mounts, "tar xf - -C /data", plain.clone()).await.0, 0);
    assert_eq!((fs::read_to_string(dir.path().join("data/out")).unwrap(), outside(dir.path())), ("new".into(), "outside".into()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.path().join("data/out")).unwrap().permissions());
    assert_eq!(mode & 0o7000, 0);
    for (dir, why) in
        [("/etc/fixed", "read-only"), ("/etc", "nothing is mounted"), ("/data/one", "Not a directory"), ("/nowhere", "nothing is mounted")]
    {
        let (code, _, err) = run_with(&mounts, &format!("tar xf - -C {dir}"), plain.clone()).await;
        assert!(code == 2 && err.contains(why), "{dir}: {code} {err}");
    }
}

#[test]
fn a_stream_has_an_end() {
    let until = Instant::now() + PATIENCE;
    let (source, mut sink) = pipe().unwrap();
    sink.write_all(&[1; 11]).unwrap();
    let mut bytes = Bounded { left: 10, ..Bounded::new(source, until) };
    assert!(bytes.read_exact(&mut [0; 10]).is_ok());
    assert!(bytes.read(&mut [0; 1]).unwrap_err().to_string().contains("more than"));
}

#[test]
fn nobody_is_waited_for_without_end() {
    let soon = || Instant::now() + Duration::from_millis(20);
    let (silent, held) = pipe().unwrap();
    let error = Bounded::new(&silent, soon()).read(&mut [0; 1]).unwrap_err();
    assert!(error.to_string().contains("not done"), "{error}");
    let silence = Duration::from_millis(20);
    let error = Bounded { silence, ..Bounded::new(&silent, Instant::now() + PATIENCE) }.read(&mut [0; 1]).unwrap_err();
    assert!(error.to_string().contains("nothing came"), "{error}");
    drop(held);
    let (_unread, full) = pipe().unwrap();
    let mut full = Bounded::new(full, soon());
    let error = full.write_all(&vec![1; 1 << 20]).unwrap_err();
    assert!(error.to_string().contains("not done"), "{error}");
}

#[tokio::test]
async fn one_container_does_not_keep_the_others_from_theirs() {
    let (_dir, mounts) = world();
    let silent = |container: &str| {
        let streams = Standard { stdin: true, ..Standard::default() };
        run(ExecSpec { container: container.into(), command: words("tar xf - -C /data"), streams, ..ExecSpec::default() }, mounts.clone(), None)
    };
    let mut held: Vec<Session> = (0..EACH).map(|_| silent("u/greedy/0").unwrap()).collect();
    assert!(silent("u/greedy/0").unwrap_err().message.contains("of container u/greedy/0 already"));
    held.push(silent("u/other/0").unwrap());
    // Whoever has hung up makes room.
    for Session { stdin, exit, .. } in held {
        drop(stdin);
        exit.await.unwrap();
    }
    assert!(!RUNNING.lock().keys().any(|container| container.starts_with("u/greedy") || container.starts_with("u/other")));
}

#[tokio::test]
async fn files_are_the_components_users() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: only root can be somebody else");
        return;
    }
    let (dir, mounts) = world();
    // Only root gets to the volumes; in them, one is the user's group's, and one file is root's alone.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let data = dir.path().join("data");
    chown(&data, Some(0), Some(77)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o775)).unwrap();
    fs::set_permissions(data.join("one"), fs::Permissions::from_mode(0o600)).unwrap();
    let whom = Identity { uid: 1234, gid: 1235, groups: vec![77] };
    let archive = archive(|b| {
        file(b, b"made/", tar::EntryType::Directory, "", b"");
        file(b, b"made/file", tar::EntryType::Regular, "", b"new");
    });
    let done = |command: &'static str, input: Vec<u8>| run_as(&mounts, command, input, Some(whom.clone()));
    assert_eq!(done("tar xf - -C /data", archive.clone()).await.0, 0);
    for name in ["made", "made/file"] {
        let meta = fs::metadata(data.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 1235), "{name}");
    }
    for (command, input) in [("cat /data/one", Vec::new()), ("tar xf - -C /data/sub", archive)] {
        let (code, _, err) = done(command, input).await;
        assert!(code != 0 && err.contains("Permission denied"), "{command}: {code} {err}");
    }
    // Nobody else has become anybody.
    assert_eq!(run_with(&mounts, "cat /data/one", Vec::new()).await.0, 0);
}
