//! The same dialogues in memory: a session, a directory and a store, and no socket between. What is
//! pure must be enough to speak the whole protocol; the driver below is all that is added.

use crate::dialogues::{self, Line as Scripted, Script};
use mailslot::auth::{Account, Accounts};
use mailslot::config::Config;
use mailslot::deliver::{Form, Store, Target, Trace};
use mailslot::directory::Directory;
use mailslot::options::Settings;
use mailslot::smtp::address::{ForwardPath, ReversePath};
use mailslot::smtp::body::{BareNewline, Dots, Fed};
use mailslot::smtp::line::{Lines, Taken};
use mailslot::smtp::params::BodyType;
use mailslot::smtp::policy::{Policy, Service};
use mailslot::smtp::reply::{self, Refusal, Reply};
use mailslot::smtp::session::{Channel, Host, Next, Session};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

struct World {
    directory: Directory,
    store: Store,
}

impl Accounts for World {
    fn account(&mut self, login: &str) -> Account {
        self.directory.account(login)
    }
}

impl Host for World {
    type Recipient = Vec<Arc<Target>>;
    fn recipient(
        &mut self,
        to: &ForwardPath,
        size: Option<u64>,
    ) -> Result<Vec<Arc<Target>>, Refusal> {
        let targets = self.directory.resolve(to)?;
        for target in &targets {
            self.store.quota_check(target, size.unwrap_or(0))?;
        }
        Ok(targets)
    }
    fn room(&mut self, octets: u64) -> Result<(), Refusal> {
        self.store.room(self.directory.root(), octets)
    }
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        self.directory.vrfy(name)
    }
    fn expn(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        self.directory.expn(name)
    }
    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool {
        self.directory.may_send_as(user, from)
    }
    fn nonce(&mut self) -> String {
        "always the same nonce".replace(' ', "")
    }
}

/// A conversation: octets in, octets out.
struct Memory {
    dir: PathBuf,
    world: World,
    session: Session<Vec<Arc<Target>>>,
    lines: Lines,
    input: Vec<u8>,
    output: Vec<u8>,
    mode: Mode,
    content: Vec<u8>,
    closed: bool,
}

enum Mode {
    Lines,
    Data(Dots),
    Chunk { left: u64, last: bool },
    Skip { left: u64, reply: Reply },
}

impl Memory {
    fn new(script: &Script) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("mailslot-memory-{}-{count}", std::process::id()));
        let made = script.setup.args.iter().any(|arg| arg == "--create");
        for name in script
            .setup
            .dirs
            .iter()
            .map(String::as_str)
            .chain(made.then_some("mail"))
        {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        std::fs::create_dir_all(&dir).unwrap();
        for (name, content) in &script.setup.files {
            std::fs::write(dir.join(name), content).unwrap();
        }
        let mut args = vec!["--hostname".to_owned(), "mx.test".to_owned()];
        for url in &script.setup.listen {
            args.extend(["--listen".to_owned(), url.clone()]);
        }
        args.extend(script.setup.args.iter().cloned());
        let mut config = Config::new(&Settings::read(&args, |_| None).unwrap()).unwrap();
        let paths = &mut config.directory;
        paths.pattern = dir.join(&paths.pattern).display().to_string();
        for path in [&mut paths.users, &mut paths.aliases].into_iter().flatten() {
            *path = dir.join(&path);
        }
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
            world: World { directory, store },
            session,
            lines: Lines::new(),
            input: Vec::new(),
            output,
            mode: Mode::Lines,
            content: Vec::new(),
            closed: false,
        }
    }

    fn send(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        while !self.closed && self.advance() {}
    }

    /// One step; false where more input is wanted.
    fn advance(&mut self) -> bool {
        match std::mem::replace(&mut self.mode, Mode::Lines) {
            Mode::Lines => self.line(),
            Mode::Data(mut dots) => {
                let mut out = Vec::new();
                let fed = dots.feed(&self.input, &mut out);
                self.content.extend_from_slice(&out);
                match fed {
                    Fed::More => {
                        self.input.clear();
                        self.mode = Mode::Data(dots);
                        false
                    }
                    Fed::End { used } => {
                        self.input.drain(..used);
                        let refused = if dots.bare_newline()
                            && self.session.policy().bare_newline == BareNewline::Reject
                        {
                            Some(reply::BARE_NEWLINE)
                        } else {
                            (dots.size() > self.session.policy().max_size)
                                .then_some(reply::TOO_LARGE)
                        };
                        self.commit(refused);
                        true
                    }
                }
            }
            Mode::Chunk { left, last } => {
                let octets = self.take(left);
                self.content.extend_from_slice(&octets);
                let left = left - octets.len() as u64;
                if left > 0 {
                    self.mode = Mode::Chunk { left, last };
                    return false;
                }
                if last {
                    self.commit(None);
                } else {
                    let step = self.session.chunk_received();
                    step.reply.unwrap().render(&mut self.output);
                }
                true
            }
            Mode::Skip { left, reply } => {
                let left = left - self.take(left).len() as u64;
                if left > 0 {
                    self.mode = Mode::Skip { left, reply };
                    return false;
                }
                reply.render(&mut self.output);
                true
            }
        }
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
            Taken::Line { line, used } => {
                let step = self.session.line(line, input.len() > used, &mut self.world);
                if let Some(reply) = step.reply {
                    reply.render(&mut self.output);
                }
                self.input = input[used..].to_vec();
                self.mode = match step.next {
                    Next::Command => Mode::Lines,
                    Next::Data => Mode::Data(Dots::new(self.session.policy().bare_newline)),
                    Next::Chunk { size, last } => Mode::Chunk { left: size, last },
                    Next::Skip { size, reply } => Mode::Skip { left: size, reply },
                    Next::StartTls | Next::Close => {
                        self.closed = true;
                        Mode::Lines
                    }
                };
                true
            }
            Taken::More { used } => {
                self.input = input[used..].to_vec();
                false
            }
            Taken::Flood => {
                self.closed = true;
                false
            }
        }
    }

    fn commit(&mut self, refused: Option<Reply>) {
        let transaction = self.session.transaction().unwrap();
        let counts: Vec<usize> = transaction
            .recipients
            .iter()
            .map(|(_, t)| t.len())
            .collect();
        let targets = transaction
            .recipients
            .iter()
            .flat_map(|(_, t)| t.clone())
            .collect();
        let binary = transaction.params.body == Some(BodyType::Binary);
        let trace = Trace {
            reverse_path: transaction.reverse_path.as_str(),
            helo: self.session.helo().unwrap_or_default(),
            peer: "memory",
            hostname: "mx.test",
            protocol: self.session.protocol(),
            recipient: None,
            user: None,
            submission: false,
        };
        let form = if binary { Form::Binary } else { Form::Text };
        let mut spool = self.world.store.begin(&trace, targets, form, None);
        let content = std::mem::take(&mut self.content);
        // BDAT's CRLF is LF on disk; what DATA's decoder gave has none left.
        if binary {
            spool.write(&content);
        } else {
            spool.write(
                String::from_utf8_lossy(&content)
                    .replace("\r\n", "\n")
                    .as_bytes(),
            );
        }
        let lmtp = self.session.policy().service == Service::Lmtp;
        let answer = |outcome: Result<mailslot::deliver::Delivered, Refusal>| match outcome {
            Ok(delivered) => delivered.reply(),
            Err(refusal) => refusal.reply,
        };
        let outcomes = match (refused, lmtp) {
            (Some(refused), true) => vec![refused; counts.len()],
            (Some(refused), false) => vec![refused],
            (None, false) => vec![answer(spool.commit())],
            (None, true) => {
                let mut all = spool.commit_each().into_iter().map(answer);
                counts
                    .iter()
                    .map(|&count| all.by_ref().take(count).last().unwrap())
                    .collect()
            }
        };
        let (replies, next) = self.session.finish(outcomes);
        replies
            .iter()
            .for_each(|reply| reply.render(&mut self.output));
        self.closed = next == Next::Close;
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
