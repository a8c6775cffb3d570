//! A name server on its own port, by UDP and TCP, that answers as its script says.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use simple_dns::Packet;

use crate::net::dns::{Resolver, Servers};

/// The responses of a fake server: for UDP any number of datagrams, for TCP the first of them.
type DnsScript = dyn Fn(&Packet<'_>, bool) -> Vec<Vec<u8>> + Send + Sync;

pub(super) struct Fake {
    pub(super) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    pub(super) ports: Arc<Mutex<Vec<u16>>>,
    stop: Arc<AtomicUsize>,
}

impl Fake {
    pub(super) fn new(
        script: impl Fn(&Packet<'_>, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let script: Arc<DnsScript> = Arc::new(script);
        let (udp, tcp) = pair();
        let fake = Self {
            address: udp.local_addr().unwrap(),
            asked: Arc::default(),
            ports: Arc::default(),
            stop: Arc::default(),
        };
        let (asked, ports, stop) = (fake.asked.clone(), fake.ports.clone(), fake.stop.clone());
        let by_udp = Arc::clone(&script);
        std::thread::spawn(move || {
            let mut buffer = [0; 1_024];
            while let Ok((octets, peer)) = udp.recv_from(&mut buffer) {
                if stop.load(Ordering::SeqCst) > 0 {
                    return;
                }
                asked.fetch_add(1, Ordering::SeqCst);
                ports.lock().unwrap().push(peer.port());
                for answer in by_udp(&Packet::parse(&buffer[..octets]).unwrap(), false) {
                    udp.send_to(&answer, peer).unwrap();
                }
            }
        });
        let stop = Arc::clone(&fake.stop);
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = tcp.accept() {
                if stop.load(Ordering::SeqCst) > 0 {
                    return;
                }
                let mut length = [0; 2];
                socket.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                socket.read_exact(&mut question).unwrap();
                let answers = script(&Packet::parse(&question).unwrap(), true);
                let Some(answer) = answers.first() else {
                    continue;
                };
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                let _ = socket
                    .write_all(&length)
                    .and_then(|()| socket.write_all(answer));
            }
        });
        fake
    }

    pub(super) fn resolver(&self) -> Resolver {
        let servers = Servers {
            addresses: vec![self.address],
            timeout: Duration::from_millis(300),
            attempts: 1,
            ..Servers::default()
        };
        Resolver::new(Path::new("/nonexistent/hosts"), servers)
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(1, Ordering::SeqCst);
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = udp.send_to(b"stop", self.address);
        }
        let _ = std::net::TcpStream::connect(self.address);
    }
}

/// A UDP socket and a TCP listener on the same port.
pub(super) fn pair() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}
