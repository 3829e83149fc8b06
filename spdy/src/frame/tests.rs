use super::*;
use proptest::prelude::*;

fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::btree_map("[a-z-]{1,20}", "[ -~]{0,60}", 0..8).prop_map(Headers::from_iter)
}

fn frame() -> impl Strategy<Value = Frame> {
    let stream = || 1_u32..0x8000_0000;
    prop_oneof![
        (stream(), headers(), any::<bool>(), any::<bool>()).prop_map(|(stream, headers, fin, unidirectional)| Frame::SynStream {
            stream,
            headers,
            fin,
            unidirectional
        }),
        (stream(), headers(), any::<bool>()).prop_map(|(stream, headers, fin)| Frame::SynReply { stream, headers, fin }),
        (stream(), headers(), any::<bool>()).prop_map(|(stream, headers, fin)| Frame::Headers { stream, headers, fin }),
        (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
        prop::option::of(0_u32..0x8000_0000).prop_map(|initial_window| Frame::Settings { initial_window }),
        any::<u32>().prop_map(Frame::Ping),
        (0_u32..0x8000_0000, any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (stream(), 1_u32..0x8000_0000).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (stream(), prop::collection::vec(any::<u8>(), 0..200), any::<bool>()).prop_map(|(stream, payload, fin)| Frame::Data {
            stream,
            payload: payload.into(),
            fin
        }),
    ]
}

/// Parts of one data frame put together again.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut whole: Vec<Frame> = Vec::new();
    let mut open = false;
    for frame in frames {
        match (whole.last_mut(), &frame) {
            (Some(Frame::Data { stream, payload, fin }), Frame::Data { stream: same, payload: more, fin: last }) if open && stream == same => {
                *payload = [&payload[..], &more[..]].concat().into();
                *fin = *last;
            }
            _ => whole.push(frame.clone()),
        }
        open = matches!(frame, Frame::Data { .. });
    }
    whole
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_comes(frames in prop::collection::vec(frame(), 0..12), step in 1_usize..60) {
        let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
        frames.iter().for_each(|frame| encoder.encode(frame, &mut bytes));
        let (mut decoder, mut buffer, mut got) = (Decoder::default(), BytesMut::new(), Vec::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                got.push(frame);
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(joined(got), joined(frames));
    }

    #[test]
    fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u16..12) {
        let mut bytes = BytesMut::new();
        head(&mut bytes, kind, 0, junk.len());
        bytes.extend_from_slice(&junk);
        for mut bytes in [bytes, BytesMut::from(&junk[..])] {
            let mut decoder = Decoder::default();
            while let Ok(Some(_)) = decoder.decode(&mut bytes) {}
        }
    }
}

/// So that both ends are not wrong together.
#[test]
fn a_block_compressed_elsewhere_is_read() {
    // By zlib itself, with its greatest window: the header and its value, and a sync flush.
    let block = [
        0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0xa6, 0x23, 0x46, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc, 0x85, 0x16, 0x25, 0xac, 0xa9, 0xa0,
        0x80, 0x06, 0x00, 0x00, 0x00, 0xff, 0xff,
    ];
    let mut bytes = BytesMut::new();
    head(&mut bytes, 1, 0, block.len() + 10);
    bytes.put_u32(1);
    bytes.put_slice(&[0; 6]);
    bytes.put_slice(&block);
    let frame = Decoder::default().decode(&mut bytes).unwrap().unwrap();
    let Frame::SynStream { stream: 1, headers, fin: false, unidirectional: false } = frame else { panic!("{frame:?}") };
    assert_eq!(headers.get("streamType"), Some("error"));
}

#[test]
fn too_much_is_refused() {
    let mut large = BytesMut::new();
    head(&mut large, 1, 0, MAX_CONTROL + 1);
    assert!(Decoder::default().decode(&mut large).is_err(), "before it is held");
    let bomb = Headers::from_iter([("a", "x".repeat(1 << 20))]);
    let mut bytes = BytesMut::new();
    Encoder::default().encode(&Frame::SynReply { stream: 1, headers: bomb, fin: false }, &mut bytes);
    assert!(bytes.len() < MAX_CONTROL, "it is small as it comes");
    assert!(Decoder::default().decode(&mut bytes).unwrap_err().to_string().contains("more than"));
    let many = Headers::from_iter((0..200).map(|n| (format!("h{n}"), "")));
    let mut bytes = BytesMut::new();
    Encoder::default().encode(&Frame::SynReply { stream: 1, headers: many, fin: false }, &mut bytes);
    assert!(Decoder::default().decode(&mut bytes).is_err());
    let mut old = BytesMut::from(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..]);
    assert!(Decoder::default().decode(&mut old).unwrap_err().to_string().contains("version 2"));
}
