//! The benchmark, run by `make bench`: runs the release binary, the raw limit of the disk and the installed peers in
//! the same rounds, and prints one table. Times are not checked; an acknowledged message that is missing, duplicate or
//! damaged ends it with status 1.
//!
//! QUICK=1 is a short run; FULL=1 has 10,000 idle sessions and 1,000,000 files in new/; BENCH_DIR is the disk to
//! measure (else the build directory's); ONLY=WORD runs the scenarios whose names have the word; MAILSLOT_BIN is
//! another binary. WAYS=1 compares ways to make messages durable on that disk, without any server. OPENSMTPD_ROOT is
//! where its package was unpacked. LOAD='sessions=10 messages=1000 size=4096 recipients=1 reuse=no pipeline=yes bdat=no
//! tls=no lmtp=no' runs that load and nothing else, on tmpfs and on the disk; what is left out is as in `given.rs`.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark may stop on the first surprise"
)]

mod client;
mod dovecot;
mod given;
mod idle;
mod load;
mod logins;
mod message;
mod opensmtpd;
mod peers;
mod place;
mod postfix;
mod processes;
mod raw;
mod report;
mod runs;
mod scenarios;
mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;

use crate::load::{Load, plain};
use crate::place::{Medium, Place, file_system};
use crate::report::{Report, Unit, number};
use crate::runs::Program;
use crate::server::Binary;

/// What all parts share.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) binary: Binary,
    pub(crate) peers: peers::Peers,
    pub(crate) tls: Option<Tls>,
    pub(crate) report: Report,
    /// How many may be open.
    pub(crate) descriptors: u64,
}

/// A certificate of this run's own.
pub(crate) struct Tls {
    pub(crate) options: Vec<String>,
    pub(crate) client: Arc<ClientConfig>,
}

/// How much of everything.
struct Extent {
    quick: bool,
    full: bool,
    rounds: usize,
    only: String,
    /// The one load to run.
    given: Option<Load>,
}

impl Extent {
    /// A quarter in a quick run.
    fn few(&self, count: usize) -> usize {
        if self.quick { count / 4 } else { count }
    }

    fn wants(&self, scenario: &str) -> bool {
        scenario.contains(&self.only)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn said(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.is_empty() && value != "0")
}

fn run() -> io::Result<()> {
    place::watch_signals()?;
    let (_, descriptors) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    let quick = said("QUICK").is_some();
    let extent = Extent {
        quick,
        full: said("FULL").is_some(),
        rounds: if quick { 2 } else { 3 },
        only: said("ONLY").unwrap_or_default(),
        given: said("LOAD").map(|text| given::parse(&text)).transpose()?,
    };
    let built = Path::new(env!("CARGO_BIN_EXE_mailslot"))
        .ancestors()
        .nth(2)
        .unwrap()
        .join("bench");
    let disk = said("BENCH_DIR").map_or(built, PathBuf::from);
    let place = Place::new(&disk)?;
    let binary = Binary::new()?;
    let tls = certificate(&place, &binary);
    let mut bench = Bench {
        peers: peers::Peers::find(),
        place,
        binary,
        tls,
        report: Report::default(),
        descriptors,
    };
    describe(&bench, &extent);
    let begun = Instant::now();
    if said("WAYS").is_some() {
        ways(&mut bench, &extent)?;
    } else {
        throughput(&mut bench, &extent)?;
        if extent.given.is_none() {
            quiet(&mut bench, &extent)?;
        }
    }
    println!("{}", bench.report.table());
    drop(bench);
    let seconds = begun.elapsed().as_secs();
    println!(
        "Took {seconds} s, all files removed: on ext4 wait some minutes before the next run, it is slower for as long."
    );
    Ok(())
}

/// A self-signed certificate, where openssl is installed and the binary can use it.
fn certificate(place: &Place, binary: &Binary) -> Option<Tls> {
    if !binary.knows("--tls-cert") {
        return None;
    }
    let dir = place.root(Medium::Memory);
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-days",
        "2",
    ]);
    openssl.args([
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ]);
    openssl
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&cert)
        .arg("-keyout")
        .arg(&key);
    let made = openssl
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return None;
    }
    let [cert_path, key_path] = [&cert, &key].map(|path| path.display().to_string());
    let options = vec![
        "--tls-cert".to_owned(),
        cert_path,
        "--tls-key".to_owned(),
        key_path,
    ];
    Some(Tls {
        options,
        client: client::trusting(&cert).ok()?,
    })
}

/// Prints what is measured, and on what.
fn describe(bench: &Bench, extent: &Extent) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: f64 = field(&read("/proc/meminfo"), "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0.0);
    let disk = file_system(bench.place.root(Medium::Disk));
    println!(
        "{}; {} of each run, interleaved.",
        bench.binary.version,
        rounds(extent.rounds)
    );
    println!(
        "Machine: {cores} cores ({}), {:.0} GiB; load {} at the start; server and generator on the same cores.",
        field(&read("/proc/cpuinfo"), "model name"),
        memory / 1024.0 / 1024.0,
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    );
    println!(
        "Kernel: {} {}.",
        read("/proc/sys/kernel/ostype").trim(),
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("Disk: {} ({}).", disk.0, disk.1);
    let memory = file_system(bench.place.root(Medium::Memory)).0;
    println!("Where it says tmpfs: {memory}.");
    println!(
        "mailslot runs with `--sync full`, logging errors only unless the row says otherwise; all mail to one mailbox."
    );
    describe_systems(bench, extent);
    for (word, what) in [
        ("--tls-cert", "STARTTLS"),
        ("lmtp:", "LMTP"),
        ("--users", "AUTH"),
    ] {
        if !bench.binary.knows(word) {
            println!("Missing: {what}, as {word} is not in --help.");
        } else if word == "--tls-cert" && bench.tls.is_none() {
            println!("Missing: {what}, as no certificate could be made with openssl.");
        }
    }
    for line in &bench.peers.missing {
        println!("Missing: {line}.");
    }
    println!();
}

/// Prints what is to be known about the peers that are whole mail systems.
fn describe_systems(bench: &Bench, extent: &Extent) {
    let systems = bench.peers.systems();
    if systems.is_empty() {
        return;
    }
    let share = match (&extent.given, extent.quick) {
        (Some(_), _) => "",
        (None, true) => ", each with a tenth of the messages in one round",
        (None, false) => ", each with a twentieth of the messages",
    };
    println!("Mail systems: {}{share}.", systems.join(", "));
    println!(
        "\"To its queue\" is to the last 250, \"to the Maildirs\" to the last delivery; the CPU is to the latter in both."
    );
}

fn rounds(count: usize) -> String {
    if count == 1 {
        "1 round".to_owned()
    } else {
        format!("{count} rounds")
    }
}

/// All rounds of the ways to make messages durable, with nothing else on the machine.
fn ways(bench: &mut Bench, extent: &Extent) -> io::Result<()> {
    for round in 0..extent.rounds {
        for (sessions, messages) in [(1, 4_000), (8, 12_000), (64, 16_000)] {
            eprintln!("round {}: {sessions} threads", round + 1);
            bench.ways(Medium::Disk, &plain(sessions, extent.few(messages)), round)?;
        }
    }
    Ok(())
}

/// All rounds of the scenarios with a load.
fn throughput(bench: &mut Bench, extent: &Extent) -> io::Result<()> {
    let scenarios = match &extent.given {
        Some(load) => scenarios::given(bench, extent, load)?,
        None => scenarios::all(bench, extent),
    };
    for round in 0..extent.rounds {
        for scenario in &scenarios {
            if extent.wants(&scenario.name) {
                eprintln!("round {}: {}", round + 1, scenario.name);
                bench.round(scenario, round)?;
            }
        }
        if extent.given.is_none() {
            neighbours(bench, extent, round)?;
            logins::round(bench, extent.few(8_000), |name| extent.wants(name))?;
        }
    }
    Ok(())
}

/// One round of the runs beside idle connections.
fn neighbours(bench: &mut Bench, extent: &Extent, round: usize) -> io::Result<()> {
    let crowd = if extent.full { 10_000 } else { 1_000 };
    for count in [1, crowd] {
        let s = if count == 1 { "" } else { "s" };
        let name = format!(
            "tmpfs, 10 sessions reused, 4 KiB, {} idle neighbour{s}",
            number(count as f64, 0)
        );
        if !extent.wants(&name) {
            continue;
        }
        let program = Program::Mailslot.name();
        if (count + 100) as u64 > bench.descriptors {
            let text = format!("not measured: only {} descriptors", bench.descriptors);
            bench.report.say(&name, program, text, None);
            continue;
        }
        eprintln!("round {}: {name}", round + 1);
        let sample = idle::neighbours(bench, &plain(10, extent.few(60_000)), count)?;
        bench
            .report
            .add(&name, program, Unit::Messages, sample, None);
    }
    Ok(())
}

/// What is measured without a load.
fn quiet(bench: &mut Bench, extent: &Extent) -> io::Result<()> {
    let programs = [Program::Mailslot, Program::Mailin, Program::Sink];
    if extent.wants("idle") {
        eprintln!("idle");
        for program in programs {
            idle::sessions(bench, program, 1_000, false)?;
        }
        if extent.full {
            idle::sessions(bench, Program::Mailslot, 10_000, false)?;
        }
        if bench.tls.is_some() {
            idle::sessions(bench, Program::Mailslot, 200, true)?;
        }
    }
    if extent.wants("first 220") {
        eprintln!("first 220");
        for program in programs {
            idle::first_220(bench, program, if extent.quick { 10 } else { 20 })?;
        }
    }
    Ok(())
}
