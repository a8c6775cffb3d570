//! Octets without sense: lines of the dialogues, changed, cut and joined by chance, go through the line
//! splitter, the session and the parsers. Nothing may panic, no reply may break its form, and no transaction
//! may outlive its end. `make test` runs a fixed number from a fixed seed; `make fuzz` runs for
//! FUZZ_SECONDS from a seed that it prints.

use crate::dialogues::{self, Line as Scripted, Script};
use mailslot::auth::{Account, Accounts, MECHANISMS, Stored};
use mailslot::smtp::address::{ForwardPath, ReversePath};
use mailslot::smtp::body::{BareNewline, Decoded, Dots};
use mailslot::smtp::line::{Lines, Split};
use mailslot::smtp::policy::{Policy, Service};
use mailslot::smtp::reply::{self, Refusal, Reply};
use mailslot::smtp::session::{Backend, Channel, Next, Session};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Anybody(Arc<Stored>);

impl Accounts for Anybody {
    fn account(&mut self, login: &str) -> Account {
        Account::Known {
            user: login.to_owned(),
            stored: Arc::clone(&self.0),
        }
    }
}

impl Backend for Anybody {
    type Recipient = ();
    fn recipient(&mut self, to: &ForwardPath, _: Option<u64>) -> Result<(), Refusal> {
        // What was parsed is spelled so that it parses again to the same.
        let spelled = format!("<{to}>");
        let again = ForwardPath::parse(&mut mailslot::smtp::cursor::Cursor::new(&spelled));
        assert_eq!(again.as_ref(), Some(to), "{spelled}");
        Ok(())
    }
    fn room(&mut self, _: u64) -> Result<(), Refusal> {
        Ok(())
    }
    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        Ok(vec![name.to_owned()])
    }
    fn expn(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        Ok(vec![name.to_owned(); 3])
    }
    fn may_send_as(&mut self, _: &str, _: &ReversePath) -> bool {
        true
    }
    fn nonce(&mut self) -> String {
        "nonce".to_owned()
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

/// A few lines of the corpus, with a few changes.
fn input(corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut octets: Vec<u8> = (0..=chance.below(8))
        .flat_map(|_| corpus[chance.below(corpus.len())].clone())
        .collect();
    for _ in 0..chance.below(6) {
        let at = chance.below(octets.len() + 1);
        match chance.below(5) {
            0 if at < octets.len() => octets[at] ^= 1 << chance.below(8),
            1 => octets.insert(at, b"\r\n\0.<>@\"\\:= \t\xff"[chance.below(14)]),
            2 if at < octets.len() => drop(octets.remove(at)),
            3 => octets.truncate(at),
            _ => {
                let piece = octets[at..].to_vec();
                octets.extend(piece);
            }
        }
    }
    octets
}

fn well_formed(reply: &Reply) {
    let mut out = Vec::new();
    reply.render(&mut out);
    assert!(out.ends_with(b"\r\n"));
    for line in out.split(|&o| o == b'\n').filter(|line| !line.is_empty()) {
        let text = std::str::from_utf8(line)
            .unwrap()
            .strip_suffix('\r')
            .unwrap();
        assert!(
            line.len() < 512 && !text.contains(char::is_control),
            "{text:?}"
        );
    }
}

/// One session over the input, in pieces of any size.
fn run(octets: &[u8], policy: &Arc<Policy>, chance: &mut Chance) {
    let mut host = Anybody(Arc::new(Stored::parse("{PLAIN}secret").unwrap()));
    let mut session = Session::new(Arc::clone(policy), Channel::Clear);
    let mut lines = Lines::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let limit = |start: &[u8]| session.line_limit(start);
        match lines.take(&octets[start..end], limit) {
            Split::Flood => return,
            Split::More { used } => {
                start += used;
                if end == octets.len() {
                    return;
                }
                end += 1 + chance.below(octets.len() - end);
            }
            Split::Line { line, used } => {
                let step = session.line(line, end > start + used, &mut host);
                start += used;
                step.reply.iter().for_each(well_formed);
                match step.next {
                    Next::Close | Next::StartTls => return,
                    Next::Command => {}
                    Next::Skip { size, .. } | Next::Chunk { size, last: false } => {
                        start = octets
                            .len()
                            .min(start.saturating_add(usize::try_from(size).unwrap_or(usize::MAX)));
                        end = end.max(start);
                    }
                    Next::Data | Next::Chunk { .. } => {
                        let mut dots = Dots::new(policy.bare_newline);
                        match dots.feed(&octets[start..], &mut Vec::new()) {
                            Decoded::More => return,
                            Decoded::End { used } => start += used,
                        }
                        end = end.max(start);
                        let replies = session.transaction().map_or(1, |t| t.recipients.len());
                        let _ = session.finish(vec![reply::LOCAL_ERROR; replies]);
                        assert!(session.transaction().is_none());
                    }
                }
            }
        }
    }
}

/// A11: nothing that comes over the wire stops a session from being one.
#[test]
fn sense_and_nonsense() {
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    for path in dialogues::files() {
        for (_, line) in Script::read(&path).lines {
            if let Scripted::Client(octets) = line {
                corpus.push(octets);
            }
        }
    }
    let seeds = [
        "RCPT TO:<\"\"@d>",
        "FROP \u{f1}",
        "NOOP \"x",
        "MAIL FROM:<<a@b>",
        "RCPT TO:<@,@:a@b>",
        "EHLO [IPv6:",
        "MAIL FROM:<a@[>",
        "HELO \"><script>",
        "AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9cg==",
        "AUTH CRAM-MD5",
        "VRFY x SMTPUTF8",
    ];
    corpus.extend(seeds.map(|seed| format!("{seed}\r\n").into_bytes()));
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok());
    let seed = seconds.map_or(0x9e37_79b9, |_: u64| {
        u64::from(std::process::id()) << 20 | 1
    });
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let services = [Service::Smtp, Service::Submission, Service::Lmtp].map(|service| {
        Arc::new(Policy {
            hostname: "h".into(),
            service,
            starttls: true,
            mechanisms: MECHANISMS.to_vec(),
            require_tls: false,
            insecure_auth: true,
            auth_sender: true,
            vrfy: true,
            expn: true,
            max_size: 1_000,
            max_recipients: 3,
            max_errors: 1_000,
            bare_newline: BareNewline::Reject,
        })
    });
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for count in 0.. {
        if end.map_or(count >= 10_000, |end| Instant::now() >= end) {
            println!("{count} sessions");
            return;
        }
        let octets = input(&corpus, &mut chance);
        run(&octets, &services[chance.below(3)], &mut chance);
    }
}
