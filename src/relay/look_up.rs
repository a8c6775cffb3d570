//! The output of `--check` about the next hops: what their names resolve to. It only asks name servers; it connects to
//! no hop.

use std::net::IpAddr;
use std::path::Path;

use super::config::RelayConfig;
use super::route::{Route, RouteKind};
use crate::net::dial;
use crate::net::dns::Resolver;

impl RelayConfig {
    /// Resolves the names of the next hops, one a line. A name that does not resolve now may do so later, so it
    /// is only reported.
    pub fn look_up(&self, resolver: &Resolver) -> Vec<String> {
        let routes = self.routes().all().iter();
        routes.flat_map(|route| hop(route, resolver)).collect()
    }

    /// The users who fetch mail by ATRN.
    pub fn fetching(&self) -> impl Iterator<Item = &str> {
        let routes = self.routes().all().iter();
        routes.filter_map(|route| match &route.kind {
            RouteKind::Atrn(user) => Some(user.as_str()),
            _ => None,
        })
    }
}

fn hop(route: &Route, resolver: &Resolver) -> Vec<String> {
    match &route.kind {
        RouteKind::Host { host, .. } => {
            vec![match resolver.addresses(host) {
                Ok(_) if host.parse::<IpAddr>().is_ok() => return Vec::new(),
                Ok(addresses) => format!("{host} is {}", list(&addresses)),
                Err(e) => format!("{host} does not resolve: {e}"),
            }]
        }
        RouteKind::Socket(path) => socket(path),
        RouteKind::Mx => {
            let domains = route.domains.iter();
            let named = domains.filter(|domain| !domain.starts_with('.'));
            named.map(|domain| exchangers(domain, resolver)).collect()
        }
        RouteKind::Atrn(_) => Vec::new(),
    }
}

fn socket(path: &Path) -> Vec<String> {
    match path.exists() {
        true => Vec::new(),
        false => vec![format!("{} does not exist", path.display())],
    }
}

fn exchangers(domain: &str, resolver: &Resolver) -> String {
    match dial::exchangers(resolver, domain, &|_, _| false) {
        Ok(hosts) => {
            let hosts = hosts.iter();
            let hosts = hosts.map(|mx| format!("{} ({})", mx.host, list(&mx.addresses)));
            let hosts: Vec<String> = hosts.collect();
            format!("mail for {domain} goes to {}", hosts.join(", "))
        }
        Err(e) => format!("no mail server found for {domain}: {e}"),
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    addresses.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::*;
    use crate::net::dns::Servers;
    use crate::testing::Scratch;

    /// A name of the hosts file, an address, a socket, and names without an answer.
    #[test]
    fn where_names_lead() {
        // Bound but never read, so that queries time out.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server: SocketAddr = silent.local_addr().unwrap();
        let servers = Servers {
            addresses: vec![server],
            timeout: Duration::from_millis(10),
            attempts: 1,
            ..Servers::default()
        };
        let dir = Scratch::new();
        let hosts = dir.file("hosts", "192.0.2.7 hop.test\n");
        let resolver = Resolver::new(&hosts, servers);
        let said = |url: &str| hop(&url.parse().unwrap(), &resolver);
        assert_eq!(said("smtp://hop.test"), ["hop.test is 192.0.2.7"]);
        assert!(
            said("submissions://gone.test")
                .concat()
                .starts_with("gone.test does not resolve: ")
        );
        assert_eq!(
            said("lmtp:/nowhere/at/all"),
            ["/nowhere/at/all does not exist"]
        );
        let mx = said("mx:?for=far.test&for=.sub.test");
        assert!(
            mx.concat()
                .starts_with("no mail server found for far.test: "),
            "{mx:?}"
        );
        assert_eq!(mx.len(), 1);
        for quiet in ["smtp://192.0.2.1", "lmtp:/", "mx:", "atrn:x"] {
            assert_eq!(said(quiet), [""; 0], "{quiet}");
        }
    }
}
