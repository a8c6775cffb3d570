//! Log lines for stderr. One thread writes them from a bounded queue, so that a stalled reader never delays mail; lines
//! that do not fit are dropped and counted. Under systemd a line begins with its priority, `<6>`, and has no timestamp.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use env_logger::{Builder, Env, Target};
use log::Level;

use crate::lock::lock;

/// Maximum octets in the queue.
const ROOM: usize = 256 * 1024;
/// Lines within this time are written together.
const GATHER: Duration = Duration::from_millis(2);
/// Maximum time between two tries to write to a full stream that does not block.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

#[derive(Default)]
struct LogQueue {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicUsize,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Dropped lines that were not reported yet.
    dropped: usize,
    /// True while the writing thread waits for a line.
    idle: bool,
    /// True while lines are being written.
    writing: bool,
}

/// Starts logging at `level`, unless RUST_LOG says otherwise.
///
/// # Errors
/// The thread or a descriptor is not available.
pub fn init(level: &str) -> io::Result<()> {
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let journal = std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_journal(&stderr, &stream));
    let queue = Arc::new(LogQueue::default());
    let own = Arc::clone(&queue);
    let mut builder = Builder::from_env(Env::default().default_filter_or(level));
    if journal {
        builder
            .format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args()));
    }
    builder.target(Target::Pipe(Box::new(LogWriter(Arc::clone(&queue)))));
    std::thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(move || own.run(&stderr))?;
    builder.init();
    // The default panic handler writes to stderr and may block.
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    let _ = QUEUE.set(queue);
    Ok(())
}

/// Waits until pending lines are written, at most a second.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        let waiting = |state: &mut State| state.writing || !state.lines.is_empty();
        let _ = queue
            .changed
            .wait_timeout_while(queue.lock(), LAST_LINES, waiting);
    }
}

/// Lines that were dropped so far.
pub fn dropped() -> usize {
    let queue = QUEUE.get();
    queue.map_or(0, |queue| queue.dropped.load(Ordering::Relaxed))
}

/// True if JOURNAL_STREAM, `DEVICE:INODE`, is this file (systemd.exec(5)).
fn is_journal(stderr: &File, stream: &str) -> bool {
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    let meta = stderr.metadata();
    meta.is_ok_and(|meta| device.parse() == Ok(meta.dev()) && inode.parse() == Ok(meta.ino()))
}

/// A priority of syslog (sd-daemon(3)).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The logger's output; each line is one write.
struct LogWriter(Arc<LogQueue>);

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LogQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len().saturating_add(line.len()) > ROOM {
            state.dropped += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(line);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        if idle {
            self.changed.notify_all();
        }
    }

    fn run(&self, stderr: &File) {
        loop {
            let nothing = |state: &mut State| {
                state.idle = state.lines.is_empty();
                state.idle
            };
            let mut state = self
                .changed
                .wait_while(self.lock(), nothing)
                .unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut state.lines);
            let dropped = std::mem::take(&mut state.dropped);
            state.writing = true;
            drop(state);
            // Without stderr there is nowhere to report this.
            let _ = write(stderr, &lines);
            if dropped > 0 {
                log::warn!("{dropped} log lines were dropped, their reader did not keep up");
            }
            self.lock().writing = false;
            self.changed.notify_all();
            // The first line goes out at once; those of a busy server are gathered meanwhile.
            std::thread::sleep(GATHER);
        }
    }
}

/// Writes lines. Another process may have made the stream non-blocking, as runtimes do with one that they share; a full
/// one is waited for all the same, or lines would be lost that nobody counts.
fn write(mut stream: impl Write, mut lines: &[u8]) -> io::Result<()> {
    let mut pause = GATHER;
    while !lines.is_empty() {
        match stream.write(lines) {
            // As of `write_all`.
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                lines = lines.get(written..).ok_or(ErrorKind::InvalidInput)?;
                pause = GATHER;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(pause);
                // Its reader may have stopped for good.
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_queue_that_nobody_empties_is_bounded() {
        let queue = LogQueue::default();
        let line = [b'x'; 1_000];
        (0..1_000).for_each(|_| queue.add(&line));
        let kept = queue.lock().lines.len();
        assert!(kept <= ROOM && kept > ROOM - 1_000, "{kept}");
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 1_000 - kept / 1_000);
    }

    /// With a reader that is slower than the lines are written.
    #[test]
    fn a_stream_that_does_not_block_gets_all_lines() {
        use nix::fcntl::OFlag;
        use std::io::Read as _;
        let (reader, writer) = nix::unistd::pipe().unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let lines = vec![b'x'; 500_000];
        let written = std::thread::spawn(move || write(&File::from(writer), &lines));
        let mut read = Vec::new();
        File::from(reader).read_to_end(&mut read).unwrap();
        assert_eq!(
            (read.len(), written.join().unwrap().is_ok()),
            (500_000, true)
        );
    }

    /// A reader that has stopped costs no processor time.
    #[test]
    fn a_full_stream_is_asked_less_and_less_often() {
        struct Full(u32);
        impl Write for Full {
            fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                match self.0 {
                    12 => Ok(lines.len()),
                    _ => Err(ErrorKind::WouldBlock.into()),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let begun = std::time::Instant::now();
        assert!(write(Full(0), b"x").is_ok() && write(&mut [][..], b"x").is_err());
        assert!(begun.elapsed() >= LONGEST_PAUSE * 5);
    }

    #[test]
    fn a_stream_is_the_journal_by_device_and_inode() {
        let file = File::open("/dev/null").unwrap();
        let meta = file.metadata().unwrap();
        let stream = |device, inode| is_journal(&file, &format!("{device}:{inode}"));
        assert!(stream(meta.dev(), meta.ino()));
        assert!(!stream(meta.dev(), meta.ino() + 1) && !stream(meta.dev() + 1, meta.ino()));
        assert!(!is_journal(&file, "") && !is_journal(&file, "x:y"));
    }
}
