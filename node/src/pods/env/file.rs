//! Variables out of a file that a container has written before (`fileKeyRef`, KEP-3721).

use super::Error;
use crate::{
    pods::spec::{FileKeyRef, Pod},
    volumes::paths,
};
use std::{io, path::Path};

/// The longest file that is read, bytes.
const MOST: u64 = 1 << 20;

/// What the file has; none if that may be. `volumes` is the directory of the pod's volumes.
pub fn read(pod: &Pod, reference: &FileKeyRef, volumes: &Path) -> Result<Option<String>, Error> {
    let FileKeyRef { volume_name, path, key, optional } = reference;
    let known = pod.spec.volumes.iter().any(|volume| volume.name == *volume_name && volume.empty_dir.is_some());
    let name = paths::name(volume_name).ok().filter(|_| known);
    let name = name.ok_or_else(|| Error::Invalid(format!("cannot find the volume {volume_name:?} referenced by FileKeyRef")))?;
    let wrong = |why: &dyn std::fmt::Display| Error::Invalid(format!("couldn't parse env file {path:?} of volume {volume_name:?}: {why}"));
    let text = match paths::read(&volumes.join(name), path, MOST) {
        Err(why) if why.kind() == io::ErrorKind::NotFound && *optional => return Ok(None),
        read => read.map_err(|why| wrong(&why))?,
    };
    match value(&String::from_utf8_lossy(&text), key).map_err(|why| wrong(&why))? {
        // As upstream, where what is empty is not there.
        Some(value) if !value.is_empty() => Ok(Some(value)),
        _ if *optional => Ok(None),
        _ => Err(Error::Invalid(format!("environment variable key {key:?} not found in file {path:?} of volume {volume_name:?}"))),
    }
}

/// The value of a key in lines such as `KEY='value' # words`, which quotes may stretch over several. Nothing in quotes has a meaning but their end.
fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let wrong = |why: &str| Err(format!("line {}: {why}", number + 1));
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, rest)) = line.split_once('=') else { return wrong("missing '='") };
        if name.is_empty() {
            return wrong("empty variable name");
        }
        if name.ends_with([' ', '\t']) {
            return wrong("whitespace before '=' is not allowed");
        }
        // A shell would take the value for a command.
        if rest.starts_with([' ', '\t']) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(mut rest) = rest.strip_prefix('\'') else { return wrong("value must be enclosed in single quotes") };
        let mut value = String::new();
        let after = loop {
            if let Some((end, after)) = rest.split_once('\'') {
                value.push_str(end);
                break after.trim_start_matches([' ', '\t']);
            }
            value.push_str(rest);
            value.push('\n');
            let Some((_, next)) = lines.next() else { return wrong("unclosed single quote") };
            rest = next;
        };
        if !after.is_empty() && !after.starts_with('#') {
            return wrong("unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn a_subset_of_a_shells_assignments() {
        let text = "# words\n\n \tA='one' # more\nB='it is $A \"so\" \\n'\nC='1\n 2=\n'\nD= 'none'\nE=''\r\nA='later'\n";
        let of = |key| value(text, key).unwrap();
        assert_eq!(["A", "B", "C"].map(|key| of(key).unwrap()), ["one", "it is $A \"so\" \\n", "1\n 2=\n"]);
        assert_eq!([of("D"), of("E"), of("F")], [None, Some(String::new()), None]);
        for (text, why) in [
            ("A", "line 1: missing '='"),
            ("='x'", "line 1: empty variable name"),
            ("\nA ='x'", "line 2: whitespace before '=' is not allowed"),
            ("A=x", "line 1: value must be enclosed in single quotes"),
            ("A='x\ny", "line 1: unclosed single quote"),
            ("A='x'y", "line 1: unexpected content after closing quote"),
        ] {
            assert_eq!(value(text, "Z").unwrap_err(), why);
        }
    }

    #[test]
    fn the_volume_is_all_that_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("v/sub")).unwrap();
        fs::write(dir.path().join("secret"), "K='of the machine'\n").unwrap();
        fs::write(dir.path().join("v/sub/env"), "K='value'\n").unwrap();
        symlink("sub/env", dir.path().join("v/inside")).unwrap();
        symlink("../secret", dir.path().join("v/outside")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("v/pipe"), rustix::fs::Mode::RUSR).unwrap();
        fs::write(dir.path().join("v/large"), vec![b'#'; 1 + (1 << 20)]).unwrap();
        let pod: Pod =
            serde_json::from_value(json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "s", "secret": {} }] } })).unwrap();
        let read = |volume: &str, path: &str, key: &str, optional: bool| {
            let reference = FileKeyRef { volume_name: volume.into(), path: path.into(), key: key.into(), optional };
            read(&pod, &reference, dir.path()).map_err(|why| why.to_string())
        };
        for path in ["sub/env", "inside"] {
            assert_eq!(read("v", path, "K", false), Ok(Some("value".into())));
        }
        assert_eq!((read("v", "sub/env", "L", true), read("v", "none", "K", true)), (Ok(None), Ok(None)));
        for (volume, path, key, why) in [
            ("s", "x", "K", "cannot find the volume \"s\" referenced by FileKeyRef"),
            ("v", "sub/env", "L", "environment variable key \"L\" not found in file \"sub/env\" of volume \"v\""),
            ("v", "none", "K", "couldn't parse env file \"none\" of volume \"v\": No such file"),
            ("v", "outside", "K", "it leads out of the volume"),
            ("v", "../secret", "K", "must be relative"),
            ("v", "pipe", "K", "it is no ordinary file"),
            ("v", "large", "K", "it is longer than 1048576 bytes"),
        ] {
            let said = read(volume, path, key, false).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
