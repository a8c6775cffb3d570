//! Connects to one of the server's own listeners, for healthcheck and sendmail.

use std::io::{self, BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use crate::client::Destination;
use crate::net::dial::{self, Address};
use crate::net::dns::Resolver;
use crate::net::socket::Socket;
use crate::net::url::{BindTo, ListenUrl, Scheme};

/// The timeout for each address.
const CONNECT: Duration = Duration::from_secs(10);

/// The destination that reaches a listener; its certificate is not verified. A name is looked up until `end`, if any.
///
/// # Errors
/// The reason, as text.
pub(super) fn destination(url: &ListenUrl, end: Option<Instant>) -> Result<Destination, String> {
    let addresses = match &url.at {
        BindTo::Unix { path, .. } => vec![Address::Unix(path.clone())],
        BindTo::Tcp { port: 0, .. } => {
            return Err(
                "port 0 lets the system choose one; name the port that the log shows".to_owned(),
            );
        }
        BindTo::Inherited(_) => {
            return Err("an inherited socket has no known address; name its URL".to_owned());
        }
        BindTo::Tcp { host, port } => {
            let at_port = |ip| Address::Tcp(SocketAddr::new(ip, *port));
            hosts(host.as_deref(), end)?
                .into_iter()
                .map(at_port)
                .collect()
        }
    };
    Ok(Destination {
        addresses,
        host: "localhost".to_owned(),
        implicit_tls: url.scheme == Scheme::Submissions,
        verify: false,
        unsigned: false,
        proxy: url.proxy,
    })
}

/// A listener's addresses: loopback if it is on all interfaces.
fn hosts(host: Option<&str>, end: Option<Instant>) -> Result<Vec<IpAddr>, String> {
    let loopback = |address: IpAddr| match address {
        IpAddr::V4(four) if four.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(six) if six.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    let Some(host) = host else {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    };
    let found = Resolver::of_system(false, end).addresses(host);
    let found = found.map_err(|e| format!("{host}: {e}"))?;
    Ok(found.into_iter().map(loopback).collect())
}

/// Connects to the first address that answers.
///
/// # Errors
/// The error of the last address.
pub(super) fn connect(
    destination: &Destination,
    deadline: impl Fn() -> Instant,
) -> io::Result<Socket> {
    let mut socket = Err(io::Error::other("no address"));
    for address in &destination.addresses {
        socket = dial::connect(address, deadline());
        if socket.is_ok() {
            break;
        }
    }
    socket
}

/// Passes octets between standard input and output and a destination, until the destination closes. Lines may end in
/// LF.
///
/// # Errors
/// An error of the system.
pub(super) fn pass(destination: &Destination) -> io::Result<()> {
    let socket = connect(destination, || Instant::now() + CONNECT)?;
    let sending = socket.try_clone()?;
    // Standard input may stay open, so this thread may only end with the process.
    std::thread::Builder::new().spawn(move || {
        let _ = pass_lines(&mut io::stdin().lock(), &mut &sending);
        sending.shutdown(Shutdown::Write);
    })?;
    io::copy(&mut &socket, &mut io::stdout().lock()).map(drop)
}

/// Copies lines. If the first one ends in a bare LF, every bare LF becomes CRLF; otherwise a bare LF is content.
fn pass_lines(input: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
    // True if the first line ends in a bare LF, once that is known.
    let (mut unix, mut before) = (None, 0);
    loop {
        let octets = input.fill_buf()?;
        let count = octets.len();
        if count == 0 {
            return Ok(());
        }
        let mut text = Vec::with_capacity(count);
        for &octet in octets {
            let bare = octet == b'\n' && before != b'\r';
            if octet == b'\n' && *unix.get_or_insert(bare) && bare {
                text.push(b'\r');
            }
            text.push(octet);
            before = octet;
        }
        input.consume(count);
        output.write_all(&text)?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_first_line_decides() {
        for (input, expected) in [
            ("EHLO x\nDATA\na\r\n.\n", "EHLO x\r\nDATA\r\na\r\n.\r\n"),
            (
                "EHLO x\r\nDATA\r\na\n.\n\r\n",
                "EHLO x\r\nDATA\r\na\n.\n\r\n",
            ),
            ("\nQUIT\n", "\r\nQUIT\r\n"),
            ("QUIT", "QUIT"),
        ] {
            // Chunks of every size, so that an end is cut everywhere.
            for size in 1..=input.len() {
                let mut output = Vec::new();
                let mut input = io::BufReader::with_capacity(size, input.as_bytes());
                pass_lines(&mut input, &mut output).unwrap();
                assert_eq!(String::from_utf8_lossy(&output), expected);
            }
        }
    }
}
