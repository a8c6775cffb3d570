//! The binary: settings, server, exit status. Nothing else lives here.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use mailslot::cmd::{hash_password, sendmail};
use mailslot::config::Config;
use mailslot::failure::Failure;
use mailslot::options::{Key, help};
use mailslot::server::Server;
use mailslot::settings::Settings;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some((name, args)) = sendmail::called_as(&args) {
        return sendmail::run(name, args);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mailslot: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn run() -> Result<(), Failure> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let settings = Settings::read(&args, |name| std::env::var_os(name))?;
    if settings.flag(Key::Help) {
        print!("{}", help());
        return Ok(());
    }
    if settings.flag(Key::Version) {
        println!("mailslot {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if settings.flag(Key::HashPassword) {
        return hash_password::hash();
    }
    let level = match (settings.flag(Key::Quiet), settings.flag(Key::Verbose)) {
        (true, _) => "error",
        (false, true) => "debug",
        (false, false) => "info",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    let server = Server::new(Config::new(&settings)?)?;
    if settings.flag(Key::Check) {
        println!("{}{}", server.listeners(), server.describe());
        return Ok(());
    }
    server.run()
}
