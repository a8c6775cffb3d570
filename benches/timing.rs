//! Checks that the time of a failed login does not reveal accounts: for each stored form and mechanism, medians of
//! known, unknown and locked accounts, in turns, without a network. It fails if they are more than 5 % and 5 µs apart
//! in each of some tries, because other programs disturb single ones. `make timing`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::time::Instant;

use mailslot::auth::{Account, Accounts, Decoy, Exchange, ExchangeContext, Mechanism, Progress};
use mailslot::directory::{Directory, DirectoryConfig};
use mailslot::encoding::base64_encode;

/// Wrong logins of each account.
const COUNT: usize = 200;
/// The most that medians may be apart, in percent and in microseconds, and tries until they are not.
const APART: (f64, f64) = (5.0, 5.0);
const TRIES: usize = 5;
/// One for each kind of account, of equal length.
const NAMES: [&str; 3] = ["known", "never", "bared"];
/// All are hashes of one password, by crypt(3) and Dovecot.
const FORMS: &[&str] = &[
    "{PLAIN}test",
    "{SCRAM-SHA-256}4096,LfNGSFqiFykEZ1xDAYlnKQ==,HACNf9CII7cMz3XjRy/Oh3Ae2LHApoDyNw74d3YtFws=,AQH0j7Hf8J12g8eNBadvzlNB2am3PxgNwFCFd3RxEaw=",
    "{CRAM-MD5}e02d374fde0dc75a17a557039a3a5338c7743304777dccd376f332bee68d2cf6",
    "{SSHA256}Tt8H7clbL9y8ryN4/RLYrCEsKqbjJsWcPmKb4wOdZDJzYWx0",
    "{SSHA512}bIOOk04/7vrmz6U68RN11JVPhcb17YiMAs14BqcWltHLRJ8r546ebqMBqVyB8orYdm865YL5vqrDPH3Ct7qRh3NhbHQ=",
    "{SHA256-CRYPT}$5$saltstringsaltst$wxKfgF9ROrDi2eWDUkiNaB7rcE2oXFI35XHPWN0c.JC",
    "{SHA512-CRYPT}$6$saltstringsaltst$HMHSI6FsDozfEaDxKOpHtiREnVpWv9VRjtg.qYS6lpq99u.mv.IbSm8rn/aRO0h1WQoi4J..CG98tO5ip1HQu0",
];

struct Users(Directory);

impl Accounts for Users {
    fn account(&mut self, login: &str) -> Account {
        self.0.account(login)
    }

    fn decoy(&self) -> Decoy {
        self.0.decoy()
    }
}

fn main() {
    let file = std::env::temp_dir().join(format!("mailslot-timing-{}", std::process::id()));
    println!(
        "{:>16} {:>14} {:>9} {:>9} {:>9}  apart",
        "form", "mechanism", "known", "unknown", "locked"
    );
    let mut told = Vec::new();
    let one = |form: &&str| vec![(*form).to_owned()];
    let mixed = FORMS.iter().map(|form| (*form).to_owned()).collect();
    for forms in FORMS.iter().map(one).chain([mixed]) {
        let more = forms.iter().skip(1).enumerate();
        let more: String = more.map(|(n, form)| format!("other{n}:{form}\n")).collect();
        let users = format!("known:{}\nbared:!\n{more}", forms[0]);
        std::fs::write(&file, users).unwrap();
        let mut users = Users(directory(&file));
        let name = match forms.as_slice() {
            [form] => form.split(['{', '}']).nth(1).unwrap(),
            _ => "all of them",
        };
        for mechanism in users.0.mechanisms() {
            if !matches!(mechanism, Mechanism::Login | Mechanism::ScramSha256Plus) {
                let mut tries = (0..TRIES).map(|_| row(name, mechanism, &mut users));
                if tries.all(|(percent, micros)| percent > APART.0 && micros > APART.1) {
                    told.push(format!("{name} {}", mechanism.name()));
                }
            }
        }
    }
    std::fs::remove_file(&file).unwrap();
    assert!(told.is_empty(), "told by the time: {told:?}");
}

fn directory(users: &std::path::Path) -> Directory {
    let settings = DirectoryConfig {
        domains: vec!["a.test".to_owned()],
        pattern: "mail/%d/%u".to_owned(),
        create: false,
        delimiter: String::new(),
        users: Some(users.to_owned()),
        aliases: None,
        quota: None,
        max_recipients: 100,
        logins: true,
    };
    Directory::load(&settings)
        .map_err(|e| e.to_string())
        .unwrap()
}

/// Prints medians in microseconds, and returns how far the largest is from the least, in percent and microseconds.
fn row(form: &str, mechanism: Mechanism, users: &mut Users) -> (f64, f64) {
    let mut times = [const { Vec::new() }; 3];
    // The first of each warms up.
    for round in 0..=COUNT {
        for turn in 0..3 {
            let which = (round + turn) % 3;
            let begun = Instant::now();
            assert_eq!(wrong(mechanism, NAMES[which], users), Progress::Failed);
            if round > 0 {
                times[which].push(begun.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    let medians = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[COUNT / 2]
    });
    let (least, most) = (
        medians.iter().copied().fold(f64::MAX, f64::min),
        medians.iter().copied().fold(0.0, f64::max),
    );
    let [known, unknown, locked] = medians;
    let mechanism = mechanism.name();
    let apart = (most / least - 1.0) * 100.0;
    println!("{form:>16} {mechanism:>14} {known:>9.1} {unknown:>9.1} {locked:>9.1}  {apart:.1} %");
    (apart, most - least)
}

fn wrong(mechanism: Mechanism, name: &str, users: &mut Users) -> Progress {
    let nonce = "3rfcNHYJY1ZVvWVs7j3rfcNHYJY1ZVvWVs7j";
    let context = ExchangeContext {
        hostname: "mx.test",
        exporter: None,
        plus_offered: false,
        nonce: nonce.to_owned(),
    };
    let mut exchange = Exchange::start(mechanism, &context);
    let last = match mechanism {
        Mechanism::CramMd5 => {
            let _ = exchange.step(None, users);
            format!("{name} {}", "0".repeat(32))
        }
        Mechanism::Plain => format!("\0{name}\0wrong"),
        _ => {
            let first = format!("n,,n={name},r=abcdefgh");
            let _ = exchange.step(Some(first.as_bytes()), users);
            let proof = base64_encode(&[0; 32]);
            format!("c=biws,r=abcdefgh{nonce},p={proof}")
        }
    };
    exchange.step(Some(last.as_bytes()), users)
}
