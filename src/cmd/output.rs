//! Prints what the commands say. The macros of the standard library would panic at a closed pipe or a full disk.

use std::io::{self, ErrorKind, Write as _};

use crate::encoding::visible;
use crate::failure::Failure;

/// Prints text on standard output. A reader that has closed its end has read what it wanted.
///
/// # Errors
/// The text cannot be written (71).
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::System(format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints one line on standard error, if that is possible: the exit status says the same. Parts of it come out of files,
/// so control characters are escaped.
pub fn complain(line: &str) {
    let line = visible(&line.replace('\n', "\\n")) + "\n";
    let _ = io::stderr().write_all(line.as_bytes());
}
