//! A server under test, and a client that reads whole replies.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The configuration of a server under test.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setup {
    /// URLs to listen on; by default a loopback port.
    pub listen: Vec<String>,
    pub args: Vec<String>,
    /// Directories and files to make in the server's directory, where it runs.
    pub dirs: Vec<String>,
    pub files: Vec<(String, String)>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
}

pub struct Server {
    child: Child,
    pub dir: PathBuf,
    /// The URLs of the lines "listening on URL", in their order.
    pub urls: Vec<String>,
    log: Arc<(Mutex<String>, Condvar)>,
}

/// All messages of all mailboxes below a server's directory.
pub fn stored(dir: &Path) -> Vec<Vec<u8>> {
    let mut dirs = vec![dir.join("mail")];
    let mut messages = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if dir.ends_with("new") {
                messages.push(std::fs::read(path).unwrap());
            }
        }
    }
    messages
}

impl Server {
    pub fn start(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let setup = Setup {
            args,
            ..Setup::default()
        };
        Self::launch(&setup).unwrap_or_else(|log| panic!("the server ended: {log}"))
    }

    /// Starts a server and waits until it listens; returns its output if it exits instead.
    pub fn launch(setup: &Setup) -> Result<Self, String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("mailslot-it-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in &setup.dirs {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        for (name, content) in &setup.files {
            std::fs::write(dir.join(name), content).unwrap();
        }
        let mut listen = setup.listen.clone();
        if listen.is_empty() {
            listen.push("smtp://127.0.0.1:0".into());
        }
        let child = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--hostname", "mx.test"])
            .args(listen.iter().flat_map(|url| ["--listen", url]))
            .args(&setup.args)
            .envs(setup.env.iter().cloned())
            .current_dir(&dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self::attach(child, dir, listen.len())
    }

    /// Waits until a process has logged this many listeners.
    pub fn attach(mut child: Child, dir: PathBuf, listeners: usize) -> Result<Self, String> {
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self {
            child,
            dir,
            urls: Vec::new(),
            log: Arc::default(),
        };
        let mut said = String::new();
        while server.urls.len() < listeners {
            let start = said.len();
            if log.read_line(&mut said).unwrap() == 0 {
                return Err(said.trim_end().to_owned());
            }
            let url = said[start..].trim_end().split_once("listening on ");
            server.urls.extend(url.map(|(_, url)| url.to_owned()));
        }
        let kept = Arc::clone(&server.log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while log.read_line(&mut line).is_ok_and(|octets| octets > 0) {
                kept.0.lock().unwrap().push_str(&line);
                kept.1.notify_all();
                line.clear();
            }
        });
        Ok(server)
    }

    /// Host and port of the first listener.
    pub fn address(&self) -> &str {
        let place = self.urls[0].split_once("://").unwrap().1;
        place.split('?').next().unwrap()
    }

    pub fn client(&self) -> Client {
        let socket = TcpStream::connect(self.address()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Client::new(socket)
    }

    /// Waits until the log says so.
    pub fn logged(&self, words: &str) {
        let log = self.log.0.lock().unwrap();
        let missing = |log: &mut String| !log.contains(words);
        let wait = Duration::from_secs(20);
        let (log, end) = self.log.1.wait_timeout_while(log, wait, missing).unwrap();
        assert!(!end.timed_out(), "no '{words}' in: {log}");
    }

    /// The log after the start.
    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits for the end of a reload.
    pub fn reloaded(&self) {
        self.logged("reloaded");
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and returns the exit status; none where it does not end.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.ended()
    }

    /// Waits for the end and returns the exit status.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(40);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// All messages of all mailboxes, whole.
    pub fn stored(&self) -> Vec<String> {
        let all = stored(&self.dir).into_iter();
        all.map(|octets| String::from_utf8_lossy(&octets).into_owned())
            .collect()
    }

    /// The messages of a mailbox, without trace headers.
    pub fn messages(&self, mailbox: &str) -> Vec<String> {
        let dir = self.dir.join("mail").join(mailbox).join("new");
        let files = std::fs::read_dir(dir).into_iter().flatten();
        files
            .map(|entry| {
                let octets = std::fs::read(entry.unwrap().path()).unwrap();
                let text = String::from_utf8_lossy(&octets).into_owned();
                let mut lines = text.split_inclusive('\n').peekable();
                for field in ["Return-Path:", "Delivered-To:", "Received: from"] {
                    if lines.next_if(|l| l.starts_with(field)).is_some() {
                        while lines.next_if(|l| l.starts_with(['\t', ' '])).is_some() {}
                    }
                }
                lines.collect()
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub struct Client {
    pub socket: TcpStream,
    input: BufReader<TcpStream>,
}

impl Client {
    pub fn new(socket: TcpStream) -> Self {
        let input = BufReader::new(socket.try_clone().unwrap());
        Self { socket, input }
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.socket.write_all(octets).unwrap();
    }

    /// One whole reply; empty at the end of the connection.
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            if self.input.read_line(&mut line).unwrap_or(0) == 0 {
                return reply;
            }
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
        }
    }
}

/// Reads a server's log to the line of its first listener, for its `HOST:PORT`.
pub fn first_address(log: &mut impl BufRead) -> String {
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0);
    }
    line.trim().rsplit("//").next().unwrap().to_owned()
}
