//! `--healthcheck` with every kind of listener, and with other servers.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use mailslot::cmd::healthcheck::check;

use crate::server::{Server, Setup};
use crate::tls::{CERT, KEY};

#[test]
fn every_kind_of_listener() {
    let name = format!("mailslot-health-{}", std::process::id());
    let socket = std::env::temp_dir().join(name).display().to_string();
    let unix = [format!("smtp:{socket}.smtp"), format!("lmtp:{socket}.lmtp")];
    let tcp = ["smtp", "submission", "submissions", "lmtp"].map(|s| format!("{s}://127.0.0.1:0"));
    let args = [
        "--tls-cert",
        CERT,
        "--tls-key",
        KEY,
        "--users",
        "users",
        "--require-tls",
    ];
    let server = Server::launch(&Setup {
        listen: tcp.into_iter().chain(unix).collect(),
        args: args.map(str::to_owned).to_vec(),
        files: vec![("users".into(), "alice:{PLAIN}x\n".into())],
        ..Setup::default()
    })
    .unwrap();
    for url in &server.urls {
        assert_eq!(check(&url.parse().unwrap()), Ok(()), "{url}");
    }
    // All interfaces are reached by the loopback.
    let everywhere = server.urls[0].replace("127.0.0.1", "0.0.0.0");
    assert_eq!(check(&everywhere.parse().unwrap()), Ok(()));
    let unnamed = server.urls[0].replace("127.0.0.1", "");
    assert_eq!(check(&unnamed.parse().unwrap()), Ok(()));
    // The wrong protocol is an answer, too.
    let wrong = server.urls[0].replace("smtp://", "lmtp://");
    let said = check(&wrong.parse().unwrap()).unwrap_err();
    assert!(said.contains("500"), "{said}");
}

/// A second word, `=URL`, or the first listener of the environment; the status says what was found.
#[test]
fn as_a_container_calls_it() {
    let server = Server::start(&[]);
    let url = &server.urls[0];
    let run = |args: &[&str], listen: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailslot"));
        let output = command
            .args(args)
            .env("MAILSLOT_LISTEN", listen)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let well = (Some(0), String::new());
    assert_eq!(run(&["--healthcheck", url], "smtp://192.0.2.1:1"), well);
    assert_eq!(
        run(&[&format!("--healthcheck={url}")], "smtp://192.0.2.1:1"),
        well
    );
    assert_eq!(
        run(&["--healthcheck"], &format!("{url} lmtp:/nonexistent")),
        well
    );
    let (code, said) = run(&["--healthcheck"], "lmtp:/nonexistent");
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("mailslot: healthcheck: lmtp:/nonexistent: connect"),
        "{said}"
    );
    assert_eq!(run(&["--healthcheck", "ftp://x"], url).0, Some(64));
    assert_eq!(run(&["--healthcheck", url, "more"], url).0, Some(64));
}

#[test]
fn failures_are_explained() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", closed.local_addr().unwrap());
    drop(closed);
    let said = check(&url.parse().unwrap()).unwrap_err();
    assert!(said.starts_with(&url) && said.contains("refused"), "{said}");
    for (url, words) in [
        ("smtp://127.0.0.1:0", "port 0"),
        ("lmtp:/nonexistent/x", "No such file"),
    ] {
        let said = check(&url.parse().unwrap()).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
    for (greeting, words) in [
        ("421 4.3.2 busy\r\n", "421 4.3.2 busy"),
        ("HTTP/1.1 400\r\n", "not an SMTP"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let _ = socket.write_all(greeting.as_bytes());
        });
        let said = check(&url.parse().unwrap()).unwrap_err();
        assert!(said.contains(words), "{said}");
        served.join().unwrap();
    }
}

#[test]
fn a_silent_server_is_given_ten_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    let said = check(&url.parse().unwrap()).unwrap_err();
    assert!(said.contains("timed out"), "{said}");
    let taken = begun.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(60)).contains(&taken),
        "{taken:?}"
    );
}

/// Its own connections are not logged, but using its name hides nobody else.
#[test]
fn a_supervisor_does_not_fill_the_log() {
    let socket = std::env::temp_dir().join(format!("mailslot-quiet-{}", std::process::id()));
    let launch = |level: &str| {
        let listen = ["smtp://127.0.0.1:0", "smtp://127.0.0.1:0?proxy"];
        let unix = format!("lmtp:{}", socket.display());
        let args = ["--create", "--trust", "127.0.0.1"];
        Server::launch(&Setup {
            listen: listen
                .map(str::to_owned)
                .into_iter()
                .chain([unix])
                .collect(),
            args: args.map(str::to_owned).to_vec(),
            env: vec![("RUST_LOG".into(), level.into())],
            ..Setup::default()
        })
        .unwrap()
    };
    let server = launch("info");
    for url in &server.urls {
        assert_eq!(check(&url.parse().unwrap()), Ok(()), "{url}");
    }
    let place = |server: &Server, listener: usize| {
        let place = server.urls[listener].split_once("://").unwrap().1;
        place.split('?').next().unwrap().to_owned()
    };
    let say = |listener, text: &str| {
        let mut socket = TcpStream::connect(place(&server, listener)).unwrap();
        socket.write_all(text.as_bytes()).unwrap();
        let mut said = String::new();
        socket.read_to_string(&mut said).unwrap();
    };
    let hello = "EHLO mailslot-healthcheck\r\n";
    for more in [
        "NOOP\r\nQUIT\r\n",
        "EHLO x\r\nQUIT\r\n",
        "VRFY x\r\nQUIT\r\n",
        "NONSENSE\r\nQUIT\r\n",
    ] {
        say(0, &format!("{hello}{more}"));
    }
    say(
        1,
        &format!("PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n{hello}QUIT\r\n"),
    );
    server.logged("connection client=\"[192.0.2.7]\" helo=\"mailslot-healthcheck\"");
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains(" connection "));
    assert_eq!(lines.count(), 5, "{log}");
    drop(server);
    let server = launch("debug");
    assert_eq!(check(&server.urls[0].parse().unwrap()), Ok(()));
    server.logged(
        "connection client=\"[127.0.0.1]\" helo=\"mailslot-healthcheck\" messages=0 end=\"221",
    );
}
