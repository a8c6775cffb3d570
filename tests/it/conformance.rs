//! Runs dialogues from other servers' test suites (`tests/conformance/dialogues.json`, which documents its form).
//! Anything that this runner does not know is an error, so that nothing is silently skipped. Cases with the same
//! options share a server; those that look at the disk or leave the connection open have their own.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::answers::matched;
use crate::json::{Json, Read};
use crate::server::{Server, Setup};
use crate::tls;
use crate::wire::{Event, Wire};

/// Cases that this server answers otherwise on purpose, and why. One that passes all the same,
/// or does not exist, is a failure.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "go-smtp-032",
        "a mailbox that cannot be used is refused at RCPT already",
    ),
    (
        "go-smtp-049",
        "a mailbox that cannot be used is refused at RCPT already",
    ),
];

const THREADS: usize = 4;
/// Cases on one server, so that the threads have about the same to do.
const SHARE: usize = 40;

/// The needs of a case, and the options for them; a number is appended to the last one.
const NEEDS: &[(&str, &[&str])] = &[
    ("auth", &["--users", "users"]),
    ("auth_require_tls", TLS),
    ("auth_required", &["--users", "users"]),
    ("binarymime", &[]),
    ("catchall", &["--create", "--domain", "gchq.gov.uk"]),
    ("chunking", &[]),
    ("dsn", &[]),
    ("login", &[]),
    ("max_errors=", &["--max-errors"]),
    ("no_auth", &[]),
    ("pipelining", &[]),
    ("rcptmax=", &["--max-recipients"]),
    (
        "require_tls",
        &[
            "--require-tls",
            "--tls-cert",
            tls::CERT,
            "--tls-key",
            tls::KEY,
        ],
    ),
    ("size=", &["--max-size"]),
    ("smtputf8", &[]),
    ("starttls", TLS),
    ("store_error", &[]),
];
const TLS: &[&str] = &["--tls-cert", tls::CERT, "--tls-key", tls::KEY];

/// The accounts that the cases log in with; where there is a users file, it names every mailbox.
const USERS: &str = "goodlogin:{PLAIN}goodpasswd\nusername:{PLAIN}password\n\
    user@example.com:{PLAIN}x\nuser2@example.com:{PLAIN}x\n";

/// What is sent in a setup, and how a good reply starts; the greeting names the host (R006).
const STEPS: &[(&str, &str, &str)] = &[
    ("none", "", ""),
    ("greet", "", "220 mx.test "),
    ("helo", "HELO client.example\r\n", "250"),
    ("ehlo", "EHLO client.example\r\n", "250"),
    ("lhlo", "LHLO client.example\r\n", "250"),
    ("mail", "MAIL FROM:<sender@example.com>\r\n", "250"),
    ("rcpt", "RCPT TO:<user@example.com>\r\n", "250"),
    ("rcpt2", "RCPT TO:<user2@example.com>\r\n", "250"),
    ("rcpt_fail", "RCPT TO:<fail@example.com>\r\n", "250"),
    ("rcpt_fail_store", "RCPT TO:<fail@example.com>\r\n", "250"),
    ("auth", "AUTH PLAIN AGdvb2Rsb2dpbgBnb29kcGFzc3dk\r\n", "235"),
];

struct Case<'a> {
    id: &'a str,
    json: &'a Json,
}

impl<'a> Case<'a> {
    fn list(&self, name: &str) -> Vec<&'a str> {
        let list = self.json.member(name).map_or(&[][..], Read::list);
        list.iter().map(Read::text).collect()
    }

    /// The server that the case wants.
    fn setup(&self) -> Setup {
        let needs = self.list("needs");
        let mut args: Vec<String> = vec!["--domain".into(), "example.com".into()];
        let mut dirs: Vec<String> = ["user", "user2", "fail/tmp"]
            .map(|name| format!("mail/example.com/{name}"))
            .into();
        let mut scheme = "smtp";
        for need in &needs {
            let (name, value) = need.split_once('=').unwrap_or((need, ""));
            if let Some(address) = need.strip_prefix("user ") {
                let (local, domain) = address.split_once('@').unwrap();
                dirs.push(format!("mail/{domain}/{local}"));
                continue;
            }
            // "auth user=… pass=…": those stand in USERS.
            let name = name.split(' ').next().unwrap();
            let known = NEEDS.iter().find(|(n, _)| n.trim_end_matches('=') == name);
            let (known, options) = known.unwrap_or_else(|| panic!("{}: {need}", self.id));
            args.extend(options.iter().map(|&option| option.to_owned()));
            args.extend(known.ends_with('=').then(|| value.to_owned()));
        }
        if needs.iter().any(|need| need.starts_with("auth")) && !needs.contains(&"auth_require_tls")
        {
            args.push("--insecure-auth".into());
        }
        if needs.contains(&"auth_required") {
            scheme = "submission";
        }
        if self.json.member("proto").unwrap().text() == "lmtp" {
            scheme = "lmtp";
        }
        Setup {
            listen: vec![format!("{scheme}://127.0.0.1:0")],
            args,
            dirs,
            // A file where `new` should be: the mailbox exists, and delivery to it fails.
            files: vec![
                ("users".into(), USERS.into()),
                ("mail/example.com/fail/new".into(), String::new()),
            ],
            ..Setup::default()
        }
    }

    /// True if it checks what the server left on disk or in the system.
    fn alone(&self) -> bool {
        let then = |step: &Json| step.member("then").is_some();
        self.json.member("after").is_some()
            || self.json.member("steps").unwrap().list().iter().any(then)
    }

    /// Anything unknown to the runner is an error.
    fn check_names(&self) {
        let known = "id suite ref proto setup steps accept policy ours derived needs note \
            accept_without after server_closes adapted";
        let of_steps = "send expect then note";
        let of_after =
            "messages_max delivered content peer_content no_message_from fds_leaked note";
        let check = |json: &Json, known: &str| {
            for name in json.names() {
                let found = known.split(' ').any(|k| k == name);
                assert!(found, "{}: '{name}' is new here", self.id);
            }
        };
        check(self.json, known);
        let steps = self.json.member("steps").unwrap().list();
        steps.iter().for_each(|step| check(step, of_steps));
        self.json
            .member("after")
            .iter()
            .for_each(|after| check(after, of_after));
        let accept = self.json.member("accept").unwrap().list();
        assert_eq!(accept.len(), steps.len(), "{}", self.id);
    }

    /// Runs it; what went wrong otherwise.
    fn run(&self, server: &mut Server) -> Result<(), String> {
        let mut before = None;
        let mut wire = Wire::connect(server.address()).map_err(|e| format!("connect: {e}"))?;
        let mut keywords = String::new();
        for name in self.list("setup") {
            let step = STEPS.iter().find(|(n, ..)| *n == name);
            let (_, send, code) = step.unwrap_or_else(|| panic!("{}: setup {name}", self.id));
            wire.send(send.as_bytes());
            if code.is_empty() {
                continue;
            }
            match wire.take() {
                Event::Reply(text) if text.starts_with(code) => {
                    if name == "ehlo" || name == "lhlo" {
                        keywords = text;
                    }
                    // One that has answered is through with its start; one file is this socket.
                    before = before.or_else(|| open_files(server).map(|n| n - 1));
                }
                other => return Err(format!("setup {name}: {code} expected, {other:?} came")),
            }
        }
        let (last, sent) = self.steps(&mut wire, &keywords)?;
        self.finish(&mut wire, &last, &sent)?;
        drop(wire);
        match self.json.member("after") {
            Some(after) => self.after(after, server, before),
            None => Ok(()),
        }
    }

    /// The lists to match: others where EHLO lacks the keyword that they hang on.
    fn accept(&self, keywords: &str) -> Vec<Vec<&'a str>> {
        let offered = |name: &str| keywords.lines().any(|l| l.get(4..) == Some(name));
        let without = self.json.member("accept_without");
        let missing = without.and_then(|w| w.names().find(|name| !offered(name)));
        let accept = match missing {
            Some(name) => without.unwrap().member(name),
            None => self.json.member("accept"),
        };
        let texts = |list: &'a Json| list.list().iter().map(Read::text).collect();
        accept.unwrap().list().iter().map(texts).collect()
    }

    /// Sends and matches each step; the last answer and what it answered.
    fn steps(&self, wire: &mut Wire, keywords: &str) -> Result<(Event, Vec<u8>), String> {
        let mut last = Event::Nothing;
        let mut sent = Vec::new();
        let steps = self.json.member("steps").unwrap().list();
        for (number, (step, patterns)) in steps.iter().zip(self.accept(keywords)).enumerate() {
            sent = octets(step.member("send").unwrap());
            wire.send(&sent);
            match step.member("then").map(Read::text) {
                None => {}
                Some("FIN") => wire.leave(),
                Some("RST") => wire.reset(),
                Some("SHUT_WR") => wire.half_close(),
                Some(other) => panic!("{}: then {other}", self.id),
            }
            let mut came = Vec::new();
            if let Err(wanted) = matched(wire, &patterns, &mut came) {
                return Err(format!(
                    "step {}: sent {}\n    expected {patterns:?}, at {wanted}\n    came {came:?}",
                    number + 1,
                    shown(&sent),
                ));
            }
            last = came.pop().unwrap_or(last);
        }
        Ok((last, sent))
    }

    /// R044: nothing more may come. QUIT is answered by one 221, and then the server closes.
    fn finish(&self, wire: &mut Wire, last: &Event, sent: &[u8]) -> Result<(), String> {
        let mut wanted = vec!["221", "closed"];
        match last.code() {
            _ if *last == Event::Closed || wire.gone() => return Ok(()),
            "354" | "334" => return Ok(()),
            "421" => wanted = vec!["closed"],
            "220" if sent.to_ascii_uppercase().starts_with(b"STARTTLS") => {
                wire.start_tls().map_err(|e| format!("handshake: {e}"))?;
            }
            _ => {}
        }
        wire.send(b"QUIT\r\n");
        let mut came = Vec::new();
        matched(wire, &wanted, &mut came)
            .map_err(|wanted| format!("at the end: QUIT: {wanted} expected, {came:?} came"))
    }

    /// The conditions on disk and server after the connection.
    fn after(&self, after: &Json, server: &mut Server, files: Option<usize>) -> Result<(), String> {
        if let Some(leaked) = after.member("fds_leaked") {
            let deadline = Instant::now() + Duration::from_secs(5);
            let allowed = files.map(|n| n + leaked.number());
            // The server closes them when it sees that the client is gone, a moment later.
            while open_files(server) > allowed {
                if Instant::now() > deadline {
                    let now = open_files(server);
                    return Err(format!("open files: {files:?} before, {now:?} after"));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let status = server.stop();
        if status != Some(0) {
            return Err(format!("exit status {status:?}"));
        }
        let all = server.stored();
        for (name, good) in [
            (
                "messages_max",
                (|n, max| n <= max) as fn(usize, usize) -> bool,
            ),
            ("delivered", |n, wanted| n == wanted),
        ] {
            if let Some(number) = after.member(name)
                && !good(all.len(), number.number())
            {
                return Err(format!("{name} {}: {all:?}", number.number()));
            }
        }
        if let Some(sender) = after.member("no_message_from").map(Read::text)
            && all
                .iter()
                .any(|m| m.lines().next().is_some_and(|l| l.contains(sender)))
        {
            return Err(format!("a message from {sender}: {all:?}"));
        }
        if let Some(content) = after.member("content").map(Read::text) {
            let messages = server.messages("example.com/user");
            if messages != [stored(content)] {
                return Err(format!("content: {content:?} expected, {messages:?} found"));
            }
        }
        Ok(())
    }

    fn report(&self, wrong: &str) -> String {
        let text = |name| self.json.member(name).map_or("", Read::text);
        let (source, note, policy) = (text("ref"), text("note"), text("policy"));
        format!("{} ({source}; {policy}; {note})\n    {wrong}\n", self.id)
    }
}

/// Descriptors that the server has open; none where that can't be seen.
fn open_files(server: &Server) -> Option<usize> {
    let dir = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(dir).ok().map(Iterator::count)
}

/// The content in a Maildir: lines end in LF, and a first line that is not a header field has an empty line before it,
/// so that no reader takes it for a part of the trace.
fn stored(content: &str) -> String {
    let text = content.replace("\r\n", "\n");
    let first = text.lines().next().unwrap_or_default();
    let name = first.split_once(':').map_or("", |(name, _)| name);
    let is_field = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
    match first.is_empty() || is_field {
        true => text,
        false => format!("\n{text}"),
    }
}

/// Strings are latin-1, one character an octet; lists have parts, maps are repeated.
fn octets(send: &Json) -> Vec<u8> {
    match send {
        Json::String(text) => text.chars().map(|c| u8::try_from(c).unwrap()).collect(),
        Json::Array(parts) => parts.iter().flat_map(octets).collect(),
        map => octets(map.member("rep").unwrap()).repeat(map.member("n").unwrap().number()),
    }
}

fn shown(octets: &[u8]) -> String {
    let text = octets.escape_ascii().to_string();
    match text.len() {
        0..=600 => text,
        n => format!("{}…{} ({n} characters)", &text[..300], &text[n - 100..]),
    }
}

/// Runs cases on one server; who failed, and how.
fn run_on_one(setup: &Setup, cases: &[&Case<'_>]) -> BTreeMap<String, String> {
    let mut failed = BTreeMap::new();
    let mut server = match Server::launch(setup) {
        Ok(server) => server,
        Err(log) => {
            let wrong = format!("the server does not start with {:?}: {log}", setup.args);
            let all = cases
                .iter()
                .map(|case| (case.id.to_owned(), case.report(&wrong)));
            return all.collect();
        }
    };
    for case in cases {
        if let Err(wrong) = case.run(&mut server) {
            failed.insert(case.id.to_owned(), case.report(&wrong));
        }
    }
    let waiting = std::fs::read_dir(server.dir.join("queue/new"));
    if waiting.is_ok_and(|mut files| files.next().is_some()) {
        failed.insert("queue".into(), "mail waits for a next hop\n".into());
    }
    let stopped = cases.iter().any(|case| case.json.member("after").is_some());
    if !stopped && server.stop() != Some(0) {
        let ids: Vec<_> = cases.iter().map(|case| case.id).collect();
        failed.insert(
            "server".into(),
            format!("no clean end of it behind {ids:?}\n"),
        );
    }
    failed
}

/// A file of `tests/conformance`.
pub fn file(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

#[test]
fn every_case() {
    every_case_with(&[]);
}

/// A relay changes nothing for those who may not use it, and none of their mail waits for a next hop.
#[test]
fn every_case_with_a_relay() {
    every_case_with(&["--relay", "smtp://127.0.0.1:9"]);
}

/// The cases of each server, with its setup; the largest groups come last.
fn groups<'c, 'a>(cases: &'c [Case<'a>], more: &[&str]) -> Vec<(Setup, Vec<&'c Case<'a>>)> {
    let setup = |case: &Case<'_>| {
        let mut setup = case.setup();
        setup.args.extend(more.iter().map(|&arg| arg.to_owned()));
        setup
    };
    let mut shared: BTreeMap<Setup, Vec<&Case<'_>>> = BTreeMap::new();
    let mut groups: Vec<(Setup, Vec<&Case<'_>>)> = Vec::new();
    for case in cases {
        case.check_names();
        if case.alone() {
            groups.push((setup(case), vec![case]));
        } else {
            shared.entry(setup(case)).or_default().push(case);
        }
    }
    for (setup, cases) in shared {
        let parts = cases.chunks(SHARE);
        groups.extend(parts.map(|some| (setup.clone(), some.to_vec())));
    }
    groups.sort_by_key(|(_, cases)| cases.len());
    groups
}

fn every_case_with(more: &[&str]) {
    let json: Json = file("dialogues.json").parse().unwrap();
    let cases: Vec<Case<'_>> = json
        .member("cases")
        .unwrap()
        .list()
        .iter()
        .map(|json| Case {
            id: json.member("id").unwrap().text(),
            json,
        })
        .collect();
    let groups = Mutex::new(groups(&cases, more));
    let failed = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    // The largest first, so that no thread is left with one at the end.
                    let next = groups.lock().unwrap().pop();
                    let Some((setup, cases)) = next else { break };
                    let result = run_on_one(&setup, &cases);
                    failed.lock().unwrap().extend(result);
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    let total = cases.len();
    println!("conformance: {} of {total} cases failed", failed.len());
    for (id, reason) in EXCEPTIONS {
        if failed.remove(*id).is_none() {
            let what = match cases.iter().any(|case| case.id == *id) {
                true => "passes all the same",
                false => "does not exist",
            };
            failed.insert((*id).into(), format!("{id} ({reason}) {what}\n"));
        }
    }
    let text: String = failed.values().map(String::as_str).collect();
    assert!(
        failed.is_empty(),
        "{} of {total} cases:\n{text}",
        failed.len()
    );
}
