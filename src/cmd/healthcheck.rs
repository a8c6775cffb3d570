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
/// How often to see whether the name is looked up.
const POLL: Duration = Duration::from_millis(2);
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
    let named = url.clone();
    let destination = by(end, move || destination(&named)).map_err(|e| fault(&e))?;
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

/// The result of a look-up: name servers that do not answer would take longer.
fn by<T: Send + 'static>(
    end: Instant,
    look_up: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let thread = std::thread::Builder::new().spawn(look_up);
    let thread = thread.map_err(|e| e.to_string())?;
    while !thread.is_finished() {
        if end <= Instant::now() {
            return Err("looking up its name takes too long".to_owned());
        }
        std::thread::sleep(POLL);
    }
    let failed = |_| Err("looking up its name failed".to_owned());
    thread.join().unwrap_or_else(failed)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_has_a_deadline() {
        let later = Instant::now() + LIMIT;
        assert_eq!(by(later, || Ok(7)), Ok(7));
        assert_eq!(
            by(later, || Err::<(), _>("no".to_owned())),
            Err("no".to_owned())
        );
        let silent = || {
            std::thread::park();
            Ok(())
        };
        assert!(by(Instant::now(), silent).is_err());
    }
}
