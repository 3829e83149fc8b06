use super::*;

#[test]
fn numbers_in_all_their_forms() {
    for (field, value) in [
        (&b"0000644\0"[..], 0o644),
        (b"  755 \0\0", 0o755),
        (b"\0\0\0\0", 0),
        (b"777777777777", 0o777_777_777_777),
        (&[0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0][..], 1 << 32),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe][..], -2),
    ] {
        assert_eq!(number(field).unwrap(), value, "{field:?}");
    }
    for field in [&b"9"[..], b"-1", b"+7", b"x", &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert!(number(field).is_err(), "{field:?}");
    }
}

#[test]
fn times_in_pax_records() {
    for (text, value) in
        [("1", (1, 0)), ("1.5", (1, 500_000_000)), ("0.1234567891", (0, 123_456_789)), ("-1.25", (-2, 750_000_000)), ("-0.5", (-1, 500_000_000))]
    {
        assert_eq!(time(text.as_bytes()), Some(value), "{text}");
    }
    for text in ["", ".", "1.-5", "1e9", "x"] {
        assert_eq!(time(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn records_are_as_long_as_they_say() {
    let read = |bytes: &'static [u8]| records(bytes).collect::<Result<Vec<_>, _>>();
    assert_eq!(read(b"8 a=b\nc\n6 d=e\n").unwrap(), [(&b"a"[..], &b"b\nc"[..]), (b"d", b"e")]);
    for bytes in [&b"7 a=b\n"[..], b"6 a=bx", b"6 abc\n", b"x a=b\n", b"99999999999999999999 a", b"0 ", b" "] {
        assert!(read(bytes).is_err(), "{bytes:?}");
    }
}

/// What a pax record says of the size counts for what is skipped, too.
#[test]
fn a_size_in_pax_records_is_the_size() {
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("size", &b"1024"[..])]).unwrap();
    let mut tar = builder.into_inner().unwrap();
    tar.truncate(1024);
    let mut header = ::tar::Header::new_ustar();
    header.set_path("outer").unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    let mut inner = ::tar::Header::new_ustar();
    inner.set_path("smuggled").unwrap();
    inner.set_size(0);
    inner.set_cksum();
    tar.extend([&header.as_bytes()[..], inner.as_bytes(), &[7; 512]].concat());
    let mut entries = Entries::new(&*tar);
    let entry = entries.next().unwrap().unwrap();
    assert_eq!((&*entry.path, entry.size), (&b"outer"[..], 1024));
    assert_eq!(entries.next().unwrap(), None);
}
