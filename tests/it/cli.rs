//! Bad command lines and bad files: a directory each under tests/config, with `args`, and the exact
//! `stderr` and exit `status`. It is run inside that directory, so that files are named alike.

use std::path::Path;
use std::process::Command;

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
            .current_dir(&case)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = format!("{}\n", output.status.code().unwrap());
        if said != read("stderr") || status != read("status") {
            wrong.push(format!("{}: {said}{status}", case.display()));
        }
        cases += 1;
    }
    assert!(wrong.is_empty() && cases > 20, "{}", wrong.join("\n"));
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
