//! How `--queue-run` reaches the server that has the queue: a socket in the queue's folder, which only its owner can
//! enter. One line asks, one line answers.

use std::io::{self, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::hurry::Wanted;
use super::sender::Relay;
use crate::read;

const SOCKET: &str = "control";
/// Octets of a question or an answer.
const MAX_LINE: u64 = 512;
/// The wait for the other side.
const WAIT: Duration = Duration::from_secs(5);

/// Answers questions in a thread of its own, for as long as the process lives.
///
/// # Errors
/// The socket or the thread cannot be had.
pub fn serve(relay: &Arc<Relay>) -> io::Result<()> {
    let path = relay.queue().dir().join(SOCKET);
    // The queue's lock is held: what is there is a dead server's.
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let relay = Arc::clone(relay);
    let answer = move || {
        for socket in listener.incoming() {
            if let Err(e) = socket.and_then(|socket| one(&relay, socket)) {
                log::debug!("queue control: {e}");
            }
        }
    };
    std::thread::Builder::new().spawn(answer).map(drop)
}

fn one(relay: &Relay, mut socket: UnixStream) -> io::Result<()> {
    let asked = read_line(&mut socket)?;
    let count = run(relay, asked.trim())?;
    socket.write_all(format!("{count}\n").as_bytes())
}

/// Has mail tried now: all of it, that of an id, or that of a domain. How many messages that are.
fn run(relay: &Relay, what: &str) -> io::Result<usize> {
    if what.is_empty() {
        return relay.try_now(Wanted::All);
    }
    match relay.try_now(Wanted::Id(what))? {
        0 => relay.try_now(Wanted::Domain(what)),
        count => Ok(count),
    }
}

/// Asks the server that has the queue to try mail now. How many messages it found.
///
/// # Errors
/// There is no server.
pub fn ask(dir: &Path, what: &str) -> io::Result<usize> {
    let mut socket = UnixStream::connect(dir.join(SOCKET))?;
    socket.write_all(format!("{what}\n").as_bytes())?;
    let answer = read_line(&mut socket)?;
    answer.trim().parse().map_err(io::Error::other)
}

fn read_line(socket: &mut UnixStream) -> io::Result<String> {
    socket.set_read_timeout(Some(WAIT))?;
    socket.set_write_timeout(Some(WAIT))?;
    let mut line = Vec::new();
    let mut room = [0; 64];
    while !line.ends_with(b"\n") && (line.len() as u64) < MAX_LINE {
        match read::piece(socket, &mut room)? {
            [] => break,
            octets => line.extend_from_slice(octets),
        }
    }
    String::from_utf8(line).map_err(io::Error::other)
}
