//! Runs the server's session against the client's core in memory, with the options of each dialogue. With any subset of
//! extensions and with refusals anywhere, exactly the messages that the client counts as accepted are in the mailbox,
//! octet for octet.

use std::collections::BTreeMap;

use mailslot::smtp::client::{
    Channel, ClientConfig, ClientEnvelope, ClientSession, ConnectionError, Rcpt, Scan, TlsUse,
    Verdict, Want,
};

use crate::dialogues::{Script, files};
use crate::memory::Memory;
use crate::server;

/// Small, and the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 40).unwrap() % most
    }
}

/// Changes to the server's replies.
struct Wire<'a> {
    random: &'a mut Random,
    /// One in this many replies becomes a refusal; 0 means none.
    refuse: usize,
    refused: usize,
}

impl Wire<'_> {
    fn pass(&mut self, output: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(output).into_owned();
        let mut lines: Vec<String> = Vec::new();
        for line in text.split_inclusive("\r\n") {
            let hello = line.starts_with("250-mx.test") || line.starts_with("220");
            let more = line.as_bytes().get(3) == Some(&b'-');
            if more && !hello && self.random.below(3) == 0 {
                continue;
            }
            let single = !more && !lines.iter().any(|line| line.starts_with("250-"));
            let odd = self.refuse > 0
                && single
                && line.starts_with("25")
                && self.random.below(self.refuse) == 0;
            if odd {
                self.refused += 1;
                let code =
                    ["451 4.3.0", "550 5.7.1", "452 4.5.3", "421 4.3.2"][self.random.below(4)];
                lines.push(format!("{code} odd\r\n"));
            } else {
                lines.push(line.to_owned());
            }
        }
        lines.concat().into_bytes()
    }
}

/// Drives the client to its next rest.
fn drive(client: &mut ClientSession, memory: &mut Memory, wire: &mut Wire<'_>) -> Want {
    loop {
        match client.want() {
            Want::Reply(stage) => {
                let octets = std::mem::take(client.output());
                memory.send(&octets);
                let said = std::mem::take(&mut memory.output);
                if said.is_empty() {
                    client.lost(ConnectionError::Lost(stage, "closed".into()));
                    continue;
                }
                client.input(&wire.pass(&said));
            }
            want => return want,
        }
    }
}

fn content(random: &mut Random, number: usize) -> Vec<u8> {
    let pieces: [&[u8]; 7] = [
        b"word ",
        b"\n",
        b"\n.",
        b"\n..\n",
        b".",
        "\u{e9}".as_bytes(),
        b"\n\n",
    ];
    let mut octets = format!("Subject: n{number} of pair\n\n").into_bytes();
    for _ in 0..random.below(30) {
        octets.extend_from_slice(pieces[random.below(pieces.len())]);
    }
    octets.push(b'\n');
    octets
}

fn envelope(random: &mut Random, content: &[u8], domain: &str) -> ClientEnvelope {
    let names = ["alice", "bob", "nobody-here", "a b", "postmaster"];
    let recipients = (0..1 + random.below(4)).map(|_| Rcpt {
        path: format!("{}@{domain}", names[random.below(names.len())]),
        notify: (random.below(2) == 0).then(|| "SUCCESS,FAILURE".to_owned()),
        orcpt: (random.below(2) == 0).then(|| "rfc822;x+2By@z".to_owned()),
    });
    let mut scan = Scan::new(None);
    scan.feed(content);
    ClientEnvelope {
        reverse_path: "me@pair.test".into(),
        recipients: recipients.collect(),
        content: scan.finish(),
        ret: Some("HDRS".into()),
        envid: Some("e+2B1".into()),
        ..ClientEnvelope::default()
    }
}

/// How often each message is in a mailbox, by the subject.
fn stored(memory: &Memory) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for octets in server::stored(&memory.dir) {
        let text = String::from_utf8_lossy(&octets).into_owned();
        let subject = text.lines().find(|line| line.ends_with(" of pair"));
        found
            .entry(subject.unwrap_or_default().to_owned())
            .or_default()
            .push(octets);
    }
    found
}

fn settings(lmtp: bool) -> ClientConfig {
    ClientConfig {
        lmtp,
        hostname: "pair.test".into(),
        tls: TlsUse::Never,
        login: None,
        nonce: "nonce".into(),
    }
}

/// One connection with a few messages; returns how many were accepted, and how many replies were refusals.
fn converse(script: &Script, random: &mut Random, refuse: usize) -> (usize, usize) {
    let lmtp = script
        .setup
        .listen
        .first()
        .is_some_and(|url| url.starts_with("lmtp"));
    let mut memory = Memory::new(script);
    let mut client = ClientSession::new(settings(lmtp), Channel::Clear);
    let mut draws = Random(random.0 ^ 0x5555);
    let mut wire = Wire {
        random,
        refuse,
        refused: 0,
    };
    let mut wanted = BTreeMap::new();
    for number in 0..3 {
        if drive(&mut client, &mut memory, &mut wire) != Want::Ready {
            break;
        }
        let content = content(&mut draws, number);
        client.begin(envelope(&mut draws, &content, "localhost"));
        if drive(&mut client, &mut memory, &mut wire) == Want::Content {
            for piece in content.chunks(7) {
                client.content(piece);
            }
            client.content_end();
            drive(&mut client, &mut memory, &mut wire);
        }
        let outcomes = client.take_outcomes().unwrap_or_default();
        let accepted = outcomes
            .iter()
            .any(|outcome| outcome.verdict == Verdict::Accepted);
        wanted.insert(format!("Subject: n{number} of pair"), (accepted, content));
    }
    let found = stored(&memory);
    for (subject, (accepted, content)) in &wanted {
        let copies = found.get(subject).map_or(&[][..], Vec::as_slice);
        assert!(!accepted || !copies.is_empty(), "{subject} is lost");
        assert!(
            *accepted || copies.is_empty() || wire.refused > 0,
            "{subject} was not accepted"
        );
        assert!(
            copies.iter().all(|copy| copy.ends_with(content)),
            "{subject} was changed"
        );
    }
    (
        wanted.values().filter(|(accepted, _)| *accepted).count(),
        wire.refused,
    )
}

#[test]
fn both_sides_agree() {
    let mut random = Random(1);
    let (mut accepted, mut refused) = (0, 0);
    for path in files() {
        let mut script = Script::read(&path);
        // Quotas and limits of a dialogue stay; logins are not what this is about.
        if script
            .setup
            .listen
            .iter()
            .any(|url| url.starts_with("submission"))
        {
            script.setup.listen.clear();
        }
        for refuse in [0, 0, 0, 0, 0, 12, 12, 6, 6, 3] {
            let (some, more) = converse(&script, &mut random, refuse);
            accepted += some;
            refused += more;
        }
    }
    assert!(
        accepted > 100 && refused > 40,
        "{accepted} accepted, {refused} refused"
    );
}
