//! Who a file belongs to: `user:group` as people write it, looked up in the system's tables.

use std::fmt;

use nix::unistd::{Gid, Group, Uid, User};

/// A user and a group by number. Prints as `user:group`, numbers where the system has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Owner {
    /// Reads `user`, `user:group` or numbers. Without a group it is the user's own.
    ///
    /// Errors: no such user or group.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let known = match user.parse::<u32>() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)).ok().flatten(),
            Err(_) => User::from_name(user).ok().flatten(),
        };
        let uid =
            known.as_ref().map(|user| user.uid.as_raw()).or_else(|| user.parse().ok()).ok_or_else(|| {
                format!("there is no user `{user}` on this machine; create it or name another")
            })?;
        let gid = match group {
            Some(group) => group_id(group)?,
            None => known.map(|user| user.gid.as_raw()).ok_or_else(|| {
                format!(
                    "there is no user {uid} on this machine, so its group is not known; write {uid}:GROUP"
                )
            })?,
        };
        Ok(Self { uid, gid })
    }

    /// The user's name.
    pub fn user(&self) -> String {
        let found = User::from_uid(Uid::from_raw(self.uid)).ok().flatten();
        found.map_or_else(|| self.uid.to_string(), |user| user.name)
    }
}

fn group_id(text: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    let found = Group::from_name(text).ok().flatten();
    found
        .map(|group| group.gid.as_raw())
        .ok_or_else(|| format!("there is no group `{text}` on this machine; create it or name another"))
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = Group::from_gid(Gid::from_raw(self.gid)).ok().flatten();
        let group = group.map_or_else(|| self.gid.to_string(), |group| group.name);
        write!(f, "{}:{group}", self.user())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_or_numbered() {
        let root = Owner { uid: 0, gid: 0 };
        assert_eq!(Owner::parse("root"), Ok(root));
        assert_eq!(Owner::parse("root:root"), Ok(root));
        assert_eq!(Owner::parse("0:7"), Ok(Owner { uid: 0, gid: 7 }));
        assert_eq!(root.to_string(), "root:root");
        assert!(Owner::parse("no-such-user").unwrap_err().contains("no user `no-such-user`"));
        assert!(Owner::parse("root:no-such-group").unwrap_err().contains("no group"));
        assert!(Owner::parse("4000000000").unwrap_err().contains("4000000000:GROUP"));
    }
}
