//! Unusual starts: a signal during the start, an address family that is switched off, a file system without figures.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::room::Mounted;
use crate::server::{Server, Setup};

fn scratch() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mailslot-starts-{}-{count}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn signal(child: &Child, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// A SIGHUP while each of the files is read does not kill, and is served once the server runs.
#[test]
fn a_reload_while_starting_is_served_later() {
    let tls =
        |name: &str| std::fs::read(format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR")));
    let (cert, key) = (tls("cert.pem").unwrap(), tls("key.pem").unwrap());
    let files: [(&str, &[u8]); 5] = [
        ("config", b"create\n"),
        ("users", b"a\n"),
        ("aliases", b"b: a\n"),
        ("tls-cert", &cert),
        ("tls-key", &key),
    ];
    for (slow, _) in files {
        let dir = scratch();
        for (name, content) in files {
            std::fs::write(dir.join(name), content).unwrap();
        }
        // Reading it waits for a writer.
        let pipe = dir.join(slow);
        std::fs::remove_file(&pipe).unwrap();
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let options = files.map(|(name, _)| [format!("--{name}"), name.to_owned()]);
        let child = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--listen", "smtp://127.0.0.1:0"])
            .args(options.concat())
            .current_dir(&dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Opening it for writing waits until the server reads it.
        let mut writer = std::fs::File::options().write(true).open(&pipe).unwrap();
        signal(&child, Signal::SIGHUP);
        let (_, content) = files.iter().find(|(name, _)| *name == slow).unwrap();
        std::io::Write::write_all(&mut writer, content).unwrap();
        // The next reading finds a file.
        std::fs::remove_file(&pipe).unwrap();
        std::fs::write(&pipe, content).unwrap();
        drop(writer);
        let server = Server::attach(child, dir, 1).unwrap_or_else(|log| panic!("{slow}: {log}"));
        server.reloaded();
        assert!(server.client().reply().starts_with("220"), "{slow}");
    }
}

/// Where IPv6 is off, `localhost`, which has an address of it, and all interfaces are served by IPv4 (root).
#[test]
fn without_ipv6() {
    for url in ["smtp://localhost:0", "smtp://:0", "metrics://:0"] {
        let dir = scratch();
        std::fs::write(dir.join("hosts"), "::1 localhost\n127.0.0.1 localhost\n").unwrap();
        let script = "ip link set lo up && echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 && \
            mount --bind hosts /etc/hosts && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "sh", "-c", script, "sh"]);
        command.args([
            env!("CARGO_BIN_EXE_mailslot"),
            "--listen",
            "smtp://127.0.0.1:0",
        ]);
        let child = command.args(["--listen", url, "--create", "--hostname", "mx.test"]);
        let child = child
            .current_dir(&dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let server = match Server::attach(child, dir, 2) {
            Err(log) if !log.contains("mailslot") && !log.contains("listening") => {
                eprintln!("skipped: no namespace to be had here: {log}");
                return;
            }
            other => other.unwrap_or_else(|log| panic!("{url}: {log}")),
        };
        let bound = &server.urls[1];
        assert!(!bound.contains('['), "{bound}");
        if !url.starts_with("smtp") {
            continue;
        }
        let port = bound.rsplit(':').next().unwrap();
        let inside = Command::new("nsenter")
            .args(["--net", "--target", &server.pid().to_string()])
            .args([env!("CARGO_BIN_EXE_mailslot"), "--healthcheck"])
            .arg(format!("smtp://127.0.0.1:{port}"))
            .output()
            .unwrap();
        assert!(inside.status.success(), "{inside:?}");
    }
}

/// A file system that states 0 of 0 blocks states nothing: mail is taken there (root).
#[test]
fn a_file_system_that_states_nothing_has_room() {
    let setup = Setup {
        args: vec!["--create".into()],
        dirs: vec!["mail".into()],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let Some(_mounted) = Mounted::new("ramfs", &server.dir.join("mail"), "mode=700") else {
        return;
    };
    let mut client = server.client();
    client.send(b"EHLO c\r\nMAIL FROM:<> SIZE=1000000\r\nRCPT TO:<a@localhost>\r\nDATA\r\n");
    for code in ["220", "250", "250", "250", "354"] {
        let reply = client.reply();
        assert!(reply.starts_with(code), "{reply}");
    }
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    assert!(client.reply().starts_with("250 2.0.0"));
    assert_eq!(server.messages("localhost/a"), ["Subject: x\n\nx\n"]);
}
