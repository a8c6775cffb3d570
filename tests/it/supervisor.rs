//! The server under a service manager: its messages to NOTIFY_SOCKET.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::server::{Server, Setup};

fn hear(manager: &UnixDatagram) -> String {
    let mut octets = [0; 256];
    let length = manager.recv(&mut octets).unwrap();
    String::from_utf8_lossy(&octets[..length]).into_owned()
}

/// The next message, except those of the watchdog.
fn next(manager: &UnixDatagram) -> String {
    loop {
        let said = hear(manager);
        if said != "WATCHDOG=1" {
            return said;
        }
    }
}

#[test]
fn a_manager_is_notified_of_start_reload_and_end() {
    let path = std::env::temp_dir().join(format!("mailslot-notify-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let setup = Setup {
        args: vec!["--create".into()],
        env: vec![
            ("NOTIFY_SOCKET".into(), path.display().to_string()),
            ("WATCHDOG_USEC".into(), "40000".into()),
        ],
        ..Setup::default()
    };
    let mut server = Server::launch(&setup).unwrap();
    assert_eq!(hear(&manager), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(&manager), "WATCHDOG=1");
    }
    server.signal(Signal::SIGHUP);
    let reloading = next(&manager);
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(next(&manager), "READY=1");
    assert_eq!(server.stop(), Some(0));
    assert_eq!(next(&manager), "STOPPING=1");
    std::fs::remove_file(&path).unwrap();
}

/// A shell makes the socket descriptor 3, as systemd does, and the names say what is spoken.
fn activated(names: &str, args: &[&str], listeners: usize) -> (Server, std::net::SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let dir = std::env::temp_dir().join(format!("mailslot-fd-{}", address.port()));
    std::fs::create_dir_all(&dir).unwrap();
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let child = Command::new("sh")
        .args([
            "-c",
            script,
            env!("CARGO_BIN_EXE_mailslot"),
            "--hostname",
            "mx.test",
            "--create",
        ])
        .args(args)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", names)
        .current_dir(&dir)
        .stdin(std::os::fd::OwnedFd::from(socket))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (Server::attach(child, dir, listeners).unwrap(), address)
}

#[test]
fn inherited_sockets_are_the_only_listeners() {
    for (names, greeting) in [
        ("lmtp", "LMTP"),
        ("", "ESMTP"),
        ("mailslot.socket", "ESMTP"),
    ] {
        let (mut server, address) = activated(names, &[], 1);
        assert!(
            server.urls[0].ends_with(&address.to_string()),
            "{:?}",
            server.urls
        );
        let reply = server.client().reply();
        assert!(
            reply.starts_with(&format!("220 mx.test {greeting}")),
            "{names}: {reply}"
        );
        assert_eq!(server.stop(), Some(0));
        assert!(!server.log().contains("listening on"));
    }
}

/// The name of a descriptor has a query, too.
#[test]
fn an_inherited_socket_takes_proxy_headers() {
    let (server, address) = activated("lmtp?proxy", &["--trust", "127.0.0.1"], 1);
    assert_eq!(server.urls[0], format!("lmtp://{address}?proxy"));
    let mut client = server.client();
    client.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 5 25\r\nLHLO x\r\nQUIT\r\n");
    assert!(client.reply().starts_with("220 mx.test LMTP"));
    server.logged("connection client=\"[192.0.2.7]\" helo=\"x\"");
}

#[test]
fn an_inherited_socket_is_scraped() {
    let (server, address) = activated("metrics", &["--listen", "smtp://127.0.0.1:0"], 2);
    assert_eq!(server.urls[1], format!("metrics://{address}"));
    let url = server.urls[1].parse().unwrap();
    assert_eq!(mailslot::cmd::healthcheck::check(&url), Ok(()));
}

#[test]
fn inherited_sockets_join_configured_listeners() {
    let (server, address) = activated("lmtp", &["--listen", "smtp://127.0.0.1:0"], 2);
    assert!(server.urls[0].starts_with("smtp://127.0.0.1:"));
    assert_eq!(server.urls[1], format!("lmtp://{address}"));
}
