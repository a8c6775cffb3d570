//! `--healthcheck`: a client for one moment. It greets a listener and says good-bye, as the supervisor of a container asks
//! in an image with nothing else in it.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hop::{connect, hop};
use crate::client::{Connection, Hop, nonce};
use crate::failure::Failure;
use crate::net::client_tls::ClientTls;
use crate::net::stream::Stream;
use crate::net::url::{ListenUrl, Scheme};
use crate::options::Key;
use crate::settings::{Settings, Value};
use crate::smtp;
use crate::smtp::client::{self, TlsUse};

/// All of it is over by then.
const LIMIT: Duration = Duration::from_secs(10);
/// Octets of an answer over HTTP that are read.
const MAX_ANSWER: usize = 4 * 1024;

/// Checks the listener that `given` names, or else the first of `--listen`; the status is 0 or 1, and then standard error
/// has the reason.
///
/// # Errors
/// No listener can be made out of what was given.
pub fn run(settings: &Settings, given: &Value) -> Result<ExitCode, Failure> {
    let mail = |value: &Value| !value.text.starts_with(Scheme::Metrics.name());
    let first = || settings.all(Key::Listen).into_iter().find(mail);
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

/// Greeting, EHLO or LHLO, and QUIT at a listener, as it is named for `--listen`, or `GET /healthz` at one for metrics. A
/// certificate is not verified.
///
/// # Errors
/// What is wrong, in one line.
pub fn check(url: &ListenUrl) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    let fault = |e: &dyn std::fmt::Display| format!("{url}: {e}");
    let hop = hop(url).map_err(|e| fault(&e))?;
    if url.scheme == Scheme::Metrics {
        return healthz(&hop, end).map_err(|e| fault(&e));
    }
    let settings = client::Settings {
        lmtp: url.scheme == Scheme::Lmtp,
        hostname: smtp::HEALTHCHECK.to_owned(),
        tls: TlsUse::Never,
        login: None,
        nonce: nonce().map_err(|e| fault(&e))?,
    };
    let tls = ClientTls::new(None).map_err(|e| fault(&e))?;
    let connection = Connection::open(&hop, settings, &tls, Some(end)).map_err(|e| fault(&e))?;
    connection.quit();
    Ok(())
}

/// What the server says of itself.
fn healthz(hop: &Hop, end: Instant) -> io::Result<()> {
    let mut stream = Stream::new(Arc::new(connect(hop, || end)?));
    stream
        .output()
        .extend_from_slice(b"GET /healthz HTTP/1.0\r\n\r\n");
    while stream.input().len() < MAX_ANSWER && stream.fill(end)? > 0 {}
    let answer = String::from_utf8_lossy(stream.input()).into_owned();
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let why = answer.lines().next_back().unwrap_or_default();
    Err(io::Error::other(why.to_owned()))
}
