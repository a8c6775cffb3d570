//! The content of a message for a hop: its properties, and which octets are sent.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use crate::client::{Connection, Sent};
use crate::queue::{Envelope, QueuedRecipient};
use crate::read;
use crate::smtp::client::{ClientEnvelope, Content, Rcpt, Scan};

/// Octets read at a time.
const PIECE: usize = 32 * 1024;

/// A content file and its properties.
pub(super) struct Prepared {
    file: File,
    /// All of it, if it fits into one piece.
    whole: Option<Vec<u8>>,
    /// Octets of this host's own delivery headers, which are not sent.
    skip: usize,
    content: Content,
}

impl Prepared {
    pub(super) fn open(mut file: File, exact_from: Option<u64>) -> io::Result<Self> {
        let mut start = Vec::with_capacity(PIECE + 1);
        file.by_ref()
            .take(PIECE as u64 + 1)
            .read_to_end(&mut start)?;
        // This host's own headers are in the first piece.
        let skip = own_headers(&start);
        let mut scan = Scan::new(exact_from.map(|from| from.saturating_sub(skip as u64)));
        scan.feed(start.get(skip..).ok_or(io::ErrorKind::InvalidData)?);
        let is_whole = start.len() <= PIECE;
        if !is_whole {
            start.resize(PIECE, 0);
            loop {
                match read::piece(&mut file, &mut start)? {
                    [] => break,
                    octets => scan.feed(octets),
                }
            }
        }
        Ok(Self {
            file,
            whole: is_whole.then_some(start),
            skip,
            content: scan.finish(),
        })
    }

    pub(super) fn send(
        &mut self,
        connection: &mut Connection,
        envelope: &Envelope,
        batch: &[QueuedRecipient],
    ) -> Sent {
        let rcpt = |to: &QueuedRecipient| Rcpt {
            path: to.address.clone(),
            notify: to.notify.clone(),
            orcpt: to.orcpt.clone(),
        };
        let envelope = ClientEnvelope {
            reverse_path: envelope.from.clone(),
            recipients: batch.iter().map(rcpt).collect(),
            content: self.content,
            smtputf8: envelope.smtputf8 && self.content.utf8_header,
            requiretls: envelope.requiretls,
            ret: envelope.ret.clone(),
            envid: envelope.envid.clone(),
        };
        let whole = self.whole.as_ref();
        if let Some(mut octets) = whole.and_then(|whole| whole.get(self.skip..)) {
            return connection.deliver(envelope, &mut octets);
        }
        // If this fails the content is shorter than announced, and the transaction is not completed.
        let _ = self.file.seek(SeekFrom::Start(self.skip as u64));
        connection.deliver(envelope, &mut self.file)
    }

    /// The first octets of the message.
    pub(super) fn start(&mut self, most: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        let read = self.file.seek(SeekFrom::Start(self.skip as u64));
        let _ = read.and_then(|_| (&self.file).take(most as u64).read_to_end(&mut octets));
        octets
    }
}

/// Octets of the headers that final delivery adds on top: they are only for this host (RFC 5321 §4.4).
fn own_headers(start: &[u8]) -> usize {
    let own: [&[u8]; 3] = [b"Return-Path:", b"Delivered-To:", b"X-Original-To:"];
    let mut length = 0;
    for line in start.split_inclusive(|&octet| octet == b'\n') {
        if !own.iter().any(|name| line.starts_with(name)) {
            break;
        }
        length += line.len();
    }
    length
}
