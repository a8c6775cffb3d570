//! Reading: content piece by piece, in constant memory, whole files of the configuration, and those of the system.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

/// Maximum octets read from a pipe or a device, which may have no end, and from a file of the system.
const MAX_STREAM: u64 = 16 << 20;
/// Maximum time for the octets of a pipe.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Maximum time until a pipe has a writer.
const MAX_ABSENCE: Duration = Duration::from_secs(2);
/// The polling interval.
const PAUSE: Duration = Duration::from_millis(5);
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The octets of a file, without the byte order mark that some editors write. A pipe, as shells make for `<(command)`,
/// is read for a limited time.
///
/// # Errors
/// Those of the system; a pipe without a writer, or one that is too slow or too long.
pub(crate) fn whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = within(path, MAX_ABSENCE)?;
    if octets.starts_with(BYTE_ORDER_MARK) {
        octets.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(octets)
}

/// The text of a file of the system, such as /etc/hosts, with U+FFFD for invalid UTF-8.
///
/// # Errors
/// Those of the system.
pub(crate) fn system_file(path: impl AsRef<Path>) -> io::Result<String> {
    let mut octets = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_STREAM).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

fn within(path: &Path, absence: Duration) -> io::Result<Vec<u8>> {
    // A FIFO that nobody writes to would block otherwise.
    let flags = OFlag::O_NONBLOCK.bits();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    let mut octets = Vec::new();
    if kind.is_file() {
        file.read_to_end(&mut octets)?;
        return Ok(octets);
    }
    let begun = Instant::now();
    let mut file = file.take(MAX_STREAM + 1);
    loop {
        let most = match file.read_to_end(&mut octets) {
            Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
            Err(_) => MAX_WAIT,
            Ok(_) if kind.is_fifo() && octets.is_empty() => absence,
            Ok(_) => break,
        };
        if begun.elapsed() >= most {
            return Err(io::Error::other("a pipe that nobody writes to"));
        }
        sleep(PAUSE);
    }
    match octets.len() as u64 {
        ..=MAX_STREAM => Ok(octets),
        _ => Err(io::Error::other("it is not a file and has no end")),
    }
}

/// The next octets, as many as there are up to the size of `room`; empty at the end. Interrupted reads are retried.
///
/// # Errors
/// That of the read, and `InvalidData` if the reader claims more octets than there was room for.
pub(crate) fn piece<'a>(
    from: &mut (impl Read + ?Sized),
    room: &'a mut [u8],
) -> io::Result<&'a [u8]> {
    let octets = loop {
        match from.read(room) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    let read = room.get(..octets);
    read.ok_or_else(|| ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader with prepared answers.
    struct Lying(Vec<io::Result<usize>>);

    impl Read for Lying {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            room.fill(b'x');
            self.0.remove(0)
        }
    }

    /// Files that cannot be read end with an error, and pipes are read.
    #[test]
    fn nothing_is_waited_for_without_end() {
        let name = format!("mailslot-read-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mode = nix::sys::stat::Mode::S_IRWXU;
        assert!(nix::unistd::mkfifo(&path, mode).is_ok());
        assert!(within(&path, Duration::ZERO).is_err(), "without a writer");
        let writer = OpenOptions::new().read(true).write(true).open(&path);
        // While it is open the pipe keeps what was written.
        let keeper = OpenOptions::new().read(true).open(&path);
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| whole(&path));
            for text in ["alice\n", "bob\n"] {
                let _ = std::fs::write(&path, text);
            }
            drop(writer);
            reader.join().map(|read| read.ok())
        });
        let _ = std::fs::remove_file(&path);
        assert!(keeper.is_ok());
        assert_eq!(read.ok().flatten().as_deref(), Some(&b"alice\nbob\n"[..]));
        assert!(whole(Path::new("/dev/zero")).is_err());
        assert!(whole(Path::new("/dev/null")).is_ok_and(|octets| octets.is_empty()));
        assert!(whole(Path::new("/")).is_err());
    }

    #[test]
    fn pieces_are_whole_or_an_error() {
        let interrupted = || Err(ErrorKind::Interrupted.into());
        let mut told = Lying(vec![interrupted(), Ok(3), interrupted(), Ok(0), Ok(5)]);
        let mut room = [0; 4];
        assert!(piece(&mut told, &mut room).is_ok_and(|read| read == b"xxx"));
        assert!(piece(&mut told, &mut room).is_ok_and(<[u8]>::is_empty));
        let wrong = piece(&mut told, &mut room);
        assert!(wrong.is_err_and(|e| e.kind() == ErrorKind::InvalidData));
    }
}
