//! A client for cases in which the server's behaviour is not known beforehand: every wait has a timeout, replies are
//! checked for their form (RFC 5321 §4.2, RFC 2034 §4), and silence or the end of the connection are results as well.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::tls::{self, Tls};

/// How long a reply may take.
const WAIT: Duration = Duration::from_secs(5);
/// How long silence must last if it is what the case expects.
const SILENCE: Duration = Duration::from_millis(50);

/// What the server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole reply of a good form, its lines with CRLF.
    Reply(String),
    /// Octets that are none, and why not.
    Bad(String, &'static str),
    Closed,
    Nothing,
}

impl Event {
    pub fn code(&self) -> &str {
        match self {
            Self::Reply(text) => &text[..3],
            _ => "",
        }
    }
}

enum Link {
    Clear(TcpStream),
    Tls(Box<Tls>),
}

pub struct Wire {
    link: Option<Link>,
    /// Input that was read but not taken yet.
    input: Vec<u8>,
    peeked: Option<Event>,
}

impl Wire {
    pub fn connect(address: &str) -> std::io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_write_timeout(Some(WAIT))?;
        Ok(Self {
            link: Some(Link::Clear(socket)),
            input: Vec::new(),
            peeked: None,
        })
    }

    fn socket(&self) -> Option<&TcpStream> {
        match self.link.as_ref()? {
            Link::Clear(socket) => Some(socket),
            Link::Tls(tls) => Some(&tls.sock),
        }
    }

    /// Ignores errors: a closed connection is noticed when the reply is read.
    pub fn send(&mut self, octets: &[u8]) {
        let _ = match &mut self.link {
            Some(Link::Clear(socket)) => socket.write_all(octets),
            Some(Link::Tls(tls)) => tls.write_all(octets).and_then(|()| tls.flush()),
            None => Ok(()),
        };
    }

    pub fn start_tls(&mut self) -> std::io::Result<()> {
        if let Some(Link::Clear(socket)) = self.link.take() {
            socket.set_read_timeout(Some(WAIT))?;
            self.link = Some(Link::Tls(Box::new(tls::connect(socket, &[])?)));
        }
        Ok(())
    }

    /// Says no more, and still listens.
    pub fn half_close(&self) {
        let _ = self.socket().map(|socket| socket.shutdown(Shutdown::Write));
    }

    /// Closes the connection without QUIT.
    pub fn leave(&mut self) {
        self.link = None;
    }

    /// True if it did, in either way.
    pub fn gone(&self) -> bool {
        self.link.is_none()
    }

    /// Goes away with a reset.
    pub fn reset(&mut self) {
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        if let Some(socket) = self.socket() {
            setsockopt(socket, sockopt::Linger, &at_once).unwrap();
        }
        self.link = None;
    }

    /// Peeks at the next result.
    pub fn peek(&mut self) -> &Event {
        if self.peeked.is_none() {
            self.peeked = Some(self.event(WAIT));
        }
        self.peeked.as_ref().unwrap()
    }

    pub fn take(&mut self) -> Event {
        self.peek();
        self.peeked.take().unwrap()
    }

    /// The same, if probably nothing will arrive.
    pub fn peek_silence(&mut self) -> &Event {
        if self.peeked.is_none() {
            match self.event(SILENCE) {
                Event::Nothing => return &Event::Nothing,
                event => self.peeked = Some(event),
            }
        }
        self.peeked.as_ref().unwrap()
    }

    fn event(&mut self, wait: Duration) -> Event {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = reply_end(&self.input) {
                let octets: Vec<u8> = self.input.drain(..end).collect();
                return judge(&octets);
            }
            let Some(socket) = self.socket() else {
                return Event::Closed;
            };
            let _ = socket.set_read_timeout(Some(wait));
            let read = match &mut self.link {
                Some(Link::Clear(socket)) => socket.read(&mut buffer),
                Some(Link::Tls(tls)) => tls.read(&mut buffer),
                None => Ok(0),
            };
            match read {
                Ok(0) => return self.end(),
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return match self.input.is_empty() {
                        true => Event::Nothing,
                        false => Event::Bad(lossy(&self.input), "not a whole reply"),
                    };
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.end(),
            }
        }
    }

    /// A TLS alert may be the last word to a handshake that failed: no SMTP is in it.
    fn end(&mut self) -> Event {
        let left = std::mem::take(&mut self.input);
        match left.as_slice() {
            [] | [0x15, 3, ..] => Event::Closed,
            _ => Event::Bad(lossy(&left), "not a whole reply"),
        }
    }
}

fn lossy(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// Where the first whole reply ends.
fn reply_end(octets: &[u8]) -> Option<usize> {
    let mut end = 0;
    for line in octets.split_inclusive(|&o| o == b'\n') {
        end += line.len();
        if !line.ends_with(b"\n") {
            return None;
        }
        if line.get(3) != Some(&b'-') {
            return Some(end);
        }
    }
    None
}

/// R041, R042, R059, R100, R101: three digits, the same on every line, short printable lines, and the enhanced code;
/// that is left out where the host name comes first, in the greeting and after HELO, EHLO and LHLO.
fn judge(octets: &[u8]) -> Event {
    let text = lossy(octets);
    let bad = |why| Event::Bad(text.clone(), why);
    let code = octets.get(..3).unwrap_or_default();
    if !matches!(code, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return bad("no reply code");
    }
    let named = text.get(4..).is_some_and(|t| t.starts_with("mx.test"));
    for line in octets.split_inclusive(|&o| o == b'\n') {
        let Some(plain) = line.strip_suffix(b"\r\n") else {
            return bad("a line without CRLF");
        };
        let enhanced = plain.get(4..).unwrap_or_default();
        if line.len() > 512 {
            return bad("a line over 512 octets");
        } else if !plain.iter().all(|o| matches!(o, b' '..=b'~')) {
            return bad("an octet that is not printable ASCII");
        } else if !plain.starts_with(code) || !matches!(plain.get(3), None | Some(b' ' | b'-')) {
            return bad("another code within the reply");
        } else if code[0] != b'3' && !named && !enhanced.starts_with(&[code[0], b'.']) {
            return bad("no enhanced code");
        }
    }
    Event::Reply(text)
}

#[test]
fn replies_are_judged() {
    for good in [
        "220 mx.test x\r\n",
        "250 2.0.0 x\r\n",
        "334 \r\n",
        "334\r\n",
    ] {
        assert_eq!(judge(good.as_bytes()), Event::Reply(good.into()));
    }
    assert_eq!(reply_end(b"250-a\r\n250"), None);
    assert_eq!(reply_end(b"250-a\r\n250 b\r\n250 c\r\n"), Some(14));
    for bad in [
        "250 2.0.0 x\n",
        "250 x\r\n",
        "250 5.0.0 x\r\n",
        "hello\r\n",
        "214-2.0.0 a\r\n214 b\r\n",
        "250-2.0.0 a\r\n550 5.0.0 b\r\n",
        "250 2.0.0 \u{7f}\r\n",
        "2505.0.0 x\r\n",
        "\r\n",
    ] {
        assert!(matches!(judge(bad.as_bytes()), Event::Bad(..)), "{bad}");
    }
}
