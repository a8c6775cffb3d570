//! Runs a call: reads the message, sends it to the local server, and turns replies into exit statuses.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::addresses::addresses;
use super::message::InputMessage;
use super::options::{Mode, Options};
use super::person::Person;
use crate::client::{Connection, nonce};
use crate::clock;
use crate::cmd::destination::{self, destination};
use crate::cmd::output::{complain, print};
use crate::cmd::queue_list;
use crate::net::client_tls::ClientTls;
use crate::net::url::{ListenUrl, Scheme};
use crate::smtp::client::{ClientConfig, ClientEnvelope, Outcome, Rcpt, Scan, TlsUse, Verdict};

/// The server's own socket, if it exists.
const SOCKET: &str = "/run/mailslot/smtp";
const SERVER: &str = "smtp://127.0.0.1:25";
/// The environment variable that names another server.
const VARIABLE: &str = "MAILSLOT_SENDMAIL_TO";
/// Maximum octets of a message, which is held in memory.
const MAX_MESSAGE: u64 = 512 * 1024 * 1024;

/// Exit statuses of sysexits.h.
const USAGE: u8 = 64;
const NO_INPUT: u8 = 66;
const NO_USER: u8 = 67;
const UNAVAILABLE: u8 = 69;
const TRY_LATER: u8 = 75;

/// A failure: the text and the exit status.
type ExitError = (String, u8);

/// The program that the command line calls, by its name or by `--sendmail` as the first argument, and its arguments.
pub fn called_as(args: &[OsString]) -> Option<(&'static str, &[OsString])> {
    let (program, args) = args.split_first()?;
    let name = Path::new(program).file_name()?;
    let known = ["sendmail", "mailq", "newaliases"];
    match known.into_iter().find(|known| name == *known) {
        Some(known) => Some((known, args)),
        None => {
            let (first, args) = args.split_first()?;
            (first == "--sendmail").then_some(("sendmail", args))
        }
    }
}

/// Runs the program `name`: `sendmail`, `mailq` or `newaliases`.
pub fn run(name: &str, args: &[OsString]) -> ExitCode {
    let ended = Options::parse(args)
        .map_err(|why| (why, USAGE))
        .and_then(|options| match (name, options.mode) {
            ("newaliases", _) | (_, Mode::Aliases) => {
                say("newaliases: nothing to do: the server reads the aliases file itself\n")
            }
            ("mailq", _) | (_, Mode::List) => mailq(options.queue),
            (_, Mode::Smtp) => speak(),
            (_, Mode::Send) => send(options),
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err((why, status)) => {
            // One for each recipient.
            for line in why.lines() {
                complain(&format!("{name}: {line}"));
            }
            ExitCode::from(status)
        }
    }
}

/// `mailq`, `-bp`: lists the queue of `--queue`, or of the server's environment variable.
fn mailq(named: Option<PathBuf>) -> Result<(), ExitError> {
    let variable = || std::env::var_os("MAILSLOT_QUEUE").filter(|dir| !dir.is_empty());
    let named = named.or_else(|| variable().map(PathBuf::from));
    let dir = named.unwrap_or_else(|| PathBuf::from("queue"));
    let page = queue_list::list(&dir);
    say(&page.map_err(|e| (format!("{}: {e}", dir.display()), UNAVAILABLE))?)
}

fn say(text: &str) -> Result<(), ExitError> {
    print(text).map_err(|e| (e.to_string(), e.status()))
}

/// The URL of the local server.
fn server() -> Result<ListenUrl, ExitError> {
    let named = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
    let default = || match Path::new(SOCKET).exists() {
        true => format!("smtp:{SOCKET}"),
        false => SERVER.to_owned(),
    };
    let url = named.unwrap_or_else(default);
    url.parse()
        .map_err(|right| (format!("{VARIABLE}: '{url}' is not {right}"), USAGE))
}

/// Sends the message on standard input.
fn send(mut options: Options) -> Result<(), ExitError> {
    let me = Person::current();
    // `-f ''` and `-f '<>'` are the null reverse-path.
    let first = |text: String| addresses(&text).into_iter().next().unwrap_or_default();
    options.sender = options.sender.map(first);
    let mut input = Vec::new();
    let read = io::stdin()
        .lock()
        .take(MAX_MESSAGE + 1)
        .read_to_end(&mut input);
    read.map_err(|e| (format!("standard input: {e}"), NO_INPUT))?;
    if input.len() as u64 > MAX_MESSAGE {
        return Err(("the message is too large".to_owned(), UNAVAILABLE));
    }
    let mut message = InputMessage::parse(&input, options.ignore_dots);
    drop(input);
    let mut recipients: Vec<String> = Vec::new();
    for word in &options.recipients {
        recipients.extend(addresses(word));
    }
    // Bcc is removed in any case, as Postfix does: callers that name the recipients themselves leave that to sendmail.
    let found = message.take_recipients();
    if options.header_recipients {
        recipients.extend(found);
    }
    if recipients.is_empty() {
        return Err(("no recipient named".to_owned(), USAGE));
    }
    let name = options.full_name.as_deref();
    let sender = options.sender.as_deref().unwrap_or_default();
    message.add_missing("From", &me.mailbox(name, sender));
    message.add_missing("Date", &clock::rfc5322_now());
    message.add_missing("Message-ID", &format!("<{}@{}>", clock::unique(), me.host));
    deliver(&options, &me, recipients, &message.content())
}

fn deliver(
    options: &Options,
    me: &Person,
    recipients: Vec<String>,
    content: &[u8],
) -> Result<(), ExitError> {
    let later = |why: String| (why, TRY_LATER);
    let url = server()?;
    if options.verbose {
        show_dialogue();
    }
    let settings = ClientConfig {
        lmtp: url.scheme == Scheme::Lmtp,
        hostname: me.host.clone(),
        tls: TlsUse::Offered,
        login: None,
        nonce: nonce().map_err(|e| later(e.to_string()))?,
    };
    let tls = ClientTls::new(None).map_err(later)?;
    let destination = destination(&url, None).map_err(|why| later(format!("{url}: {why}")))?;
    let mut connection = Connection::open(&destination, settings, &tls, None)
        .map_err(|failure| later(format!("{url}: {failure}")))?;
    let (mut settled, mut rest) = (Vec::new(), recipients);
    while !rest.is_empty() {
        let envelope = envelope(options, me, rest, content);
        let names: Vec<String> = envelope.recipients.iter().map(|r| r.path.clone()).collect();
        let sent = connection.deliver(envelope, &mut &content[..]);
        let again = |outcome: &Outcome| outcome.verdict == Verdict::NextTransaction;
        let over = sent.failure.is_some() || sent.outcomes.iter().all(again);
        rest = Vec::new();
        for (name, outcome) in names.into_iter().zip(sent.outcomes) {
            match again(&outcome) && !over {
                true => rest.push(name),
                false => settled.push((name, outcome)),
            }
        }
    }
    connection.quit();
    verdict(&settled)
}

fn envelope(
    options: &Options,
    me: &Person,
    recipients: Vec<String>,
    content: &[u8],
) -> ClientEnvelope {
    let mut scan = Scan::new(None);
    scan.feed(content);
    let rcpt = |path| Rcpt {
        path,
        notify: options.notify.clone(),
        orcpt: None,
    };
    let mut seen = std::collections::HashSet::new();
    let once = recipients
        .into_iter()
        .filter(|path| seen.insert(path.clone()));
    ClientEnvelope {
        reverse_path: options.sender.clone().unwrap_or_else(|| me.address()),
        recipients: once.map(rcpt).collect(),
        content: scan.finish(),
        ret: options.ret.clone(),
        envid: options.envid.as_deref().map(crate::encoding::xtext_encode),
        ..ClientEnvelope::default()
    }
}

/// Reports each failed recipient. Temporary failures decide the exit status.
fn verdict(settled: &[(String, Outcome)]) -> Result<(), ExitError> {
    let mut worst = None;
    for (name, outcome) in settled {
        let status = match outcome.verdict {
            Verdict::Accepted => continue,
            Verdict::Later | Verdict::NextTransaction => TRY_LATER,
            // 5.1.1; other statuses of addresses say nothing about a user.
            Verdict::Failed if (outcome.status.subject, outcome.status.detail) == (1, 1) => NO_USER,
            Verdict::Failed => UNAVAILABLE,
        };
        let line = match outcome.remote {
            true => format!("{name}: {}", outcome.text),
            false => format!("{name}: {} {}", outcome.status, outcome.text),
        };
        worst = match worst.take() {
            Some((known, before)) if before >= status => Some((format!("{known}\n{line}"), before)),
            Some((known, _)) => Some((format!("{known}\n{line}"), status)),
            None => Some((line, status)),
        };
    }
    worst.map_or(Ok(()), Err)
}

/// `-v`: the dialogue, on standard error.
fn show_dialogue() {
    use std::io::Write as _;

    env_logger::Builder::new()
        .filter_module("mailslot::client", log::LevelFilter::Debug)
        .format(|out, record| writeln!(out, "{}", record.args()))
        .init();
}

/// `-bs`: connects standard input and output to the server.
fn speak() -> Result<(), ExitError> {
    let url = server()?;
    let destination =
        destination(&url, None).map_err(|why| (format!("{url}: {why}"), TRY_LATER))?;
    let fault = |e: io::Error| (format!("{url}: {e}"), TRY_LATER);
    destination::pass(&destination).map_err(fault)
}
