//! The resolver against scripted name servers, honest and hostile.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
mod fake;
mod limits;
mod routes;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV6};
use std::path::Path;

use nix::net::if_::if_nametoindex;
use simple_dns::rdata::{A, AAAA, CNAME, MX, NS, RData, SOA};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord, TYPE};

use super::message::{self, Answer, Bad, RecordType};
use super::*;
use crate::testing::Scratch;
use fake::{Fake, pair};

fn name(text: &str) -> Name<'_> {
    Name::new(text).unwrap()
}

/// An exchanger of `example.org`.
fn mx_record(preference: u16, host: &'static str) -> ResourceRecord<'static> {
    let exchange = name(host);
    let mx = MX {
        preference,
        exchange,
    };
    record("example.org", 60, RData::MX(mx))
}

fn record<'a>(owner: &'a str, ttl: u32, data: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(name(owner), CLASS::IN, ttl, data)
}

fn a(octet: u8) -> RData<'static> {
    RData::A(A {
        address: u32::from(Ipv4Addr::new(192, 0, 2, octet)),
    })
}

fn reply(question: &Packet<'_>, records: Vec<ResourceRecord<'_>>) -> Vec<u8> {
    let mut reply = question.clone().into_reply();
    reply.answers = records;
    reply.build_bytes_vec().unwrap()
}

fn kind(question: &Packet<'_>) -> TYPE {
    match question.questions[0].qtype {
        simple_dns::QTYPE::TYPE(kind) => kind,
        other => panic!("{other:?}"),
    }
}

fn asks_for(question: &Packet<'_>, wanted: &str) -> bool {
    question.questions[0].qname.to_string() == wanted
}

fn with_code(question: &Packet<'_>, code: RCODE) -> Vec<u8> {
    let mut reply = question.clone().into_reply();
    *reply.rcode_mut() = code;
    reply.build_bytes_vec().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn both_families_and_aliases() {
    let fake = Fake::new(|question, _| {
        let alias = RData::CNAME(CNAME(name("Real.example.org")));
        let mut records = vec![record("www.example.org", 60, alias)];
        match kind(question) {
            TYPE::A => records.push(record("real.example.org", 60, a(1))),
            _ => records.push(record(
                "real.example.org",
                60,
                RData::AAAA(AAAA {
                    address: u128::from("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap()),
                }),
            )),
        }
        vec![reply(question, records)]
    });
    let resolver = fake.resolver();
    let found = resolver.addresses("WWW.example.org.").unwrap();
    assert_eq!(found, [ip("2001:db8::1"), ip("192.0.2.1")]);
    // Both answers are remembered for their time to live.
    assert_eq!(resolver.addresses("www.example.org"), Ok(found));
    assert_eq!(fake.asked(), 2);
    let ports = fake.ports.lock().unwrap();
    assert_ne!(ports[0], ports[1], "each question has a port of its own");
}

#[test]
fn aliases_are_followed_across_answers() {
    let fake = Fake::new(|question, _| {
        let data = if asks_for(question, "a.example") {
            record("a.example", 60, RData::CNAME(CNAME(name("b.example"))))
        } else {
            record("b.example", 60, a(7))
        };
        let mine = kind(question) == TYPE::A;
        vec![reply(question, if mine { vec![data] } else { vec![] })]
    });
    assert_eq!(
        fake.resolver().addresses("a.example"),
        Ok(vec![ip("192.0.2.7")])
    );
    // An alias of itself, from answer to answer.
    let fake = Fake::new(|question, _| {
        let (from, to) = if asks_for(question, "a.example") {
            ("a.example", "b.example")
        } else {
            ("b.example", "a.example")
        };
        vec![reply(
            question,
            vec![record(from, 60, RData::CNAME(CNAME(name(to))))],
        )]
    });
    assert!(matches!(
        fake.resolver().mx("a.example"),
        Err(Error::Temporary(_))
    ));
    assert!(fake.asked() <= 2, "the cache breaks the loop");
}

#[test]
fn the_exchangers_of_a_domain() {
    let fake = Fake::new(|question, _| {
        let odd = name("other.example");
        let stray = RData::MX(MX {
            preference: 1,
            exchange: odd,
        });
        let records = vec![
            mx_record(20, "b.example.org"),
            mx_record(10, "A.example.org"),
            mx_record(5, "with space.example.org"),
            record("evil.example", 60, stray),
        ];
        vec![reply(question, records)]
    });
    let mx = |preference, host: &str| Mx {
        preference,
        host: host.into(),
    };
    let found = fake.resolver().mx("example.org");
    let all = [mx(20, "b.example.org"), mx(10, "a.example.org"), mx(5, "?")];
    assert_eq!(found, Ok(all.to_vec()));
    let fake = Fake::new(|question, _| {
        let exchange = name(".");
        let null = RData::MX(MX {
            preference: 0,
            exchange,
        });
        vec![reply(question, vec![record("example.org", 60, null)])]
    });
    assert_eq!(fake.resolver().mx("example.org"), Ok(vec![mx(0, "")]));
}

/// A reply without records, and with the time for which that is cached (RFC 2308 §5).
fn negative(question: &Packet<'_>, code: RCODE, ttl: u32) -> Vec<Vec<u8>> {
    let mut reply = question.clone().into_reply();
    *reply.rcode_mut() = code;
    let soa = SOA {
        mname: name("ns.example"),
        rname: name("root.example"),
        serial: 1,
        refresh: 1,
        retry: 1,
        expire: 1,
        minimum: ttl,
    };
    let soa = record("example", 3_600, RData::SOA(soa));
    reply.name_servers.push(soa);
    vec![reply.build_bytes_vec().unwrap()]
}

#[test]
fn no_such_name_no_such_data_and_trouble() {
    let fake = Fake::new(move |question, _| {
        let code = match question.questions[0].qname.to_string().as_str() {
            "none.example" => RCODE::NameError,
            "broken.example" => return vec![with_code(question, RCODE::ServerFailure)],
            _ => RCODE::NoError,
        };
        let brief = asks_for(question, "brief.example");
        negative(question, code, if brief { 0 } else { 60 })
    });
    let resolver = fake.resolver();
    assert_eq!(resolver.mx("none.example"), Err(Error::NoSuchName));
    assert_eq!(resolver.mx("none.example"), Err(Error::NoSuchName));
    assert_eq!(fake.asked(), 1, "a negative answer is cached as well");
    assert_eq!(resolver.mx("brief.example"), Err(Error::NoData));
    assert_eq!(resolver.mx("brief.example"), Err(Error::NoData));
    assert_eq!(
        fake.asked(),
        3,
        "an answer with a time to live of zero is not cached"
    );
    assert_eq!(resolver.addresses("some.example"), Err(Error::NoData));
    assert!(matches!(
        resolver.mx("broken.example"),
        Err(Error::Temporary(_))
    ));
    for wrong in [
        "",
        ".",
        "a..b",
        "a b",
        "-\u{7f}",
        &"x".repeat(64),
        &"x.".repeat(200),
    ] {
        assert_eq!(resolver.addresses(wrong), Err(Error::NoSuchName), "{wrong}");
    }
}

#[test]
fn a_truncated_answer_is_asked_for_by_tcp() {
    let fake = Fake::new(|question, tcp| {
        if tcp {
            let host = question.questions[0].qname.to_string();
            let records = (0..200).map(|octet| record(&host, 60, a(octet)));
            return vec![reply(question, records.collect())];
        }
        let mut cut = question.clone().into_reply();
        cut.set_flags(PacketFlag::TRUNCATION);
        let mut cut = cut.build_bytes_vec().unwrap();
        // As dnscache does: the records are cut off, but still announced.
        if question.questions[0].qname == name("odd.example") {
            cut[7] = 200;
        }
        vec![cut]
    });
    for host in ["big.example", "odd.example"] {
        let found = fake.resolver().addresses(host);
        assert_eq!(found.map(|all| all.len()), Ok(200), "{host}");
    }
}

#[test]
fn answers_to_other_questions_are_dropped() {
    let fake = Fake::new(|question, _| {
        let right = reply(question, vec![record("x.example", 60, a(1))]);
        let evil = || vec![record("x.example", 60, a(66))];
        let mut wrong_id = question.clone();
        wrong_id.set_id(question.id() ^ 1);
        let mut other_name = question.clone();
        other_name.questions[0].qname = name("y.example");
        let mut other_kind = question.clone();
        other_kind.questions[0].qtype = simple_dns::QTYPE::TYPE(TYPE::TXT);
        let mut two = question.clone();
        two.questions.push(question.questions[0].clone());
        let mut none = question.clone();
        none.questions.clear();
        let mut not_a_reply = reply(question, evil());
        not_a_reply[2] &= 0x7f;
        vec![
            reply(&wrong_id, evil()),
            reply(&other_name, evil()),
            reply(&other_kind, evil()),
            reply(&two, evil()),
            reply(&none, evil()),
            not_a_reply,
            b"x".to_vec(),
            Vec::new(),
            right,
        ]
    });
    let resolver = fake.resolver();
    assert_eq!(resolver.addresses("x.example"), Ok(vec![ip("192.0.2.1")]));
    // Records of names that were not asked for are not believed, nor are any remembered.
    let fake =
        Fake::new(|question, _| vec![reply(question, vec![record("bank.example", 60, a(66))])]);
    let resolver = fake.resolver();
    assert_eq!(resolver.addresses("x.example"), Err(Error::NoData));
    let before = fake.asked();
    assert_eq!(
        resolver.addresses("bank.example"),
        Ok(vec![ip("192.0.2.66")])
    );
    assert!(fake.asked() > before);
}

#[test]
fn a_flood_of_wrong_answers_is_given_up() {
    let fake = Fake::new(|question, _| {
        let mut wrong = question.clone();
        wrong.set_id(question.id() ^ 1);
        let flood = reply(&wrong, vec![record("x.example", 60, a(66))]);
        vec![flood; 200]
    });
    assert!(matches!(
        fake.resolver().mx("x.example"),
        Err(Error::Temporary(_))
    ));
}

/// Loops of names and of aliases, records without end, and 64 KiB of anything.
#[test]
fn hostile_answers_end_in_bounded_time() {
    let question = message::question(7, "x.example", RecordType::A).unwrap();
    let read = |octets: &[u8]| message::answer(octets, 7, "x.example", RecordType::A);
    let packet = Packet::parse(&question).unwrap();
    let alias = |from, to| record(from, 60, RData::CNAME(CNAME(name(to))));
    let loops = vec![
        alias("x.example", "y.example"),
        alias("y.example", "x.example"),
    ];
    assert!(matches!(
        read(&reply(&packet, loops)),
        Ok(Answer::NoData(_))
    ));
    // A name that points at itself, after a correct question.
    let mut pointer = reply(&packet, vec![]);
    pointer[7] = 1;
    let place = u16::try_from(pointer.len()).unwrap();
    pointer.extend((0xc000 | place).to_be_bytes());
    pointer.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
    assert!(matches!(read(&pointer), Err(Bad::Failed(_))));
    // More records announced than there can be: refused before anything is set aside for them.
    let mut many = reply(&packet, vec![]);
    many[6..8].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(read(&many), Err(Bad::NotOurs));
    many.resize(65_535, 0);
    assert_eq!(read(&many), Err(Bad::NotOurs));
    many[6..8].copy_from_slice(&[1, 0xff]);
    assert!(matches!(read(&many), Err(Bad::Failed(_))));
    // Any change of any octet, and any cut, of a good answer.
    let good = reply(
        &packet,
        vec![
            alias("x.example", "y.example"),
            record("y.example", 60, a(1)),
        ],
    );
    for place in 0..good.len() {
        let _ = read(&good[..place]);
        for value in 0..=255 {
            let mut bent = good.clone();
            bent[place] = value;
            let _ = read(&bent);
        }
    }
}

#[test]
fn ttls_are_bounded() {
    let question = message::question(7, "x.example", RecordType::A).unwrap();
    let packet = Packet::parse(&question).unwrap();
    for (ttl, seconds) in [(60, 60), (u32::MAX, 0), (i32::MAX.unsigned_abs(), 86_400)] {
        let octets = reply(&packet, vec![record("x.example", ttl, a(1))]);
        let Ok(Answer::Found(_, lives)) = message::answer(&octets, 7, "x.example", RecordType::A)
        else {
            panic!("no answer");
        };
        assert_eq!(lives.as_secs(), seconds);
    }
}

#[test]
fn the_hosts_file_comes_first() {
    let dir = Scratch::new();
    let hosts = dir.file("hosts", "192.0.2.9 hop.example hop\n::1 hop\n");
    let resolver = Resolver::new(
        &hosts,
        Servers {
            attempts: 0,
            ..Servers::default()
        },
    );
    assert_eq!(resolver.addresses("HOP.example"), Ok(vec![ip("192.0.2.9")]));
    assert_eq!(
        resolver.addresses("hop"),
        Ok(vec![ip("192.0.2.9"), ip("::1")])
    );
    assert_eq!(resolver.addresses("localhost"), Ok(vec![ip("127.0.0.1")]));
    assert_eq!(resolver.addresses("::1"), Ok(vec![ip("::1")]));
    assert!(resolver.addresses("other").is_err());
}

#[test]
fn short_names_are_searched_for() {
    let fake = Fake::new(|question, _| {
        let known = asks_for(question, "hop.inside.example") && kind(question) == TYPE::A;
        let asked = question.questions[0].qname.to_string();
        vec![match known {
            true => reply(question, vec![record("hop.inside.example", 60, a(5))]),
            false if asked.ends_with(".failing.example") => {
                with_code(question, RCODE::ServerFailure)
            }
            false => with_code(question, RCODE::NoError),
        }]
    });
    let servers = Servers {
        addresses: vec![fake.address],
        search: vec!["outside.example".into(), "inside.example".into()],
        ..Servers::default()
    };
    let resolver = |servers| Resolver::new(Path::new("/nonexistent"), servers);
    let one = resolver(servers.clone());
    assert_eq!(one.addresses("hop"), Ok(vec![ip("192.0.2.5")]));
    assert_eq!(one.addresses("hop."), Err(Error::NoData));
    assert_eq!(one.addresses("hop.inside"), Err(Error::NoData));
    // As in a cluster of containers: `ndots:5`.
    let many = resolver(Servers {
        search: vec!["failing.example".into(), "example".into()],
        ndots: 2,
        ..servers
    });
    assert_eq!(many.addresses("hop.inside"), Ok(vec![ip("192.0.2.5")]));
    assert_eq!(many.addresses("a.b.inside"), Err(Error::NoData));
    assert!(matches!(many.addresses("x"), Err(Error::Temporary(_))));
}

/// A server that neither knows the name nor looks it up has not said that there is no such data.
#[test]
fn a_referral_is_no_answer() {
    for (authority, flags, expected) in [
        (RData::NS(NS(name("b.example"))), PacketFlag::empty(), None),
        (
            RData::NS(NS(name("b.example"))),
            PacketFlag::AUTHORITATIVE_ANSWER,
            Some(Error::NoData),
        ),
        (
            RData::NS(NS(name("b.example"))),
            PacketFlag::RECURSION_AVAILABLE,
            Some(Error::NoData),
        ),
        (a(1), PacketFlag::empty(), Some(Error::NoData)),
    ] {
        let authority = record("example", 60, authority);
        let fake = Fake::new(move |question, _| {
            let mut reply = question.clone().into_reply();
            reply.name_servers.push(authority.clone());
            reply.set_flags(flags);
            vec![reply.build_bytes_vec().unwrap()]
        });
        let found = fake.resolver().mx("example.org").unwrap_err();
        match expected {
            None => assert!(matches!(found, Error::Temporary(_)), "{found}"),
            Some(expected) => assert_eq!(found, expected),
        }
    }
}

/// Some servers say of a name with addresses of one family that it does not exist in the other (RFC 4074 §4.2).
#[test]
fn one_family_does_not_speak_for_the_other() {
    let fake = Fake::new(|question, _| {
        vec![match kind(question) {
            TYPE::A => reply(question, vec![record("four.example", 60, a(4))]),
            _ => with_code(question, RCODE::NameError),
        }]
    });
    let found = fake.resolver().addresses("four.example");
    assert_eq!(found, Ok(vec![ip("192.0.2.4")]));
}

#[test]
fn resolv_conf() {
    let text = "# x\nnameserver 192.0.2.1\nnameserver [::1]:5353\nnameserver junk\nsearch a b\n\
        options ndots:2 timeout:2 attempts:9\nnameserver ::2\nnameserver ::3\n";
    let servers = Servers::parse(text);
    let addresses: Vec<_> = servers.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.1:53", "[::1]:5353", "[::2]:53"]);
    assert_eq!(servers.search, ["a", "b"]);
    assert_eq!((servers.timeout.as_secs(), servers.attempts), (2, 5));
    assert_eq!(servers.ndots, 2);
    let zones = Servers::parse("nameserver fe80::1%nosuchzone\nnameserver fe80::1%lo\n");
    let zone = if_nametoindex("lo").unwrap_or(0);
    let lo = SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, zone);
    assert!(zone == 0 || zones.addresses == [lo.into()], "{zones:?}");
    let none = Servers::parse("options timeout:0 attempts:x ndots:0\n");
    assert_eq!(none.addresses, ["127.0.0.1:53".parse().unwrap()]);
    assert_eq!((none.timeout.as_secs(), none.attempts), (5, 2));
    assert_eq!(none.ndots, 1);
}
