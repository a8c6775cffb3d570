//! The extensions that a server offers in its reply to EHLO or LHLO.

use super::reply::RemoteReply;
use crate::auth::Mechanism;

/// The extensions that the client uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// SIZE is offered (RFC 1870).
    pub size: bool,
    /// The largest message in octets, if the server states one.
    pub max_size: Option<u64>,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// CHUNKING: BDAT (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME, which requires CHUNKING (RFC 3030).
    pub binary: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689).
    pub requiretls: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// Maximum messages of a connection: LIMITS MAILMAX (RFC 9422 §4.1).
    pub mail_max: Option<usize>,
    /// Maximum recipients of a transaction: LIMITS RCPTMAX (RFC 9422 §4.2).
    pub rcpt_max: Option<usize>,
    /// Maximum different domains of a transaction's recipients: LIMITS RCPTDOMAINMAX (RFC 9422 §4.3).
    pub domain_max: Option<usize>,
    /// The known AUTH mechanisms that it offers (RFC 4954).
    pub auth: Vec<Mechanism>,
}

/// Sets an extension from a keyword's parameters.
type SetExtension = fn(&mut Extensions, &str);

const KEYWORDS: &[(&str, SetExtension)] = &[
    ("SIZE", |all, words| {
        all.size = true;
        let number = words.split_whitespace().next().and_then(|w| w.parse().ok());
        all.max_size = number.filter(|&octets: &u64| octets > 0);
    }),
    ("PIPELINING", |all, _| all.pipelining = true),
    ("8BITMIME", |all, _| all.eight_bit = true),
    ("CHUNKING", |all, _| all.chunking = true),
    ("BINARYMIME", |all, _| all.binary = true),
    ("SMTPUTF8", |all, _| all.smtputf8 = true),
    ("REQUIRETLS", |all, _| all.requiretls = true),
    ("DSN", |all, _| all.dsn = true),
    ("STARTTLS", |all, _| all.starttls = true),
    ("LIMITS", |all, words| {
        let limits = words.split_whitespace().filter_map(|w| w.split_once('='));
        for (name, value) in limits {
            let limit = match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => &mut all.mail_max,
                "RCPTMAX" => &mut all.rcpt_max,
                "RCPTDOMAINMAX" => &mut all.domain_max,
                _ => continue,
            };
            let number = value.parse().ok().filter(|&count: &usize| count > 0);
            *limit = number.or(*limit);
        }
    }),
    ("AUTH", |all, words| {
        let known = words.split_whitespace().filter_map(Mechanism::parse);
        for mechanism in known {
            if !all.auth.contains(&mechanism) {
                all.auth.push(mechanism);
            }
        }
    }),
];

impl Extensions {
    /// The extensions of a server that only knows HELO: none.
    pub const NONE: Self = Self {
        size: false,
        max_size: None,
        pipelining: false,
        eight_bit: false,
        chunking: false,
        binary: false,
        smtputf8: false,
        requiretls: false,
        dsn: false,
        starttls: false,
        mail_max: None,
        rcpt_max: None,
        domain_max: None,
        auth: Vec::new(),
    };

    /// Parses the lines after the first in a reply to EHLO or LHLO. Unknown keywords are ignored.
    pub fn parse(reply: &RemoteReply) -> Self {
        let mut all = Self::NONE;
        for line in reply.lines().iter().skip(1) {
            // `AUTH=LOGIN` is the form before RFC 2554.
            let (word, rest) = line.split_once([' ', '=']).unwrap_or((line, ""));
            let row = KEYWORDS
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(word));
            if let Some((_, set)) = row {
                set(&mut all, rest);
            }
        }
        all.binary &= all.chunking;
        all
    }
}
