//! Identity: quoted and routed names, ambiguous names, postmaster.

use super::*;

fn created(scratch: &Scratch, users: Option<&str>, aliases: &str) -> Directory {
    let settings = DirectoryConfig {
        create: true,
        users: users.map(|users| scratch.file("users", users)),
        aliases: Some(scratch.file("aliases", aliases)),
        ..settings(scratch)
    };
    Directory::load(&settings).unwrap()
}

fn at_b(name: &str) -> String {
    format!("{name}@b\u{fc}cher.example")
}

/// A quoted `@` is not another domain's account, for any client.
#[test]
fn a_quoted_at_is_no_domain() {
    let scratch = Scratch::new();
    let users = format!("{}:{{PLAIN}}x\nalice:{{PLAIN}}y\n", at_b("only"));
    let directory = with_files(&scratch, &users, "sales: alice\n");
    let only = at_b("only");
    for to in [
        format!("<\"{only}\"@example.org>"),
        format!("<\"{only}\">"),
        format!("<\"{only}+x\"@example.org>"),
        "<\"alice@example.org\"@example.org>".to_owned(),
    ] {
        assert_eq!(resolve(&directory, &to), Err(550), "{to}");
    }
    for login in [
        format!("{only}@example.org"),
        "alice@example.org@example.org".to_owned(),
    ] {
        let account = directory.account(&login);
        assert!(matches!(account, Account::Unknown), "{login}");
    }
    let from = ReversePath::parse(&mut Cursor::new(&format!("<\"{only}\"@example.org>"))).unwrap();
    assert!(!directory.may_send_as(&only, &from));
}

/// With --create, names that old mail systems read as ways to elsewhere are not mailboxes.
#[test]
fn routes_are_not_made() {
    let scratch = Scratch::new();
    let directory = created(
        &scratch,
        None,
        "\"a%b\": carol\n@b\u{fc}cher.example: carol\n",
    );
    for to in [
        "\"relay@elsewhere\"",
        "elsewhere!user",
        "user%elsewhere",
        "user%elsewhere+x",
        "user+x%elsewhere",
        "\"relay@elsewhere\"+x",
    ] {
        for to in [
            format!("<{to}@example.org>"),
            format!("<{to}>"),
            format!("<{}>", at_b(to)),
        ] {
            let Some(path) = ForwardPath::parse(&mut Cursor::new(&to)) else {
                continue;
            };
            let reply = directory.resolve(&path, WAYS).unwrap_err();
            assert_eq!(reply, crate::smtp::reply::NO_RELAY, "{to}");
        }
    }
    assert_eq!(
        resolve(&directory, "<a%b@example.org>"),
        one("carol@example.org")
    );
    assert_eq!(
        resolve(&directory, "<user@example.org>"),
        one("user@example.org")
    );
}

/// Listed accounts by their entries, every other name as --create has it.
#[test]
fn accounts_and_create_together() {
    let scratch = Scratch::new();
    let users = "alice:::::/home/alice::userdb_mail=maildir:~/Maildir\na%b\n";
    let directory = created(&scratch, Some(users), "");
    let maildir = |to: &str| {
        let path = ForwardPath::parse(&mut Cursor::new(to)).unwrap();
        let found = directory.resolve(&path, WAYS).unwrap();
        assert!(found[0].may_create, "{to}");
        found[0].maildir.display().to_string()
    };
    assert_eq!(maildir("<alice@example.org>"), "/home/alice/Maildir");
    assert_eq!(maildir("<alice+x@example.org>"), "/home/alice/Maildir");
    assert!(maildir("<bob+x@example.org>").ends_with("mail/example.org/bob"));
    assert!(maildir("<a%b@example.org>").ends_with("mail/example.org/a%b"));
    assert_eq!(resolve(&directory, "<c%b@example.org>"), Err(550));
}

/// `alice` and `alice@b` are two.
#[test]
fn nobody_sends_as_somebody_of_the_same_name() {
    let scratch = Scratch::new();
    let users = format!("alice:{{PLAIN}}x\n{}:{{PLAIN}}y\n", at_b("alice"));
    let aliases = "info: alice\nlist: alice, out@side.net\n";
    let directory = with_files(&scratch, &users, aliases);
    let may = |user: &str, from: &str| {
        let from = ReversePath::parse(&mut Cursor::new(&format!("<{from}>"))).unwrap();
        directory.may_send_as(user, &from)
    };
    assert!(may("alice", "alice@example.org") && may("alice", "info@example.org"));
    assert!(may("alice", "list@example.org"));
    assert!(!may("alice", &at_b("alice")) && !may("alice", &at_b("Alice+x")));
    assert!(may(&at_b("alice"), &at_b("alice")) && may(&at_b("alice"), &at_b("info")));
    assert!(!may(&at_b("alice"), "alice@example.org"));
    assert!(
        !may("alice", "postmaster@example.org"),
        "nobody has that name"
    );
}

/// What no mailbox can be called reaches no catch-all, and postmaster does.
#[test]
fn catch_alls() {
    let scratch = Scratch::new();
    let aliases = "@example.org: bob\n@b\u{fc}cher.example: alice\n";
    let directory = with_files(&scratch, "alice\nbob\n", aliases);
    for to in ["\"\"", "\"../x\"", "\"a/b\"", "\".x\""] {
        let reply = resolve(&directory, &format!("<{to}@example.org>"));
        assert_eq!(reply, Err(550), "{to}");
    }
    for to in [
        "<Postmaster>",
        "<postmaster@example.org>",
        "<any+thing@example.org>",
    ] {
        assert_eq!(resolve(&directory, to), one("bob@example.org"), "{to}");
    }
    let to = format!("<{}>", at_b("postmaster"));
    assert_eq!(resolve(&directory, &to), one(&at_b("alice")));
}

/// Postmaster's mail goes to the first mailbox that can take it, at his domain or at another one.
#[test]
fn the_first_mailbox_that_takes_it() {
    let scratch = Scratch::new();
    let directory = Directory::load(&settings(&scratch)).unwrap();
    for name in ["b", "a", "c"] {
        std::fs::create_dir_all(scratch.0.join("mail/example.org").join(name)).unwrap();
    }
    let first = |to: &str, full: &[&str]| {
        let ways = Ways {
            takes: &|target| !full.iter().any(|name| target.maildir.ends_with(name)),
            ..WAYS
        };
        let path = ForwardPath::parse(&mut Cursor::new(to)).unwrap();
        let found = directory.resolve(&path, ways).map_err(|r| r.code());
        found.map(|found| found[0].address.clone())
    };
    let other = format!("<{}>", at_b("postmaster"));
    for to in ["<Postmaster>", "<postmaster@example.org>", &other] {
        assert_eq!(first(to, &[]), Ok("a@example.org".into()), "{to}");
        assert_eq!(first(to, &["a"]), Ok("b@example.org".into()), "{to}");
        assert_eq!(first(to, &["a", "b", "c"]), Err(550), "{to}");
    }
    std::fs::remove_dir(scratch.0.join("mail/example.org/a")).unwrap();
    assert_eq!(first("<Postmaster>", &[]), Ok("b@example.org".into()));

    let users = format!("{}\nalice\n", at_b("joe"));
    let directory = with_files(&scratch, &users, "x: y\n");
    assert_eq!(
        resolve(&directory, "<Postmaster>"),
        one("alice@example.org")
    );
    assert_eq!(resolve(&directory, &other), one(&at_b("joe")));
    let directory = with_files(&scratch, &format!("{}\n", at_b("joe")), "x: y\n");
    assert_eq!(resolve(&directory, "<Postmaster>"), one(&at_b("joe")));
}

/// However many ask, the directories of thousands are read seldom.
#[test]
fn a_stranger_costs_no_walk() {
    let scratch = Scratch::new();
    let directory = Directory::load(&settings(&scratch)).unwrap();
    for n in 0..3_000 {
        std::fs::create_dir_all(scratch.0.join(format!("mail/example.org/u{n}"))).unwrap();
    }
    let looks = std::cell::Cell::new(0);
    let ways = Ways {
        takes: &|_| {
            looks.set(looks.get() + 1);
            false
        },
        ..WAYS
    };
    let begin = std::time::Instant::now();
    for _ in 0..1_000 {
        assert!(directory.resolve(&ForwardPath::Postmaster, ways).is_err());
    }
    // A search rests for 50 µs a mailbox: a span says how many there can have been.
    let searches = begin.elapsed().as_millis() / 137 + 1;
    assert!(
        looks.get() / 3_000 <= searches.try_into().unwrap(),
        "{looks:?} {searches}"
    );
}

/// SCRAM shows an account's own salt for logins that reach it and a decoy's for others. Which of them are equal must not
/// tell whether there is an account.
#[test]
fn decoys_agree_where_accounts_do() {
    let forms = [
        "*",
        "*@example.org",
        "*@B\u{fc}cher.example",
        "*@xn--bcher-kva.example",
        "*@elsewhere.test",
        "*@EXAMPLE.org.",
    ];
    for (users, real) in [
        ("bob:{PLAIN}x\n", "bob"),
        ("bob@example.org:{PLAIN}x\n", "bob"),
    ] {
        let scratch = Scratch::new();
        let directory = with_files(&scratch, users, "");
        let shown = |local: &str| -> Vec<String> {
            let logins = forms.iter().map(|form| form.replace('*', local));
            let shown = |login: String| match directory.account_name(&login) {
                Some(_) => "stored".to_owned(),
                None => directory.decoy_name(&login),
            };
            logins.map(shown).collect()
        };
        let equal = |local: &str| -> Vec<bool> {
            let all = shown(local);
            let pairs = all
                .iter()
                .flat_map(|one| all.iter().map(move |other| one == other));
            pairs.collect()
        };
        assert_eq!(
            equal(real),
            equal("stranger"),
            "{users}: {:?} {:?}",
            shown(real),
            shown("stranger")
        );
    }
}
