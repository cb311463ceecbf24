//! Users and groups from `/etc/passwd` and `/etc/group`.
//!
//! Read as text: the binary is static, so there is no NSS, and users from LDAP and the like must be given by number.

use std::path::Path;

use crate::{Error, Result, text};

/// The user that a child runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one among them.
    pub groups: Vec<u32>,
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Ids of a user given by name or number, with the primary group replaced by `group` where one is given. A number
/// that no file knows is taken as it is, with a group of the same number.
pub fn resolve_user(user: &str, group: Option<&str>) -> Result<Ids> {
    resolve_in(Path::new(PASSWD), Path::new(GROUP), user, group)
}

pub(crate) fn resolve_in(passwd: &Path, groups_file: &Path, user: &str, group: Option<&str>) -> Result<Ids> {
    let missing = |what, name: &str, file: &Path| Error::NoSuchUser {
        what,
        name: name.to_owned(),
        file: file.to_owned(),
    };
    let users = text::read(passwd).or_else(absent_is_empty)?;
    let groups = text::read(groups_file).or_else(absent_is_empty)?;
    let number = user.parse().ok();
    let found =
        users.lines().filter_map(user_of).find(|found| found.name == user || Some(found.uid) == number);
    let (name, uid, own_gid) = match (found, number) {
        (Some(found), _) => (Some(found.name), found.uid, found.gid),
        (None, Some(number)) => (None, number, number),
        (None, None) => return Err(missing("user", user, passwd)),
    };
    let gid = match group {
        None => own_gid,
        Some(wanted) => gid_of(&groups, wanted).ok_or_else(|| missing("group", wanted, groups_file))?,
    };
    Ok(Ids { uid, gid, groups: memberships(&groups, name, gid) })
}

fn absent_is_empty(error: Error) -> Result<String> {
    if error.is_gone() { Ok(String::new()) } else { Err(error) }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn user_of(line: &str) -> Option<User<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(User { name, uid, gid })
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn group_of(line: &str) -> Option<Group<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let gid = fields.nth(1)?.parse().ok()?;
    Some(Group { name, gid, members: fields.next().unwrap_or_default() })
}

fn gid_of(groups: &str, wanted: &str) -> Option<u32> {
    let by_name = groups.lines().filter_map(group_of).find(|group| group.name == wanted);
    by_name.map(|group| group.gid).or_else(|| wanted.parse().ok())
}

fn memberships(groups: &str, user: Option<&str>, gid: u32) -> Vec<u32> {
    let is_member = |group: &Group<'_>| {
        user.is_some_and(|user| group.members.split(',').any(|member| member.trim() == user))
    };
    let mut gids: Vec<u32> = vec![gid];
    gids.extend(groups.lines().filter_map(group_of).filter(is_member).map(|group| group.gid));
    gids.sort_unstable();
    gids.dedup();
    gids
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn resolve(user: &str, group: Option<&str>) -> Result<Ids> {
        let folder = tempfile::tempdir().unwrap();
        let (passwd, groups) = (folder.path().join("passwd"), folder.path().join("group"));
        fs::write(
            &passwd,
            "root:x:0:0:root:/root:/bin/sh\n# note\nweb:x:33:33::/var/www:/bin/false\nbad:x\n",
        )
        .unwrap();
        fs::write(&groups, "root:x:0:\nweb:x:33:\ndata:x:50:root,web\nlog:x:51:webby\n").unwrap();
        resolve_in(&passwd, &groups, user, group)
    }

    #[test]
    fn a_name_brings_its_groups() {
        assert_eq!(resolve("web", None).unwrap(), Ids { uid: 33, gid: 33, groups: vec![33, 50] });
    }

    #[test]
    fn a_number_in_the_file_is_the_same_user() {
        assert_eq!(resolve("33", None).unwrap(), resolve("web", None).unwrap());
    }

    #[test]
    fn an_unknown_number_is_taken_as_it_is() {
        assert_eq!(resolve("4000", Some("data")).unwrap(), Ids { uid: 4000, gid: 50, groups: vec![50] });
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        assert!(resolve("bad", None).unwrap_err().to_string().starts_with("find user \"bad\" in "));
        assert!(
            resolve("web", Some("nobody")).unwrap_err().to_string().starts_with("find group \"nobody\" in ")
        );
    }
}
