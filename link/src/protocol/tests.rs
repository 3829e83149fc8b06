use super::*;
use proptest::prelude::*;

fn body() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn options() -> impl Strategy<Value = LogOptions> {
    (any::<[bool; 3]>(), any::<Option<i64>>(), any::<Option<String>>(), any::<Option<i64>>(), any::<Option<i64>>(), any::<String>()).prop_map(
        |([follow, previous, timestamps], since_seconds, since_time, tail_lines, limit_bytes, stream)| LogOptions {
            follow,
            previous,
            timestamps,
            since_seconds,
            since_time,
            tail_lines,
            limit_bytes,
            stream,
        },
    )
}

fn session() -> impl Strategy<Value = Session> {
    (any::<[String; 4]>(), any::<[bool; 4]>()).prop_map(|([namespace, pod, uid, container], [stdin, stdout, stderr, tty])| Session {
        namespace,
        pod,
        uid,
        container,
        stdin,
        stdout,
        stderr,
        tty,
    })
}

fn open() -> impl Strategy<Value = Open> {
    prop_oneof![
        any::<(u64, u64)>().prop_map(|(epoch, revision)| Open::Subscribe { epoch, revision }),
        ("[A-Z]{3,7}", ".{0,80}", ".{0,40}", body()).prop_map(|(method, path, content_type, body)| Open::Call { method, path, content_type, body }),
        (any::<[String; 4]>(), options()).prop_map(|([namespace, pod, uid, container], options)| Open::Logs {
            namespace,
            pod,
            uid,
            container,
            options
        }),
        (any::<[String; 3]>(), any::<u16>()).prop_map(|([namespace, pod, uid], port)| Open::Dial { namespace, pod, uid, port }),
        Just(Open::Stats),
        any::<(String, String)>().prop_map(|(path, query)| Open::Get { path, query }),
        (session(), any::<Vec<String>>()).prop_map(|(session, command)| Open::Exec { session, command }),
        session().prop_map(|session| Open::Attach { session }),
        (any::<[String; 3]>(), any::<u16>()).prop_map(|([namespace, pod, uid], port)| Open::Forward { namespace, pod, uid, port }),
    ]
}

fn feed() -> impl Strategy<Value = Feed> {
    prop_oneof![
        any::<u64>().prop_map(|epoch| Feed::Reset { epoch }),
        (any::<[String; 3]>(), body()).prop_map(|([resource, namespace, name], json)| Feed::Upsert { resource, namespace, name, json }),
        any::<[String; 3]>().prop_map(|[resource, namespace, name]| Feed::Remove { resource, namespace, name }),
        any::<(u64, u64)>().prop_map(|(epoch, revision)| Feed::Synced { epoch, revision }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(open in open(), feed in feed(), code in any::<u16>(), body in body()) {
        prop_assert_eq!(&Open::decode(&open.encode()).unwrap(), &open);
        prop_assert_eq!(&Feed::decode(&feed.encode()).unwrap(), &feed);
        let reply = Reply { code, body };
        prop_assert_eq!(&Reply::decode(&reply.encode()).unwrap(), &reply);
    }

    #[test]
    fn pieces_are_the_channel_and_its_bytes(number in 0u8..5, body in body(), junk in body()) {
        let frame = Bytes::from([&[number], &body[..]].concat());
        prop_assert_eq!(Piece::decode(&frame).unwrap().encode(), frame);
        let end = Bytes::from(vec![255, number]);
        prop_assert_eq!(Piece::decode(&end).unwrap().encode(), end);
        if let Ok(piece) = Piece::decode(&junk) {
            prop_assert_eq!(piece.encode(), junk);
        }
    }

    #[test]
    fn junk_never_panics(kind in 0u8..40, junk in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut message = vec![1, kind];
        message.extend(junk);
        for b in [&message[..], &message[2..]] {
            let _ = (Open::decode(b), Feed::decode(b), Reply::decode(b));
        }
    }

    #[test]
    fn what_decodes_is_what_would_be_written(open in open(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut message = open.encode().to_vec();
        let at = at.index(message.len());
        message[at] = byte;
        if let Ok(read) = Open::decode(&message) {
            prop_assert_eq!(&read.encode()[..], &message[..]);
        }
    }

    #[test]
    fn a_cut_or_longer_message_is_refused(feed in feed(), cut in any::<prop::sample::Index>()) {
        let message = feed.encode();
        prop_assert!(Feed::decode(&message[..cut.index(message.len())]).is_err());
        prop_assert!(Feed::decode(&[&message[..], &[0]].concat()).is_err());
    }
}

#[test]
fn the_bytes_of_a_message_are_fixed() {
    assert_eq!(&Feed::Synced { epoch: 1, revision: 258 }.encode()[..], [1, 35, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(&Reply { code: 200, body: Bytes::from_static(b"ok") }.encode()[..], [1, 16, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0, 0, 2, b'o', b'k']);
    assert!(Open::decode(&[2, 5]).unwrap_err().to_string().contains("version 2"));
}
