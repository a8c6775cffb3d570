//! Bad command lines and bad files: each is a directory under tests/config, with `args`, optionally environment
//! variables in `env`, and the exact `stderr` and exit `status`. The binary runs inside that directory, so that paths
//! are stable.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn variables(case: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(case.join("env")).unwrap_or_default();
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(pair).collect()
}

/// Each directory of tests/config is a configuration that is refused. R094: lmtp-on-25.
#[test]
fn golden_failures() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let case = entry.unwrap().path();
        let read = |name| std::fs::read_to_string(case.join(name)).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(read("args").split_whitespace())
            .envs(variables(&case))
            .current_dir(&case)
            .output()
            .unwrap();
        let status = format!("{}\n", output.status.code().unwrap());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if std::env::var_os("UPDATE_CONFIG").is_some() {
            std::fs::write(case.join("stderr"), &said).unwrap();
            std::fs::write(case.join("status"), &status).unwrap();
        }
        if said != read("stderr") || status != read("status") {
            wrong.push(format!("{}: {said}{status}", case.display()));
        }
        cases += 1;
    }
    assert!(wrong.is_empty() && cases > 20, "{}", wrong.join("\n"));
}

/// F60: also where it is one listener of several, of which none serves then.
#[test]
fn a_taken_port_is_71() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", taken.local_addr().unwrap());
    for urls in [vec![url.as_str()], vec!["smtp://127.0.0.1:0", url.as_str()]] {
        let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .arg("-q")
            .args(urls.iter().flat_map(|url| ["--listen", url]))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(71));
        assert!(String::from_utf8_lossy(&output.stderr).contains(&url));
    }
}

/// `--check` describes the next hops, and a name that does not resolve now is not an error.
#[test]
fn a_check_says_where_mail_goes() {
    let hops = [
        "smtp://localhost:2526",
        "lmtp:/nowhere/lmtp?for=b.test",
        "atrn:branch?for=c.test",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
        .args(["--check", "-q", "--create"])
        .args(hops.iter().flat_map(|hop| ["--relay", hop]))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in [
        "other mail goes to smtp://localhost:2526\n",
        "mail for b.test goes to lmtp:/nowhere/lmtp?for=b.test\n",
        "\nlocalhost is ",
        "127.0.0.1",
        "\n/nowhere/lmtp does not exist\n",
        "\nthere is no user branch to fetch that mail\n",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
}

/// A host name may be complete as in DNS, and a host that is called localhost has one domain.
#[test]
fn a_host_name_is_a_domain() {
    for (name, domains) in [
        ("localhost", "localhost"),
        ("LocalHost.", "localhost"),
        ("mx.example.test.", "mx.example.test, localhost"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--check", "-q", "--hostname", name])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains(&format!("mail for {domains} goes to ")),
            "{said}"
        );
    }
}

/// `--check` counts in words that read well, and shows a newcomer how to open a mailbox.
#[test]
fn a_check_says_who_gets_mail() {
    let dir = std::env::temp_dir().join(format!("mailslot-check-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("one"), "alice:\n").unwrap();
    std::fs::write(dir.join("two"), "alice:\nbob:\n").unwrap();
    std::fs::write(dir.join("list"), "all: alice\n").unwrap();
    for (args, expected) in [
        (
            &[][..],
            "to open a mailbox, create its directory: mkdir -p mail/a.test/alice\n",
        ),
        (
            &["--create"],
            "goes to mail/%d/%u, created on first delivery\n",
        ),
        (&["--users", "one"], "goes to mail/%d/%u, for 1 user\n"),
        (
            &["--users", "two", "--create"],
            ", for 2 users and any other name\n",
        ),
        (&["--create", "--aliases", "list"], ", with 1 alias\n"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--check", "-q", "-d", "a.test"])
            .args(args)
            .current_dir(&dir)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.ends_with(expected), "{args:?}: {said}");
    }
    // The warnings of a start.
    for (args, warned) in [(&["--users", "one"][..], true), (&["--create"], false)] {
        let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args(["--check", "-d", "a.test"])
            .args(args)
            .current_dir(&dir)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let found = said.contains(" mail is not a directory: mail gets 451 until it is\n");
        assert_eq!(found, warned, "{args:?}: {said}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// A reader may stop early. Output that is lost otherwise has an exit status of its own.
#[test]
fn output_that_cannot_be_written() {
    let scratch = std::env::temp_dir();
    let run = |arg: &str, out: Stdio, err: Stdio| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .args([arg, "-q"])
            .current_dir(&scratch)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap();
        // Most commands do not read it.
        let _ = child.stdin.take().unwrap().write_all(b"secret\n");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let full = || std::fs::File::create("/dev/full").unwrap();
    for arg in [
        "--help",
        "--version",
        "--check",
        "--hash-password",
        "--queue-list",
    ] {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let (status, said) = run(arg, closed.into(), Stdio::piped());
        assert_eq!((status, said.as_str()), (Some(0), ""), "{arg}");
        let (status, said) = run(arg, full().into(), Stdio::piped());
        let one_line = said.starts_with("mailslot: standard output: ") && said.lines().count() == 1;
        assert!(status == Some(71) && one_line, "{arg}: {status:?} {said}");
    }
    for (arg, status) in [("--nonsense", 64), ("--users=/nowhere/users", 78)] {
        let (ended, _) = run(arg, Stdio::null(), full().into());
        assert_eq!(ended, Some(status), "{arg}");
    }
}

/// A password that is too long is refused, not cut: nobody could log in by it.
#[test]
fn no_part_of_a_password_is_hashed() {
    for (length, status) in [(1_023, 0), (1_024, 64), (5_000, 64), (0, 64)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailslot"))
            .arg("--hash-password")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = "p".repeat(length) + "\n";
        // The rest of a long line may not be read.
        let _ = child.stdin.take().unwrap().write_all(line.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{length}");
        assert_eq!(output.stdout.is_empty(), status != 0, "{length}");
    }
}
