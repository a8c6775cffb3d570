//! The hosts of a domain, from the DNS to the addresses that are tried.

use super::*;
use crate::net::dial::{Unroutable, exchangers};

/// Exchangers of `example.org` by preference and octet of their address; 0 is a name that does not exist, 255 one that
/// cannot be told.
fn hosts(table: &'static [(u16, &'static str, u8)]) -> Fake {
    Fake::new(move |question, _| {
        let asked = question.questions[0].qname.to_string();
        if asked == "example.org" && kind(question) == TYPE::MX {
            let mx = table
                .iter()
                .map(|(preference, host, _)| mx_record(*preference, host));
            return vec![reply(question, mx.collect())];
        }
        let octet = table.iter().find(|(_, host, _)| *host == asked);
        match octet.map_or(0, |(.., octet)| *octet) {
            0 => vec![with_code(question, RCODE::NameError)],
            255 => vec![with_code(question, RCODE::ServerFailure)],
            octet if kind(question) == TYPE::A => {
                vec![reply(question, vec![record(&asked, 60, a(octet))])]
            }
            _ => vec![reply(question, vec![])],
        }
    })
}

/// The hosts that are tried; `192.0.2.9` is this one.
fn route(fake: &Fake, domain: &str) -> Result<Vec<String>, Unroutable> {
    let own = |name: &str, addresses: &[IpAddr]| {
        name == "myself.example" || addresses.contains(&ip("192.0.2.9"))
    };
    let found = exchangers(&fake.resolver(), domain, &own)?;
    Ok(found.into_iter().map(|exchanger| exchanger.host).collect())
}

fn best(table: &'static [(u16, &'static str, u8)]) -> Result<Vec<String>, Unroutable> {
    route(&hosts(table), "example.org")
}

#[test]
fn the_best_exchanger_comes_first() {
    let found = best(&[
        (20, "b.example", 2),
        (10, "a.example", 1),
        (30, "gone.example", 0),
    ]);
    assert_eq!(found, Ok(vec!["a.example".into(), "b.example".into()]));
    // Those of one preference take turns.
    let equal = || {
        best(&[
            (10, "a.example", 1),
            (10, "b.example", 2),
            (10, "c.example", 3),
        ])
        .unwrap()
    };
    let first = equal();
    assert_eq!(first.len(), 3);
    assert!((0..200).any(|_| equal() != first));
}

#[test]
fn this_host_drops_out_with_all_that_are_not_better() {
    let found = best(&[
        (10, "a.example", 1),
        (20, "me.example", 9),
        (20, "b.example", 2),
        (30, "c.example", 3),
    ]);
    assert_eq!(found, Ok(vec!["a.example".into()]));
    assert_eq!(
        best(&[(10, "me.example", 9), (20, "b.example", 2)]),
        Err(Unroutable::Loop)
    );
    // By its name, whatever that is as an address.
    for found in [
        best(&[
            (10, "a.example", 1),
            (20, "myself.example", 0),
            (30, "c.example", 4),
        ]),
        best(&[
            (10, "a.example", 1),
            (20, "myself.example", 3),
            (30, "c.example", 4),
        ]),
        best(&[
            (10, "a.example", 1),
            (20, "myself.example", 255),
            (30, "c.example", 4),
        ]),
    ] {
        assert_eq!(found, Ok(vec!["a.example".into()]));
    }
    // A better one that cannot be told now may be the way.
    let found = best(&[(10, "slow.example", 255), (20, "me.example", 9)]);
    assert!(matches!(found, Err(Unroutable::Later(_))), "{found:?}");
}

#[test]
fn domains_without_exchangers() {
    // No MX: the domain's own address. None: no such domain.
    let fake = hosts(&[(0, "plain.example", 4)]);
    assert_eq!(
        route(&fake, "plain.example"),
        Ok(vec!["plain.example".into()])
    );
    assert_eq!(route(&fake, "gone.example"), Err(Unroutable::NoSuchDomain));
    assert_eq!(
        best(&[(10, "gone.example", 0)]),
        Err(Unroutable::NoSuchDomain)
    );
    assert!(matches!(
        best(&[(10, "slow.example", 255)]),
        Err(Unroutable::Later(_))
    ));
    assert_eq!(best(&[(0, ".", 0)]), Err(Unroutable::NullMx));
    // The root among others is not an exchanger.
    assert_eq!(
        best(&[(0, ".", 0), (10, "a.example", 1)]),
        Ok(vec!["a.example".into()])
    );
}

#[test]
fn literals_are_their_own_route() {
    let fake = hosts(&[]);
    assert_eq!(route(&fake, "[192.0.2.7]"), Ok(vec!["192.0.2.7".into()]));
    assert_eq!(
        route(&fake, "[IPv6:2001:db8::7]"),
        Ok(vec!["2001:db8::7".into()])
    );
    assert_eq!(route(&fake, "[192.0.2.9]"), Err(Unroutable::Loop));
    assert_eq!(route(&fake, "[x]"), Err(Unroutable::NoSuchDomain));
    assert_eq!(fake.asked(), 0);
}

/// The name of an exchanger is whole, and one that is no host name is no reason to try the domain itself.
#[test]
fn names_of_exchangers_are_taken_as_they_are() {
    let fake = Fake::new(|question, _| {
        let asked = question.questions[0].qname.to_string();
        vec![match (asked.as_str(), kind(question)) {
            ("example.org", TYPE::MX) => reply(question, vec![mx_record(10, "mail")]),
            ("odd.example", TYPE::MX) => {
                let exchange = name("a b.example");
                let preference = 1;
                let odd = MX {
                    preference,
                    exchange,
                };
                reply(question, vec![record("odd.example", 60, RData::MX(odd))])
            }
            ("mail.inside.example" | "odd.example", TYPE::A) => {
                let known = record(&asked, 60, a(1));
                reply(question, vec![known])
            }
            ("mail.inside.example" | "odd.example", _) => reply(question, vec![]),
            _ => with_code(question, RCODE::NameError),
        }]
    });
    let servers = Servers {
        addresses: vec![fake.address],
        search: vec!["inside.example".into()],
        ..Servers::default()
    };
    let resolver = Resolver::new(Path::new("/nonexistent"), servers);
    for domain in ["example.org", "odd.example"] {
        let found = exchangers(&resolver, domain, &|_, _| false);
        assert_eq!(found, Err(Unroutable::NoSuchDomain), "{domain}");
    }
}
