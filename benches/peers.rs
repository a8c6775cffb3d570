//! The peers: mailin-embedded with a durable handler, a separate crate that is built if it can be fetched; Postfix's
//! smtp-sink and smtp-source, Postfix itself, Dovecot and OpenSMTPD if they are installed, each with its own
//! configuration in the run's directory. Nothing is installed or left over.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, chown, geteuid};

use crate::dovecot::Dovecot;
use crate::load::Sample;
use crate::opensmtpd::Opensmtpd;
use crate::place;
use crate::postfix::Postfix;
use crate::processes::{memory, usage};
use crate::server::Process;

/// What is there.
pub(crate) struct Peers {
    mailin: Option<PathBuf>,
    sink: Option<PathBuf>,
    source: Option<PathBuf>,
    pub(crate) postfix: Option<Postfix>,
    pub(crate) dovecot: Option<Dovecot>,
    pub(crate) opensmtpd: Option<Opensmtpd>,
    /// A line for each one that is not.
    pub(crate) missing: Vec<String>,
}

impl Peers {
    /// Looks for Postfix's tools and builds mailin.
    pub(crate) fn find() -> Self {
        let mut missing = Vec::new();
        let mut tool = |name: &str| {
            let found = installed(name);
            if found.is_none() {
                missing.push(format!("{name} is not installed"));
            }
            found
        };
        let (sink, source) = (tool("smtp-sink"), tool("smtp-source"));
        let mailin = build()
            .inspect_err(|e| missing.push(format!("mailin-embedded is not built: {e}")))
            .ok();
        let mut lacks = |name: &str, reason: String| missing.push(format!("{name}, as {reason}"));
        let postfix = Postfix::find().map_err(|e| lacks("Postfix", e)).ok();
        let dovecot = Dovecot::find().map_err(|e| lacks("Dovecot", e)).ok();
        let opensmtpd = Opensmtpd::find().map_err(|e| lacks("OpenSMTPD", e)).ok();
        Self {
            mailin,
            sink,
            source,
            postfix,
            dovecot,
            opensmtpd,
            missing,
        }
    }

    /// The names and versions of the mail systems.
    pub(crate) fn systems(&self) -> Vec<String> {
        let postfix = self.postfix.as_ref().map(|found| &found.version);
        let dovecot = self.dovecot.as_ref().map(|found| &found.version);
        let opensmtpd = self.opensmtpd.as_ref().map(|found| &found.version);
        let named = [
            ("Postfix", postfix),
            ("Dovecot", dovecot),
            ("OpenSMTPD", opensmtpd),
        ];
        let name = |(name, version): (&str, Option<&String>)| Some(format!("{name} {}", version?));
        named.into_iter().filter_map(name).collect()
    }

    /// Starts mailin with a thread for each session. `None` if it is missing.
    pub(crate) fn mailin(&self, dir: &Path, sessions: usize) -> Option<io::Result<Process>> {
        let mut command = Command::new(self.mailin.as_ref()?);
        command.arg(dir).arg(sessions.to_string());
        Some(Process::announced(command, true))
    }

    /// Starts smtp-sink, which stores nothing. None where it is missing.
    pub(crate) fn sink(&self) -> Option<io::Result<Process>> {
        let start = |path: &PathBuf| {
            let address = free()?;
            let mut command = Command::new(path);
            if geteuid().is_root() {
                command.args(["-u", "nobody"]);
            }
            // The option is the most sessions at once, the last number the length of the listen queue.
            command.args(["-m", "20000", &address.to_string(), "1024"]);
            Process::told(command, address)
        };
        self.sink.as_ref().map(start)
    }

    /// Lets smtp-source send messages to `u0` over reused connections, as a second opinion on the load generator.
    pub(crate) fn source(
        &self,
        server: &Process,
        sessions: usize,
        messages: usize,
        size: usize,
    ) -> Option<io::Result<Sample>> {
        let path = self.source.as_ref()?;
        let run = || {
            let mut command = Command::new(path);
            command.args([
                "-d",
                "-s",
                &sessions.to_string(),
                "-m",
                &messages.to_string(),
                "-l",
                &size.to_string(),
            ]);
            command.args([
                "-f",
                "bench@bench.test",
                "-t",
                "u0@bench.test",
                &server.address.to_string(),
            ]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let before = usage(server.pid())?;
            let begun = Instant::now();
            let mut child = place::spawn(&mut command)?;
            let ended = place::wait(&mut child, Duration::from_secs(120))?;
            let seconds = begun.elapsed().as_secs_f64();
            let used = usage(server.pid())?.since(before);
            if ended != Some(0) {
                place::stop(&mut child)?;
                return Err(io::Error::other("smtp-source did not end well"));
            }
            Ok(Sample {
                seconds,
                arrived: seconds,
                messages,
                size,
                used,
                peak: Some(memory(server.pid(), "VmHWM")?),
            })
        };
        Some(run())
    }
}

/// A program in PATH, or where daemons are.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut dirs = std::env::split_paths(&path).chain(more);
    dirs.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()))
}

/// The first two numbers of a version.
pub(crate) fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A free address.
pub(crate) fn free() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The names of the Maildirs in a run's directory.
pub(crate) fn maildirs(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().join("new").is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// An error, with the last lines of the log that may say why.
pub(crate) fn with_log(error: &io::Error, log: &Path) -> io::Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    io::Error::new(error.kind(), format!("{error} {}", last.join("; ")))
}

/// The owner of mail for servers that do not deliver as root.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

impl Owner {
    /// Only root can give files away.
    pub(crate) fn find() -> Result<Self, String> {
        if !geteuid().is_root() {
            return Err("it must be started by root".to_owned());
        }
        Self::of("nobody")
    }

    /// User and group of a name, by passwd(5). What the C library's own lookup loads does not go with a static binary.
    pub(crate) fn of(name: &str) -> Result<Self, String> {
        let text = fs::read_to_string("/etc/passwd").map_err(|e| e.to_string())?;
        let ids = text.lines().find_map(|line| {
            let (_, rest) = line
                .strip_prefix(name)?
                .strip_prefix(':')?
                .split_once(':')?;
            let mut numbers = rest.split(':').map_while(|field| field.parse().ok());
            Some((numbers.next()?, numbers.next()?))
        });
        let (uid, gid) = ids.ok_or_else(|| format!("there is no user {name}"))?;
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
        })
    }

    /// Gives the Maildirs of a run's directory to the owner, who must be able to come there.
    pub(crate) fn take(self, dir: &Path) -> io::Result<()> {
        for above in dir.ancestors() {
            if fs::metadata(above)?.permissions().mode() & 0o001 == 0 {
                let text = format!("{} is closed to others", above.display());
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        }
        for name in maildirs(dir)? {
            let maildir = dir.join(name);
            for part in ["", "tmp", "new", "cur"] {
                chown(&maildir.join(part), Some(self.uid), Some(self.gid))?;
            }
        }
        Ok(())
    }
}

/// Builds the crate beside this file into the build directory.
fn build() -> io::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/mailin/Cargo.toml");
    let binary = Path::new(env!("CARGO_BIN_EXE_mailslot"));
    let target = binary.ancestors().nth(2).unwrap_or(binary).join("peers");
    let host = host()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            // Named, so that flags for linking are for the program and not for what runs while it is built: it is to be
            // linked as mailslot is.
            "--target",
            &host,
            "--manifest-path",
        ])
        .arg(manifest);
    command
        .arg("--target-dir")
        .arg(&target)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let mut child = place::spawn(&mut command)?;
    match place::wait(&mut child, Duration::from_secs(300))? {
        Some(0) => Ok(target.join(host).join("release/mailin-durable")),
        Some(code) => Err(io::Error::other(format!("cargo ended with {code}"))),
        None => {
            place::stop(&mut child)?;
            Err(io::Error::other("it took too long"))
        }
    }
}

/// The name that the compiler has for this machine.
fn host() -> io::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| io::Error::other("rustc -vV names no host"))
}
