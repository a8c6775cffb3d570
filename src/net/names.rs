//! Names of users, groups and hosts, by the system's files. The C library's own lookups are left alone: what they load at
//! run time (nsswitch.conf(5)) does not go with a static binary, and crashes it where the libraries differ.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::values;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
const HOSTS: &str = "/etc/hosts";

/// A user by name or number (passwd(5)).
///
/// # Errors
/// No such user, or no such file.
pub(super) fn user_id(name: &str) -> Result<u32, String> {
    id("user", name, USERS)
}

/// A group by name or number (group(5)).
///
/// # Errors
/// No such group, or no such file.
pub(super) fn group_id(name: &str) -> Result<u32, String> {
    id("group", name, GROUPS)
}

/// The addresses of a host, which may be one itself (hosts(5)). A `localhost` that stands nowhere is the loopback
/// address (RFC 6761 §6.3): an image with nothing in it has no such file.
///
/// # Errors
/// No such host.
pub(super) fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = addresses_in(&read(HOSTS).unwrap_or_default(), host);
    if !found.is_empty() {
        return Ok(found);
    }
    Err(format!(
        "no host named '{host}' in {HOSTS}; an address will do"
    ))
}

/// The same by the text of a hosts file, without an error where there is none.
pub(super) fn addresses_in(text: &str, host: &str) -> Vec<IpAddr> {
    let found = addresses_of(host, text);
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into()];
    }
    found
}

fn id(kind: &str, name: &str, path: &str) -> Result<u32, String> {
    if let Some(number) = values::number(name) {
        return Ok(number);
    }
    let text = read(path).map_err(|e| format!("{path}: {e}"))?;
    number_of(name, &text)
        .ok_or_else(|| format!("no {kind} named '{name}' in {path}; a number will do"))
}

/// The third field of the line that begins with a name.
fn number_of(name: &str, text: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let known = fields.next() == Some(name);
        known.then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The addresses of the lines that have a host's name.
fn addresses_of(host: &str, text: &str) -> Vec<IpAddr> {
    let named = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let known = words.any(|word| word.eq_ignore_ascii_case(host));
        known.then_some(address)
    };
    text.lines().filter_map(named).collect()
}

fn read(path: &str) -> io::Result<String> {
    let octets = std::fs::read(path)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
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
    fn hosts_have_addresses() {
        let text = "127.0.0.1 localhost\n::1\tlocal6 Localhost # mx\n10.0.0.9 MX.example.org mx\n";
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        let find = |name| addresses_of(name, text).into_iter().map(Some);
        assert!(find("localhost").eq([ip("127.0.0.1"), ip("::1")]));
        assert!(find("mx.Example.org").eq([ip("10.0.0.9")]));
        assert!(find("mx").eq([ip("10.0.0.9")]));
        assert!(
            addresses("192.0.2.1")
                .is_ok_and(|found| found.into_iter().map(Some).eq([ip("192.0.2.1")]))
        );
        assert!(addresses("x y").is_err_and(|said| said.starts_with("no host named 'x y' in ")));
        assert!(addresses("LocalHost").is_ok());
    }
}
