//! Resolution as a whole: files in, mailboxes out.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod identity;
mod lists;
mod mailboxes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::expand::ResolveContext;
use super::lookup::{Directory, DirectoryConfig};
use super::users::Users;
use crate::auth::Account;
use crate::deliver::{Quota, Target};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::cursor::Cursor;
use crate::smtp::reply::Reply;
pub(super) use crate::testing::Scratch;

fn settings(scratch: &Scratch) -> DirectoryConfig {
    let root = scratch.0.join("mail");
    std::fs::create_dir_all(&root).unwrap();
    DirectoryConfig {
        domains: vec!["example.org".into(), "b\u{fc}cher.example".into()],
        pattern: format!("{}/%d/%u", root.display()),
        create: false,
        delimiter: "+".into(),
        users: None,
        aliases: None,
        quota: None,
        max_recipients: 1_000,
        logins: true,
    }
}

/// Mailboxes as in `Delivered-To`, with the folder after a colon, or the reply code.
fn resolve(directory: &Directory, path: &str) -> Result<Vec<String>, u16> {
    let path = ForwardPath::from_text(path).ok_or(501_u16)?;
    let targets = directory
        .resolve(&path, CONTEXT)
        .map_err(|refusal| refusal.code())?;
    let name = |target: &Arc<Target>| match &target.folder {
        Some(folder) => format!("{}:{folder}", target.address),
        None => target.address.clone(),
    };
    Ok(targets.iter().map(name).collect())
}

const CONTEXT: ResolveContext<'_> = ResolveContext {
    onward: None,
    may_relay: false,
    takes: &|_| true,
    is_open: &|_| false,
};

fn one(name: &str) -> Result<Vec<String>, u16> {
    Ok(vec![name.to_owned()])
}

/// R003, R030, R052, A4, A14.
#[test]
fn nothing_leaves_the_pattern() {
    let scratch = Scratch::new();
    let directory = Directory::load(&DirectoryConfig {
        create: true,
        ..settings(&scratch)
    })
    .unwrap();
    assert_eq!(
        resolve(&directory, "<Alice@EXAMPLE.org>"),
        one("alice@example.org")
    );
    assert_eq!(resolve(&directory, "<bob>"), one("bob@example.org"));
    assert_eq!(
        resolve(&directory, "<POSTmaster>"),
        one("postmaster@example.org")
    );
    assert_eq!(
        resolve(&directory, "<a+x@example.org>"),
        one("a+x@example.org")
    );
    for refused in [
        "<a@other.org>",
        "<a%b@other.org>",
        "<@example.org:a@other.org>",
        "<\"a@example.org\"@other.org>",
        "<b!a@other.org>",
        "<a/b@example.org>",
        "<\"../x\"@example.org>",
        "<\".x\"@example.org>",
        "<\"\"@example.org>",
        "<\"..\"@example.org>",
        "<\"..+x\"@example.org>",
        "<a\u{2215}b@example.org>",
    ] {
        assert_eq!(resolve(&directory, refused), Err(550), "{refused}");
    }
}

/// A17: one domain in two spellings; R052: postmaster always goes somewhere; F24.
#[test]
fn mailboxes_that_are_directories() {
    let scratch = Scratch::new();
    let settings = settings(&scratch);
    let directory = Directory::load(&settings).unwrap();
    assert_eq!(resolve(&directory, "<postmaster>"), Err(550));
    let mail = scratch.0.join("mail");
    for dir in [
        "b\u{fc}cher.example/joe",
        "example.org/alice/.Lists.x",
        "example.org/a+b",
    ] {
        std::fs::create_dir_all(mail.join(dir)).unwrap();
    }
    let joe = one("joe@b\u{fc}cher.example");
    assert_eq!(resolve(&directory, "<joe@B\u{dc}CHER.example>"), joe);
    assert_eq!(resolve(&directory, "<joe@xn--bcher-kva.example>"), joe);
    assert_eq!(
        resolve(&directory, "<alice+lists.x@example.org>"),
        one("alice+lists.x@example.org:.Lists.x")
    );
    std::fs::create_dir_all(mail.join("example.org/alice/.lists.x")).unwrap();
    for (detail, folder) in [("lists.x", ":.lists.x"), ("nothing", ""), ("../../x", "")] {
        let address = format!("alice+{detail}@example.org");
        let found = resolve(&directory, &format!("<\"alice+{detail}\"@example.org>"));
        assert_eq!(found, one(&format!("{address}{folder}")));
    }
    assert_eq!(
        resolve(&directory, "<a+b@example.org>"),
        one("a+b@example.org"),
        "as a whole"
    );
    assert_eq!(resolve(&directory, "<bob@example.org>"), Err(550));
    assert_eq!(
        resolve(&directory, "<Postmaster>"),
        one("a+b@example.org"),
        "the first"
    );
    std::fs::remove_dir_all(&mail).unwrap();
    assert_eq!(resolve(&directory, "<bob@example.org>"), Err(451));
}

/// Files as editors and other mail systems write them, and the standard aliases of a system without a root mailbox.
#[test]
fn files_as_they_are_found() {
    let scratch = Scratch::new();
    let users = "\u{feff}alice \r\n \r\n\t# bob\r\ncarol@Example.org.:x:::Carol\r\n\
        +@staff::::::\r\n-guest\r\n+::::::\r\n";
    let aliases = "\u{feff}postmaster: root\r\n \r\ncarol: \\carol\r\nx@example.org.: alice\r\n\
        loud: \\Alice\r\nalice: carol\r\n";
    let directory = with_files(&scratch, users, aliases);
    assert_eq!((directory.users(), directory.aliases()), (Some(2), Some(5)));
    let found = |path: &str| resolve(&directory, path);
    assert_eq!(found("<Postmaster>"), one("alice@example.org"));
    assert_eq!(found("<carol@example.org>"), one("carol@example.org"));
    assert_eq!(found("<alice@example.org>"), one("carol@example.org"));
    assert_eq!(found("<x@example.org>"), one("carol@example.org"));
    assert_eq!(found("<loud@example.org>"), one("alice@example.org"));
    assert_eq!(found("<bob@example.org>"), Err(550));
    for wrong in ["a@b@example.org", "alice@.", "@"] {
        let path = scratch.file("wrong", wrong);
        assert!(Users::load(&path, false, false).is_err(), "{wrong}");
    }
}

fn with_files(scratch: &Scratch, users: &str, aliases: &str) -> Directory {
    Directory::load(&DirectoryConfig {
        users: Some(scratch.file("users", users)),
        aliases: Some(scratch.file("aliases", aliases)),
        quota: Some(Quota {
            bytes: Some(5),
            messages: None,
        }),
        ..settings(scratch)
    })
    .unwrap()
}

const USERS: &str = "# people\nalice:{PLAIN}a:::Alice Jones\n\
    bob@example.org:{SCRAM-SHA-256}4096,c2FsdHNhbHRzYWx0c2FsdA==,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:::Bob Jones::\n\
    carol::::::: userdb_mail=maildir:/srv/%n userdb_quota_rule=*:storage=1\n";
const ALIASES: &str = "sales: alice, bob+sales, sales2\nsales2: bob, carol\nalice: alice, carol\n\
    out: x@y.net\nout2: alice, out\nlost: nobody\n@b\u{fc}cher.example: carol\npostmaster: bob@example.org\n";

#[test]
fn aliases_and_users() {
    let scratch = Scratch::new();
    let directory = with_files(&scratch, USERS, ALIASES);
    assert_eq!((directory.users(), directory.aliases()), (Some(3), Some(8)));
    let found = |path: &str| resolve(&directory, path);
    let names = |all: &[&str]| Ok(all.iter().map(|n| format!("{n}@example.org")).collect());
    assert_eq!(found("<bob@example.org>"), names(&["bob"]));
    assert_eq!(found("<alice@example.org>"), names(&["alice", "carol"]));
    // Nobody has that folder yet.
    assert_eq!(found("<Alice+x@example.org>"), names(&["alice", "carol"]));
    std::fs::create_dir_all(scratch.0.join("mail/example.org/alice/.x")).unwrap();
    let with_folder = ["alice+x@example.org:.x", "carol+x@example.org"];
    assert_eq!(
        found("<Alice+x@example.org>"),
        Ok(with_folder.map(str::to_owned).to_vec())
    );
    assert_eq!(
        found("<SALES@example.org>"),
        names(&["alice", "carol", "bob+sales"])
    );
    assert_eq!(found("<Postmaster>"), names(&["bob"]));
    assert_eq!(found("<nobody@example.org>"), Err(550));
    assert_eq!(found("<lost@example.org>"), Err(550));
    assert_eq!(found("<out2@example.org>"), Err(551));
    assert_eq!(
        found("<bob@b\u{fc}cher.example>"),
        one("carol@b\u{fc}cher.example")
    );
    let path = ForwardPath::from_text("<out@example.org>").unwrap();
    let refusal = directory.resolve(&path, CONTEXT).unwrap_err();
    assert_eq!(refusal.text(), "User not local; please try <x@y.net>");
    let path = ForwardPath::from_text("<Sales@example.org>").unwrap();
    let carol = directory.resolve(&path, CONTEXT).unwrap();
    let carol = carol.get(1).unwrap();
    assert_eq!(carol.original, None, "one of several");
    assert_eq!(
        (&*carol.maildir, &*carol.root),
        (Path::new("/srv/carol"), Path::new("/srv"))
    );
    assert_eq!(carol.quota.as_ref().unwrap().bytes, Some(1_024));
}

/// R033, A14: names out of the gecos field; who is meant by several names.
#[test]
fn vrfy_and_expn() {
    let scratch = Scratch::new();
    let directory = with_files(&scratch, USERS, ALIASES);
    let code = |answer: Result<Vec<String>, Reply>| answer.map_err(|r| r.code());
    let vrfy = |name: &str| code(directory.vrfy(name));
    assert_eq!(vrfy("bob"), one("Bob Jones <bob@example.org>"));
    for name in ["Bob Jones", "\"Bob Jones\"", " \"bob \\jones\" ", "\"bob\""] {
        assert_eq!(vrfy(name), one("Bob Jones <bob@example.org>"), "{name}");
    }
    assert_eq!(vrfy("<carol@example.org>"), one("<carol@example.org>"));
    assert_eq!(vrfy("sales"), one("<sales@example.org>"));
    assert_eq!((vrfy("jones"), vrfy("smith")), (Err(553), Err(550)));
    let lines = [
        "Alice Jones <alice@example.org>",
        "<bob+sales@example.org>",
        "<sales2@example.org>",
    ];
    assert_eq!(code(directory.expn("sales")).unwrap(), lines);
    assert_eq!(code(directory.expn("out")), one("<x@y.net>"));
    assert_eq!(code(directory.expn("carol")), one("<carol@example.org>"));
    assert_eq!(code(directory.expn("nobody")), Err(550));
    // Only the full name counts; letters beyond ASCII have cases, too.
    let users = "jo:{PLAIN}secret:::\u{dc}nal G\u{fc}l,Room 1,,:/home/jo:/bin/sh\n";
    let directory = with_files(&scratch, users, "x: jo\n");
    let vrfy = |name: &str| code(directory.vrfy(name));
    for name in ["\u{fc}nal", "\u{dc}NAL g\u{fc}l", "g\u{dc}l"] {
        assert_eq!(
            vrfy(name),
            one("\u{dc}nal G\u{fc}l <jo@example.org>"),
            "{name}"
        );
    }
    for name in ["secret", "1", "Room 1", "/bin/sh", "", "\u{dc}nal,"] {
        assert_eq!(vrfy(name), Err(550), "{name}");
    }
}

/// F57, R160: names and mechanisms of logins, and the addresses that users may send from.
#[test]
fn logins() {
    let scratch = Scratch::new();
    let directory = with_files(&scratch, USERS, ALIASES);
    for (login, known) in [
        ("alice", true),
        ("ALICE@example.org", true),
        ("alice@xn--bcher-kva.example", true),
        ("alice@other.org", false),
        ("bob", false),
        ("bob@example.org", true),
        ("bob@b\u{fc}cher.example", false),
        ("carol", false),
        ("sales", false),
    ] {
        let account = directory.account(login);
        assert_eq!(matches!(account, Account::Known { .. }), known, "{login}");
    }
    let names: Vec<&str> = directory.mechanisms().iter().map(|m| m.name()).collect();
    assert_eq!(
        names,
        ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
    );
    let may = |user: &str, from: &str| {
        let from = ReversePath::parse(&mut Cursor::new(from)).unwrap();
        directory.may_send_as(user, &from)
    };
    assert!(may("alice", "<alice@example.org>") && may("alice", "<sales@example.org>"));
    assert!(may("alice", "<>") && may("alice", "<alice+x@b\u{fc}cher.example>"));
    assert!(!may("bob@example.org", "<alice@example.org>"));
    assert!(!may("alice", "<alice@other.org>"));
}

/// A broken file names path, line and reason.
#[test]
fn broken_files() {
    let scratch = Scratch::new();
    let load = |users: PathBuf| {
        let settings = DirectoryConfig {
            users: Some(users),
            ..settings(&scratch)
        };
        Directory::load(&settings)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let twice = load(scratch.file("twice", "joe\n\nJOE\n"));
    assert!(
        twice.ends_with("twice:3: user 'JOE' is listed twice"),
        "{twice}"
    );
    let path = scratch.0.join("latin1");
    std::fs::write(&path, b"a\nb\nj\xe9\n").unwrap();
    assert!(load(path).ends_with("latin1:3: not UTF-8"));
    assert!(load(scratch.0.join("none")).contains("none: cannot read: No such file"));
}

/// Thousands of users are found.
#[test]
fn many_users() {
    let scratch = Scratch::new();
    let text: String = (0..10_000)
        .map(|n| format!("user{n}:{{PLAIN}}x\n"))
        .collect();
    let directory = with_files(&scratch, &text, "a: user1\n");
    for n in [0, 5_000, 9_999] {
        let address = format!("user{n}@example.org");
        assert_eq!(resolve(&directory, &format!("<{address}>")), one(&address));
    }
}

/// Random files: resolution ends, gives each mailbox once, and agrees with a naive model.
#[test]
fn random_aliases_agree_with_the_model() {
    let scratch = Scratch::new();
    let users: String = (0..4).map(|n| format!("u{n}\n")).collect();
    let mut random: u64 = 0x2545_f491_4f6c_dd1d;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut loaded = 0;
    for _ in 0..300 {
        let mut file = String::new();
        let mut model: Vec<(String, Vec<String>)> = Vec::new();
        for n in 0..6 {
            let targets: Vec<String> = (0..=next(3))
                .map(|_| match next(3) {
                    0 => format!("a{}", next(6)),
                    _ => format!("u{}", next(5)),
                })
                .collect();
            file.push_str(&format!("a{n}: {}\n", targets.join(", ")));
            model.push((format!("a{n}"), targets));
        }
        let settings = DirectoryConfig {
            users: Some(scratch.file("users", &users)),
            aliases: Some(scratch.file("aliases", &file)),
            ..settings(&scratch)
        };
        let Ok(directory) = Directory::load(&settings) else {
            assert!(
                (0..6).any(|n| reach(&model, &format!("a{n}"), 0).is_none()),
                "{file}"
            );
            continue;
        };
        loaded += 1;
        for n in 0..6 {
            let name = format!("a{n}");
            let mut expected = reach(&model, &name, 0).unwrap();
            expected.sort();
            expected.dedup();
            let mut found =
                resolve(&directory, &format!("<{name}@example.org>")).unwrap_or_default();
            let count = found.len();
            found.sort();
            found.dedup();
            assert_eq!(
                (found.len(), &found),
                (count, &expected),
                "{name} of {file}"
            );
        }
    }
    assert!(loaded > 50);
}

/// The obvious recursion; `None` if it does not end. A name among its own targets is not a
/// mailbox here, as none of these names has one.
fn reach(model: &[(String, Vec<String>)], name: &str, depth: u32) -> Option<Vec<String>> {
    if depth > 10 {
        return None;
    }
    let Some((_, targets)) = model.iter().find(|(known, _)| known == name) else {
        let known = ["u0", "u1", "u2", "u3"].contains(&name);
        return Some(
            known
                .then(|| format!("{name}@example.org"))
                .into_iter()
                .collect(),
        );
    };
    let mut all = Vec::new();
    for target in targets.iter().filter(|target| *target != name) {
        all.extend(reach(model, target, depth + 1)?);
    }
    Some(all)
}
