//! Who a container's process is: the pod's uid and gid, else the image's `USER`, looked up in the image's own /etc/passwd and /etc/group.

use coracle_runtime::Security;
use std::{
    fs::File,
    io::Read,
    path::{Component, Path, PathBuf},
};

/// What is read of a user database at the most; it comes with the image.
const DATABASE: u64 = 1 << 20;

/// A process's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Uid.
    pub uid: u32,
    /// Gid.
    pub gid: u32,
    /// All groups, `gid` among them, sorted.
    pub groups: Vec<u32>,
    /// Home directory, when the image knows the user.
    pub home: Option<String>,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

/// Resolves the identity; `image` is the image's `USER`: `user`, `uid`, `user:group` and so on. `container` names it in messages.
///
/// # Errors
/// A name that the image does not know, or uid 0 where it must not be, in kubelet's words.
pub fn resolve(security: &Security, image: &str, passwd: &str, group: &str, container: &str) -> Result<User, String> {
    let (name, group_name) = image.split_once(':').map_or((image, None), |(user, group)| (user, Some(group)));
    let number = name.parse::<u32>().ok();
    if security.run_as_non_root && security.run_as_user.is_none() && !name.is_empty() && number.is_none() {
        return Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root (container: {container})"
        ));
    }
    let account = match security.run_as_user {
        Some(uid) => accounts(passwd).find(|account| account.uid == uid),
        None if name.is_empty() => accounts(passwd).find(|account| account.uid == 0),
        None => accounts(passwd).find(|account| account.name == name).or_else(|| accounts(passwd).find(|account| Some(account.uid) == number)),
    };
    let uid = match (security.run_as_user, &account) {
        (Some(uid), _) => uid,
        (None, Some(account)) => account.uid,
        (None, None) if name.is_empty() => 0,
        (None, None) => number.ok_or_else(|| format!("unable to find user {name}: no matching entries in passwd file"))?,
    };
    if security.run_as_non_root && uid == 0 {
        return Err(match security.run_as_user {
            Some(_) => format!("container's runAsUser breaks non-root policy (container: {container})"),
            None => format!("container has runAsNonRoot and image will run as root (container: {container})"),
        });
    }
    let named_gid = match group_name.filter(|name| !name.is_empty() && security.run_as_user.is_none()) {
        Some(name) => Some(
            groups(group)
                .find(|(known, ..)| *known == name)
                .map(|(_, gid, _)| gid)
                .or_else(|| name.parse().ok())
                .ok_or_else(|| format!("unable to find group {name}: no matching entries in group file"))?,
        ),
        None => None,
    };
    let gid = security.run_as_group.or(named_gid).or(account.as_ref().map(|account| account.gid)).unwrap_or(0);
    let mut extra = security.supplemental_groups.clone();
    if !security.strict_groups
        && named_gid.is_none()
        && let Some(account) = &account
    {
        extra.extend(groups(group).filter(|(.., members)| members.split(',').any(|member| member == account.name)).map(|(_, gid, _)| gid));
    }
    // As containerd does since CVE-2023-25173: a program that changes its group keeps this one, so that a rule against it still holds.
    extra.push(gid);
    extra.sort_unstable();
    extra.dedup();
    // -1 means "as it is" to the kernel, so it would stay root; runc's bound.
    if let Some(id) = [uid, gid].into_iter().chain(extra.iter().copied()).find(|id| i32::try_from(*id).is_err()) {
        return Err(format!("uids and gids must be in range 0-{}, and {id} is not (container: {container})", i32::MAX));
    }
    let home = account.map(|account| account.home.to_owned()).filter(|home| !home.is_empty());
    Ok(User { uid, gid, groups: extra, home })
}

/// Reads a file of the image, its links followed within the image only; empty when it is not there.
pub fn database(root: &Path, path: &str) -> String {
    use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
    let below: PathBuf = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let Ok(root) = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { return String::new() };
    // Non-blocking: it might be a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(fd) = openat2(&root, &below, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) else { return String::new() };
    let file = File::from(fd);
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    _ = file.take(DATABASE).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33:web:/var/www:/bin/false\nnohome:x:44:45::";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:4:web,root\ntape:x:26:web";

    fn user(security: &Security, image: &str) -> Result<User, String> {
        resolve(security, image, PASSWD, GROUP, "c")
    }

    fn made(uid: u32, gid: u32, groups: &[u32], home: Option<&str>) -> User {
        let mut groups = [groups, &[gid]].concat();
        groups.sort_unstable();
        groups.dedup();
        User { uid, gid, groups, home: home.map(str::to_owned) }
    }

    #[test]
    fn the_image_says_who_when_the_pod_does_not() {
        let none = Security::default();
        assert_eq!(user(&none, "").unwrap(), made(0, 0, &[4], Some("/root")));
        assert_eq!(user(&none, "web").unwrap(), made(33, 33, &[4, 26], Some("/var/www")));
        assert_eq!(user(&none, "33").unwrap(), made(33, 33, &[4, 26], Some("/var/www")));
        assert_eq!(user(&none, "web:logs").unwrap(), made(33, 4, &[], Some("/var/www")));
        assert_eq!(user(&none, "web:99").unwrap(), made(33, 99, &[], Some("/var/www")));
        assert_eq!(user(&none, "1234").unwrap(), made(1234, 0, &[], None));
        assert_eq!(user(&none, "44").unwrap(), made(44, 45, &[], None));
        assert!(user(&none, "nobody").unwrap_err().contains("unable to find user nobody"));
        assert!(user(&none, "web:nogroup").unwrap_err().contains("unable to find group nogroup"));
    }

    #[test]
    fn the_pod_goes_before_the_image() {
        let pod = Security { run_as_user: Some(33), supplemental_groups: vec![7, 4], ..Security::default() };
        assert_eq!(user(&pod, "root:root").unwrap(), made(33, 33, &[4, 7, 26], Some("/var/www")));
        let pod = Security { run_as_group: Some(9), ..pod };
        assert_eq!(user(&pod, "").unwrap().gid, 9);
        let pod = Security { strict_groups: true, ..pod };
        assert_eq!(user(&pod, "").unwrap().groups, [4, 7, 9]);
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let pod = Security { run_as_non_root: true, ..Security::default() };
        assert!(user(&pod, "").unwrap_err().contains("image will run as root"));
        assert!(user(&pod, "0").unwrap_err().contains("image will run as root"));
        assert!(user(&pod, "web").unwrap_err().contains("non-numeric user (web)"));
        assert_eq!(user(&pod, "33").unwrap().uid, 33);
        let pod = Security { run_as_user: Some(0), ..pod };
        assert!(user(&pod, "33").unwrap_err().contains("breaks non-root policy"));
    }

    #[test]
    fn databases_are_read_within_the_image_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("etc/passwd")).unwrap();
        assert_eq!(database(dir.path(), "/etc/passwd"), "");
        std::fs::write(dir.path().join("etc/hostname"), "inside").unwrap();
        assert_eq!(database(dir.path(), "/etc/passwd"), "inside");
        assert_eq!(database(dir.path(), "/etc/group"), "");
    }
}
