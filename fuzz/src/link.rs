//! What nodes and control plane say to each other.

use bytes::{Bytes, BytesMut};
use coracle_link::{
    Error, SendHalf,
    frame::{Writer, decode},
    protocol::{Feed, Open, Piece, Reply},
};
use futures::executor::block_on;

/// Frames of a byte stream that comes in steps, and how it ends.
fn read(data: &[u8], step: usize) -> (Vec<Bytes>, BytesMut, Option<Error>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for part in data.chunks(step.max(1)) {
        buffer.extend_from_slice(part);
        loop {
            match decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, buffer, Some(error)),
            }
        }
    }
    (frames, buffer, None)
}

fn written(frames: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for frame in frames {
        block_on(writer.send(frame)).expect("it fits");
    }
    writer.into_inner()
}

pub fn frames(data: &[u8]) {
    let (found, rest, error) = read(data, data.len());
    let (bytewise, _, failed) = read(data, 1);
    assert_eq!(found, bytewise, "however the bytes come");
    assert_eq!(error.is_some(), failed.is_some());
    if error.is_none() {
        assert_eq!([written(found), rest.to_vec()].concat(), data, "nothing is lost");
    }
    // As payloads, so that checksums are right.
    let payloads: Vec<Bytes> = data.split(|byte| *byte == 0).map(Bytes::copy_from_slice).collect();
    let bytes = written(payloads.clone());
    let (found, rest, error) = read(&bytes, 7);
    assert!(found == payloads && rest.is_empty() && error.is_none());
}

/// A decoder takes exactly what the encoder writes.
pub fn messages(data: &[u8]) {
    if let Ok(open) = Open::decode(data) {
        assert_eq!(open.encode(), data, "{open:?}");
    }
    if let Ok(reply) = Reply::decode(data) {
        assert_eq!(reply.encode(), data, "{reply:?}");
    }
    let frame = Bytes::copy_from_slice(data);
    if let Ok(piece) = Piece::decode(&frame) {
        assert_eq!(piece.encode(), frame, "{piece:?}");
    }
    if let Ok(feed) = Feed::decode(data) {
        assert_eq!(feed.encode(), data, "{feed:?}");
    }
}
