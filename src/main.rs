//! The binary: settings, server, exit status. Nothing else lives here.
#![forbid(unsafe_code)]

use mailslot::cmd::sendmail;
use mailslot::config::Config;
use mailslot::options::{Failure, Settings, help};
use mailslot::password;
use mailslot::server::Server;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some((name, args)) = sendmail::called_as(&args) {
        return sendmail::run(name, args);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mailslot: {}", failure.text);
            ExitCode::from(failure.status)
        }
    }
}

fn run() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let settings = Settings::read(&args, |name| std::env::var(name).ok())?;
    if settings.flag("help") {
        print!("{}", help());
        return Ok(());
    }
    if settings.flag("version") {
        println!("mailslot {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    if settings.flag("hash-password") {
        return password::hash();
    }
    let level = match (settings.flag("quiet"), settings.flag("verbose")) {
        (true, _) => "error",
        (false, true) => "debug",
        (false, false) => "info",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    let server = Server::new(Config::new(&settings)?)?;
    if settings.flag("check") {
        println!("{}{}", server.listeners(), server.describe());
        return Ok(());
    }
    server.run()
}
