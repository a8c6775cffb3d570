//! Fatal errors and their exit statuses (sysexits.h). Replies to clients are in `smtp::reply`.

use std::fmt;
use std::path::Path;

use crate::read;

/// A fatal error, in one line.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// An unusable command line or environment: EX_USAGE.
    Usage(String),
    /// An error of the system: EX_OSERR.
    System(String),
    /// Another process uses what is needed, or no server runs: EX_TEMPFAIL.
    Busy(String),
    /// An unusable file: EX_CONFIG.
    File(String),
}

impl Failure {
    /// The exit status.
    pub const fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::System(_) => 71,
            Self::Busy(_) => 75,
            Self::File(_) => 78,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::System(text) | Self::Busy(text) | Self::File(text)) = self;
        f.write_str(text)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::File(error.0)
    }
}

/// An error in a file: `path:line: reason`.
#[derive(Debug, PartialEq, Eq)]
pub struct FileError(String);

impl FileError {
    /// An error of the whole file, or of one line, counted from 1.
    pub(crate) fn new(path: &Path, line: Option<usize>, reason: impl fmt::Display) -> Self {
        let path = path.display();
        Self(match line {
            Some(line) => format!("{path}:{line}: {reason}"),
            None => format!("{path}: {reason}"),
        })
    }

    /// Reads a UTF-8 file, without a byte order mark.
    pub(crate) fn read(path: &Path) -> Result<String, Self> {
        let octets = read::whole(path)
            .map_err(|e| Self::new(path, None, format_args!("cannot read: {e}")))?;
        String::from_utf8(octets).map_err(|e| {
            let good = e.as_bytes().iter().take(e.utf8_error().valid_up_to());
            let line = good.filter(|&&octet| octet == b'\n').count() + 1;
            Self::new(path, Some(line), "not UTF-8")
        })
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn faults_of_a_file_name_path_and_line() {
        let dir = Scratch::new();
        let path = dir.0.join("file");
        let name = path.display();
        let read = |octets: &[u8]| {
            let _ = std::fs::write(&path, octets);
            FileError::read(&path).map_err(|e| (e.to_string(), Failure::from(e).status()))
        };
        let mark = read("\u{feff}alice".as_bytes());
        let latin = read(b"a\nb\nM\xfcller\n");
        drop(dir);
        assert_eq!(mark, Ok("alice".to_owned()));
        assert_eq!(latin, Err((format!("{name}:3: not UTF-8"), 78)));
        assert!(
            FileError::read(&path).is_err_and(|e| e.to_string().starts_with(&name.to_string()))
        );
    }
}
