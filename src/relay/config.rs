//! The relay's options and their files.

use std::net::IpAddr;
use std::path::PathBuf;

use super::logins::Logins;
use super::route::{Route, RouteKind, Routes};
use super::schedule::RetryPolicy;
use super::sender::RelayRules;
use crate::failure::Failure;
use crate::net::client_tls::{ClientTls, Roots};
use crate::net::url::{BindTo, ListenUrl, Scheme};
use crate::options::Key;
use crate::settings::Settings;
use crate::values::{self, Networks};

/// The options.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    routes: Routes,
    from: Networks,
    logins: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    /// The queue's folder.
    pub dir: PathBuf,
    retry_policy: RetryPolicy,
}

impl RelayConfig {
    /// Reads the options; `None` without `--relay`. Clients of `from` may relay without a login.
    ///
    /// # Errors
    /// The option and what is wrong with it.
    pub fn new(
        given: &Settings,
        listen: &[ListenUrl],
        from: Networks,
    ) -> Result<Option<Self>, Failure> {
        let mut routes = Vec::new();
        for value in given.all(Key::Relay) {
            let parsed = value.text.parse::<Route>();
            let route = parsed.map_err(|expected| value.invalid(expected))?;
            if listen.iter().any(|url| is_itself(&route, url)) {
                return Err(value.fault(format_args!(
                    "'{route}' is one of the own listeners; name another server"
                )));
            }
            routes.push(route);
        }
        let file = |key| given.one(key).map(|value| PathBuf::from(value.text));
        let duration = |key| {
            let value = given.one(key);
            let found = value
                .as_ref()
                .and_then(|value| values::duration(&value.text));
            found.ok_or_else(|| match value {
                Some(value) => value.invalid("a duration such as 5m"),
                None => given.fault(key, "needs a value"),
            })
        };
        // Parsed also without a relay, so that a wrong value is always reported.
        let retry_policy = RetryPolicy {
            retry: duration(Key::Retry)?,
            retry_for: duration(Key::RetryFor)?,
        };
        if routes.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            routes: Routes::new(routes).map_err(|why| given.fault(Key::Relay, why))?,
            from,
            logins: file(Key::RelayAuth),
            tls_ca: file(Key::TlsCa),
            dir: file(Key::Queue).unwrap_or_else(|| PathBuf::from("queue")),
            retry_policy,
        }))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// The file and what is wrong with it; no roots although a certificate has to be verified.
    pub fn load(&self, hostname: &str, listen: &[ListenUrl]) -> Result<RelayRules, Failure> {
        let verifies = self.routes.all().iter().any(Route::verifies);
        let roots = match &self.tls_ca {
            Some(path) => Some(Roots::load(path)),
            None => verifies.then(Roots::system),
        };
        let roots = roots.transpose().map_err(Failure::File)?;
        let logins = match &self.logins {
            Some(path) => Logins::load(path)?,
            None => Logins::default(),
        };
        Ok(RelayRules {
            routes: self.routes.clone(),
            from: self.from.clone(),
            logins,
            retry_policy: self.retry_policy,
            hostname: hostname.to_owned(),
            tls: ClientTls::new(roots).map_err(Failure::System)?,
            own: listen.iter().filter_map(own).collect(),
        })
    }

    /// The next hops.
    pub(super) const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// A description of the routes, one sentence a line.
    pub fn describe(&self) -> String {
        let line = |route: &Route| match route.domains.as_slice() {
            [] => format!("\nother mail goes to {route}"),
            domains => format!("\nmail for {} goes to {route}", domains.join(", ")),
        };
        self.routes.all().iter().map(line).collect()
    }
}

/// Where this host listens for SMTP.
fn own(url: &ListenUrl) -> Option<(Option<IpAddr>, u16)> {
    let BindTo::Tcp { host, port } = &url.at else {
        return None;
    };
    let address = match host.as_deref() {
        None => None,
        Some("localhost") => Some(IpAddr::from([127, 0, 0, 1])),
        Some(host) => Some(host.parse().ok()?),
    };
    let address = address.filter(|address| !address.is_unspecified());
    (url.scheme != Scheme::Lmtp).then_some((address, *port))
}

/// True if a hop is a listener of this server, as far as its name tells.
fn is_itself(route: &Route, url: &ListenUrl) -> bool {
    match (&route.kind, &url.at) {
        (RouteKind::Socket(path), BindTo::Unix { path: own, .. }) => path == own,
        (
            RouteKind::Host { host, port, .. },
            BindTo::Tcp {
                host: own,
                port: at,
            },
        ) => {
            let loopback = |host: &str| {
                host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            };
            let everywhere = own
                .as_deref()
                .is_none_or(|own| own.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()));
            let same = own.as_deref() == Some(host)
                || own.as_deref().is_some_and(loopback) && loopback(host);
            let local =
                everywhere && (loopback(host) || host.parse().is_ok_and(crate::net::dial::is_own));
            *port == *at && *port != 0 && (same || local)
        }
        _ => false,
    }
}
