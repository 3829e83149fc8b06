//! What clients of exec and port-forward say.

use bytes::BytesMut;
use coracle_spdy::frame::{Decoder, Encoder, Frame, PIECE};

/// Frames of bytes that come in steps, and whether they ended in an error.
fn read(data: &[u8], step: usize) -> (Vec<Frame>, usize, bool) {
    let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
    for part in data.chunks(step.max(1)) {
        buffer.extend_from_slice(part);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, buffer.len(), true),
            }
        }
    }
    (frames, buffer.len(), false)
}

/// The payload of each stream: how it was cut means nothing.
fn carried(frames: &[Frame]) -> Vec<(u32, u8)> {
    let data = frames.iter().filter_map(|frame| match frame {
        Frame::Data { stream, payload, .. } => Some(payload.iter().map(|byte| (*stream, *byte))),
        _ => None,
    });
    data.flatten().collect()
}

fn others(frames: &[Frame]) -> Vec<&Frame> {
    frames.iter().filter(|frame| !matches!(frame, Frame::Data { .. })).collect()
}

pub fn spdy_frames(data: &[u8]) {
    let (frames, rest, failed) = read(data, data.len());
    assert!(frames.iter().all(|frame| !matches!(frame, Frame::Data { payload, .. } if payload.len() > PIECE)));
    let (bytewise, left, same) = read(data, 1);
    assert_eq!((carried(&frames), others(&frames), failed), (carried(&bytewise), others(&bytewise), same), "however the bytes come");
    assert!(failed || rest == left);
    let (mut encoder, mut written) = (Encoder::default(), BytesMut::new());
    frames.iter().for_each(|frame| encoder.encode(frame, &mut written));
    let (again, rest, failed) = read(&written, 13);
    assert!(rest == 0 && !failed, "what is written is read");
    assert_eq!((carried(&again), others(&again)), (carried(&frames), others(&frames)));
}
