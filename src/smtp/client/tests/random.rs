//! The client against servers that answer at random: the dialogue always ends, each recipient has one outcome, and none
//! counts as accepted unless the server accepted both the recipient and the message.

use super::*;

/// Small, fast and the same at every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % below
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.next(all.len())]
    }
}

const KEYWORDS: &[&str] = &[
    "PIPELINING",
    "SIZE",
    "SIZE 5",
    "SIZE 100000",
    "8BITMIME",
    "CHUNKING",
    "BINARYMIME",
    "SMTPUTF8",
    "REQUIRETLS",
    "DSN",
    "LIMITS RCPTMAX=2",
    "LIMITS RCPTMAX=x MAILMAX=1",
    "AUTH PLAIN",
    "X-UNKNOWN y",
    "",
];
const GOOD: &[&str] = &[
    "250 2.0.0 ok",
    "250 ok",
    "250-a\r\n250 b",
    "251 2.1.5 forwarded",
];
const BAD: &[&str] = &[
    "550 5.1.1 no",
    "450 4.2.0 later",
    "452 4.5.3 many",
    "452 many",
    "552 5.3.4 big",
    "503 5.5.1 sequence",
];
const ODD: &[&str] = &[
    "421 4.3.2 bye",
    "354 go",
    "334 x",
    "220 h",
    "999 x",
    "garbage",
    "",
    "221 bye",
];

/// A server that follows the dialogue but answers at random.
struct RandomServer {
    random: Random,
    /// Percentage of odd replies.
    oddness: usize,
    input: Vec<u8>,
    /// Remaining octets of a chunk; and true while DATA content arrives.
    chunk: u64,
    data: bool,
    taken: Vec<String>,
    /// The messages that were accepted with their whole content.
    delivered: Vec<(Vec<String>, Vec<u8>)>,
    content: Vec<u8>,
    lmtp: bool,
}

impl RandomServer {
    fn reply(&mut self, good: &[&str]) -> String {
        let odd = self.random.next(100) < self.oddness;
        let bad = self.random.next(100) < 25;
        let all = if odd {
            ODD
        } else if bad {
            BAD
        } else {
            good
        };
        format!("{}\r\n", self.random.pick(all))
    }

    /// Answers whole lines and whole contents.
    fn answer(&mut self, octets: &[u8]) -> String {
        self.input.extend_from_slice(octets);
        let mut out = String::new();
        loop {
            if self.data {
                let Some(end) = terminator(&self.input) else {
                    return out;
                };
                self.content = self.input.drain(..end).collect();
                self.data = false;
                out.push_str(&self.end());
            } else if self.chunk > 0 {
                let have = self.input.len().min(usize::try_from(self.chunk).unwrap());
                self.content.extend(self.input.drain(..have));
                self.chunk -= have as u64;
                if self.chunk > 0 {
                    return out;
                }
                out.push_str(&self.end());
            } else {
                let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") else {
                    return out;
                };
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                let line = String::from_utf8(line).unwrap();
                out.push_str(&self.command(line.trim_end()));
            }
        }
    }

    fn command(&mut self, line: &str) -> String {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "EHLO" | "LHLO" => {
                let mut reply = "250-h\r\n".to_owned();
                for _ in 0..self.random.next(8) {
                    reply.push_str(&format!("250-{}\r\n", self.random.pick(KEYWORDS)));
                }
                reply + "250 HELP\r\n"
            }
            "MAIL" => self.reply(GOOD),
            "RCPT" => {
                let reply = self.reply(GOOD);
                let path = rest.split(['<', '>']).nth(1).unwrap();
                if reply.starts_with('2') {
                    self.taken.push(path.to_owned());
                }
                reply
            }
            "DATA" => {
                let reply = self.reply(&["354 go"]);
                self.data = reply.starts_with("354");
                reply
            }
            "BDAT" => {
                let size = rest.strip_suffix(" LAST").unwrap();
                self.chunk = size.parse().unwrap();
                if self.chunk == 0 {
                    self.end()
                } else {
                    String::new()
                }
            }
            "RSET" => {
                self.taken.clear();
                self.reply(&["250 ok"])
            }
            "QUIT" => "221 bye\r\n".to_owned(),
            other => panic!("{other}"),
        }
    }

    /// The verdict, one for each recipient on LMTP.
    fn end(&mut self) -> String {
        let taken = std::mem::take(&mut self.taken);
        let content = std::mem::take(&mut self.content);
        let each = if self.lmtp {
            taken.iter().map(|path| vec![path.clone()]).collect()
        } else {
            vec![taken]
        };
        let mut out = String::new();
        for paths in each {
            let reply = self.reply(GOOD);
            if reply.starts_with('2') {
                self.delivered.push((paths, content.clone()));
            }
            out.push_str(&reply);
        }
        out
    }
}

/// Where the content of DATA ends, its terminator included.
fn terminator(input: &[u8]) -> Option<usize> {
    let end = b"\r\n.\r\n";
    if input.starts_with(b".\r\n") {
        return Some(3);
    }
    let found = input.windows(end.len()).position(|window| window == end);
    found.map(|at| at + end.len())
}

fn random_envelope(random: &mut Random) -> (ClientEnvelope, String) {
    let pieces = [".", "\n", "x", "\r", "\u{e9}", "..\n", "hello\n"];
    let content: String = (0..random.next(9)).map(|_| random.pick(&pieces)).collect();
    let names = ["a@y", "b@y", "c@y", "d@y", "j\u{e9}@y", "bad >@y"];
    let count = random.next(names.len());
    let mut message = envelope(&names[..=count], &content);
    message.content = scanned(&content, random.next(2) == 0);
    message.requiretls = random.next(20) == 0;
    (message, content)
}

/// One connection with some transactions; returns how many messages arrived.
fn converse(seed: u64, oddness: usize) -> usize {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let lmtp = random.next(2) == 0;
    let mut client = clear(ClientConfig { lmtp, ..settings() });
    let mut server = RandomServer {
        random: Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1),
        oddness,
        input: Vec::new(),
        chunk: 0,
        data: false,
        taken: Vec::new(),
        delivered: Vec::new(),
        content: Vec::new(),
        lmtp,
    };
    let mut pending = "220 h\r\n".to_owned();
    for _ in 0..random.next(4) + 1 {
        let (message, content) = random_envelope(&mut random);
        let recipients = message.recipients.clone();
        let before = server.delivered.len();
        let mut begun = false;
        for step in 0.. {
            assert!(step < 10_000, "seed {seed}: no end");
            // Replies come in pieces of any size.
            let cut = random.next(pending.len() + 1);
            let rest = pending.split_off(cut);
            client.input(pending.as_bytes());
            pending = rest;
            match client.want() {
                Want::Ready if begun => break,
                Want::Ready => {
                    client.begin(message.clone());
                    begun = true;
                }
                Want::Content => {
                    client.content(content.as_bytes());
                    client.content_end();
                }
                Want::Closed => break,
                Want::StartTls => panic!("not offered"),
                Want::Reply(_) => {
                    let output = std::mem::take(client.output());
                    pending.push_str(&server.answer(&output));
                    // A server that says nothing more is gone.
                    if pending.is_empty() {
                        client.lost(ConnectionError::Lost(client.stage(), "closed".into()));
                    }
                }
            }
        }
        if client.want() == Want::Closed && !begun {
            assert!(client.failure().is_some());
            client.begin(message);
        }
        let outcomes = client.take_outcomes().unwrap();
        assert_eq!(outcomes.len(), recipients.len(), "seed {seed}");
        for (rcpt, outcome) in recipients.iter().zip(&outcomes) {
            let arrived = server.delivered[before..]
                .iter()
                .any(|(to, _)| to.contains(&rcpt.path));
            if outcome.verdict == Verdict::Accepted {
                assert!(arrived, "seed {seed}: {} was accepted by nobody", rcpt.path);
                assert!(outcome.remote && outcome.status.class == 2);
            }
            // A message that arrived without the client knowing may be tried again, but not fail.
            if arrived {
                assert_ne!(outcome.verdict, Verdict::Failed, "seed {seed}: {outcome:?}");
            }
        }
    }
    server.delivered.len()
}

#[test]
fn servers_that_answer_at_random() {
    let arrived: usize = (0..20_000).map(|seed| converse(seed, 5)).sum();
    assert!(arrived > 1_000, "{arrived}: the test tests nothing");
    for seed in 0..5_000 {
        converse(seed, 60);
    }
}
