//! `--healthcheck`: a client for one moment. It greets a listener and says good-bye, as the supervisor of a container asks
//! in an image with nothing else in it.

use std::time::{Duration, Instant};

use super::hop::hop;
use crate::client::{Connection, nonce};
use crate::net::client_tls::ClientTls;
use crate::net::url::{ListenUrl, Scheme};
use crate::smtp::client::{Settings, TlsUse};

/// All of it is over by then.
const LIMIT: Duration = Duration::from_secs(10);
/// What it calls itself: connections by this name that send nothing are no news to the log.
pub const NAME: &str = "mailslot-healthcheck";

/// Greeting, EHLO or LHLO, and QUIT at a listener, as it is named for `--listen`. A certificate is not verified.
///
/// # Errors
/// What is wrong, in one line.
pub fn check(url: &ListenUrl) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    let fault = |e: &dyn std::fmt::Display| format!("{url}: {e}");
    let hop = hop(url).map_err(|e| fault(&e))?;
    let settings = Settings {
        lmtp: url.scheme == Scheme::Lmtp,
        hostname: NAME.to_owned(),
        tls: TlsUse::Never,
        login: None,
        nonce: nonce().map_err(|e| fault(&e))?,
    };
    let tls = ClientTls::new(None).map_err(|e| fault(&e))?;
    let connection = Connection::open(&hop, settings, &tls, Some(end)).map_err(|e| fault(&e))?;
    connection.quit();
    Ok(())
}
