//! Names of images, by the grammar of the distribution project.
//!
//! Read by hand, since the crate's own reader is one regular expression that takes, once it was used, 12 MB of a process for as long as it lives.

use oci_client::Reference;

/// Where images without a registry come from, and its name of old.
const HUB: &str = "docker.io";
const HUB_OF_OLD: &str = "index.docker.io";
/// Of a repository.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// `[registry[:port]/]name[/name…][:tag][@digest]`; what is left out is as Docker has it.
pub fn read(text: &str) -> Option<Reference> {
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    // What comes before a slash may have a port.
    let last = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest.get(last..)?.split_once(':') {
        Some((end, tag)) => (rest.get(..last + end.len())?, Some(tag)),
        None => (rest, None),
    };
    let whole = tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
    let mut parts = name.split('/');
    let first = parts.next().filter(|first| is_part(first) || name.contains('/') && is_registry(first));
    if !whole || first.is_none() || !parts.all(is_part) {
        return None;
    }
    let (registry, repository) = split(name);
    if repository.len() > LONGEST_NAME {
        return None;
    }
    Some(match (tag, digest) {
        (None, None) => Reference::with_tag(registry, repository, "latest".to_owned()),
        (Some(tag), None) => Reference::with_tag(registry, repository, tag.to_owned()),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest.to_owned()),
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(registry, repository, tag.to_owned(), digest.to_owned()),
    })
}

/// The registry, which has a dot or a port, or is this machine; and the rest.
fn split(name: &str) -> (String, String) {
    let registry = name.split_once('/').filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
    let (registry, repository) = registry.unwrap_or((HUB, name));
    let registry = if registry == HUB_OF_OLD { HUB } else { registry };
    let official = registry == HUB && !repository.contains('/');
    (registry.to_owned(), if official { format!("library/{repository}") } else { repository.to_owned() })
}

/// Words of small letters and digits with a dot, one or two underscores, or dashes between them.
fn is_part(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let between = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    text.starts_with(plain) && text.ends_with(plain) && text.split(plain).all(between)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let plain = |letter: char| letter.is_ascii_alphanumeric();
    let label = |text: &str| text.starts_with(plain) && text.ends_with(plain) && text.chars().all(|letter| plain(letter) || letter == '-');
    host.split('.').all(label) && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_tag(text: &str) -> bool {
    let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.starts_with(word) && text.len() <= LONGEST_TAG && text.chars().all(|letter| word(letter) || matches!(letter, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    let length = match text.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => return false,
    };
    text.split_once(':').is_some_and(|(_, hex)| hex.len() == length && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crate reads the same, however the pieces of a name are put together.
    #[test]
    fn names_are_read_as_the_specification_has_them() {
        let hex = "0123456789abcdefABCDEF0123456789".repeat(2);
        let (long, longer) = ("n".repeat(255), "t".repeat(129));
        let pieces =
            ["", "a", "Bc", "0", ".", "_", "__", "-", ":", "/", "@", "localhost", "sha256:", "md5:", "index.docker.io", &hex, &long, &longer];
        let (mut read_well, mut refused) = (0, 0);
        for number in 0..pieces.len().pow(3) {
            let text: String = (0..3).map(|place| pieces[number / pieces.len().pow(place) % pieces.len()]).collect();
            for text in [format!("x{text}"), format!("a.b:5000/c{text}"), format!("a/b:c@{text}"), text] {
                let (ours, theirs) = (read(&text), text.parse::<Reference>().ok());
                assert_eq!(ours, theirs, "{text}");
                *(if ours.is_some() { &mut read_well } else { &mut refused }) += 1;
            }
        }
        assert!(read_well > 1000 && refused > 1000, "{read_well} and {refused}");
        assert_eq!((read(""), read("ä"), read("a:ä")), (None, None, None));
    }
}
