//! The client of a trusted proxy: reads the PROXY header of a `?proxy` listener, and counts the connection for that
//! client. `net::proxy` parses the header.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::client::Client;
use super::live::Live;
use crate::net::proxy::Header;
use crate::net::stream::Stream;
use crate::smtp::reply::Reply;
use crate::state::{ServerState, under_stress};

/// Maximum time for a whole header.
const HEADER: Duration = Duration::from_secs(30);

/// Counts the connection for a client, or for none if its address is unknown. Returns the reply to close with if the
/// client has too many.
pub type ClaimSlot<'a> = &'a mut dyn FnMut(Option<IpAddr>) -> Result<(), Reply>;

/// Reads the header from the stream; returns its client, or `None` for a connection of the proxy itself.
///
/// # Errors
/// Why there is no valid header, for the log. The peer gets no reply.
pub(super) fn client(
    state: &ServerState,
    live: &Live,
    stream: &mut Stream,
) -> Result<Option<Client>, String> {
    let begun = Instant::now();
    let wait = state.timeout.min(HEADER);
    let deadline = begun + wait;
    loop {
        match Header::parse(stream.input()) {
            Header::Whole { used, addresses } => {
                stream.consume(used);
                return Ok(addresses.map(|both| Client::proxied(both.source)));
            }
            Header::Garbage => return Err("not a PROXY header".to_owned()),
            Header::More => {}
        }
        live.begin_wait(None, begun + under_stress(wait));
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
