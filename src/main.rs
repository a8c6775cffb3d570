//! The program: reads settings, runs a command or the server, and maps errors to exit statuses.
#![forbid(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::process::ExitCode;

use mailslot::cmd::output::{complain, print};
use mailslot::cmd::{hash_password, healthcheck, queue_list, sendmail};
use mailslot::config::Config;
use mailslot::failure::Failure;
use mailslot::log_queue;
use mailslot::options::{Key, help};
use mailslot::server::{self, Server};
use mailslot::settings::Settings;
use mailslot::sys::{arena, inherited, privileges};

fn main() -> ExitCode {
    arena::limit();
    // A SIGHUP while files are read must not end the process.
    let blocked = server::block_reload();
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some((name, args)) = sendmail::called_as(&args) {
        return sendmail::run(name, args);
    }
    privileges::set_umask();
    if let Err(e) = blocked {
        complain(&format!("mailslot: signals: {e}"));
    }
    // Without a program name there are no options.
    let ended = run(args.split_first().map_or(&[], |(_, options)| options));
    log_queue::flush();
    match ended {
        Ok(status) => status,
        Err(failure) => {
            complain(&format!("mailslot: {failure}"));
            ExitCode::from(failure.status())
        }
    }
}

fn run(args: &[OsString]) -> Result<ExitCode, Failure> {
    let settings = Settings::read(args, |name| std::env::var_os(name))?;
    if settings.flag(Key::Help) {
        return print(&help()).map(|()| ExitCode::SUCCESS);
    }
    if settings.flag(Key::Version) {
        let version = concat!("mailslot ", env!("CARGO_PKG_VERSION"), "\n");
        return print(version).map(|()| ExitCode::SUCCESS);
    }
    if settings.flag(Key::HashPassword) {
        return hash_password::hash().map(|()| ExitCode::SUCCESS);
    }
    if settings.flag(Key::QueueList) {
        return queue_list::run(&settings);
    }
    if let Some(what) = settings.one(Key::QueueRun) {
        return queue_list::retry(&settings, &what);
    }
    if let Some(url) = settings.one(Key::Healthcheck) {
        return healthcheck::run(&settings, &url);
    }
    if settings.flag(Key::Sendmail) {
        return Err(settings.fault(Key::Sendmail, "must be the first argument"));
    }
    let level = match (settings.flag(Key::Quiet), settings.flag(Key::Verbose)) {
        (true, _) => "error",
        (false, true) => "debug",
        (false, false) => "info",
    };
    server::block_signals().map_err(|e| Failure::System(format!("signals: {e}")))?;
    log_queue::init(level).map_err(|e| Failure::System(format!("log: {e}")))?;
    let (names, sockets) = inherited::take()?;
    let config = Config::new(&settings, &names)?;
    let server = Server::new(config, sockets)?;
    if settings.flag(Key::Check) {
        return print(&(server.check()? + "\n")).map(|()| ExitCode::SUCCESS);
    }
    server.run().map(|()| ExitCode::SUCCESS)
}
