//! Files of an operator, or left by a crash: mistakes are errors that name the place, never panics.

use std::ffi::OsString;
use std::path::PathBuf;

use mailslot::auth::jwt::KeySet;
use mailslot::directory::{Directory, DirectoryConfig, ResolveContext};
use mailslot::queue::Envelope;
use mailslot::settings::Settings;
use mailslot::smtp::address::ForwardPath;

/// A file with this content; one a process and thread, so that nothing piles up.
fn file(name: &str, octets: &[u8]) -> PathBuf {
    let thread = format!("{:?}", std::thread::current().id());
    let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
    let name = format!("mailslot-fuzz-{}-{thread}-{name}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, octets).unwrap();
    path
}

fn settings() -> DirectoryConfig {
    DirectoryConfig {
        domains: vec!["example.org".to_owned(), "example.net".to_owned()],
        pattern: "/nonexistent/%d/%u".to_owned(),
        create: false,
        delimiter: "+".to_owned(),
        users: None,
        aliases: None,
        quota: None,
        max_recipients: 100,
        logins: true,
    }
}

/// Loads the file, and asks for names in it.
fn ask(settings: &DirectoryConfig, octets: &[u8]) {
    let Ok(directory) = Directory::load(settings) else {
        return;
    };
    let text = String::from_utf8_lossy(octets);
    let names = text
        .split(|c: char| ":, \n".contains(c))
        .filter(|name| !name.is_empty());
    for name in names.take(8) {
        if let Some(path) = ForwardPath::from_text(name) {
            let context = ResolveContext {
                onward: None,
                may_relay: false,
                takes: &|_| true,
                is_open: &|_| false,
            };
            let _ = directory.resolve(&path, context);
        }
        let _ = (
            directory.vrfy(name),
            directory.expn(name),
            directory.account(name),
        );
    }
}

/// A users file.
pub fn users(octets: &[u8]) {
    let path = file("users", octets);
    let users = Some(path.clone());
    ask(
        &DirectoryConfig {
            users,
            ..settings()
        },
        octets,
    );
    std::fs::remove_file(path).unwrap();
}

/// An aliases file, beside any local part as a mailbox.
pub fn aliases(octets: &[u8]) {
    let path = file("aliases", octets);
    let aliases = Some(path.clone());
    let create = true;
    ask(
        &DirectoryConfig {
            aliases,
            create,
            ..settings()
        },
        octets,
    );
    std::fs::remove_file(path).unwrap();
}

/// A config file.
pub fn config(octets: &[u8]) {
    let path = file("config", octets);
    let args = [OsString::from("--config"), path.clone().into_os_string()];
    let _ = Settings::read(&args, |_| None);
    std::fs::remove_file(path).unwrap();
}

/// An envelope of the queue; what is read is written so that it is read to the same again.
pub fn envelope(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    if let Ok(envelope) = Envelope::parse(text) {
        let again = Envelope::parse(&envelope.to_text());
        assert_eq!(again.as_ref(), Ok(&envelope));
    }
}

/// A set of keys for tokens (RFC 7517).
pub fn keys(octets: &[u8]) {
    let _ = KeySet::parse(octets);
}
