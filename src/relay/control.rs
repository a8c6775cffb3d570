//! The socket by which `--queue-run` asks the server, in the queue's folder, which only its owner can enter. The
//! request is one line, and so is the answer.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::retry::Wanted;
use super::sender::Relay;
use crate::queue::CONTROL;
use crate::read;

/// Maximum octets of a request or an answer.
const MAX_LINE: u64 = 512;
/// Maximum octets of a Unix socket's path: 104 with its NUL on the BSDs, 108 on Linux.
const MAX_PATH: usize = 103;
/// The timeout for the peer.
const WAIT: Duration = Duration::from_secs(5);

/// Answers requests in a thread of its own, until the process ends.
///
/// # Errors
/// The socket or the thread cannot be created.
pub fn serve(relay: &Arc<Relay>) -> io::Result<()> {
    let (path, _dir) = socket_of(relay.queue().dir())?;
    // This process holds the queue's lock, so an existing socket is stale.
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

/// Retries mail now: all of it, one id, or a domain. Returns the number of messages.
fn run(relay: &Relay, what: &str) -> io::Result<usize> {
    if what.is_empty() {
        return relay.try_now(Wanted::All);
    }
    match relay.try_now(Wanted::Id(what))? {
        0 => relay.try_now(Wanted::Domain(what)),
        count => Ok(count),
    }
}

/// Asks the running server to retry mail now. Returns the number of messages.
///
/// # Errors
/// No server is running.
pub fn ask(dir: &Path, what: &str) -> io::Result<usize> {
    let (path, _dir) = socket_of(dir)?;
    let mut socket = UnixStream::connect(path)?;
    socket.write_all(format!("{what}\n").as_bytes())?;
    let answer = read_line(&mut socket)?;
    answer.trim().parse().map_err(io::Error::other)
}

/// The path of the socket. One that is too long leads through the descriptor of its directory (Linux), which must stay
/// open while the path is used.
fn socket_of(dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = dir.join(CONTROL);
    if path.as_os_str().len() <= MAX_PATH {
        return Ok((path, None));
    }
    let dir = File::open(dir)?;
    let path = format!("/proc/self/fd/{}/{CONTROL}", dir.as_raw_fd());
    Ok((path.into(), Some(dir)))
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
