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
fn a_quoted_at_sign_is_part_of_the_local_part() {
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

/// With --create, names that old mail systems read as context to elsewhere are not mailboxes.
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
            let Some(path) = ForwardPath::from_text(&to) else {
                continue;
            };
            let reply = directory.resolve(&path, CONTEXT).unwrap_err();
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

/// Accounts follow their entries, all other names follow --create.
#[test]
fn accounts_and_create_together() {
    let scratch = Scratch::new();
    let users = "alice:::::/home/alice::userdb_mail=maildir:~/Maildir\na%b\n";
    let directory = created(&scratch, Some(users), "");
    let maildir = |to: &str| {
        let path = ForwardPath::from_text(to).unwrap();
        let found = directory.resolve(&path, CONTEXT).unwrap();
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

/// A name that no mailbox can have does not reach a catch-all; postmaster does.
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

/// Aliases come first: with --create a catch-all takes the names that have no mailbox yet, and its own targets get
/// theirs.
#[test]
fn a_catch_all_with_create() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("mail/example.org/old")).unwrap();
    for users in [None, Some("carol\n")] {
        let aliases = "@example.org: alice\ninfo: bob\n";
        let directory = created(&scratch, users, aliases);
        let carol = users.map_or("alice", |_| "carol");
        for (name, expected) in [
            ("any", "alice"),
            ("any+thing", "alice"),
            ("alice", "alice"),
            ("postmaster", "alice"),
            ("info", "bob"),
            ("bob", "alice"),
            ("old", "old"),
            ("old+thing", "old+thing"),
            ("carol", carol),
        ] {
            let to = format!("<{name}@example.org>");
            let found = resolve(&directory, &to);
            assert_eq!(found, one(&format!("{expected}@example.org")), "{to}");
        }
        let path = ForwardPath::from_text("<any@example.org>").unwrap();
        let found = directory.resolve(&path, CONTEXT).ok().unwrap();
        assert!(found[0].may_create, "made on first delivery");
        let other = format!("<{}>", at_b("any"));
        assert_eq!(resolve(&directory, &other), one(&at_b("any")));
        assert_eq!(resolve(&directory, "<a%b@example.org>"), Err(550));
    }
}

/// Mail for a postmaster goes to the first mailbox that can take it, at its domain or at another one.
#[test]
fn postmaster_mail_goes_to_the_first_usable_mailbox() {
    let scratch = Scratch::new();
    let directory = Directory::load(&settings(&scratch)).unwrap();
    for name in ["b", "a", "c"] {
        std::fs::create_dir_all(scratch.0.join("mail/example.org").join(name)).unwrap();
    }
    let first = |to: &str, full: &[&str]| {
        let context = ResolveContext {
            takes: &|target| !full.iter().any(|name| target.maildir.ends_with(name)),
            ..CONTEXT
        };
        let path = ForwardPath::from_text(to).unwrap();
        let found = directory.resolve(&path, context).map_err(|r| r.code());
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
    // While the file system of all mailboxes is not mounted, nobody can take it, and it must not bounce.
    let away = ResolveContext {
        takes: &|_| false,
        ..CONTEXT
    };
    let refused = |to| {
        directory
            .resolve(to, away)
            .map(|_| ())
            .map_err(|r| r.code())
    };
    assert_eq!(refused(&ForwardPath::Postmaster), Err(550));
    std::fs::remove_dir_all(scratch.0.join("mail")).unwrap();
    assert_eq!(refused(&ForwardPath::Postmaster), Err(451));
    let directory = with_files(&scratch, &format!("{}\n", at_b("joe")), "x: y\n");
    assert_eq!(resolve(&directory, "<Postmaster>"), one(&at_b("joe")));
}

/// The directories of thousands of mailboxes are not read for each stranger.
#[test]
fn strangers_cannot_cause_many_searches() {
    let scratch = Scratch::new();
    let directory = Directory::load(&settings(&scratch)).unwrap();
    for n in 0..3_000 {
        std::fs::create_dir_all(scratch.0.join(format!("mail/example.org/u{n}"))).unwrap();
    }
    let looks = std::cell::Cell::new(0);
    let context = ResolveContext {
        takes: &|_| {
            looks.set(looks.get() + 1);
            false
        },
        ..CONTEXT
    };
    let begin = std::time::Instant::now();
    for _ in 0..1_000 {
        assert!(
            directory
                .resolve(&ForwardPath::Postmaster, context)
                .is_err()
        );
    }
    // The pause after a search is 50 µs for each mailbox, so the time limits the number of searches.
    let searches = begin.elapsed().as_millis() / 137 + 1;
    assert!(
        looks.get() / 3_000 <= searches.try_into().unwrap(),
        "{looks:?} {searches}"
    );
}

/// Tells for each pair of logins of a name whether both show the same salt: an account's own or a decoy's.
fn shown_alike(directory: &Directory, local: &str) -> Vec<bool> {
    let forms = [
        "*",
        "*@example.org",
        "*@B\u{fc}cher.example",
        "*@xn--bcher-kva.example",
        "*@elsewhere.test",
        "*@EXAMPLE.org.",
    ];
    let shown = |form: &&str| {
        let login = form.replace('*', local);
        match directory.account_name(&login) {
            Some(account) => format!("stored {account}"),
            None => directory.decoy_name(&login),
        }
    };
    let all: Vec<String> = forms.iter().map(shown).collect();
    let pairs = all
        .iter()
        .flat_map(|one| all.iter().map(move |other| one == other));
    pairs.collect()
}

/// Strangers' names look like those of accounts, also where some accounts are for one domain and some for all: each
/// pattern of equal salts is shown by strangers about as often as by accounts, and no other one is.
#[test]
fn decoys_agree_where_accounts_do() {
    let b = "\u{fc}cher.example:{PLAIN}x";
    for (users, names) in [
        ("bob:{PLAIN}x\n", &["bob"][..]),
        ("bob@example.org:{PLAIN}x\n", &["bob"]),
        (
            &format!("bob:{{PLAIN}}x\neve@example.org:{{PLAIN}}y\njoe@b{b}\namy:{{PLAIN}}z\n"),
            &["bob", "eve", "joe", "amy"],
        ),
        (
            &format!(
                "bob:{{PLAIN}}x\nbob@example.org:{{PLAIN}}y\neve@example.org:{{PLAIN}}z\neve@b{b}\n"
            ),
            &["bob", "eve"],
        ),
    ] {
        let scratch = Scratch::new();
        let directory = with_files(&scratch, users, "");
        let real: Vec<Vec<bool>> = names
            .iter()
            .map(|name| shown_alike(&directory, name))
            .collect();
        let strangers = (0..400).map(|n| shown_alike(&directory, &format!("stranger{n}")));
        let strangers: Vec<Vec<bool>> = strangers.collect();
        assert!(strangers.iter().all(|seen| real.contains(seen)), "{users}");
        for pattern in &real {
            let [ours, theirs] = [&real, &strangers].map(|all| {
                let same = all.iter().filter(|seen| *seen == pattern).count();
                same * 100 / all.len()
            });
            assert!(
                ours.abs_diff(theirs) < 10,
                "{users}: {ours} % and {theirs} %"
            );
        }
        // It is the same at every login.
        assert_eq!(shown_alike(&directory, "stranger7"), strangers[7]);
    }
}

/// A name in the file that cannot log in, or only at another domain, does not show that either.
#[test]
fn decoys_of_names_in_the_file() {
    let scratch = Scratch::new();
    let users = "bob:{PLAIN}x\neve@example.org:{PLAIN}y\nlocked:!\nsue@example.org:x\n";
    let directory = with_files(&scratch, users, "");
    let like = |name: &str| shown_alike(&directory, name);
    assert_eq!(like("locked"), like("bob"));
    assert_eq!(like("sue"), like("eve"));
}

/// The target of an alias with a subaddress is not itself, although the name before the separator is.
#[test]
fn an_alias_with_a_subaddress_leads_to_another_alias() {
    let scratch = Scratch::new();
    let aliases = "alice+list: alice\nalice: alice+out\nalice+out: bob\n\
        carol+x: carol+x\ncarol: carol+y, bob\n";
    let directory = with_files(&scratch, USERS, aliases);
    std::fs::create_dir_all(scratch.0.join("mail/example.org/bob/.y")).unwrap();
    let found = |to: &str| resolve(&directory, to);
    for to in ["<alice@example.org>", "<alice+list@example.org>"] {
        assert_eq!(found(to), one("bob@example.org"), "{to}");
    }
    assert_eq!(found("<carol+x@example.org>"), one("carol+x@example.org"));
    let both = ["carol+y@example.org", "bob@example.org"];
    for to in ["<carol@example.org>", "<carol+z@example.org>"] {
        assert_eq!(found(to), Ok(both.map(str::to_owned).to_vec()), "{to}");
    }
}
