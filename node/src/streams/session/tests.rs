use super::*;
use coracle_link::{memory, pki::Subject};
use coracle_runtime::{
    ContainerSpec, ExecSpec, Runtime, Standard,
    mock::{MockRuntime, running},
};

/// Nobody waits for so long here.
const LONG: Duration = Duration::from_secs(4 * 3600);

/// A session with a program of the mocked runtime; the end of the stream that the control plane has.
async fn session(words: &str, tty: bool) -> Box<dyn Stream> {
    let machine = MockRuntime::new("oci");
    let ContainerSpec { .. } = running(&machine).await;
    let container = machine.running().first().map(ContainerSpec::id).unwrap();
    let streams = Standard { stdin: true, stdout: true, stderr: true };
    let command = words.split(' ').map(String::from).collect();
    let started = machine.exec(ExecSpec { container, command, streams, tty, timeout: None }).await;
    let (a, b) = memory::pair(Subject::default(), Subject::default());
    let mut ours = a.open().await.unwrap();
    // The stream is known to the other side with its first frame.
    ours.send(Piece::Data(Channel::Stdin, Bytes::new()).encode()).await.unwrap();
    let theirs = b.accept().await.unwrap();
    tokio::spawn(async move {
        let _connections = (a, b);
        carry(started, Whose::Ours, theirs, LONG).await;
    });
    ours
}

async fn said(stream: &mut Box<dyn Stream>) -> (String, String, Value) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        let frame = stream.recv().await.unwrap().expect("a Status is the last");
        match Piece::decode(&frame).unwrap() {
            Piece::Data(Channel::Stdout, data) => out.extend_from_slice(&data),
            Piece::Data(Channel::Stderr, data) => err.extend_from_slice(&data),
            Piece::Data(Channel::Status, status) => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), serde_json::from_slice(&status).unwrap());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_before_the_output_that_was_there_as_well() {
    for _ in 0..20 {
        let (stdout, stderr): (Output, Output) = (Some(Box::new(&b"an archive"[..])), Some(Box::new(&b"no such file"[..])));
        let both = Session { stdin: None, stdout, stderr, resize: None, exit: Box::pin(std::future::ready(Ok(1))) };
        let (a, b) = memory::pair(Subject::default(), Subject::default());
        let mut ours = a.open().await.unwrap();
        ours.send(Piece::Data(Channel::Stdin, Bytes::new()).encode()).await.unwrap();
        let theirs = b.accept().await.unwrap();
        let carried = tokio::spawn(async move { carry(Ok(both), Whose::Ours, theirs, LONG).await });
        let first = Piece::decode(&ours.recv().await.unwrap().unwrap()).unwrap();
        assert!(matches!(first, Piece::Data(Channel::Stderr, _)), "{first:?}");
        let (out, err, _) = said(&mut ours).await;
        assert_eq!((out.as_str(), err.as_str()), ("an archive", ""));
        carried.await.unwrap();
    }
}

#[tokio::test]
async fn output_errors_and_exit_codes_are_told_apart() {
    let (out, err, status) = said(&mut session("echo hello there", false).await).await;
    assert_eq!((out.as_str(), err.as_str(), &status["status"]), ("hello there\n", "", &json!("Success")));
    let (out, err, _) = said(&mut session("complain loudly", false).await).await;
    assert_eq!((out.as_str(), err.as_str()), ("", "loudly\n"));
    let mut failing = session("exit 7", false).await;
    failing.send(Piece::End(Channel::Stdin).encode()).await.unwrap();
    let (_, _, status) = said(&mut failing).await;
    assert_eq!((&status["reason"], &status["details"]["causes"][0]), (&json!("NonZeroExitCode"), &json!({"reason": "ExitCode", "message": "7"})));
    let (_, _, status) = said(&mut session("vi", false).await).await;
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with("Internal error occurred: error executing command in container: ") && message.contains("not found"), "{message}");
}

#[tokio::test]
async fn input_comes_through_whole_and_its_end_too() {
    let mut cat = session("cat", false).await;
    let sent: Vec<u8> = (0..900_000_u32).map(|n| n as u8 % 100).collect();
    let (mut send, mut recv) = {
        let (send, recv) = cat.split();
        (send, recv)
    };
    let copy = sent.clone();
    let typing = tokio::spawn(async move {
        for piece in copy.chunks(10_000) {
            send.send(Piece::Data(Channel::Stdin, Bytes::copy_from_slice(piece)).encode()).await.unwrap();
        }
        send.send(Piece::End(Channel::Stdin).encode()).await.unwrap();
        send
    });
    let mut got = Vec::new();
    while let Piece::Data(Channel::Stdout, data) = Piece::decode(&recv.recv().await.unwrap().unwrap()).unwrap() {
        got.extend_from_slice(&data);
    }
    assert!(got == sent);
    typing.await.unwrap();
    cat = session("size", true).await;
    for part in [&br#"{"Width":80,"Height":24}{"Wid"#[..], &br#"th":120,"Height":50}"#[..]] {
        cat.send(Piece::Data(Channel::Resize, Bytes::from_static(part)).encode()).await.unwrap();
    }
    let mut sizes = Vec::new();
    while sizes.len() < 13 {
        let Piece::Data(Channel::Stdout, data) = Piece::decode(&cat.recv().await.unwrap().unwrap()).unwrap() else { panic!("it ended") };
        sizes.extend_from_slice(&data);
    }
    assert_eq!(sizes, b"80x24\n120x50\n");
}

#[tokio::test]
async fn silence_is_asked_about_and_a_client_that_is_gone_ends_the_program() {
    let machine = MockRuntime::new("oci");
    running(&machine).await;
    let container = machine.running().first().map(ContainerSpec::id).unwrap();
    let streams = Standard { stdin: true, stdout: true, stderr: true };
    let started = machine.exec(ExecSpec { container, command: vec!["sleep".into()], streams, ..ExecSpec::default() }).await;
    let (a, b) = memory::pair(Subject::default(), Subject::default());
    let mut ours = a.open().await.unwrap();
    ours.send(Piece::Data(Channel::Stdin, Bytes::new()).encode()).await.unwrap();
    let carrying = tokio::spawn(carry(started, Whose::Ours, b.accept().await.unwrap(), LONG));
    assert_eq!(Piece::decode(&ours.recv().await.unwrap().unwrap()).unwrap(), Piece::Data(Channel::Stdout, Bytes::new()));
    drop(ours);
    carrying.await.unwrap();
}

#[test]
fn a_size_that_is_none_is_given_up() {
    struct Deaf;
    impl Resize for Deaf {
        fn resize(&self, _: u16, _: u16) {}
    }
    assert!(!sizes(&mut b"nonsense".to_vec(), &Deaf));
    assert!(!sizes(&mut b"{\"Width\": -1, \"Height\": 2}".to_vec(), &Deaf));
    assert!(sizes(&mut b"{\"Width".to_vec(), &Deaf));
    assert!(!sizes(&mut [b"{\"".to_vec(), vec![b'x'; 2 * MAX_SIZE]].concat(), &Deaf));
}
