//! The server's side of a TLS handshake, on a stack of its own.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Instant;

use rustls::{ServerConfig, ServerConnection};

use crate::net::stream::Stream;

/// Octets of its stack: three times what an unoptimized build needs.
const STACK: usize = 192 * 1024;

/// A handshake needs more stack than everything after it, and touched pages would stay in memory while the connection
/// idles. So it runs in a thread of its own, whose stack is reused by the next handshake; its size differs from that of
/// connections, which therefore never get it. Without a thread for it the stack of the connection has to do.
pub(super) fn handshake(
    stream: Stream,
    config: &Arc<ServerConfig>,
    deadline: Instant,
) -> io::Result<Stream> {
    let mut stream = Some(stream);
    let own = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK);
        let thread = builder.spawn_scoped(scope, || upgrade(&mut stream, config, deadline));
        let ended = thread.ok()?.join();
        Some(ended.unwrap_or_else(|_| Err(io::Error::other("the handshake ended in a panic"))))
    });
    own.unwrap_or_else(|| upgrade(&mut stream, config, deadline))
}

#[inline(never)]
fn upgrade(
    stream: &mut Option<Stream>,
    config: &Arc<ServerConfig>,
    deadline: Instant,
) -> io::Result<Stream> {
    let tls = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let stream = stream.take().ok_or(ErrorKind::NotConnected)?;
    stream.upgrade(tls.into(), deadline)
}
