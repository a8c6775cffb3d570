//! DNS messages (RFC 1035): building a question, and checking the answer. An answer must have the id and the question
//! that were sent; of its records only those of the name, or of its aliases, count.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE};
use simple_dns::{ResourceRecord, TYPE};

/// Maximum records of an answer.
const MAX_RECORDS: usize = 512;
/// Maximum aliases followed within an answer.
const MAX_ALIASES: usize = 16;
/// Maximum time to cache an answer.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum time to cache a negative answer (RFC 2308 §5).
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(60 * 60);

/// TC in the flags (RFC 1035 §4.1.1).
const TRUNCATED: u8 = 0x02;

/// A name that no host has.
const UNUSABLE: &str = "?";

/// The type of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RecordType {
    A,
    Aaaa,
    Mx,
}

impl RecordType {
    fn code(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
            Self::Mx => TYPE::MX,
        }
    }
}

/// A mail exchanger (RFC 5321 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mx {
    /// Lower values are preferred.
    pub preference: u16,
    /// The host in ASCII; empty for the root, which means that the domain accepts no mail (RFC 7505).
    pub host: String,
}

/// The data of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Mx(Mx),
}

/// The content of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Data, and their time to live.
    Found(Vec<Data>, Duration),
    /// The name is an alias of another one, about which the answer has nothing.
    Alias(String, Duration),
    /// The name exists, but has no such data.
    NoData(Duration),
    /// The name does not exist.
    NoName(Duration),
}

/// Why an answer was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// It belongs to another question; the right one may still arrive.
    NotOurs,
    /// It is truncated: ask again by TCP.
    Truncated,
    /// The server reported an error.
    Failed(&'static str),
}

/// The question on the wire; `None` if the name is invalid.
pub(super) fn question(id: u16, name: &str, kind: RecordType) -> Option<Vec<u8>> {
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    let plain = |label: &str| !label.is_empty() && label.bytes().all(is_plain);
    if !labels.into_iter().all(plain) {
        return None;
    }
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(name).ok()?,
        QTYPE::TYPE(kind.code()),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.build_bytes_vec().ok()
}

/// Parses an answer to the question about `name`.
pub(super) fn answer(octets: &[u8], id: u16, name: &str, kind: RecordType) -> Result<Answer, Bad> {
    if !is_plausible(octets, id) {
        return Err(Bad::NotOurs);
    }
    // RFC 2181 §9: nothing else of it counts. dnscache cuts all records, but still announces them.
    if is_truncated(octets) {
        return Err(Bad::Truncated);
    }
    let packet = Packet::parse(octets).map_err(|_| Bad::Failed("the answer is malformed"))?;
    let [asked] = packet.questions.as_slice() else {
        return Err(Bad::NotOurs);
    };
    let ours = packet.opcode() == OPCODE::StandardQuery
        && spelled(&asked.qname).is_some_and(|asked| same(&asked, name))
        && asked.qtype == QTYPE::TYPE(kind.code())
        && asked.qclass == QCLASS::CLASS(CLASS::IN);
    if !ours {
        return Err(Bad::NotOurs);
    }
    match packet.rcode() {
        RCODE::NoError if is_referral(&packet) => {
            Err(Bad::Failed("the name server only refers to others"))
        }
        RCODE::NoError => Ok(found(&packet, name, kind)),
        RCODE::NameError => Ok(Answer::NoName(negative_ttl(&packet))),
        RCODE::ServerFailure => Err(Bad::Failed("the name server failed (SERVFAIL)")),
        RCODE::Refused => Err(Bad::Failed("the name server refused to answer")),
        _ => Err(Bad::Failed(
            "the name server did not understand the question",
        )),
    }
}

/// RFC 2308 §2.2: the answer of a server that neither has the name nor looks it up says nothing about it.
fn is_referral(packet: &Packet<'_>) -> bool {
    let has = |kind: TYPE| {
        let mut records = packet.name_servers.iter();
        records.any(|record| record.rdata.type_code() == kind)
    };
    let can_tell = [
        PacketFlag::AUTHORITATIVE_ANSWER,
        PacketFlag::RECURSION_AVAILABLE,
    ];
    packet.answers.is_empty()
        && !can_tell.into_iter().any(|flag| packet.has_flags(flag))
        && has(TYPE::NS)
        && !has(TYPE::SOA)
}

fn is_truncated(octets: &[u8]) -> bool {
    octets.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// Checks the header before anything is allocated: our id, an answer, one question, a plausible number of records.
fn is_plausible(octets: &[u8], id: u16) -> bool {
    let Some((header, rest)) = octets.split_first_chunk::<12>() else {
        return false;
    };
    let [id0, id1, flags, _, q0, q1, counts @ ..] = header;
    let (pairs, _) = counts.as_chunks::<2>();
    let records: usize = pairs
        .iter()
        .map(|pair| usize::from(u16::from_be_bytes(*pair)))
        .sum();
    u16::from_be_bytes([*id0, *id1]) == id
        && flags & 0x80 != 0
        && u16::from_be_bytes([*q0, *q1]) == 1
        && (is_truncated(octets) || records <= MAX_RECORDS.min(rest.len() / 11))
}

/// Follows the name through its aliases to the data.
fn found(packet: &Packet<'_>, name: &str, kind: RecordType) -> Answer {
    let mut current = name.to_owned();
    let mut ttl = MAX_TTL;
    for _ in 0..MAX_ALIASES {
        let of_name = |record: &&ResourceRecord<'_>| {
            record.class == CLASS::IN && spelled(&record.name).is_some_and(|n| same(&n, &current))
        };
        let mut data = Vec::new();
        let mut alias = None;
        for record in packet.answers.iter().filter(of_name) {
            if let Some(datum) = datum(record, kind) {
                ttl = ttl.min(seconds(record.ttl));
                data.push(datum);
            } else if let RData::CNAME(target) = &record.rdata {
                alias = spelled(&target.0).map(|target| (target, seconds(record.ttl)));
            }
        }
        match (data.is_empty(), alias) {
            (false, _) => return Answer::Found(data, ttl),
            (true, Some((target, alias_ttl))) => {
                ttl = ttl.min(alias_ttl);
                current = target;
            }
            (true, None) if same(&current, name) => return Answer::NoData(negative_ttl(packet)),
            (true, None) => return Answer::Alias(current, ttl),
        }
    }
    // A loop, or too long a chain: the name has no data.
    Answer::NoData(negative_ttl(packet))
}

fn datum(record: &ResourceRecord<'_>, kind: RecordType) -> Option<Data> {
    match (&record.rdata, kind) {
        (RData::A(a), RecordType::A) => Some(Data::Address(Ipv4Addr::from(a.address).into())),
        (RData::AAAA(a), RecordType::Aaaa) => Some(Data::Address(Ipv6Addr::from(a.address).into())),
        (RData::MX(mx), RecordType::Mx) => Some(Data::Mx(Mx {
            preference: mx.preference,
            // An exchanger without a usable name is no reason to try the domain itself (RFC 5321 §5.1).
            host: spelled(&mx.exchange).unwrap_or_else(|| UNUSABLE.to_owned()),
        })),
        _ => None,
    }
}

/// RFC 2308 §5: the lesser of the SOA's time to live and its minimum.
fn negative_ttl(packet: &Packet<'_>) -> Duration {
    let ttl = packet
        .name_servers
        .iter()
        .find_map(|record| match &record.rdata {
            RData::SOA(soa) => Some(seconds(record.ttl.min(soa.minimum))),
            _ => None,
        });
    ttl.unwrap_or_default().min(MAX_NEGATIVE_TTL)
}

/// RFC 2181 §8: a value with the top bit set is zero.
fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(if ttl > u32::MAX / 2 { 0 } else { ttl.into() })
}

/// A name in lower case; `None` if it has octets that no host name has.
fn spelled(name: &Name<'_>) -> Option<String> {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !label.iter().copied().all(is_plain) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(
            label
                .iter()
                .map(|octet| char::from(octet.to_ascii_lowercase())),
        );
    }
    Some(text)
}

/// True for octets of host and domain names.
const fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_')
}

fn same(a: &str, b: &str) -> bool {
    let absolute = |name| str::strip_suffix(name, ".").unwrap_or(name).to_owned();
    absolute(a).eq_ignore_ascii_case(&absolute(b))
}
