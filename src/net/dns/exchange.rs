//! One question to one server: by UDP from a random port, then by TCP if the answer was truncated. Datagrams from
//! elsewhere or to another question are dropped without extending the deadline.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{self, Answer, Bad, RecordType};
use crate::net::socket::time_left;
use crate::random;

/// Wrong datagrams after which a query fails: it is probably under attack.
const MAX_STRAY: usize = 64;
/// Octets of the buffer for an answer by UDP (RFC 1035 §4.2.1).
const DATAGRAM: usize = 4_096;

/// Asks one server.
///
/// # Errors
/// The reason, as text.
pub(super) fn ask(
    server: SocketAddr,
    name: &str,
    kind: RecordType,
    timeout: Duration,
) -> Result<Answer, String> {
    let fault = |e: io::Error| format!("name server {server}: {e}");
    let deadline = Instant::now() + timeout;
    let id = random_id().map_err(fault)?;
    let question = message::question(id, name, kind).ok_or("not a domain name")?;
    match by_udp(server, &question, deadline, |octets| {
        message::answer(octets, id, name, kind)
    }) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Bad::Truncated)) => {
            let octets = by_tcp(server, &question, Instant::now() + timeout).map_err(fault)?;
            message::answer(&octets, id, name, kind).map_err(|bad| {
                let why = match bad {
                    Bad::Failed(why) => why,
                    Bad::NotOurs | Bad::Truncated => "the answer is not to the question",
                };
                format!("name server {server}: {why}")
            })
        }
        Ok(Err(Bad::Failed(why))) => Err(format!("name server {server}: {why}")),
        Ok(Err(Bad::NotOurs)) => Err(format!("name server {server}: too many wrong answers")),
        Err(e) => Err(fault(e)),
    }
}

fn by_udp<T>(
    server: SocketAddr,
    question: &[u8],
    deadline: Instant,
    read: impl Fn(&[u8]) -> Result<T, Bad>,
) -> io::Result<Result<T, Bad>> {
    // Port 0: a random port for each question.
    let own: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(own)?;
    socket.connect(server)?;
    socket.send(question)?;
    let mut buffer = vec![0; DATAGRAM];
    for _ in 0..MAX_STRAY {
        socket.set_read_timeout(Some(time_left(deadline)?))?;
        let octets = match socket.recv(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            other => other?,
        };
        let answer = buffer.get(..octets).ok_or(ErrorKind::InvalidData)?;
        match read(answer) {
            Err(Bad::NotOurs) => {}
            other => return Ok(other),
        }
    }
    Ok(Err(Bad::NotOurs))
}

/// Over TCP each message has its length in front (RFC 1035 §4.2.2).
fn by_tcp(server: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&server, time_left(deadline)?)?;
    socket.set_write_timeout(Some(time_left(deadline)?))?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    socket.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    read_all(&mut socket, &mut length, deadline)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    read_all(&mut socket, &mut answer, deadline)?;
    Ok(answer)
}

/// Fills the buffer by the deadline, even if the octets arrive one by one.
fn read_all(socket: &mut TcpStream, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut room = buffer;
    while !room.is_empty() {
        socket.set_read_timeout(Some(time_left(deadline)?))?;
        match socket.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(octets) => room = room.get_mut(octets..).ok_or(ErrorKind::InvalidData)?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// An unpredictable id, so that nobody can forge an answer (RFC 5452 §9.2).
fn random_id() -> io::Result<u16> {
    random::octets().map(u16::from_be_bytes)
}
