//! The driver of one connection: octets from the stream to the session, recipients from the
//! directory, content to the spool. The only file that sees all of them; the rules of the
//! protocol are the session's, durability is the spool's.

use crate::deliver::{Form, Spool, Store, Target, Trace};
use crate::directory::Directory;
use crate::net::stream::{Socket, Stream};
use crate::smtp::address::ForwardPath;
use crate::smtp::body::{BareNewline, Dots, Fed};
use crate::smtp::line::{Lines, Taken};
use crate::smtp::params::BodyType;
use crate::smtp::reply::{self, Refusal, Reply};
use crate::smtp::session::{Host, Next, Policy, Session, Step};
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A message must bring this many octets in any [`FLOOR_WINDOW`]: 100 a second.
const FLOOR: u64 = 6_000;
const FLOOR_WINDOW: Duration = Duration::from_secs(60);

/// What all connections share.
pub struct Shared {
    /// The rules.
    pub policy: Arc<Policy>,
    /// The mailboxes.
    pub directory: Directory,
    /// The disk.
    pub store: Store,
    /// The wait for a client.
    pub timeout: Duration,
    /// Set once the server ends.
    pub stopping: AtomicBool,
}

/// What the server must know of a connection to end it in peace.
#[derive(Debug)]
pub struct Live {
    /// The socket.
    pub socket: Arc<Socket>,
    /// Set while a message comes in: it may finish.
    pub busy: AtomicBool,
}

struct World<'a>(&'a Shared);

impl Host for World<'_> {
    type Recipient = Target;
    fn recipient(&mut self, to: &ForwardPath) -> Result<Target, Refusal> {
        self.0.directory.resolve(to)
    }
    fn room(&mut self, octets: u64) -> Result<(), Refusal> {
        let Shared {
            store, directory, ..
        } = self.0;
        store.room(&directory.root(), octets)
    }
}

struct Conn<'a> {
    shared: &'a Shared,
    live: &'a Live,
    peer: &'a str,
    stream: Stream,
    session: Session<Target>,
}

/// A message that arrives in chunks.
struct Chunked {
    spool: Spool,
    binary: bool,
    /// A CR at the end of a chunk may be half of a CRLF.
    cr: bool,
    size: u64,
}

impl Chunked {
    fn write(&mut self, octets: &[u8]) {
        self.size += octets.len() as u64;
        if self.binary {
            return self.spool.write(octets);
        }
        for run in octets.split_inclusive(|&o| o == b'\n') {
            if self.cr && run != b"\n" {
                self.spool.write(b"\r");
            }
            let held = run.strip_suffix(b"\r");
            self.cr = held.is_some();
            match (held, run.strip_suffix(b"\r\n")) {
                (Some(text), _) => self.spool.write(text),
                (None, Some(text)) => {
                    self.spool.write(text);
                    self.spool.write(b"\n");
                }
                (None, None) => self.spool.write(run),
            }
        }
    }

    fn finish(&mut self) {
        if self.cr {
            self.spool.write(b"\r");
        }
    }
}

/// Serves one client to its end.
pub fn serve(shared: &Shared, live: &Live, peer: &str) {
    let begun = Instant::now();
    let session = Session::new(Arc::clone(&shared.policy));
    let stream = Stream::new(Arc::clone(&live.socket));
    let mut conn = Conn {
        shared,
        live,
        peer,
        stream,
        session,
    };
    let end = match conn.run() {
        Ok(()) => "quit".to_owned(),
        Err(error) => conn.farewell(&error),
    };
    live.socket.shutdown(std::net::Shutdown::Both);
    let helo = quote(conn.session.helo().unwrap_or_default());
    let seconds = begun.elapsed().as_secs_f64();
    log::info!(
        "connection client={} helo={helo} end={} seconds={seconds:.3}",
        quote(peer),
        quote(&end)
    );
}

impl Conn<'_> {
    fn run(&mut self) -> io::Result<()> {
        self.session.greeting().render(self.stream.output());
        let mut lines = Lines::new();
        let mut chunks: Option<Chunked> = None;
        loop {
            let step = self.command(&mut lines)?;
            if let Some(reply) = &step.reply {
                reply.render(self.stream.output());
            }
            if self.session.transaction().is_none() && !matches!(step.next, Next::Chunk { .. }) {
                chunks = None;
            }
            let after = match step.next {
                Next::Command => continue,
                Next::Data => self.data()?,
                Next::Chunk { size, last } => self.chunk(size, last, &mut chunks)?,
                Next::Skip { size, reply } => {
                    self.octets(size, |_| {})?;
                    Step {
                        reply: Some(reply),
                        next: Next::Command,
                    }
                }
                Next::Close => return self.stream.flush(Instant::now() + self.shared.timeout),
            };
            if let Some(reply) = &after.reply {
                reply.render(self.stream.output());
            }
            if after.next == Next::Close {
                return self.stream.flush(Instant::now() + self.shared.timeout);
            }
        }
    }

    /// The next line's step. The deadline is over the whole line and not each octet.
    fn command(&mut self, lines: &mut Lines) -> io::Result<Step> {
        let deadline = Instant::now() + self.shared.timeout;
        loop {
            match lines.take(self.stream.input(), self.session.line_limit()) {
                Taken::Line { line, used } => {
                    let step = self.session.line(line, &mut World(self.shared));
                    self.stream.consume(used);
                    return Ok(step);
                }
                Taken::More { used } => self.stream.consume(used),
                Taken::Flood => {
                    return Ok(Step {
                        reply: Some(reply::TOO_MUCH),
                        next: Next::Close,
                    });
                }
            }
            self.wait(deadline)?;
        }
    }

    /// More input, or an error for the end of it.
    fn wait(&mut self, deadline: Instant) -> io::Result<()> {
        if self.shared.stopping.load(Ordering::SeqCst) && !self.live.busy.load(Ordering::SeqCst) {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        match self.stream.fill(deadline)? {
            0 if self.shared.stopping.load(Ordering::SeqCst) => {
                Err(ErrorKind::ConnectionAborted.into())
            }
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The last word to a client that is hung up on.
    fn farewell(&mut self, error: &io::Error) -> String {
        let word = match error.kind() {
            ErrorKind::TimedOut => reply::TIMED_OUT,
            ErrorKind::ConnectionAborted => reply::UNAVAILABLE,
            _ => return error.to_string(),
        };
        word.render(self.stream.output());
        let _ = self.stream.flush(Instant::now() + Duration::from_secs(1));
        word.text().to_owned()
    }

    /// DATA to its lone dot.
    fn data(&mut self) -> io::Result<Step> {
        let shared = self.shared;
        let mut spool = shared.store.begin(self.trace(), self.targets(), Form::Text);
        let mut dots = Dots::new(shared.policy.bare_newline);
        let limit = shared.policy.max_size;
        let mut out = Vec::new();
        self.body(|input| {
            out.clear();
            let fed = dots.feed(input, &mut out);
            if dots.size() <= limit {
                spool.write(&out);
            }
            match fed {
                _ if dots.size() > limit.saturating_mul(2) => Err(reply::TOO_MUCH),
                Fed::More => Ok((input.len(), false)),
                Fed::End { used } => Ok((used, true)),
            }
        })
        .map(|refused| match refused {
            Some(reply) => Step {
                reply: Some(reply),
                next: Next::Close,
            },
            None if dots.bare_newline() && shared.policy.bare_newline == BareNewline::Reject => {
                self.session.finish(reply::BARE_NEWLINE)
            }
            None if dots.size() > limit => self.session.finish(reply::TOO_LARGE),
            None => self.commit(spool, dots.size()),
        })
    }

    /// One chunk of BDAT. Its octets are content as they are (RFC 3030 §2), but that CRLF is
    /// LF on disk where the message is not BINARYMIME.
    fn chunk(&mut self, size: u64, last: bool, open: &mut Option<Chunked>) -> io::Result<Step> {
        let shared = self.shared;
        let mut chunked = open.take().unwrap_or_else(|| {
            let params = self.session.transaction().map(|t| t.params);
            let binary = params.is_some_and(|p| p.body == Some(BodyType::Binary));
            let form = if binary { Form::Binary } else { Form::Text };
            Chunked {
                spool: shared.store.begin(self.trace(), self.targets(), form),
                binary,
                cr: false,
                size: 0,
            }
        });
        self.octets(size, |octets| chunked.write(octets))?;
        if !last {
            *open = Some(chunked);
            return Ok(self.session.chunk_received());
        }
        chunked.finish();
        Ok(self.commit(chunked.spool, chunked.size))
    }

    /// Reads and hands on exactly `size` octets.
    fn octets(&mut self, size: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = size;
        if left == 0 {
            return Ok(());
        }
        self.body(|input| {
            let used = usize::try_from(left).map_or(input.len(), |l| l.min(input.len()));
            take(input.get(..used).unwrap_or_default());
            left -= used as u64;
            Ok((used, left == 0))
        })
        .map(|_| ())
    }

    /// Feeds input to `take` until it says that the message is over, or refuses it.
    fn body(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(usize, bool), Reply>,
    ) -> io::Result<Option<Reply>> {
        self.live.busy.store(true, Ordering::SeqCst);
        self.stream.body_mode(true);
        let (mut window, mut came) = (Instant::now(), 0_u64);
        let outcome = loop {
            match take(self.stream.input()) {
                Err(refused) => break Some(refused),
                Ok((used, over)) => {
                    came += used as u64;
                    self.stream.consume(used);
                    if over {
                        break None;
                    }
                }
            }
            if window.elapsed() >= FLOOR_WINDOW {
                if came < FLOOR {
                    return Err(ErrorKind::TimedOut.into());
                }
                (window, came) = (Instant::now(), 0);
            }
            self.wait(Instant::now() + self.shared.timeout)?;
        };
        self.stream.body_mode(false);
        self.live.busy.store(false, Ordering::SeqCst);
        Ok(outcome)
    }

    fn commit(&mut self, spool: Spool, size: u64) -> Step {
        let opened = spool.id().to_owned();
        let (id, outcome) = match spool.commit() {
            Ok(delivered) => (delivered.id().to_owned(), delivered.reply()),
            Err(refusal) => (opened, refusal.reply),
        };
        for (_, target) in self
            .session
            .transaction()
            .iter()
            .flat_map(|t| &t.recipients)
        {
            self.shared.store.sweep(&target.maildir);
        }
        self.log_message(&id, size, &outcome);
        self.session.finish(outcome)
    }

    fn log_message(&self, id: &str, size: u64, outcome: &Reply) {
        let Some(transaction) = self.session.transaction() else {
            return;
        };
        let mut to = String::new();
        for (path, _) in &transaction.recipients {
            let _ = write!(to, " to={}", quote(&path.to_string()));
        }
        let (client, from) = (
            quote(self.peer),
            quote(&transaction.reverse_path.to_string()),
        );
        log::info!(
            "message id={id} client={client} from={from}{to} size={size} status={}",
            outcome.code()
        );
    }

    /// Each mailbox once.
    fn targets(&self) -> Vec<Target> {
        let mut targets: Vec<Target> = Vec::new();
        for (_, target) in self
            .session
            .transaction()
            .iter()
            .flat_map(|t| &t.recipients)
        {
            if !targets.iter().any(|known| known.maildir == target.maildir) {
                targets.push(target.clone());
            }
        }
        targets
    }

    fn trace(&self) -> Trace {
        let transaction = self.session.transaction();
        let recipient = match transaction.map(|t| t.recipients.as_slice()) {
            Some([(only, _)]) => Some(only.to_string()),
            _ => None,
        };
        Trace {
            reverse_path: transaction
                .map(|t| t.reverse_path.to_string())
                .unwrap_or_default(),
            helo: self.session.helo().unwrap_or("unknown").to_owned(),
            peer: self.peer.to_owned(),
            hostname: self.shared.policy.hostname.clone(),
            protocol: self.session.protocol(),
            recipient,
            user: None,
            submission: false,
        }
    }
}

/// A value from the network as one word of a log line: quoted, escaped, cut.
fn quote(text: &str) -> String {
    let cut: String = text.chars().take(256).collect();
    format!("\"{}\"", cut.escape_debug())
}
