//! The sender: the user of this process, by passwd(5), at this host.

use nix::unistd::{gethostname, getuid};

use crate::read;

const USERS: &str = "/etc/passwd";

/// A user of this host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) user: String,
    /// The full name of gecos, if any.
    pub(super) full_name: String,
    pub(super) host: String,
}

impl Person {
    /// The user of this process. Without an entry, as in an image without a passwd file, it is `uid` and the number.
    pub(super) fn current() -> Self {
        let uid = getuid().as_raw();
        let users = read::system_file(USERS).unwrap_or_default();
        let host = gethostname().ok().and_then(|name| name.into_string().ok());
        let host =
            host.filter(|name| !name.is_empty() && name.bytes().all(|o| o.is_ascii_graphic()));
        let host = host.unwrap_or_else(|| "localhost".to_owned());
        Self::of(uid, &users, host)
    }

    fn of(uid: u32, users: &str, host: String) -> Self {
        let entry = users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [user, _, number, _, gecos, ..] = fields.as_slice() else {
                return None;
            };
            (number.parse() == Ok(uid)).then(|| ((*user).to_owned(), (*gecos).to_owned()))
        });
        let (user, gecos) = entry.unwrap_or_else(|| (format!("uid{uid}"), String::new()));
        let full_name = gecos.split(',').next().unwrap_or_default();
        Self {
            full_name: full_name.replace('&', &user),
            user,
            host,
        }
    }

    pub(super) fn address(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }

    /// The value of From: `sender`, or the user if it is empty, with `name` or else the user's own. A non-ASCII name is
    /// omitted, because it would have to be encoded.
    pub(super) fn mailbox(&self, name: Option<&str>, sender: &str) -> String {
        let (address, own) = match sender {
            "" => (self.address(), self.full_name.as_str()),
            whole if whole.contains('@') => (whole.to_owned(), ""),
            user => (format!("{user}@{}", self.host), ""),
        };
        let name = name.unwrap_or(own).trim();
        let atom = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | '\'');
        if name.is_empty() || !name.bytes().all(|octet| (b' '..=b'~').contains(&octet)) {
            address
        } else if name.chars().all(atom) {
            format!("{name} <{address}>")
        } else {
            let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{escaped}\" <{address}>")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_and_their_names() {
        let users = "root:x:0:0:Super & User,,,:/root:/bin/sh\nbroken\nbob:x:7:7::/:\n";
        let of = |uid| Person::of(uid, users, "h".to_owned());
        assert_eq!(of(0).mailbox(None, ""), "Super root User <root@h>");
        assert_eq!(of(7).mailbox(None, ""), "bob@h");
        assert_eq!(of(0).mailbox(None, "www"), "www@h");
        assert_eq!(of(0).mailbox(Some("Web"), "w@x"), "Web <w@x>");
        assert_eq!(of(8).address(), "uid8@h");
        for (name, expected) in [
            ("Cron Daemon", "Cron Daemon <bob@h>"),
            ("B. \"Q\"", "\"B. \\\"Q\\\"\" <bob@h>"),
            ("J\u{e9}", "bob@h"),
            ("a\nBcc: x", "bob@h"),
            ("", "bob@h"),
        ] {
            assert_eq!(of(7).mailbox(Some(name), ""), expected, "{name}");
        }
    }
}
