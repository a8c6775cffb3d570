//! Connections with a login, in turns with Dovecot's submission-login. Each connects, sends EHLO, does a full TLS 1.3
//! handshake or resumes a session, logs in as its row says, and quits. Neighbouring rows differ by one step, whose cost
//! is the difference. All accounts have {SCRAM-SHA-256} passwords with at most 4,096 rounds.

use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use mailslot::encoding::{base64_decode, base64_encode};
use ring::{digest, hmac, pbkdf2};
use rustls::ClientConfig;
use rustls::client::Resumption;

use crate::Bench;
use crate::client::Client;
use crate::load::{self, Sample};
use crate::place::Medium;
use crate::report::Unit;
use crate::runs::{Program, setup_for};
use crate::server::Process;

const SESSIONS: usize = 10;
const USER: &str = "user";
const PASSWORD: &str = "correct horse";
const SALT: &[u8; 16] = b"of the benchmark";
const ROUNDS: NonZeroU32 = NonZeroU32::new(4_096).unwrap();

#[derive(Clone, Copy, PartialEq, Eq)]
enum Handshake {
    None,
    Full,
    Resumed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Login {
    None,
    Plain,
    Scram,
}

/// What a row's connections do.
const ROWS: &[(&str, Handshake, Login)] = &[
    ("EHLO only", Handshake::None, Login::None),
    ("full handshake", Handshake::Full, Login::None),
    ("resumed", Handshake::Resumed, Login::None),
    ("full handshake, PLAIN", Handshake::Full, Login::Plain),
    ("resumed, PLAIN", Handshake::Resumed, Login::Plain),
    (
        "full handshake, SCRAM-SHA-256",
        Handshake::Full,
        Login::Scram,
    ),
    ("resumed, SCRAM-SHA-256", Handshake::Resumed, Login::Scram),
];

/// One round of all rows.
pub(crate) fn round(
    bench: &mut Bench,
    count: usize,
    wants: impl Fn(&str) -> bool,
) -> io::Result<()> {
    let Some(tls) = &bench.tls else {
        return Ok(());
    };
    let options = tls.options.clone();
    let resuming = ClientConfig::clone(&tls.client);
    let mut full = resuming.clone();
    full.resumption = Resumption::disabled();
    let (full, resuming) = (Arc::new(full), Arc::new(resuming));
    for (name, handshake, login) in ROWS {
        let name = format!("logins, 10 at once, {name}");
        if !wants(&name) {
            continue;
        }
        let config = match handshake {
            Handshake::None => None,
            Handshake::Full => Some(&full),
            Handshake::Resumed => Some(&resuming),
        };
        for program in [Program::Mailslot, Program::Dovecot] {
            eprintln!("{name}: {}", program.name());
            let dir = bench.place.fresh(Medium::Memory)?;
            if let Some(server) = start(bench, program, &dir, &options)? {
                let sample = run(&server, count, config, *login)?;
                server.stop()?;
                let unit = Unit::Connections;
                bench.report.add(&name, program.name(), unit, sample, None);
            }
            bench.place.done(&dir);
        }
    }
    Ok(())
}

fn start(
    bench: &Bench,
    program: Program,
    dir: &Path,
    options: &[String],
) -> io::Result<Option<Process>> {
    let users = dir.join("users");
    std::fs::write(&users, format!("{USER}:{}::::::\n", stored()))?;
    if program == Program::Dovecot {
        let dovecot = bench.peers.dovecot.as_ref();
        let dovecot = dovecot.filter(|dovecot| dovecot.has_submission());
        let server = dovecot.map(|dovecot| dovecot.start_submission(dir, &users, options));
        return server.transpose();
    }
    let mut setup = setup_for(SESSIONS);
    setup.more = options.to_vec();
    setup.more.push("--users".to_owned());
    setup.more.push(users.display().to_string());
    bench.binary.start(dir, &setup).map(Some)
}

fn run(
    server: &Process,
    count: usize,
    config: Option<&Arc<ClientConfig>>,
    login: Login,
) -> io::Result<Sample> {
    let one = |_| {
        let mut client = Client::connect(server.address)?;
        client.hello(false, config)?;
        match login {
            Login::None => {}
            Login::Plain => plain(&mut client)?,
            Login::Scram => scram(&mut client)?,
        }
        client.quit()
    };
    // What happens once is not what is measured: processes, the first ticket, the client's own hash.
    (0..20).try_for_each(one)?;
    load::measure(server.pid(), count, 0, vec![one; SESSIONS], || Ok(()))
}

fn plain(client: &mut Client) -> io::Result<()> {
    let response = base64_encode(format!("\0{USER}\0{PASSWORD}").as_bytes());
    client.send(format!("AUTH PLAIN {response}\r\n").as_bytes())?;
    client.expect(235)
}

/// RFC 5802 with RFC 7677. The hash of the password is made once: the client shares the cores with the server.
fn scram(client: &mut Client) -> io::Result<()> {
    let bare = format!("n={USER},r=fyko+d2lbbFgONRv9qkxdawL");
    let first = base64_encode(format!("n,,{bare}").as_bytes());
    client.send(format!("AUTH SCRAM-SHA-256 {first}\r\n").as_bytes())?;
    let challenge = client.text(334)?;
    let challenge = base64_decode(challenge.as_bytes()).unwrap_or_default();
    let challenge = String::from_utf8_lossy(&challenge).into_owned();
    let nonce = challenge.split(',').next().unwrap_or_default();
    let without_proof = format!("c=biws,{nonce}");
    let message = format!("{bare},{challenge},{without_proof}");
    let key = sign(salted(), b"Client Key");
    let signature = sign(&sha256(&key), message.as_bytes());
    let proof: Vec<u8> = key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    let last = format!("{without_proof},p={}", base64_encode(&proof));
    client.send(format!("{}\r\n", base64_encode(last.as_bytes())).as_bytes())?;
    client.text(334)?;
    client.send(b"\r\n")?;
    client.expect(235)
}

/// What `mailslot --hash-password` prints.
fn stored() -> String {
    let stored = sha256(&sign(salted(), b"Client Key"));
    let server = sign(salted(), b"Server Key");
    let [salt, stored, server] = [SALT.as_slice(), &stored, &server].map(base64_encode);
    format!("{{SCRAM-SHA-256}}{ROUNDS},{salt},{stored},{server}")
}

fn salted() -> &'static [u8] {
    static SALTED: OnceLock<[u8; 32]> = OnceLock::new();
    SALTED.get_or_init(|| {
        let mut out = [0; 32];
        let password = PASSWORD.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, SALT, password, &mut out);
        out
    })
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn sha256(octets: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, octets).as_ref().to_vec()
}
