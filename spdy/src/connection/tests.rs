use super::*;
use tokio::io::{DuplexStream, duplex};

const ALIVE: Duration = Duration::from_secs(3600);

fn both(streams: usize) -> (Accept, Opener) {
    let (near, far) = duplex(4096);
    let ((serving, accept), (asking, opener)) = (server(far, streams, ALIVE), client(near));
    tokio::spawn(serving.run());
    tokio::spawn(asking.run());
    (accept, opener)
}

/// A server, and its peer by hand.
fn by_hand() -> (Accept, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    let (serving, accept) = server(far, 8, ALIVE);
    tokio::spawn(serving.run());
    (accept, near)
}

async fn said(peer: &mut DuplexStream, frames: &[Frame]) {
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.encode(frame, &mut out));
    peer.write_all(&out).await.unwrap();
}

fn syn(stream: u32) -> Frame {
    Frame::SynStream { stream, headers: Headers::default(), fin: false, unidirectional: false }
}

struct Heard(Decoder, BytesMut);

impl Heard {
    async fn next(&mut self, peer: &mut DuplexStream) -> Option<Frame> {
        loop {
            if let Some(frame) = self.0.decode(&mut self.1).unwrap() {
                return Some(frame);
            }
            if peer.read_buf(&mut self.1).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_with_half_closes() {
    let (mut accept, opener) = both(8);
    let echo = tokio::spawn(async move {
        let mut names = Vec::new();
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(incoming) = accept.next().await {
            names.push(incoming.headers().get("Name").unwrap_or_default().to_owned());
            let mut stream = incoming.accept().await.unwrap();
            tasks.spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                stream.write_all(&all).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            if names.len() == 4 {
                break;
            }
        }
        while tasks.join_next().await.is_some() {}
        accept.close().await;
        names
    });
    let mut asks = tokio::task::JoinSet::new();
    for n in 0..4_u32 {
        let mut stream = opener.open(Headers::from_iter([("name", format!("s{n}"))])).await.unwrap();
        asks.spawn(async move {
            let sent: Vec<u8> = (0..700_000_u32).map(|at| (at * (n + 1)) as u8).collect();
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            assert!(stream.write_all(b"more").await.is_err());
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            assert!(back == sent);
        });
    }
    while let Some(done) = asks.join_next().await {
        done.unwrap();
    }
    assert_eq!(echo.await.unwrap(), ["s0", "s1", "s2", "s3"]);
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_room_comes_back() {
    let (mut accept, opener) = both(1);
    let mut first = opener.open(Headers::default()).await.unwrap();
    let taken = accept.next().await.unwrap().accept().await.unwrap();
    let mut second = opener.open(Headers::default()).await.unwrap();
    assert_eq!(second.read(&mut [0; 4]).await.unwrap(), 0, "reset");
    drop(taken);
    assert_eq!(first.read(&mut [0; 4]).await.unwrap(), 0);
    assert!(first.write_all(b"x").await.is_err(), "reset");
    let _third = opener.open(Headers::default()).await.unwrap();
    assert!(accept.next().await.is_some());
}

#[tokio::test]
async fn a_reader_that_sleeps_holds_the_connection_and_no_more() {
    let (mut accept, mut peer) = by_hand();
    said(&mut peer, &[syn(1)]).await;
    let mut stream = accept.next().await.unwrap().accept().await.unwrap();
    let piece = Frame::Data { stream: 1, payload: Bytes::from(vec![7; PIECE]), fin: false };
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    (0..200).for_each(|_| encoder.encode(&piece, &mut out));
    let sent = out.len();
    let (mut read, mut write) = tokio::io::split(peer);
    let writing = tokio::spawn(async move { write.write_all(&out).await.map(|()| write) });
    // What was written beyond the bound waits in the pipe, whose end is not reached.
    tokio::task::yield_now().await;
    assert!(!writing.is_finished() && sent > (1 << 20) + WAITING * PIECE);
    let mut got = 0;
    while got < 200 * PIECE {
        got += stream.next().await.unwrap().len();
    }
    let write = writing.await.unwrap().unwrap();
    drop(write);
    // And the other side was told so.
    let (mut decoder, mut buffer, mut granted) = (Decoder::default(), BytesMut::new(), 0);
    while granted < 190 * PIECE {
        assert!(read.read_buf(&mut buffer).await.unwrap() > 0);
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            if let Frame::WindowUpdate { stream: 1, delta } = frame {
                granted += delta as usize;
            }
        }
    }
}

#[tokio::test]
async fn windows_are_kept_for_those_who_keep_them() {
    let (mut accept, mut peer) = by_hand();
    said(&mut peer, &[Frame::Settings { initial_window: Some(10) }, syn(1)]).await;
    let mut stream = accept.next().await.unwrap().accept().await.unwrap();
    let writing = tokio::spawn(async move {
        stream.write_all(&[1; 25]).await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    });
    let mut heard = Heard(Decoder::default(), BytesMut::new());
    assert!(matches!(heard.next(&mut peer).await, Some(Frame::SynReply { stream: 1, .. })));
    let data = |frame: Option<Frame>| match frame {
        Some(Frame::Data { payload, fin, .. }) => (payload.len(), fin),
        other => panic!("{other:?}"),
    };
    assert_eq!(data(heard.next(&mut peer).await), (10, false));
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    encoder.encode(&Frame::WindowUpdate { stream: 1, delta: 8 }, &mut out);
    peer.write_all(&out).await.unwrap();
    assert_eq!(data(heard.next(&mut peer).await), (8, false));
    peer.write_all(&out).await.unwrap();
    assert_eq!(data(heard.next(&mut peer).await), (7, false));
    assert_eq!(data(heard.next(&mut peer).await), (0, true));
    drop(writing.await.unwrap());
    assert_eq!(heard.next(&mut peer).await, Some(Frame::Reset { stream: 1, status: Status::Cancel as u32 }), "it still wrote");
}

#[tokio::test]
async fn pings_are_answered_and_wrong_ids_end_it() {
    let (mut accept, mut peer) = by_hand();
    said(&mut peer, &[Frame::Ping(2), Frame::Ping(5), Frame::Data { stream: 9, payload: Bytes::new(), fin: false }]).await;
    let mut heard = Heard(Decoder::default(), BytesMut::new());
    assert_eq!(heard.next(&mut peer).await, Some(Frame::Ping(5)), "the other is an answer");
    assert_eq!(heard.next(&mut peer).await, Some(Frame::Reset { stream: 9, status: Status::InvalidStream as u32 }));
    said(&mut peer, &[syn(2)]).await;
    assert_eq!(heard.next(&mut peer).await, None);
    assert!(accept.next().await.is_none());
}

#[tokio::test]
async fn what_was_said_before_the_end_arrives() {
    let (mut accept, mut peer) = by_hand();
    said(&mut peer, &[syn(1)]).await;
    let mut stream = accept.next().await.unwrap().accept().await.unwrap();
    stream.write_all(&[3; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    accept.close().await;
    let (mut heard, mut got, mut end) = (Heard(Decoder::default(), BytesMut::new()), 0, Vec::new());
    while let Some(frame) = heard.next(&mut peer).await {
        match frame {
            Frame::Data { payload, .. } => got += payload.len(),
            Frame::Reset { .. } | Frame::GoAway { .. } => end.push(frame),
            _ => {}
        }
    }
    assert_eq!(got, 100_000);
    assert!(matches!(end.last(), Some(Frame::GoAway { last: 1, status: 0 }) | Some(Frame::Reset { .. })));
}
