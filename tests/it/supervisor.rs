//! The server under a service manager: what it says to NOTIFY_SOCKET, and when.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::server::{Server, Setup};

fn hear(manager: &UnixDatagram) -> String {
    let mut octets = [0; 256];
    let length = manager.recv(&mut octets).unwrap();
    String::from_utf8_lossy(&octets[..length]).into_owned()
}

/// What comes next, apart from the watchdog's.
fn next(manager: &UnixDatagram) -> String {
    loop {
        let said = hear(manager);
        if said != "WATCHDOG=1" {
            return said;
        }
    }
}

#[test]
fn a_manager_hears_of_start_reload_and_end() {
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
