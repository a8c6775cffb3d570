//! User and group ids from /etc/passwd and /etc/group. The C library's look-ups are not used: they load libraries at
//! run time (nsswitch.conf(5)), which can crash a static binary.

use crate::encoding::number;
use crate::read;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// A user by name or number (passwd(5)).
///
/// # Errors
/// No such user, or the file cannot be read.
pub fn user_id(name: &str) -> Result<u32, String> {
    id("user", name, USERS)
}

/// A group by name or number (group(5)).
///
/// # Errors
/// No such group, or the file cannot be read.
pub fn group_id(name: &str) -> Result<u32, String> {
    id("group", name, GROUPS)
}

/// The primary group of a user, given by name or number.
pub fn primary_group(user: &str) -> Option<u32> {
    let text = read::system_file(USERS).ok()?;
    primary_group_in(user, &text)
}

fn id(kind: &str, name: &str, path: &str) -> Result<u32, String> {
    if let Some(number) = number(name) {
        return Ok(number);
    }
    let text = read::system_file(path).map_err(|e| format!("{path}: cannot read: {e}"))?;
    number_of(name, &text)
        .ok_or_else(|| format!("no {kind} named '{name}' in {path}; use a number instead"))
}

/// The id in the third field of a name's line.
fn number_of(name: &str, text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let known = fields.next() == Some(name);
        known.then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The primary group in the fourth field of a user's line.
fn primary_group_in(user: &str, text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number = fields.nth(1)?;
        let known = name == user || number == user;
        known.then(|| fields.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_have_numbers() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nmail:x:8\npost:x:many:1\n\u{fffd}\n";
        let find = |name| number_of(name, text);
        assert_eq!((find("mail"), find("root")), (Some(8), Some(0)));
        for wrong in ["nobody", "post", "broken", "", "mai"] {
            assert_eq!(find(wrong), None, "{wrong}");
        }
        assert_eq!(user_id("1234"), Ok(1234));
        let missing = id("group", "mail", "/nowhere/group");
        assert!(missing.is_err_and(|said| said.starts_with("/nowhere/group: ")));
    }

    #[test]
    fn users_have_a_primary_group() {
        let text = "broken\nroot:x:0:0::/:\nmail:x:8:12::/:\npost:x:9:many::/:\n";
        let find = |user| primary_group_in(user, text);
        assert_eq!(
            (find("mail"), find("8"), find("root")),
            (Some(12), Some(12), Some(0))
        );
        assert_eq!(
            (find("post"), find("nobody"), find("12")),
            (None, None, None)
        );
    }
}
