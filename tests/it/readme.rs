//! Every command block of the README: run here, run by a script of tests/interop, or listed with a reason.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::server::Server;

/// Blocks by their first words, and the script that runs them.
const BY_SCRIPT: &[(&str, &str)] = &[
    ("docker build", "recipes.py"),
    ("mkdir -p /run/mailslot", "recipes.py"),
    ("postconf -e 'virtual_mailbox_domains", "recipes.py"),
    ("begin routers", "fronts.py"),
    ("action \"mailslot\"", "fronts.py"),
];
/// Blocks by their first words, and why nothing runs them.
const NOWHERE: &[(&str, &str)] = &[
    (
        "make run\nmake test",
        "builds a release; the first mail is sent to the same command below",
    ),
    (
        "sudo make install",
        "writes to the system; contrib.rs does it with a DESTDIR",
    ),
    (
        "sudo -u mailslot",
        "the same check runs below, without sudo and systemctl",
    ),
    (
        "curl -sSfo jwks.json",
        "fetches an identity provider's keys; oauth.rs has its own",
    ),
];
/// Blocks by their first words that are run here.
const HERE: &[&str] = &[
    "printf 'Subject: hello",
    "listen smtp://\n",
    "openssl req",
    "relay submissions://",
    "mailslot --listen 'smtp://:2525?proxy'",
    "listen mail\n",
    "mailslot --create --listen smtp://:2525",
    "scrape_configs:",
    "mailslot --users users --maildir",
    "sudo install -o mailslot",
    "#!/bin/sh\nfor name in fullchain",
];

fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let parts: Vec<&str> = text.split("```\n").collect();
    parts
        .into_iter()
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn block(begin: &str) -> String {
    blocks()
        .into_iter()
        .find(|block| block.starts_with(begin))
        .unwrap()
}

/// Runs a block in a directory; none where a program of it is not installed.
fn run(script: &str, dir: &Path) -> Option<bool> {
    let bin = Path::new(env!("CARGO_BIN_EXE_mailslot"))
        .parent()
        .unwrap()
        .display();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-ec", script])
        .current_dir(dir)
        .env("PATH", path);
    let output = shell.output().unwrap();
    if output.status.code() == Some(127) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(output.status.success())
}

#[test]
fn each_block_is_run_or_listed() {
    let listed = BY_SCRIPT.iter().chain(NOWHERE).map(|(begin, _)| begin);
    let known: Vec<&&str> = listed.chain(HERE).collect();
    for block in blocks() {
        let found = known.iter().filter(|begin| block.starts_with(**begin));
        assert_eq!(found.count(), 1, "neither run nor listed:\n{block}");
    }
    for begin in known {
        assert!(
            blocks().iter().any(|block| block.starts_with(begin)),
            "gone: {begin}"
        );
    }
    // A script takes its block from the README by these words, in quotes of Python.
    for (begin, script) in BY_SCRIPT {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        let text = std::fs::read_to_string(path.join(script)).unwrap();
        let asks = ['"', '\''].map(|quote| format!("readme({quote}{begin}"));
        let asked = asks.iter().any(|words| text.contains(words.as_str()));
        assert!(asked, "{script} does not run {begin}");
    }
}

#[test]
fn the_first_mail_arrives() {
    let server = Server::start(&["--create", "--domain", "localhost"]);
    let script = block(HERE[0]).replace("127.0.0.1:2525", server.address());
    if run(&script, &server.dir) == Some(true) {
        assert_eq!(server.messages("localhost/alice").len(), 1);
    }
}

#[test]
fn the_configuration_of_a_small_host_is_usable() {
    let server = Server::start(&["--create"]);
    let here = |text: String| {
        text.replace("/etc/mailslot", "mailslot")
            .replace("/srv/mail/.queue", "queue")
            .replace("-o mailslot ", "")
            .replace("sudo ", "")
            .replace("systemctl ", "true ")
    };
    let text = here(block(HERE[1]) + &block(HERE[3]));
    std::fs::write(server.dir.join("mailslot.conf"), text).unwrap();
    let accounts = here(block(HERE[9])).replace("--hash-password", "--hash-password <password");
    std::fs::write(server.dir.join("password"), "secret\n").unwrap();
    assert_eq!(run(&accounts, &server.dir), Some(true));
    // certbot's directory for the names of one certificate.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    std::fs::copy(data.join("cert.pem"), server.dir.join("fullchain.pem")).unwrap();
    std::fs::copy(data.join("key.pem"), server.dir.join("privkey.pem")).unwrap();
    let hook = here(block(HERE[10])).replace("$RENEWED_LINEAGE", ".");
    assert_eq!(run(&hook, &server.dir), Some(true));
    let login = server.dir.join("mailslot.relay");
    std::fs::write(&login, "smtp.example.net me secret\n").unwrap();
    std::fs::set_permissions(&login, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(
        run("mailslot --config mailslot.conf --check", &server.dir),
        Some(true)
    );
}

#[test]
fn a_certificate_for_a_try_is_usable() {
    let server = Server::start(&["--create"]);
    let script = block(HERE[2]).replace("mailslot --create", "mailslot --check --create");
    assert_ne!(run(&script, &server.dir), Some(false));
}

#[test]
fn a_load_balancer_and_what_it_balances_are_usable() {
    let server = Server::start(&["--create"]);
    let script = block(HERE[4]).replace("mailslot ", "mailslot --check ");
    assert_eq!(run(&script, &server.dir), Some(true));
    std::fs::write(server.dir.join("haproxy.cfg"), block(HERE[5])).unwrap();
    let path = "PATH=$PATH:/usr/sbin haproxy -c -f haproxy.cfg";
    assert_ne!(run(path, &server.dir), Some(false));
}

#[test]
fn metrics_are_served_and_scraped_as_written() {
    let server = Server::start(&["--create"]);
    let script = block(HERE[6]).replace("mailslot ", "mailslot --check ");
    assert_eq!(run(&script, &server.dir), Some(true));
    std::fs::write(server.dir.join("prometheus.yml"), block(HERE[7])).unwrap();
    let checked = run("promtool check config prometheus.yml", &server.dir);
    assert_ne!(checked, Some(false));
}

#[test]
fn spam_is_filed_as_written() {
    let server = Server::start(&["--create"]);
    std::fs::write(server.dir.join("users"), "alice:{PLAIN}secret\n").unwrap();
    let script = block(HERE[8]).replace("mailslot ", "mailslot --check ");
    assert_eq!(run(&script, &server.dir), Some(true));
}
