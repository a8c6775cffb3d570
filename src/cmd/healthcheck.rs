//! `--healthcheck`: a client for one moment. It greets a listener and says good-bye, as the supervisor of a container asks
//! in an image with nothing else in it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::hop::hop;
use crate::client::{Connection, nonce};
use crate::failure::Failure;
use crate::net::client_tls::ClientTls;
use crate::net::url::{ListenUrl, Scheme};
use crate::options::Key;
use crate::settings::{Settings, Value};
use crate::smtp::client::{self, TlsUse};

/// All of it is over by then.
const LIMIT: Duration = Duration::from_secs(10);
/// The name for EHLO. The log passes over connections by this name that send nothing.
pub const NAME: &str = "mailslot-healthcheck";

/// Checks the listener that `given` names, or else the first of `--listen`; the status is 0 or 1, and then standard error
/// has the reason.
///
/// # Errors
/// No listener can be made out of what was given.
pub fn run(settings: &Settings, given: &Value) -> Result<ExitCode, Failure> {
    let first = || settings.all(Key::Listen).into_iter().next();
    let value = match given.text.as_str() {
        "" => first().unwrap_or_else(|| given.clone()),
        _ => given.clone(),
    };
    let url = value.text.parse();
    let url = url.map_err(|expected: String| value.invalid(expected))?;
    match check(&url) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(why) => {
            eprintln!("mailslot: healthcheck: {why}");
            Ok(ExitCode::from(1))
        }
    }
}

/// Greeting, EHLO or LHLO, and QUIT at a listener, as it is named for `--listen`. A certificate is not verified.
///
/// # Errors
/// What is wrong, in one line.
pub fn check(url: &ListenUrl) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    let fault = |e: &dyn std::fmt::Display| format!("{url}: {e}");
    let hop = hop(url).map_err(|e| fault(&e))?;
    let settings = client::Settings {
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
