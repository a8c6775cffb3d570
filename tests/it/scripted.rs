//! A scripted next hop: it offers what a test wants, accepts everything, and records what it receives.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

type Heard = Arc<(Mutex<String>, Condvar)>;

/// What to say to a line instead of accepting it.
type Answer = fn(&str) -> Option<&'static str>;

#[derive(Default)]
pub struct Hop {
    pub url: String,
    heard: Heard,
}

impl Hop {
    /// A hop with these EHLO keywords.
    pub fn start(offers: &[&str]) -> Self {
        Self::answering(offers, |_| None)
    }

    /// A hop that does not accept everything.
    pub fn answering(offers: &[&str], answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let hello: Arc<str> = hello(offers).into();
        let heard = Heard::default();
        let noted = Arc::clone(&heard);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (hello, noted) = (Arc::clone(&hello), Arc::clone(&noted));
                std::thread::spawn(move || serve(&socket.unwrap(), &hello, &noted, answer));
            }
        });
        Self { url, heard }
    }

    /// Serves a connection that is there already, to its end.
    pub fn serve(&self, socket: &TcpStream, offers: &[&str]) {
        serve(socket, &hello(offers), &self.heard, |_| None);
    }

    /// Everything received, once it contains a text.
    pub fn heard(&self, words: &str) -> String {
        let heard = self.heard.0.lock().unwrap();
        let missing = |heard: &mut String| !heard.contains(words);
        let wait = Duration::from_secs(20);
        let (heard, end) = self
            .heard
            .1
            .wait_timeout_while(heard, wait, missing)
            .unwrap();
        assert!(!end.timed_out(), "no '{words}' in: {heard}");
        heard.clone()
    }
}

fn hello(offers: &[&str]) -> String {
    let lines = offers.iter().map(|keyword| format!("250-{keyword}\r\n"));
    format!("250-hop\r\n{}250 HELP\r\n", lines.collect::<String>())
}

fn serve(mut socket: &TcpStream, hello: &str, heard: &Heard, answer: Answer) {
    let mut input = BufReader::new(socket.try_clone().unwrap());
    let mut content = false;
    let mut line = Vec::new();
    socket.write_all(b"220 hop\r\n").unwrap();
    while input.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
        let text = String::from_utf8_lossy(&line).into_owned();
        let own = answer(&text).filter(|_| !content);
        let mut words = text.split_whitespace();
        let reply = match words.next().unwrap_or_default() {
            "." if content => {
                content = false;
                "250 2.0.0 ok\r\n"
            }
            _ if content => "",
            "EHLO" => hello,
            "DATA" => {
                content = true;
                "354 go\r\n"
            }
            "BDAT" => {
                let size: u64 = words.next().unwrap().parse().unwrap();
                input.by_ref().take(size).read_to_end(&mut line).unwrap();
                "250 2.0.0 ok\r\n"
            }
            "QUIT" => "221 2.0.0 bye\r\n",
            _ => "250 2.1.0 ok\r\n",
        };
        let reply = own.unwrap_or(reply);
        heard
            .0
            .lock()
            .unwrap()
            .push_str(&String::from_utf8_lossy(&line));
        heard.1.notify_all();
        if socket.write_all(reply.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}
