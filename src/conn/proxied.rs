//! Who the client of a trusted proxy is, and that it counts as one of that client's connections. Here the PROXY header is
//! read that comes before everything else on a `?proxy` listener; its form is `net::proxy`'s.

use super::client::Client;
use super::live::Live;
use crate::net::proxy::Header;
use crate::net::stream::Stream;
use crate::smtp::reply::Reply;
use crate::state::{ServerState, pressed};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The wait for a whole header, where the timeout is longer.
const HEADER: Duration = Duration::from_secs(30);

/// Counts the connection for a client, as it is counted, and for none where its address is not known; the reply to close with
/// where that client has too many.
pub type Claim<'a> = &'a mut dyn FnMut(Option<IpAddr>) -> Result<(), Reply>;

/// Reads the header off the stream: the client that it names, or none where the proxy speaks for itself.
///
/// # Errors
/// Why there is no header, for the log. Nothing is said to the other end then.
pub(super) fn client(
    state: &ServerState,
    live: &Live,
    stream: &mut Stream,
) -> Result<Option<Client>, String> {
    let begun = Instant::now();
    let wait = state.timeout.min(HEADER);
    let deadline = begun + state.patience(wait);
    loop {
        match Header::parse(stream.input()) {
            Header::Whole { used, addresses } => {
                stream.consume(used);
                return Ok(addresses.map(|both| Client::proxied(both.source)));
            }
            Header::Garbage => return Err("not a PROXY header".to_owned()),
            Header::More => {}
        }
        live.begin_wait(None, begun + pressed(wait));
        let filled = stream.fill(deadline);
        live.end_wait();
        match filled {
            Ok(octets) if octets > 0 => {}
            Ok(_) if !live.expired() => return Err("no PROXY header".to_owned()),
            Err(error) if error.kind() != ErrorKind::TimedOut => return Err(error.to_string()),
            _ => return Err("timed out before the PROXY header".to_owned()),
        }
    }
}
