//! Bad command lines and bad files: exact stderr, exact exit status.

use std::process::Command;

#[test]
fn golden_failures() {
    let file = std::env::temp_dir().join(format!("mailslot-cli-{}.conf", std::process::id()));
    std::fs::write(&file, "# comment\nmax-size 1M\nnonsense 3\n").unwrap();
    let path = file.to_str().unwrap();
    let cases: &[(&[&str], &str, i32)] = &[
        (
            &["--max-size", "x"],
            "--max-size: 'x' is wrong; say a size such as 50M",
            64,
        ),
        (
            &["--max-size", "0"],
            "--max-size: '0' is wrong; say a size such as 50M",
            64,
        ),
        (
            &["--timeout", "5"],
            "--timeout: '5' is wrong; say a duration such as 5m",
            64,
        ),
        (
            &["--max-errors", "0"],
            "--max-errors: '0' is wrong; say a whole number above 0",
            64,
        ),
        (
            &["--sync", "half"],
            "--sync: 'half' is wrong; say full or none",
            64,
        ),
        (
            &["--bare-newline", "keep"],
            "--bare-newline: 'keep' is wrong; say reject or normalize",
            64,
        ),
        (
            &["--listen", "http://x"],
            "--listen: 'http://x' is wrong; say smtp://HOST:PORT",
            64,
        ),
        (
            &["--listen", "smtp://x:99999"],
            "--listen: 'smtp://x:99999' is wrong; say smtp://HOST:PORT",
            64,
        ),
        (
            &["--maildir", "mail"],
            "--maildir: 'mail' has no %u; say mail/%d/%u, for example",
            64,
        ),
        (&["word"], "unexpected argument 'word'; try --help", 64),
        (&["--what"], "Unrecognized option: 'what'; try --help", 64),
        (
            &["--config", "/nonexistent"],
            "/nonexistent: No such file or directory (os error 2)",
            78,
        ),
    ];
    for (args, text, status) in cases {
        check(args, text, *status);
    }
    check(
        &["--config", path],
        &format!("{path}:3: unknown option 'nonsense'"),
        78,
    );
    std::fs::remove_file(&file).unwrap();
}

fn check(args: &[&str], text: &str, status: i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
        .args(args)
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!("mailslot: {text}\n")
    );
    assert_eq!(output.status.code(), Some(status), "{args:?}");
}

#[test]
fn a_taken_port_is_71() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", taken.local_addr().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_mailslot"))
        .args(["-q", "--listen", &url])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&url));
}
