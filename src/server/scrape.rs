//! The metrics listeners: GET /metrics and GET /healthz, answered by a few threads until the last connection of the
//! server has ended. Slow clients delay nobody: the oldest is closed for a new one. `metrics` counts.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::admission::ConnLimits;
use crate::clock;
use crate::log_queue;
use crate::metrics::Now;
use crate::net::listen::{Accepted, Listeners};
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::state::ServerState;

/// Maximum time of a request and its response.
const LIMIT: Duration = Duration::from_secs(2);
/// Maximum clients at once.
const MAX_CLIENTS: usize = 16;
/// Maximum octets of a request.
const MAX_REQUEST: usize = 8 * 1024;
/// Stack of a thread, in octets.
const STACK: usize = 128 * 1024;
/// The media type of a page (OpenMetrics 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";
const TEXT: &str = "text/plain; charset=utf-8";

/// The sources of the responses.
pub(super) struct Scrape {
    pub(super) state: Arc<ServerState>,
    pub(super) limits: Arc<ConnLimits>,
    pub(super) started: u64,
}

/// A client that is being answered.
struct Scraper {
    /// Owned by the thread, which closes it at its end.
    socket: Weak<Socket>,
    thread: JoinHandle<()>,
}

impl Scrape {
    /// Starts the thread that takes the clients.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn serve(self, mut listeners: Listeners) -> io::Result<()> {
        let own = Arc::new(self);
        let serve = move || {
            let mut clients = VecDeque::new();
            let mut take = |_, accepted| own.take(&mut clients, accepted);
            while listeners.wait(None, &mut take).is_ok() {}
            log::error!("metrics listeners failed: poll");
        };
        spawn(serve).map(drop)
    }

    fn take(self: &Arc<Self>, clients: &mut VecDeque<Scraper>, accepted: Accepted) {
        if accepted.overflow {
            return;
        }
        clients.retain(|client| !client.thread.is_finished());
        if clients.len() >= MAX_CLIENTS
            && let Some(oldest) = clients.pop_front()
        {
            if let Some(socket) = oldest.socket.upgrade() {
                socket.shutdown(Shutdown::Both);
            }
            let _ = oldest.thread.join();
        }
        let socket = Arc::new(accepted.socket);
        let (own, its) = (Arc::clone(self), Arc::clone(&socket));
        match spawn(move || own.answer(its)) {
            Ok(thread) => clients.push_back(Scraper {
                socket: Arc::downgrade(&socket),
                thread,
            }),
            // Without another thread the next client waits for this one.
            Err(_) => self.answer(socket),
        }
    }

    fn answer(&self, socket: Arc<Socket>) {
        let deadline = Instant::now() + LIMIT;
        let mut stream = Stream::new(socket);
        match request(&mut stream, deadline) {
            Ok(Some(line)) => {
                let (status, kind, body) = self.page(&line);
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
                     Connection: close\r\n\r\n"
                );
                let output = stream.output();
                output.extend_from_slice(head.as_bytes());
                output.extend_from_slice(body.as_bytes());
                if let Err(e) = stream.flush(deadline) {
                    log::debug!("metrics: {e}");
                }
                stream.close(true, deadline);
            }
            Ok(None) => {}
            Err(e) => log::debug!("metrics: {e}"),
        }
    }

    /// Status, media type and body for a request line. Everything except the two pages is 404.
    fn page(&self, line: &str) -> (&'static str, &'static str, String) {
        match line.rsplit_once(" HTTP/1.").map(|(request, _)| request) {
            Some("GET /metrics") => ("200 OK", OPEN_METRICS, self.metrics()),
            Some("GET /healthz") => match self.trouble() {
                None => ("200 OK", TEXT, "ok\n".to_owned()),
                Some(why) => ("503 Service Unavailable", TEXT, format!("{why}\n")),
            },
            _ => ("404 Not Found", TEXT, "not found\n".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        let relay = self.state.relay.get();
        self.state.metrics.page(&Now {
            connections: self.limits.count(),
            hops: relay.map_or_else(Vec::new, |relay| relay.lengths(clock::seconds())),
            dropped_lines: log_queue::dropped(),
            started: self.started,
        })
    }

    /// The reason why the server is unhealthy, if any.
    fn trouble(&self) -> Option<String> {
        if self.state.stopping.load(Ordering::SeqCst) {
            return Some("stopping".to_owned());
        }
        let snapshot = self.state.snapshot();
        let directory = &snapshot.directory;
        let root = directory.root().display();
        let missing = !directory.is_without_root() && !directory.has_root();
        missing.then(|| format!("{root} is missing or not mounted"))
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = std::thread::Builder::new().stack_size(STACK);
    builder.spawn(run)
}

/// Reads a request and returns its first line; `None` if the request is too long or incomplete.
fn request(stream: &mut Stream, deadline: Instant) -> io::Result<Option<String>> {
    loop {
        let input = stream.input();
        if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            let line = input.iter().take_while(|octet| **octet != b'\r');
            let line: Vec<u8> = line.copied().collect();
            stream.consume(end + 4);
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        if input.len() > MAX_REQUEST || stream.fill(deadline)? == 0 {
            return Ok(None);
        }
    }
}
