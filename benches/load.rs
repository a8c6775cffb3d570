//! The load generator: one thread for each session, and a shared counter of messages, so that they end together. It
//! knows reused and fresh connections, pipelining, DATA and BDAT, clear text and STARTTLS, SMTP and LMTP.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Instant;

use rustls::ClientConfig;

use crate::client::Client;
use crate::message::Template;
use crate::processes::{Usage, memory, usage};
use crate::server::Process;

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) sessions: usize,
    pub(crate) messages: usize,
    /// Octets of a message.
    pub(crate) size: usize,
    pub(crate) recipients: usize,
    /// True if a session reuses its connection, false for a connection for each message.
    pub(crate) reuse: bool,
    /// True if the envelope is sent in one write, and with BDAT the message as well.
    pub(crate) pipeline: bool,
    pub(crate) bdat: bool,
    pub(crate) tls: bool,
    pub(crate) lmtp: bool,
}

/// 4 KiB messages to one recipient over connections that are kept.
pub(crate) fn plain(sessions: usize, messages: usize) -> Load {
    Load {
        sessions,
        messages,
        size: 4096,
        recipients: 1,
        reuse: true,
        pipeline: false,
        bdat: false,
        tls: false,
        lmtp: false,
    }
}

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// To the last 250.
    pub(crate) seconds: f64,
    /// To the last message in its Maildir: later than the last 250 where that is for a queue.
    pub(crate) arrived: f64,
    pub(crate) messages: usize,
    pub(crate) size: usize,
    pub(crate) used: Usage,
    /// KiB, where it was read.
    pub(crate) peak: Option<u64>,
}

/// The commands of a message, rendered once.
struct Script {
    mail: Vec<u8>,
    recipients: Vec<Vec<u8>>,
    /// DATA, or BDAT with the number of octets.
    content: Vec<u8>,
}

impl Script {
    fn new(load: &Load, template: &Template) -> Self {
        let to = |number| format!("RCPT TO:<u{number}@bench.test>\r\n").into_bytes();
        Self {
            mail: b"MAIL FROM:<bench@bench.test>\r\n".to_vec(),
            recipients: (0..load.recipients).map(to).collect(),
            content: match load.bdat {
                true => format!("BDAT {} LAST\r\n", template.plain.len()).into_bytes(),
                false => b"DATA\r\n".to_vec(),
            },
        }
    }
}

/// Runs the workers in threads, each called with the numbers of the messages it is to send, and measures the server
/// `pid` from the moment all are ready to the moment the last one is done and `arrive` has returned.
pub(crate) fn measure<W>(
    pid: u32,
    messages: usize,
    size: usize,
    workers: Vec<W>,
    arrive: impl FnOnce() -> io::Result<()>,
) -> io::Result<Sample>
where
    W: FnMut(usize) -> io::Result<()> + Send,
{
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (next, failed) = (&next, &failed);
    let barrier = &Barrier::new(workers.len() + 1);
    let before = usage(pid)?;
    let (begun, outcome) = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                scope.spawn(move || {
                    barrier.wait();
                    while !failed.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= messages {
                            break;
                        }
                        worker(number).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                    }
                    Ok(())
                })
            })
            .collect();
        barrier.wait();
        let begun = Instant::now();
        let mut outcome = Ok(());
        for thread in threads {
            let ended: io::Result<()> = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            outcome = outcome.and(ended);
        }
        (begun, outcome)
    });
    let seconds = begun.elapsed().as_secs_f64();
    outcome?;
    arrive()?;
    Ok(Sample {
        seconds,
        arrived: begun.elapsed().as_secs_f64(),
        messages,
        size,
        used: usage(pid)?.since(before),
        peak: None,
    })
}

/// Sends the load and measures the server meanwhile. Where connections are reused, making them is not counted.
/// `arrive` waits for what is acknowledged and not yet in its Maildir.
pub(crate) fn run(
    server: &Process,
    load: &Load,
    template: &Template,
    tls: Option<&Arc<ClientConfig>>,
    arrive: impl FnOnce() -> io::Result<()>,
) -> io::Result<Sample> {
    let script = &Script::new(load, template);
    let mut workers = Vec::new();
    let kept = if load.reuse { load.sessions } else { 0 };
    let kept = opened(kept, || open(server, load, tls))?;
    let mut kept = kept.into_iter();
    for _ in 0..load.sessions {
        let mut kept = kept.next();
        let mut template = template.clone();
        workers.push(move |number| {
            template.set(number);
            if let Some(client) = &mut kept {
                return send(client, load, script, &template);
            }
            let mut client = open(server, load, tls)?;
            send(&mut client, load, script, &template)?;
            client.quit()
        });
    }
    let size = template.plain.len();
    let sample = measure(server.pid(), load.messages, size, workers, arrive)?;
    Ok(Sample {
        peak: Some(memory(server.pid(), "VmHWM")?),
        ..sample
    })
}

/// Opens so many connections, in a thread of its own. Linux remembers of a thread that it wakes many others
/// (`wakee_flips` of its scheduler) and hands that on to the threads it makes, for seconds: senders made by the thread
/// that opened a thousand connections are not kept on the core where their servers are, and send a fifth less.
pub(crate) fn opened(
    count: usize,
    open: impl Fn() -> io::Result<Client> + Sync,
) -> io::Result<Vec<Client>> {
    let all = || (0..count).map(|_| open()).collect();
    std::thread::scope(|scope| {
        let joined = scope.spawn(all).join();
        joined.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// A connection up to the reply to EHLO.
fn open(server: &Process, load: &Load, tls: Option<&Arc<ClientConfig>>) -> io::Result<Client> {
    let mut client = Client::connect(server.address)?;
    client.hello(load.lmtp, tls.filter(|_| load.tls))?;
    for (wanted, keyword) in [(load.pipeline, "PIPELINING"), (load.bdat, "CHUNKING")] {
        if wanted && !client.offers(keyword) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("no {keyword}"),
            ));
        }
    }
    Ok(client)
}

/// One message and all replies to it.
fn send(client: &mut Client, load: &Load, script: &Script, template: &Template) -> io::Result<()> {
    let content = match load.bdat {
        true => &template.plain,
        false => &template.dotted,
    };
    let mut batch = Vec::new();
    if load.pipeline {
        batch.extend_from_slice(&script.mail);
        script
            .recipients
            .iter()
            .for_each(|to| batch.extend_from_slice(to));
        batch.extend_from_slice(&script.content);
        if load.bdat {
            batch.extend_from_slice(content);
        }
        client.send(&batch)?;
        for _ in 0..=script.recipients.len() {
            client.expect(250)?;
        }
    } else {
        client.send(&script.mail)?;
        client.expect(250)?;
        for to in &script.recipients {
            client.send(to)?;
            client.expect(250)?;
        }
        batch.extend_from_slice(&script.content);
        if load.bdat {
            batch.extend_from_slice(content);
        }
        client.send(&batch)?;
    }
    if !load.bdat {
        client.expect(354)?;
        client.send(content)?;
    }
    // After the end LMTP answers for each recipient (RFC 2033), SMTP once.
    for _ in 0..if load.lmtp {
        script.recipients.len()
    } else {
        1
    } {
        client.expect(250)?;
    }
    Ok(())
}
