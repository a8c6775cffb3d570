//! Whether an unknown user can be told from a wrong password by the time the 535 takes: medians of both, in turns.

use crate::Bench;
use crate::client::Client;
use crate::place::Medium;
use crate::report::Spread;
use crate::runs::setup_for;
use std::io;
use std::time::{Duration, Instant};

/// At most this long.
const LIMIT: Duration = Duration::from_secs(40);

/// Times `count` refusals of each kind.
pub(crate) fn timing(bench: &mut Bench, count: usize) -> io::Result<()> {
    let dir = bench.place.fresh(Medium::Memory)?;
    let stored = match bench.binary.knows("--hash-password") {
        true => bench.binary.filter("--hash-password", "the right one\n")?,
        false => "{PLAIN}the right one".to_owned(),
    };
    let users = dir.join("users");
    std::fs::write(&users, format!("alice:{stored}\n"))?;
    let mut setup = setup_for(8);
    setup.more = vec![
        "--users".to_owned(),
        users.display().to_string(),
        "--insecure-auth".to_owned(),
    ];
    let server = bench.binary.start(&dir, &setup)?;
    let mut times = [Vec::new(), Vec::new()];
    let logins = [("nobody", "unknown user"), ("alice", "wrong password")].map(|(user, _)| {
        let response = base64(format!("\0{user}\0the wrong one").as_bytes());
        format!("AUTH PLAIN {response}\r\n")
    });
    let begun = Instant::now();
    let mut offered = true;
    for round in 0..count {
        // The third wrong one ends a connection.
        let mut client = Client::connect(server.address)?;
        client.hello(false, None)?;
        offered = client.offers_auth("PLAIN");
        if !offered || begun.elapsed() > LIMIT {
            break;
        }
        for which in if round.is_multiple_of(2) {
            [0, 1]
        } else {
            [1, 0]
        } {
            let sent = Instant::now();
            client.send(logins[which].as_bytes())?;
            client.expect(535)?;
            times[which].push(sent.elapsed().as_secs_f64() * 1e6);
        }
        client.quit()?;
    }
    server.stop()?;
    bench.place.done(&dir);
    let scenario = format!("535, {} of each", times[0].len());
    if !offered {
        bench.report.say(
            &scenario,
            "mailslot",
            "not measured: no AUTH PLAIN".to_owned(),
            None,
        );
    }
    for (kind, times) in ["mailslot, unknown user", "mailslot, wrong password"]
        .into_iter()
        .zip(times)
    {
        if let Some(spread) = Spread::of(times.into_iter()) {
            bench
                .report
                .say(&scenario, kind, spread.show(0, "µs"), None);
        }
    }
    Ok(())
}

fn base64(octets: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in octets.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| {
            bits << 8 | u32::from(group.get(at).copied().unwrap_or(0))
        });
        for at in 0..4_usize {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}
