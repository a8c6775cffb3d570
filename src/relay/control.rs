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
/// The timeout for a client, which has its request ready.
const WAIT: Duration = Duration::from_secs(5);
/// The timeout for the server, which may have to read each envelope of a long queue.
const ANSWER: Duration = Duration::from_secs(120);

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
    socket.set_write_timeout(Some(WAIT))?;
    let asked = read_line(&mut socket, WAIT)?;
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
/// No server is running, it may not be asked, or it does not answer.
pub fn ask(dir: &Path, what: &str) -> io::Result<usize> {
    let (path, _dir) = socket_of(dir)?;
    let mut socket = UnixStream::connect(path)?;
    let asked = socket.write_all(format!("{what}\n").as_bytes());
    let answer = asked.and_then(|()| read_line(&mut socket, ANSWER));
    let count = answer.ok().and_then(|answer| answer.trim().parse().ok());
    count.ok_or_else(|| io::Error::other("the server does not answer, or is stopping"))
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

fn read_line(socket: &mut UnixStream, wait: Duration) -> io::Result<String> {
    socket.set_read_timeout(Some(wait))?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::Scratch;

    /// What a server says that is stopping: nothing.
    #[test]
    fn a_server_that_does_not_answer() {
        let dir = Scratch::new();
        let listener = UnixListener::bind(dir.0.join(CONTROL)).unwrap();
        let closed = std::thread::spawn(move || listener.accept().map(drop));
        let said = ask(&dir.0, "x.test").unwrap_err().to_string();
        assert!(said.starts_with("the server does not answer"), "{said}");
        closed.join().unwrap().unwrap();
    }
}
