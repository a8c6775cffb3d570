//! sd_notify(3): tells a service manager the state of the server. Without NOTIFY_SOCKET nothing is sent. The first of
//! several failures in a row is logged; they have no other effect.

use std::env;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::encoding::number;

/// Maximum time for a state that a manager waits for, while others fill its queue. Signals wait, too.
const WAIT: Duration = Duration::from_secs(5);
/// The polling interval.
const PAUSE: Duration = Duration::from_millis(10);

/// The connection to the service manager, opened before any chroot.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// True if the last state could not be sent.
    failed: AtomicBool,
}

impl ServiceManager {
    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
    pub fn from_env() -> Self {
        let get = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let socket = get("NOTIFY_SOCKET").and_then(|path| {
            let socket = connect(&path);
            socket
                .inspect_err(|e| log::warn!("NOTIFY_SOCKET {path}: connect: {e}"))
                .ok()
        });
        let own = std::process::id().to_string();
        let watchdog = watchdog(get("WATCHDOG_USEC"), get("WATCHDOG_PID"), &own);
        Self {
            watchdog: watchdog.filter(|_| socket.is_some()),
            socket,
            failed: AtomicBool::new(false),
        }
    }

    /// The interval for [`Self::watchdog`]: half of what the manager allows.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog.map(|allowed| allowed / 2)
    }

    /// Reports that the server accepts mail.
    pub fn ready(&self) {
        self.send("READY=1", WAIT);
    }

    /// Reports the start of a reload, with its time; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let state = format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_usec());
        self.send(&state, WAIT);
    }

    /// Reports the shutdown.
    pub fn stopping(&self) {
        self.send("STOPPING=1", Duration::ZERO);
    }

    /// Reports that the accept loop is alive, if there is a watchdog.
    pub fn watchdog(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1", Duration::ZERO);
        }
    }

    /// Sends a state, if there is room for it within `wait`. A manager that has not taken the last one is not waited
    /// for: it hears of a reload in full or not at all.
    fn send(&self, state: &str, wait: Duration) {
        let Some(socket) = &self.socket else { return };
        let (begun, failed) = (Instant::now(), self.failed.load(Ordering::Relaxed));
        let sent = loop {
            match socket.send(state.as_bytes()) {
                Err(e)
                    if e.kind() == ErrorKind::WouldBlock && !failed && begun.elapsed() < wait =>
                {
                    sleep(PAUSE);
                }
                other => break other,
            }
        };
        self.failed.store(sent.is_err(), Ordering::Relaxed);
        if let Some(e) = sent.err().filter(|_| !failed) {
            log::warn!("NOTIFY_SOCKET: send {state:?}: {e}");
        }
    }
}

/// Connects to a path, or to `@` and an abstract name. One that does not read delays only the start and one reload.
fn connect(path: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match path.strip_prefix('@') {
        Some(name) => connect_abstract(&socket, name)?,
        None => socket.connect(path)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &str) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    socket.connect_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &str) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// A watchdog for another process is ignored (sd_watchdog_enabled(3)).
fn watchdog(usec: Option<String>, pid: Option<String>, own: &str) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid == own);
    let usec = usec.filter(|_| ours).and_then(|text| number(&text))?;
    Some(Duration::from_micros(usec)).filter(|allowed| !allowed.is_zero())
}

fn monotonic_usec() -> i128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_manager_hears_each_state() {
        let (manager, socket) = UnixDatagram::pair().unwrap();
        let notify = ServiceManager {
            socket: Some(socket),
            watchdog: Some(Duration::from_secs(1)),
            ..ServiceManager::default()
        };
        let before = monotonic_usec();
        notify.ready();
        notify.reloading();
        notify.watchdog();
        notify.stopping();
        let hear = || {
            let mut octets = [0; 128];
            let length = manager.recv(&mut octets).unwrap();
            String::from_utf8(octets.get(..length).unwrap().to_vec()).unwrap()
        };
        assert_eq!(hear(), "READY=1");
        let reloading = hear();
        let when = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!((before..=monotonic_usec()).contains(&when.parse().unwrap()));
        assert_eq!(
            (hear(), hear()),
            ("WATCHDOG=1".to_owned(), "STOPPING=1".to_owned())
        );
    }

    /// A manager whose queue is full, and the connection to it; `failed` if it has missed a state already.
    fn busy(failed: bool) -> (UnixDatagram, ServiceManager) {
        let (manager, socket) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.send(b"X=1").is_ok() {}
        let notify = ServiceManager {
            socket: Some(socket),
            failed: failed.into(),
            ..ServiceManager::default()
        };
        (manager, notify)
    }

    /// READY=1 must not be lost because other services have just filled the manager's queue: it would end this one.
    #[test]
    fn a_busy_manager_hears_that_the_server_is_ready() {
        let (manager, notify) = busy(false);
        let hear = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 3);
            manager.set_read_timeout(Some(WAIT)).unwrap();
            let mut octets = [0; 128];
            while let Ok(length) = manager.recv(&mut octets) {
                if octets.get(..length) == Some(b"READY=1") {
                    return true;
                }
            }
            false
        });
        notify.ready();
        drop(notify);
        assert!(hear.join().unwrap());
    }

    /// Signals wait while a reload is reported, so a manager that has stopped reading is waited for only once.
    #[test]
    fn a_stuck_manager_is_waited_for_once() {
        let (manager, notify) = busy(true);
        let begun = Instant::now();
        notify.reloading();
        notify.ready();
        assert!(begun.elapsed() < WAIT);
        manager.recv(&mut [0; 128]).unwrap();
        notify.watchdog();
        notify.stopping();
        assert!(!notify.failed.load(Ordering::Relaxed));
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let text = |text: &str| Some(text.to_owned());
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(text("1000000"), None, "7"), second);
        assert_eq!(watchdog(text("1000000"), text("7"), "7"), second);
        for (usec, pid) in [("1000000", "8"), ("0", "7"), ("-1", "7"), ("x", "7")] {
            assert_eq!(watchdog(text(usec), text(pid), "7"), None, "{usec}");
        }
        assert_eq!(watchdog(None, None, "7"), None);
    }
}
