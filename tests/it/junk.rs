//! `--junk` over real sockets: marked mail goes to its folder.

use crate::server::{Server, Setup};

fn launch() -> Server {
    // A line of a file is one field, as spam filters write it.
    let config = "# as rspamd adds it\njunk X-Spam: Yes\njunk X-Spam-Flag:YES\n";
    let args = ["-d", "a.test", "--config", "mailslot.conf"];
    Server::launch(&Setup {
        args: args.map(str::to_owned).to_vec(),
        files: vec![("mailslot.conf".into(), config.into())],
        dirs: ["has/.Junk", "has/.list", "lacks"]
            .map(|place| format!("mail/a.test/{place}"))
            .to_vec(),
        ..Setup::default()
    })
    .unwrap()
}

/// How many messages are in the inbox and the folders.
fn counts(server: &Server) -> [usize; 4] {
    ["has", "has/.Junk", "has/.list", "lacks"]
        .map(|place| server.messages(&format!("a.test/{place}")).len())
}

#[test]
fn marked_mail_goes_to_its_folder() {
    let server = launch();
    let mut client = server.client();
    assert!(client.reply().starts_with("220"));
    let mut deliver = |field: &str, to: &[&str]| {
        let mut said = String::from("EHLO c\r\nMAIL FROM:<>\r\n");
        for to in to {
            said.push_str(&format!("RCPT TO:<{to}@a.test>\r\n"));
        }
        let content = format!("A: b\r\n{field}\r\n\r\nX-Spam: Yes\r\n");
        said.push_str(&format!("BDAT {} LAST\r\n{content}", content.len()));
        client.send(said.as_bytes());
        let last = (0..to.len() + 3).map(|_| client.reply()).last();
        assert!(last.unwrap().starts_with("250 2.0.0 Message accepted"));
    };
    deliver("B: c", &["has", "lacks"]);
    assert_eq!(counts(&server), [1, 0, 0, 1]);
    deliver("x-spam:\r\n Yes", &["has", "lacks"]);
    assert_eq!(counts(&server), [1, 1, 0, 2]);
    // A folder that was named wins.
    deliver("X-Spam-Flag: YES", &["has+list", "has"]);
    assert_eq!(counts(&server), [1, 2, 1, 2]);
    // The case of the value counts, and what is in the body does not.
    deliver("X-Spam-Flag: yes", &["has"]);
    assert_eq!(counts(&server), [2, 2, 1, 2]);
}

/// The rest of the message's recipients must not suffer from a folder that cannot be used.
#[test]
fn without_a_usable_folder_it_goes_to_the_inbox() {
    let server = launch();
    let inbox = server.dir.join("mail/a.test/lacks");
    let junk = inbox.join(".Junk");
    let mut client = server.client();
    assert!(client.reply().starts_with("220"));
    client.send(b"EHLO c\r\n");
    assert!(client.reply().starts_with("250"));
    for (number, kind) in ["file", "link", "part"].into_iter().enumerate() {
        match kind {
            "file" => std::fs::write(&junk, "").unwrap(),
            "link" => std::os::unix::fs::symlink("../has/.Junk", &junk).unwrap(),
            _ => {
                std::fs::create_dir(&junk).unwrap();
                std::fs::write(junk.join("new"), "").unwrap();
            }
        }
        client.send(b"MAIL FROM:<>\r\nRCPT TO:<lacks@a.test>\r\nRCPT TO:<has@a.test>\r\nDATA\r\n");
        (0..4).for_each(|_| assert!(client.reply().starts_with(['2', '3']), "{kind}"));
        client.send(b"X-Spam: Yes\r\n\r\nx\r\n.\r\n");
        assert!(client.reply().starts_with("250 2.0.0"), "{kind}");
        assert_eq!(counts(&server), [0, number + 1, 0, number + 1], "{kind}");
        let _ = std::fs::remove_file(&junk);
    }
}
