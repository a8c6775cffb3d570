//! The same dialogues in memory: session, message, directory and store without a socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailslot::config::Config;
use mailslot::conn::backend::ServerBackend;
use mailslot::conn::message::{ClientTrace, Message};
use mailslot::deliver::{Group, Store};
use mailslot::directory::Directory;
use mailslot::settings::Settings;
use mailslot::smtp::body::Decoded;
use mailslot::smtp::line::{Lines, Split};
use mailslot::smtp::policy::{Policy, Service};
use mailslot::smtp::reply::Reply;
use mailslot::smtp::session::{Channel, Next, Session};
use mailslot::throttle::Throttle;

use crate::dialogues::{self, Line as Scripted, Script};

const ORIGIN: ClientTrace<'_> = ClientTrace {
    peer: "memory",
    auth_header: false,
};

/// A conversation: octets in, octets out.
pub struct Memory {
    pub dir: PathBuf,
    directory: Directory,
    store: Store,
    session: Session<Group>,
    lines: Lines,
    input: Vec<u8>,
    pub output: Vec<u8>,
    mode: Mode,
    /// The incoming message.
    message: Option<Message>,
    throttle: Throttle,
    pub closed: bool,
}

enum Mode {
    Lines,
    Data,
    Chunk {
        left: u64,
        last: bool,
    },
    Skip {
        left: u64,
        reply: Reply,
        times: usize,
    },
}

/// Makes the directories and files of a dialogue, and parses its options, with paths in `dir`.
fn prepare(script: &Script, dir: &Path) -> Config {
    let setup = &script.setup;
    let create = setup.args.iter().any(|arg| arg == "--create");
    let dirs = setup.dirs.iter().map(String::as_str);
    for name in dirs.chain(create.then_some("mail")) {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    std::fs::create_dir_all(dir).unwrap();
    for (name, content) in &setup.files {
        std::fs::write(dir.join(name), content).unwrap();
    }
    let mut args = vec!["--hostname".to_owned(), "mx.test".to_owned()];
    for url in &setup.listen {
        args.extend(["--listen".to_owned(), url.clone()]);
    }
    args.extend(setup.args.iter().cloned());
    let args: Vec<_> = args.into_iter().map(Into::into).collect();
    let mut config = Config::new(&Settings::read(&args, |_| None).unwrap(), &[]).unwrap();
    let paths = &mut config.directory;
    paths.pattern = dir.join(&paths.pattern).display().to_string();
    for path in [&mut paths.users, &mut paths.aliases].into_iter().flatten() {
        *path = dir.join(&path);
    }
    config
}

impl Memory {
    pub fn new(script: &Script) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("mailslot-memory-{}-{count}", std::process::id()));
        let config = prepare(script, &dir);
        let directory = Directory::load(&config.directory)
            .map_err(|e| e.to_string())
            .unwrap();
        let scheme = script
            .setup
            .listen
            .first()
            .map_or("smtp", |url| url.split(':').next().unwrap());
        let service = match scheme {
            "lmtp" => Service::Lmtp,
            "submission" => Service::Submission,
            _ => Service::Smtp,
        };
        let policy = Policy {
            service,
            mechanisms: directory.mechanisms(),
            ..config.policy
        };
        let store = Store::new("mx.test", config.sync, 100);
        let session = Session::new(Arc::new(policy), Channel::Clear);
        let mut output = Vec::new();
        session.greeting().render(&mut output);
        Self {
            dir,
            directory,
            store,
            session,
            lines: Lines::new(),
            input: Vec::new(),
            output,
            mode: Mode::Lines,
            message: None,
            throttle: Throttle::new(None),
            closed: false,
        }
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while !self.closed && self.advance() {}
    }

    /// One step; false where more input is wanted.
    fn advance(&mut self) -> bool {
        match std::mem::replace(&mut self.mode, Mode::Lines) {
            Mode::Lines => self.line(),
            Mode::Data => {
                let input = std::mem::take(&mut self.input);
                let message = self.message.as_mut().unwrap();
                match message.feed(&input) {
                    Ok(Decoded::More) => {
                        self.mode = Mode::Data;
                        false
                    }
                    Ok(Decoded::End { used }) => {
                        self.input = input[used..].to_vec();
                        self.finish();
                        true
                    }
                    Err(refused) => self.close(&refused),
                }
            }
            Mode::Chunk { left, last } => {
                let octets = self.take(left);
                let left = left - octets.len() as u64;
                if let Err(refused) = self.message.as_mut().unwrap().feed(&octets) {
                    return self.close(&refused);
                }
                if left > 0 {
                    self.mode = Mode::Chunk { left, last };
                    return false;
                }
                if last {
                    self.finish();
                } else {
                    let step = self.session.chunk_received();
                    step.reply.unwrap().render(&mut self.output);
                }
                true
            }
            Mode::Skip { left, reply, times } => {
                let left = left - self.take(left).len() as u64;
                if left > 0 {
                    self.mode = Mode::Skip { left, reply, times };
                    return false;
                }
                (0..times).for_each(|_| reply.render(&mut self.output));
                true
            }
        }
    }

    fn close(&mut self, refused: &Reply) -> bool {
        refused.render(&mut self.output);
        self.closed = true;
        false
    }

    fn finish(&mut self) {
        let outcome = self
            .message
            .take()
            .unwrap()
            .finish(&self.session, None, false);
        let (replies, next) = self.session.finish(outcome.replies);
        for reply in &replies {
            reply.render(&mut self.output);
        }
        self.closed = next == Next::Close;
    }

    fn take(&mut self, most: u64) -> Vec<u8> {
        let count = self
            .input
            .len()
            .min(usize::try_from(most).unwrap_or(usize::MAX));
        self.input.drain(..count).collect()
    }

    fn line(&mut self) -> bool {
        let session = &self.session;
        let input = std::mem::take(&mut self.input);
        match self.lines.take(&input, |start| session.line_limit(start)) {
            Split::Line { line, used } => {
                let mut backend = ServerBackend {
                    directory: &self.directory,
                    tokens: None,
                    store: &self.store,
                    relay: None,
                    throttle: &self.throttle,
                    client: None,
                    greylist: None,
                };
                let step = self.session.line(line, input.len() > used, &mut backend);
                if let Some(reply) = step.reply {
                    reply.render(&mut self.output);
                }
                self.input = input[used..].to_vec();
                self.next(step.next);
                true
            }
            Split::More { used } => {
                self.input = input[used..].to_vec();
                false
            }
            Split::Flood => {
                self.closed = true;
                false
            }
        }
    }

    fn next(&mut self, next: Next) {
        if self.session.transaction().is_none() {
            self.message = None;
        }
        self.mode = match next {
            Next::Command => Mode::Lines,
            Next::Data => {
                self.message = Some(Message::data(&self.session, &self.store, ORIGIN));
                Mode::Data
            }
            Next::Chunk { size, last } => {
                let begin = || Message::chunked(&self.session, &self.store, ORIGIN);
                self.message.get_or_insert_with(begin);
                Mode::Chunk { left: size, last }
            }
            Next::Skip { size, reply, times } => Mode::Skip {
                left: size,
                reply,
                times,
            },
            Next::Xclient(attributes) => {
                let greeting = self.session.xclient_done(&attributes);
                greeting.render(&mut self.output);
                Mode::Lines
            }
            Next::StartTls | Next::Turn(_) | Next::Close => {
                self.closed = true;
                Mode::Lines
            }
        };
    }

    fn reply(&mut self) -> String {
        let mut reply = String::new();
        while let Some(end) = self.output.windows(2).position(|pair| pair == b"\r\n") {
            let line: Vec<u8> = self.output.drain(..end + 2).collect();
            reply.push_str(&String::from_utf8_lossy(&line));
            if line.get(3) != Some(&b'-') {
                break;
            }
        }
        assert!(!reply.is_empty() || self.closed, "no reply, and not closed");
        reply
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn every_dialogue_in_memory() {
    for path in dialogues::files() {
        let script = Script::read(&path);
        let mut memory = Memory::new(&script);
        for (place, line) in &script.lines {
            match line {
                Scripted::Client(octets) => memory.send(octets),
                Scripted::Server(expected) => {
                    let reply = memory.reply();
                    assert!(dialogues::matches(&reply, expected), "{place}: {reply}");
                }
                Scripted::Count(mailbox, count) => {
                    let new = memory.dir.join("mail").join(mailbox).join("new");
                    let found = std::fs::read_dir(new).into_iter().flatten().count();
                    assert_eq!(found, *count, "{place}");
                }
                Scripted::Content(mailbox, content) => {
                    let new = memory.dir.join("mail").join(mailbox).join("new");
                    let file = std::fs::read_dir(new)
                        .unwrap()
                        .next()
                        .unwrap()
                        .unwrap()
                        .path();
                    let stored = std::fs::read(file).unwrap();
                    assert!(stored.ends_with(content.as_bytes()), "{place}");
                }
            }
        }
    }
}
