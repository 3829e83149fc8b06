//! What the store reads back from its disk.

use coracle_store::record::{VERSION, rewritten};

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
