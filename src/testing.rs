//! Helpers that unit tests share.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::PathBuf;

use crate::clock;

/// A directory that is removed at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// In memory where the system has a place for that: fault tests make thousands of trees.
    pub(crate) fn new() -> Self {
        let memory = PathBuf::from("/dev/shm");
        let usable = nix::unistd::access(&memory, nix::unistd::AccessFlags::W_OK).is_ok();
        Self::within(if usable { memory } else { std::env::temp_dir() })
    }

    pub(crate) fn within(parent: PathBuf) -> Self {
        let path = parent.join(format!("mailslot-test-{}", clock::unique()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A file in it with this text.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
