//! `--healthcheck`: connects to a listener, greets it and quits, for the supervisor of a container whose image has no
//! other program.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::destination::{connect, destination};
use super::output::complain;
use crate::client::{Connection, Destination, nonce};
use crate::failure::Failure;
use crate::net::client_tls::ClientTls;
use crate::net::stream::Stream;
use crate::net::url::{ListenUrl, Scheme};
use crate::options::Key;
use crate::settings::{Settings, Value};
use crate::smtp::client::{self, TlsUse};
use crate::smtp::policy::HEALTHCHECK;

/// The timeout of the whole check.
const LIMIT: Duration = Duration::from_secs(10);
/// Maximum octets of an HTTP response.
const MAX_ANSWER: usize = 4 * 1024;

/// Checks the listener `given`, or else the first of `--listen`. The status is 0, or 1 with the reason on standard
/// error.
///
/// # Errors
/// The URL is unusable.
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
            complain(&format!("mailslot: healthcheck: {why}"));
            Ok(ExitCode::from(1))
        }
    }
}

/// Checks a listener by greeting, EHLO or LHLO, and QUIT, or a metrics listener by `GET /healthz`. Certificates are not
/// verified.
///
/// # Errors
/// The reason, in one line.
pub fn check(url: &ListenUrl) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    let fault = |e: &dyn std::fmt::Display| format!("{url}: {e}");
    let destination = destination(url, Some(end)).map_err(|e| fault(&e))?;
    if url.scheme == Scheme::Metrics {
        return healthz(&destination, end).map_err(|e| fault(&e));
    }
    let settings = client::ClientConfig {
        lmtp: url.scheme == Scheme::Lmtp,
        hostname: HEALTHCHECK.to_owned(),
        tls: TlsUse::Never,
        login: None,
        nonce: nonce().map_err(|e| fault(&e))?,
    };
    let tls = ClientTls::new(None).map_err(|e| fault(&e))?;
    let connection =
        Connection::open(&destination, settings, &tls, Some(end)).map_err(|e| fault(&e))?;
    connection.quit();
    Ok(())
}

/// The health that a metrics listener reports.
fn healthz(destination: &Destination, end: Instant) -> io::Result<()> {
    let mut stream = Stream::new(Arc::new(connect(destination, || end)?));
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
