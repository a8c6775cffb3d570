//! A server under test, and a client that reads whole replies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub struct Server {
    child: Child,
    pub dir: PathBuf,
    address: String,
}

impl Server {
    pub fn start(args: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("mailslot-it-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--listen", "smtp://127.0.0.1:0", "--hostname", "mx.test"])
            .args(args)
            .current_dir(&dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on smtp://") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended");
        }
        let address = line.trim().rsplit("smtp://").next().unwrap().to_owned();
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Self {
            child,
            dir,
            address,
        }
    }

    pub fn client(&self) -> Client {
        let socket = TcpStream::connect(&self.address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let input = BufReader::new(socket.try_clone().unwrap());
        Client { socket, input }
    }

    /// Sends SIGTERM and returns the exit status.
    pub fn stop(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The messages of a mailbox, their trace header taken off.
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
