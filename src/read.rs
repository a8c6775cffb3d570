//! Reading content piece by piece, in constant memory.

use std::io::{self, ErrorKind, Read};

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
