//! Parses resolv.conf(5).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use crate::encoding::number;

/// Maximum servers (MAXNS of the C library).
const MAX_SERVERS: usize = 3;
/// Maximum search domains.
const MAX_SEARCH: usize = 6;
const PORT: u16 = 53;

/// The servers and their timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// The servers in order.
    pub addresses: Vec<SocketAddr>,
    /// Domains appended to a name with fewer than `ndots` dots.
    pub search: Vec<String>,
    /// From this many dots on a name is whole.
    pub ndots: usize,
    /// The timeout of one question.
    pub timeout: Duration,
    /// Attempts for each server.
    pub attempts: u32,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        }
    }
}

impl Servers {
    /// Parses the text of a resolv.conf(5) and ignores unknown lines. Without a server it is the one of this host, as
    /// in the C library. A server may have a port: `[192.0.2.1]:5353`.
    pub fn parse(text: &str) -> Self {
        let mut servers = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => servers.addresses.extend(words.next().and_then(address)),
                Some("search" | "domain") => {
                    servers.search = words.take(MAX_SEARCH).map(str::to_owned).collect();
                }
                Some("options") => words.for_each(|word| servers.option(word)),
                _ => {}
            }
        }
        servers.addresses.truncate(MAX_SERVERS);
        if servers.addresses.is_empty() {
            servers.addresses = vec![(Ipv4Addr::LOCALHOST, PORT).into()];
        }
        servers
    }

    fn option(&mut self, word: &str) {
        let limited = |value: &str| number(value).filter(|n| (1..=30).contains(n));
        match word.split_once(':') {
            Some(("timeout", value)) => {
                let seconds = limited(value).map(|n: u32| Duration::from_secs(n.into()));
                self.timeout = seconds.unwrap_or(self.timeout);
            }
            Some(("attempts", value)) => {
                self.attempts = limited(value).map_or(self.attempts, |n| n.min(5));
            }
            // With 0, as in Docker's networks, a short name is looked for in the search domains, too.
            Some(("ndots", value)) => self.ndots = number(value).unwrap_or(self.ndots).clamp(1, 15),
            _ => {}
        }
    }
}

/// `ADDRESS`, `ADDRESS%ZONE` or `[ADDRESS]:PORT`. Routers announce themselves by link-local addresses, which have a
/// zone.
fn address(word: &str) -> Option<SocketAddr> {
    let bracketed = word
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"));
    let (address, port) = match bracketed {
        Some((address, port)) => (address, port.parse().ok()?),
        None => (word, PORT),
    };
    let (address, zone) = address.split_once('%').unwrap_or((address, ""));
    let mut address = SocketAddr::new(address.parse().ok()?, port);
    if let SocketAddr::V6(six) = &mut address
        && !zone.is_empty()
    {
        six.set_scope_id(if_nametoindex(zone).ok()?);
    }
    Some(address)
}
