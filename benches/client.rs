//! A blocking SMTP and LMTP client with little overhead, because it shares the cores with the server: commands are
//! built once, and replies are read without allocations.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// No wait is longer.
const LIMIT: Duration = Duration::from_secs(60);

enum Wire {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Between the two.
    None,
}

impl Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
            Self::None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(socket) => socket.write_all(octets),
            Self::Tls(stream) => {
                stream.write_all(octets)?;
                stream.flush()
            }
            Self::None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// One connection.
pub(crate) struct Client {
    wire: Wire,
    buffer: [u8; 2048],
    start: usize,
    end: usize,
    /// The EHLO or LHLO reply in capital letters.
    offers: String,
}

impl Client {
    /// Connects and reads the 220.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_write_timeout(Some(LIMIT))?;
        let wire = Wire::Clear(socket);
        let mut client = Self {
            wire,
            buffer: [0; 2048],
            start: 0,
            end: 0,
            offers: String::new(),
        };
        client.expect(220)?;
        Ok(client)
    }

    /// Says EHLO (LHLO), where wanted STARTTLS, and EHLO again.
    pub(crate) fn hello(&mut self, lmtp: bool, tls: Option<&Arc<ClientConfig>>) -> io::Result<()> {
        let hello: &[u8] = if lmtp {
            b"LHLO bench.test\r\n"
        } else {
            b"EHLO bench.test\r\n"
        };
        self.greet(hello)?;
        let Some(config) = tls else { return Ok(()) };
        self.send(b"STARTTLS\r\n")?;
        self.expect(220)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        self.wire = match std::mem::replace(&mut self.wire, Wire::None) {
            Wire::Clear(socket) => Wire::Tls(Box::new(StreamOwned::new(session, socket))),
            other => other,
        };
        self.greet(hello)
    }

    fn greet(&mut self, hello: &[u8]) -> io::Result<()> {
        self.offers.clear();
        self.send(hello)?;
        while let Some(line) = self.line()? {
            let text = String::from_utf8_lossy(&self.buffer[line.clone()]).to_ascii_uppercase();
            if !text.starts_with("250") {
                return Err(io::Error::other(format!("EHLO: {text}")));
            }
            self.offers.push_str(&text);
            if text.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        Ok(())
    }

    /// True if the server offers an extension.
    pub(crate) fn offers(&self, keyword: &str) -> bool {
        self.offers.lines().any(|line| {
            let words = line.get(4..).unwrap_or_default();
            words.split(' ').next() == Some(keyword)
        })
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.wire.write_all(octets)
    }

    /// Reads one reply, which must have this code.
    pub(crate) fn expect(&mut self, code: u16) -> io::Result<()> {
        let (got, text) = self.reply()?;
        if got == code {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&self.buffer[text]).into_owned();
        Err(io::Error::other(format!("expected {code}, got {text}")))
    }

    /// Reads one reply, which must have this code, and returns the text after the code.
    pub(crate) fn text(&mut self, code: u16) -> io::Result<String> {
        let (got, text) = self.reply()?;
        let text = String::from_utf8_lossy(&self.buffer[text]).into_owned();
        match got == code {
            true => Ok(text.get(4..).unwrap_or_default().trim_end().to_owned()),
            false => Err(io::Error::other(format!("expected {code}, got {text}"))),
        }
    }

    /// Reads one reply: its code, and where its last line is.
    pub(crate) fn reply(&mut self) -> io::Result<(u16, std::ops::Range<usize>)> {
        loop {
            let range = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let line = &self.buffer[range.clone()];
            let code = match line {
                [a, b, c, ..] if line[..3].iter().all(u8::is_ascii_digit) => [a, b, c]
                    .iter()
                    .fold(0, |code, &&digit| code * 10 + u16::from(digit - b'0')),
                _ => return Err(io::Error::other("not a reply")),
            };
            if line.get(3) != Some(&b'-') {
                return Ok((code, range));
            }
        }
    }

    /// The next line's place in the buffer, valid until the next call. None at the end of the connection.
    fn line(&mut self) -> io::Result<Option<std::ops::Range<usize>>> {
        let mut looked = self.start;
        loop {
            if let Some(at) = self.buffer[looked..self.end]
                .iter()
                .position(|&octet| octet == b'\n')
            {
                let line = self.start..looked + at + 1;
                self.start = line.end;
                return Ok(Some(line));
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            looked = self.end;
            if self.end == self.buffer.len() {
                return Err(io::Error::other("a reply line without an end"));
            }
            match self.wire.read(&mut self.buffer[self.end..])? {
                0 => return Ok(None),
                count => self.end += count,
            }
        }
    }

    /// QUIT, 221 and the end of the connection.
    pub(crate) fn quit(mut self) -> io::Result<()> {
        self.send(b"QUIT\r\n")?;
        self.expect(221)
    }
}

/// A client's TLS that trusts this one certificate.
pub(crate) fn trusting(certificate: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(Arc::new(
        config.with_root_certificates(roots).with_no_client_auth(),
    ))
}
