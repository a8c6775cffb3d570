//! A server with a certificate, and a TLS client on a socket that is connected already. The client accepts any
//! certificate.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use mailslot::net::client_tls::Anybody;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, DEFAULT_VERSIONS};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use crate::server::{Server, Setup};

/// The pair of `tests/tls`, for `--tls-cert` and `--tls-key`.
pub const CERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/cert.pem");
pub const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/key.pem");

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A server with the pair, these users and more options.
pub fn server(url: &str, users: &str, args: &[&str]) -> Server {
    let common = ["--tls-cert", CERT, "--tls-key", KEY, "--users", "users"];
    let setup = Setup {
        listen: vec![url.to_owned()],
        args: [&common, args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        files: vec![("users".into(), users.into())],
        ..Setup::default()
    };
    Server::launch(&setup).unwrap()
}

/// Does the whole handshake. No ALPN is offered where the list is empty.
pub fn connect(socket: TcpStream, alpn: &[&str]) -> io::Result<Tls> {
    connect_with(socket, alpn, DEFAULT_VERSIONS)
}

pub fn connect_with(
    socket: TcpStream,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<Tls> {
    connect_after(&[], socket, alpn, versions)
}

/// The first octets of the handshake leave in one write with what is to go before them.
pub fn connect_after(
    before: &[u8],
    mut socket: TcpStream,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<Tls> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("mx.test").map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut first = before.to_vec();
    connection.write_tls(&mut first)?;
    socket.write_all(&first)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// The server's side of TLS on a socket, by rustls's own server with the committed pair. The first read or write does
/// the handshake.
pub fn accept<S: Read + Write>(socket: S) -> StreamOwned<ServerConnection, S> {
    let chain = vec![CertificateDer::from_pem_file(CERT).unwrap()];
    let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"smtp".to_vec()];
    let connection = ServerConnection::new(Arc::new(config)).unwrap();
    StreamOwned::new(connection, socket)
}

/// The committed pair and this client work with rustls's own server, in both versions and with
/// and without ALPN: a failure elsewhere is then the server's.
#[test]
fn the_pair_and_the_client_work() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for alpn in [&[][..], &["smtp"]] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let served = std::thread::spawn(move || {
                let mut stream = accept(listener.accept().unwrap().0);
                stream.write_all(b"220 hello").unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            });
            let mut tls = connect_with(socket, alpn, &[version]).unwrap();
            let mut said = String::new();
            tls.read_to_string(&mut said).unwrap();
            served.join().unwrap();
            assert_eq!(said, "220 hello");
            assert_eq!(tls.conn.protocol_version(), Some(version.version));
            assert_eq!(tls.conn.alpn_protocol().is_some(), !alpn.is_empty());
        }
    }
}
