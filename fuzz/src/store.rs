//! What the store reads back from its disk.

use coracle_store::record::{VERSION, rewritten, segment_read_twice};

/// Any bytes, and the same with a right version and checksum around them. The written form of what was read is read as the same.
pub fn records(data: &[u8]) {
    let mut sealed = [&[VERSION], data].concat();
    sealed.extend_from_slice(&crc32c::crc32c(&sealed).to_le_bytes());
    for record in [data, &sealed] {
        for (kind, once) in rewritten(record).into_iter().enumerate() {
            let Some(once) = once else { continue };
            assert_eq!(rewritten(&once)[kind].as_ref(), Some(&once), "kind {kind}");
        }
    }
}

/// Any bytes as the batches of a segment of the log, and the same with a right front and checksum.
pub fn log_segments(data: &[u8]) {
    let checked = |mut bytes: Vec<u8>| {
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    };
    // Secret 0, segment 7, number 0, and the length of all.
    let front = [&[VERSION][..], &0u64.to_le_bytes(), &7u64.to_le_bytes(), &0u32.to_le_bytes(), &(data.len() as u32 + 33).to_le_bytes()].concat();
    let sealed = checked([&checked(front), data].concat());
    for batches in [data, &sealed] {
        assert_ne!(segment_read_twice(batches), Some(false));
    }
}
