//! The cost of an idle server, for mailslot and its peers: memory after the start and of a connection after EHLO, and
//! the time from exec to the first 220. Then the effect of idle connections on active ones.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::Bench;
use crate::client::Client;
use crate::load::{self, Load, Sample};
use crate::message::{Template, check};
use crate::place::{Medium, mailboxes};
use crate::processes::memory;
use crate::report::{Spread, number};
use crate::runs::{Program, setup_for};
use crate::server::Process;

/// After this time a server has nothing left to do for what came before.
const SETTLED: Duration = Duration::from_millis(300);

/// Opens a number of connections that only send EHLO.
fn crowd(
    server: &Process,
    count: usize,
    tls: Option<&Arc<ClientConfig>>,
) -> io::Result<Vec<Client>> {
    load::opened(count, || {
        let mut client = Client::connect(server.address)?;
        client.hello(false, tls)?;
        Ok(client)
    })
}

/// Memory of the fresh process, and of each of `count` idle sessions.
pub(crate) fn sessions(
    bench: &mut Bench,
    program: Program,
    count: usize,
    tls: bool,
) -> io::Result<()> {
    let kind = if tls { "TLS" } else { "clear" };
    let scenario = format!("idle, {} {kind} sessions", number(count as f64, 0));
    if (count + 100) as u64 > bench.descriptors {
        let text = format!("not measured: only {} descriptors", bench.descriptors);
        bench.report.say(&scenario, program.name(), text, None);
        return Ok(());
    }
    let config = bench.tls.as_ref().filter(|_| tls);
    let begin = |sessions: usize| {
        let mut setup = setup_for(sessions);
        if let Some(tls) = config {
            setup.more.clone_from(&tls.options);
        }
        let dir = bench.place.fresh(Medium::Memory)?;
        let server = bench.start(program, &dir, &setup)?;
        std::thread::sleep(SETTLED);
        Ok::<_, io::Error>(server.map(|server| (server, dir)))
    };
    // A process of its own: some make all their threads at the start.
    let Some((server, dir)) = begin(4)? else {
        return Ok(());
    };
    let before = memory(server.pid(), "VmRSS")?;
    server.stop()?;
    bench.place.done(&dir);
    let Some((server, dir)) = begin(count)? else {
        return Ok(());
    };
    let clients = crowd(&server, count, config.map(|tls| &tls.client))?;
    std::thread::sleep(SETTLED);
    let after = memory(server.pid(), "VmRSS")?;
    let peak = memory(server.pid(), "VmHWM")?;
    let each = after.saturating_sub(before) as f64 / count as f64;
    drop(clients);
    server.stop()?;
    bench.place.done(&dir);
    let text = format!("{} KiB a session", number(each, 1));
    bench
        .report
        .say(&scenario, program.name(), text, Some(peak));
    if !tls && count == 1000 {
        let text = format!("{} MiB", number(before as f64 / 1024.0, 2));
        bench
            .report
            .say("idle, RSS of the fresh process", program.name(), text, None);
    }
    Ok(())
}

/// The time from before exec to the last octet of the first 220.
pub(crate) fn first_220(bench: &mut Bench, program: Program, count: usize) -> io::Result<()> {
    let mut times = Vec::new();
    for _ in 0..count {
        let dir = bench.place.fresh(Medium::Memory)?;
        let begun = Instant::now();
        let Some(server) = bench.start(program, &dir, &setup_for(4))? else {
            return Ok(());
        };
        let client = Client::connect(server.address)?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        drop(client);
        server.stop()?;
        bench.place.done(&dir);
    }
    if let Some(spread) = Spread::of(times.into_iter()) {
        let scenario = format!("exec to first 220, {count} starts");
        bench
            .report
            .say(&scenario, program.name(), spread.show(1, "ms"), None);
    }
    Ok(())
}

/// One run of a load beside a number of idle connections.
pub(crate) fn neighbours(bench: &Bench, load: &Load, count: usize) -> io::Result<Sample> {
    let dir = bench.place.fresh(Medium::Memory)?;
    mailboxes(&dir, 1)?;
    let template = Template::new(load.size);
    let setup = setup_for(count + load.sessions);
    let server = bench.binary.start(&dir, &setup)?;
    let clients = crowd(&server, count, None)?;
    std::thread::sleep(SETTLED);
    // Not earlier: the connections would take what was warmed.
    bench.place.warm(load)?;
    let sample = load::run(&server, load, &template, None, || Ok(()))?;
    drop(clients);
    check(&dir, 1, load.messages, &template)?;
    server.stop()?;
    bench.place.done(&dir);
    Ok(sample)
}
