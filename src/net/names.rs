//! Host names from the hosts file. The C library's look-ups are not used: they load libraries at run time
//! (nsswitch.conf(5)), which can crash a static binary.

use std::net::{IpAddr, Ipv4Addr};

use crate::read;

/// The hosts file.
pub(super) const HOSTS: &str = "/etc/hosts";

/// The addresses of a host, which may itself be an address (hosts(5)). Without an entry `localhost` is the loopback
/// address (RFC 6761 §6.3): a minimal container has no such file.
///
/// # Errors
/// No such host.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = addresses_in(&read::system_file(HOSTS).unwrap_or_default(), host);
    if !found.is_empty() {
        return Ok(found);
    }
    Err(format!(
        "no host named '{host}' in {HOSTS}; use an address instead"
    ))
}

/// The same from the text of a hosts file; empty without an entry.
pub(super) fn addresses_in(text: &str, host: &str) -> Vec<IpAddr> {
    let found = addresses_of(host, text);
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into()];
    }
    found
}

/// The addresses of a host in the lines of a hosts file.
fn addresses_of(host: &str, text: &str) -> Vec<IpAddr> {
    let named = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let known = words.any(|word| word.eq_ignore_ascii_case(host));
        known.then_some(address)
    };
    text.lines().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
