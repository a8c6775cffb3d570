//! The content of a message for a hop: its properties, and which octets are sent.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use crate::client::{Connection, Sent};
use crate::queue::{Envelope, QueuedContent, QueuedRecipient};
use crate::read;
use crate::report;
use crate::smtp::client::{ClientEnvelope, Content, Rcpt, Scan};

/// Octets read at a time.
const PIECE: usize = 32 * 1024;

/// A content and its properties.
pub(super) struct Prepared {
    octets: QueuedContent,
    /// Octets of this host's own delivery headers, which are not sent.
    skip: usize,
    content: Content,
}

impl Prepared {
    /// Scans the content. A file that fits into one piece is not read again.
    pub(super) fn open(octets: QueuedContent, exact_from: Option<u64>) -> io::Result<Self> {
        let file = match octets {
            QueuedContent::Memory(octets) => return Self::small(octets, exact_from),
            QueuedContent::File(file) => file,
        };
        let mut start = Vec::new();
        (&file).take(PIECE as u64 + 1).read_to_end(&mut start)?;
        if start.len() <= PIECE {
            return Self::small(start.into(), exact_from);
        }
        Self::large(file, start, exact_from)
    }

    fn small(octets: Arc<[u8]>, exact_from: Option<u64>) -> io::Result<Self> {
        let (skip, scan) = begin(&octets, exact_from)?;
        Ok(Self {
            octets: QueuedContent::Memory(octets),
            skip,
            content: scan.finish(),
        })
    }

    /// `piece` has the first octets, which were read from the file.
    fn large(mut file: File, mut piece: Vec<u8>, exact_from: Option<u64>) -> io::Result<Self> {
        let (skip, mut scan) = begin(&piece, exact_from)?;
        loop {
            match read::piece(&mut file, &mut piece)? {
                [] => break,
                octets => scan.feed(octets),
            }
        }
        Ok(Self {
            octets: QueuedContent::File(file),
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
        let offered = connection.extensions().eight_bit;
        let ascii = envelope.report && self.content.eight_bit && !offered;
        let mut ascii = ascii.then(|| self.in_ascii()).flatten();
        let content = ascii.as_mut().unwrap_or(self);
        let envelope = ClientEnvelope {
            reverse_path: envelope.from.clone(),
            recipients: batch.iter().map(rcpt).collect(),
            content: content.content,
            smtputf8: envelope.smtputf8 && content.content.utf8_header,
            requiretls: envelope.requiretls,
            ret: envelope.ret.clone(),
            envid: envelope.envid.clone(),
        };
        connection.deliver(envelope, &mut content.message())
    }

    /// A report of this host for a hop without 8BITMIME.
    fn in_ascii(&mut self) -> Option<Self> {
        let coded = report::in_ascii(&self.start(usize::MAX));
        Self::small(coded.into(), None).ok()
    }

    /// The first octets of the message.
    pub(super) fn start(&mut self, most: usize) -> Vec<u8> {
        let mut octets = Vec::new();
        let _ = self.message().take(most as u64).read_to_end(&mut octets);
        octets
    }

    /// The message from its start. After an error it is shorter than announced, so that no transaction is completed.
    fn message(&mut self) -> Box<dyn BufRead + '_> {
        match &mut self.octets {
            QueuedContent::Memory(octets) => Box::new(octets.get(self.skip..).unwrap_or_default()),
            QueuedContent::File(file) => match file.seek(SeekFrom::Start(self.skip as u64)) {
                Ok(_) => Box::new(BufReader::with_capacity(PIECE, file)),
                Err(_) => Box::new(io::empty()),
            },
        }
    }
}

/// Finds the start of the message after this host's own headers, which are in the first piece, and scans that piece.
fn begin(piece: &[u8], exact_from: Option<u64>) -> io::Result<(usize, Scan)> {
    let skip = own_headers(piece);
    let mut scan = Scan::new(exact_from.map(|from| from.saturating_sub(skip as u64)));
    scan.feed(piece.get(skip..).ok_or(io::ErrorKind::InvalidData)?);
    Ok((skip, scan))
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
