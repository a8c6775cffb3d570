//! Random input: lines of the dialogues, randomly changed, cut and joined, for the line splitter, the session and the
//! parsers. Nothing may panic, replies must be well formed, and no transaction may outlive its end. `make test` runs a
//! fixed number from a fixed seed; `make fuzz` runs for FUZZ_SECONDS from a seed that it prints.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::dialogues::{self, Line as Scripted, Script};

#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

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

/// A11: no input breaks a session.
#[test]
fn random_input_breaks_no_session() {
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
        "EHLO M\u{fc}ller PC",
        "MAIL FROM:<..a..@b.> RET=FULL ENVID=x+2By SIZE=99999999999999999999",
        "MAIL FROM:a@b",
        "RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;\\x{E9}@x",
        "XCLIENT ADDR=IPV6:::1 HELO=a+20b LOGIN=x PROTO=ESMTP NAME=[UNAVAILABLE]",
        "ETRN @a.b",
        "ETRN #1",
        "ATRN a.b, c.d",
        "GET / HTTP/1.1",
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
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for count in 0.. {
        if end.map_or(count >= 10_000, |end| Instant::now() >= end) {
            println!("{count} sessions");
            return;
        }
        let mut octets = input(&corpus, &mut chance);
        octets.insert(0, u8::try_from(chance.below(256)).unwrap());
        targets::run("session", &octets);
    }
}

/// A11: the corpora of the fuzz targets, each input whole and cut at every eighth.
#[test]
fn corpora() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut seen = 0;
        for entry in std::fs::read_dir(root.join(name)).unwrap() {
            let octets = std::fs::read(entry.unwrap().path()).unwrap();
            for eighths in 1..=8 {
                target(&octets[..octets.len() * eighths / 8]);
            }
            seen += 1;
        }
        assert!(seen > 0, "no corpus of {name}");
    }
}
