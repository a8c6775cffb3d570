//! Servers as processes: their start and their end, and mailslot's release binary on a port the system picks.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::place;

/// Within this time a server must listen.
const START: Duration = Duration::from_secs(10);

/// A running server. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts a program that says `scheme://ADDRESS` on stderr or stdout once it listens.
    pub(crate) fn announced(mut command: Command, stdout: bool) -> io::Result<Self> {
        command.stdin(Stdio::null());
        match stdout {
            true => command.stdout(Stdio::piped()).stderr(Stdio::null()),
            false => command.stdout(Stdio::null()).stderr(Stdio::piped()),
        };
        let mut child = place::spawn(&mut command)?;
        let pipe: Option<Box<dyn Read + Send>> = match stdout {
            true => child.stdout.take().map(|pipe| Box::new(pipe) as _),
            false => child.stderr.take().map(|pipe| Box::new(pipe) as _),
        };
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            // To its end, so that the server never waits for a reader.
            for line in BufReader::new(pipe.unwrap()).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let deadline = Instant::now() + START;
        let mut log = String::new();
        let address = loop {
            match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match announcement(&line) {
                    Some(address) => break Ok(address),
                    None => log = format!("{log}\n{line}"),
                },
                Err(_) => {
                    break Err(io::Error::other(format!(
                        "the server does not listen:{log}"
                    )));
                }
            }
        };
        Self::known(child, address)
    }

    /// Starts a program that was told where to listen, and waits until it does.
    pub(crate) fn told(mut command: Command, address: SocketAddr) -> io::Result<Self> {
        let quiet = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = place::spawn(quiet)?;
        let deadline = Instant::now() + START;
        let found = loop {
            match std::net::TcpStream::connect(address) {
                Ok(_) => break Ok(address),
                Err(e) if Instant::now() >= deadline => break Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        Self::known(child, found)
    }

    fn known(mut child: Child, address: io::Result<SocketAddr>) -> io::Result<Self> {
        match address {
            Ok(address) => Ok(Self { child, address }),
            Err(e) => {
                let _ = child.kill();
                place::stop(&mut child)?;
                Err(e)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails where the server has ended by itself.
    pub(crate) fn stop(mut self) -> io::Result<Option<i32>> {
        match self.child.try_wait()? {
            Some(status) => Err(io::Error::other(format!(
                "the server ended by itself: {status}"
            ))),
            None => place::stop(&mut self.child),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = place::stop(&mut self.child);
    }
}

/// The address in a log line like `listening on smtp://127.0.0.1:2525`.
fn announcement(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening on ")?;
    let (_, after) = after.split_once("://")?;
    let end = after.find(|c: char| !matches!(c, '0'..='9' | '.' | ':'));
    after[..end.unwrap_or(after.len())].parse().ok()
}

/// How mailslot is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) lmtp: bool,
    /// A line a connection and a line a message, into a file beside the mail; else only where it listens.
    pub(crate) log: bool,
    /// So many connections at once; mailslot's limits are set so that they do not come near.
    pub(crate) sessions: usize,
    pub(crate) more: Vec<String>,
}

/// The binary under test: mailslot's of this build, or the one MAILSLOT_BIN names.
pub(crate) struct Binary {
    path: String,
    help: String,
    pub(crate) version: String,
}

impl Binary {
    pub(crate) fn new() -> io::Result<Self> {
        let path = std::env::var("MAILSLOT_BIN")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_mailslot").to_owned());
        let say = |option| {
            let output = Command::new(&path).arg(option).output()?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        Ok(Self {
            help: say("--help")?,
            version: say("--version")?,
            path,
        })
    }

    /// True if an option or a scheme is in `--help`.
    pub(crate) fn knows(&self, word: &str) -> bool {
        self.help.contains(word)
    }

    /// Starts it with its mailboxes in `dir`.
    pub(crate) fn start(&self, dir: &Path, setup: &Setup) -> io::Result<Process> {
        let scheme = if setup.lmtp { "lmtp" } else { "smtp" };
        let connections = (2 * setup.sessions + 64).to_string();
        let mut command = Command::new(&self.path);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("MAILSLOT_") || text.starts_with("RUST_LOG") {
                command.env_remove(&name);
            }
        }
        command
            .args(["--listen", &format!("{scheme}://127.0.0.1:0")])
            .args(["--hostname", "bench.test", "--domain", "bench.test"])
            .args(["--maildir", &format!("{}/%u", dir.display())])
            .args(["--max-connections", &connections])
            .args(["--max-per-client", &connections])
            .args(&setup.more)
            .current_dir(dir);
        // With a users file exactly those listed are mailboxes.
        if !setup.more.iter().any(|option| option == "--users") {
            command.arg("--create");
        }
        if setup.log {
            return logged(command, &dir.join("log"));
        }
        command.env("RUST_LOG", "error,mailslot::server=info");
        Process::announced(command, false)
    }
}

/// Starts a server whose stderr is a file, and reads there where it listens.
fn logged(mut command: Command, log: &Path) -> io::Result<Process> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(log)?);
    let child = place::spawn(&mut command)?;
    let deadline = Instant::now() + START;
    let address = loop {
        let text = fs::read_to_string(log)?;
        if let Some(address) = text.lines().find_map(announcement) {
            break Ok(address);
        }
        if Instant::now() >= deadline {
            break Err(io::Error::other(format!(
                "the server does not listen: {text}"
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Process::known(child, address)
}
