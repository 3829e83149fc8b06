//! Messages of the kernel's netfilter subsystems (linux/netfilter/nfnetlink.h), read and written.

/// Marks an attribute that holds others.
pub(super) const NESTED: u16 = 0x8000;
/// After a message's header: family (IPv4), version, resource.
pub(super) const FAMILY: [u8; 4] = [2, 0, 0, 0];
const HEADER: usize = 16;

/// The first message: its type, what is in it, and what follows.
pub(super) fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A message of that type.
pub(super) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + FAMILY.len() + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Number of the request, and of the sender: the kernel knows.
    bytes.extend([0; 8]);
    bytes.extend(FAMILY);
    bytes.extend(body);
    bytes
}

/// Adds an attribute.
pub(super) fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The value of an attribute among several.
pub(super) fn value(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !NESTED;
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_is_nothing() {
        let message = message(0x102, 1, &[1, 2, 3]);
        assert_eq!(split(&message).map(|(kind, body, rest)| (kind, body.len(), rest.len())), Some((0x102, 7, 0)));
        assert_eq!(split(&message[..20]), None);
        // A length of nothing must not go round for ever.
        assert_eq!(split(&[0; 16]), None);
        assert_eq!(value(&[0; 16], 1), None);
    }
}
