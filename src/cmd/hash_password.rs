//! `--hash-password`: reads a password and prints its stored form for the users file.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::output::{complain, print};
use crate::auth::password::hash_password;
use crate::failure::Failure;
use crate::random;

/// Maximum octets of a password with its line end.
const MAX_PASSWORD: u64 = 1_024;

/// Reads one line, without echo on a terminal, and prints its stored form.
///
/// # Errors
/// No password, or one that a client cannot send (64); no random numbers, or no standard output (71).
pub fn hash() -> Result<(), Failure> {
    let line = line().map_err(|e| Failure::Usage(format!("--hash-password: {e}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.chars().any(char::is_control) {
        let text = "--hash-password: no usable password; write one line of text to standard input";
        return Err(Failure::Usage(text.to_owned()));
    }
    if line.len() as u64 > MAX_PASSWORD {
        let text = "--hash-password: the password is longer than a kilobyte";
        return Err(Failure::Usage(text.to_owned()));
    }
    let salt = random::octets().map_err(|e| Failure::System(format!("--hash-password: {e}")))?;
    print(&(hash_password(password.as_bytes(), salt) + "\n"))
}

fn line() -> io::Result<Zeroizing<String>> {
    let stdin = io::stdin();
    let mut line = Zeroizing::new(String::new());
    if !stdin.is_terminal() {
        stdin.lock().take(MAX_PASSWORD + 1).read_line(&mut line)?;
        return Ok(line);
    }
    let _ = io::stderr().write_all(b"Password: ");
    let before = tcgetattr(&stdin)?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent)?;
    let read = stdin.lock().take(MAX_PASSWORD + 1).read_line(&mut line);
    let _ = tcsetattr(&stdin, SetArg::TCSAFLUSH, &before);
    complain("");
    read.map(|_| line)
}
