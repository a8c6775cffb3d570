//! A real file system that is full, mounted for the test, which needs root; otherwise the test is skipped with a
//! message.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::server::{Client, Server, Setup};

/// A small file system in memory.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn new(kind: &str, dir: &Path, options: &str) -> Option<Self> {
        Self::mount(&["-t", kind, "-o", options, "none"], dir)
    }

    /// `dir` once more, as a mount of its own.
    pub fn bind(dir: &Path) -> Option<Self> {
        Self::mount(&["--bind", &dir.display().to_string()], dir)
    }

    fn mount(args: &[&str], dir: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(args).arg(dir);
        let mounted = mount.stderr(Stdio::null()).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: nothing can be mounted here");
        }
        mounted.then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mail(client: &mut Client) -> String {
    client.send(b"RSET\r\nMAIL FROM:<>\r\n");
    client.reply();
    client.reply()
}

/// F62: without a free inode there is no room, however much space is free.
#[test]
fn a_file_system_without_inodes_is_full() {
    let setup = Setup {
        args: vec!["--create".into()],
        dirs: vec!["mail".into()],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let dir = server.dir.join("mail");
    let Some(_mounted) = Mounted::new("tmpfs", &dir, "size=8m,nr_inodes=10") else {
        return;
    };
    let files = (0..20).map(|n| dir.join(n.to_string()));
    let made: Vec<PathBuf> = files
        .filter(|path| std::fs::write(path, "").is_ok())
        .collect();
    assert!((1..10).contains(&made.len()));
    let mut client = server.client();
    client.send(b"EHLO c\r\n");
    (0..2).for_each(|_| assert!(client.reply().starts_with('2')));
    assert!(mail(&mut client).starts_with("452 4.3.1"));
    std::fs::remove_file(&made[0]).unwrap();
    assert!(mail(&mut client).starts_with("250"));
}
