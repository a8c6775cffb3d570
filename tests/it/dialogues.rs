//! Runs tests/dialogues/*.txt. `#` is a comment that cites a requirement, `args:` gives the server options, `listen:`
//! another listener than SMTP, `file: NAME` a line of a file of that name, `dir:` a directory to make, `C:` is sent
//! with CRLF (unless it ends in `\c`; `\r \n \0 \t` and `\\` are escapes), `S:` is the start of a whole reply or
//! `closed`, `M:` says how many messages a mailbox then holds, `B:` is the content of its only one.

use std::path::{Path, PathBuf};

use crate::server::{Server, Setup};

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, (c == '\\').then(|| chars.next()).flatten()) {
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('0')) => out.push('\0'),
            ('\\', Some('c')) => return out,
            ('\\', Some(other)) => out.push(other),
            _ => out.push(c),
        }
    }
    out.push_str("\r\n");
    out
}

/// A dialogue as its file has it.
pub struct Script {
    pub setup: Setup,
    /// With the place of each in its file.
    pub lines: Vec<(String, Line)>,
}

pub enum Line {
    Client(Vec<u8>),
    /// The start of a reply; none for the end of the connection.
    Server(Option<String>),
    Count(String, usize),
    Content(String, String),
}

impl Script {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let mut script = Self {
            setup: Setup::default(),
            lines: Vec::new(),
        };
        for (number, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kind, rest) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("{place}: {line}"));
            let words = || {
                let (name, content) = rest.split_once(' ').unwrap();
                (name.to_owned(), content)
            };
            let said = match kind {
                "C" => Line::Client(unescape(rest).into_bytes()),
                "S" => Line::Server((rest != "closed").then(|| rest.to_owned())),
                "M" => Line::Count(words().0, words().1.parse().unwrap()),
                "B" => Line::Content(words().0, unescape(&format!("{}\\c", words().1))),
                _ => {
                    script.setup(kind, rest, &place);
                    continue;
                }
            };
            script.lines.push((place, said));
        }
        script
    }

    fn setup(&mut self, kind: &str, rest: &str, place: &str) {
        let setup = &mut self.setup;
        match kind {
            "listen" => setup.listen.push(rest.to_owned()),
            "dir" => setup.dirs.push(rest.to_owned()),
            "args" => setup
                .args
                .extend(rest.split_whitespace().map(str::to_owned)),
            "file" => {
                let (name, content) = rest.split_once(' ').unwrap();
                match setup.files.iter_mut().find(|(known, _)| known == name) {
                    Some((_, all)) => all.push_str(&format!("{content}\n")),
                    None => setup.files.push((name.to_owned(), format!("{content}\n"))),
                }
            }
            _ => panic!("{place}: what is '{kind}:'?"),
        }
    }
}

pub fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 12);
    files
}

/// True if a reply begins as in the file, where `|` separates its lines.
pub fn matches(reply: &str, expected: &Option<String>) -> bool {
    match expected {
        None => reply.is_empty(),
        Some(start) => reply.replace("\r\n", "|").starts_with(start),
    }
}

#[test]
fn every_dialogue() {
    for path in files() {
        let script = Script::read(&path);
        let server = Server::launch(&script.setup).unwrap();
        let mut client = server.client();
        for (place, line) in &script.lines {
            match line {
                Line::Client(octets) => client.send(octets),
                Line::Server(expected) => {
                    let reply = client.reply();
                    assert!(matches(&reply, expected), "{place}: {reply}");
                }
                Line::Count(mailbox, count) => {
                    assert_eq!(server.messages(mailbox).len(), *count, "{place}");
                }
                Line::Content(mailbox, content) => {
                    assert_eq!(server.messages(mailbox), [content.as_str()], "{place}");
                }
            }
        }
    }
}

/// A1: every smuggling input gets one reply and makes no message, rejected or normalized.
#[test]
fn smuggling_makes_no_second_message() {
    let endings = [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\n",
        "\n.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\r\n\0.\r\n",
        "\r\n.\r\r\n",
        "\r\r\n.\r\r\n",
    ];
    for (policy, code) in [("reject", "550"), ("normalize", "250")] {
        let server = Server::start(&["--create", "--bare-newline", policy]);
        for ending in endings {
            let mut client = server.client();
            let expected = if ending.contains('\0') { "250" } else { code };
            for (line, code) in [
                ("", "220"),
                ("EHLO c\r\n", "250"),
                ("MAIL FROM:<a@b>\r\n", "250"),
                ("RCPT TO:<u@localhost>\r\n", "250"),
                ("DATA\r\n", "354"),
            ] {
                client.send(line.as_bytes());
                assert!(client.reply().starts_with(code));
            }
            let evil = "MAIL FROM:<evil@x>\r\nRCPT TO:<evil@localhost>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
            client.send(format!("one{ending}{evil}QUIT\r\n").as_bytes());
            let reply = client.reply();
            assert!(reply.starts_with(expected), "{ending:?}: {reply}");
            assert!(client.reply().starts_with("221"), "{ending:?}");
            assert_eq!(client.reply(), "");
        }
        assert!(server.messages("localhost/evil").is_empty());
    }
}

/// F18: after kill -9 at any moment every message with a 250 is there, once and complete.
#[test]
fn nothing_acknowledged_is_lost_to_a_kill() {
    for round in 0..20_u64 {
        let mut server = Server::start(&["--create"]);
        let mut client = server.client();
        assert!(client.reply().starts_with("220"));
        client.send(b"EHLO c\r\n");
        client.reply();
        let body = "x".repeat(2_000);
        let mut acknowledged = 0;
        let killer = 10 + round * 3;
        for sent in 0.. {
            client.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<u@localhost>\r\nDATA\r\n");
            (0..3).for_each(|_| assert!(!client.reply().is_empty()));
            client.send(format!("{body}\r\n.\r\n").as_bytes());
            if sent == killer {
                server.kill();
            }
            match client.reply() {
                reply if reply.starts_with("250") => acknowledged += 1,
                _ => break,
            }
            if sent == killer {
                break;
            }
        }
        let messages = server.messages("localhost/u");
        assert!(
            (acknowledged..=acknowledged + 1).contains(&messages.len()),
            "{acknowledged} {}",
            messages.len()
        );
        assert!(messages.iter().all(|m| *m == format!("\n{body}\n")));
    }
}

/// F41, R016: an idle client gets 421, one within a message may finish it, and the exit status is 0.
#[test]
fn a_shutdown_is_graceful() {
    let mut server = Server::start(&["--create"]);
    let (mut idle, mut busy) = (server.client(), server.client());
    assert!(idle.reply().starts_with("220"));
    busy.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<u@localhost>\r\nDATA\r\n");
    (0..5).for_each(|_| assert!(!busy.reply().is_empty()));
    let finish = std::thread::spawn(move || {
        assert!(idle.reply().starts_with("421 4.3.2"));
        busy.send(b"late\r\n.\r\n");
        assert!(busy.reply().starts_with("250 2.0.0"));
    });
    assert_eq!(server.stop(), Some(0));
    finish.join().unwrap();
    assert_eq!(server.messages("localhost/u"), ["\nlate\n"]);
}

/// R045: over a limit: 421 at once.
#[test]
fn limits_of_connections() {
    let server = Server::start(&["--max-per-client", "1"]);
    let mut first = server.client();
    assert!(first.reply().starts_with("220"));
    assert!(server.client().reply().starts_with("421 4.7.0"));
    let full = Server::start(&["--max-connections", "1"]);
    let mut first = full.client();
    assert!(first.reply().starts_with("220"));
    assert!(full.client().reply().starts_with("421 4.3.2"));
}
