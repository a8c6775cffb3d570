//! Mailboxes as they are found on disks and in files that others have written.

use super::*;
use crate::deliver::Owner;

fn target(directory: &Directory, to: &str) -> Target {
    let path = ForwardPath::from_text(to).unwrap();
    Target::clone(&directory.resolve(&path, CONTEXT).unwrap()[0])
}

/// A removed mailbox is not created again, except for an account or with --create.
#[test]
fn which_mailboxes_may_be_created() {
    let scratch = Scratch::new();
    let base = settings(&scratch);
    std::fs::create_dir_all(scratch.0.join("mail/example.org/alice")).unwrap();
    let load = |settings: &DirectoryConfig| Directory::load(settings).unwrap();
    assert!(!target(&load(&base), "<alice@example.org>").may_create);
    let listed = DirectoryConfig {
        users: Some(scratch.file("users", "alice\n")),
        ..base.clone()
    };
    assert!(target(&load(&listed), "<alice@example.org>").may_create);
    let create = DirectoryConfig {
        create: true,
        ..base
    };
    assert!(target(&load(&create), "<alice@example.org>").may_create);
}

/// `user+Junk` is `.Junk`; where that is missing, the one that differs by case only.
#[test]
fn folders_keep_their_case() {
    let scratch = Scratch::new();
    let directory = Directory::load(&settings(&scratch)).unwrap();
    let alice = scratch.0.join("mail/example.org/alice");
    for folder in [".Junk", ".lists.Rust", ".LISTS.rust", ".&AOk-"] {
        std::fs::create_dir_all(alice.join(folder)).unwrap();
    }
    std::fs::write(alice.join(".File"), "").unwrap();
    let folder = |detail: &str| target(&directory, &format!("<Alice+{detail}@example.org>")).folder;
    for (detail, expected) in [
        ("Junk", Some(".Junk")),
        ("junk", Some(".Junk")),
        ("JUNK", Some(".Junk")),
        ("lists.Rust", Some(".lists.Rust")),
        ("lists.rust", Some(".LISTS.rust")),
        ("\u{e9}", Some(".&AOk-")),
        ("e\u{301}", Some(".&AOk-")),
        ("\u{c9}", None),
        ("file", None),
        ("none", None),
    ] {
        assert_eq!(folder(detail).as_deref(), expected, "{detail}");
    }
    std::fs::create_dir_all(alice.join(".junk")).unwrap();
    assert_eq!(folder("junk").as_deref(), Some(".junk"));
    // In the target of an alias, too.
    std::fs::create_dir_all(alice.join(".A&AOk-")).unwrap();
    let with_aliases = |aliases: &str| {
        Directory::load(&DirectoryConfig {
            aliases: Some(scratch.file("aliases", aliases)),
            ..settings(&scratch)
        })
    };
    for (aliases, expected) in [
        ("x: Alice+Junk\n", ".Junk"),
        ("x: alice+A\u{e9}\n", ".A&AOk-"),
        ("x: alice\nalice: ALICE+Junk\n", ".Junk"),
    ] {
        let found = target(&with_aliases(aliases).unwrap(), "<x@example.org>");
        assert_eq!(found.folder.as_deref(), Some(expected), "{aliases}");
    }
    let list = with_aliases("x: alice, ALICE\n").unwrap();
    assert_eq!(resolve(&list, "<x@example.org>").unwrap().len(), 1);
    assert!(with_aliases("one: TWO\nTwo: One\n").is_err(), "a loop");
}

/// A mailbox that cannot take mail now is refused at RCPT.
#[test]
fn unusable_mailboxes() {
    let scratch = Scratch::new();
    let mail = scratch.0.join("mail/example.org");
    let users = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
    let settings = DirectoryConfig {
        users: Some(scratch.file("users", users)),
        ..settings(&scratch)
    };
    let directory = Directory::load(&settings).unwrap();
    for name in [
        "a/new",
        "a/tmp",
        "b/tmp",
        "c/new",
        "f/.X/tmp",
        "i",
        "elsewhere",
    ] {
        std::fs::create_dir_all(mail.join(name)).unwrap();
    }
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, mail.join(name)).unwrap();
    link("../elsewhere", "b/new");
    link("../elsewhere", "f/.X/new");
    link("nowhere", "e");
    // Delivery follows no link to a Maildir, and opens cur/ too.
    link("a", "h");
    std::fs::write(mail.join("i/cur"), "").unwrap();
    std::fs::write(mail.join("c/tmp"), "").unwrap();
    std::fs::write(mail.join("d"), "").unwrap();
    let check = |to: &str| {
        let target = target(&directory, &format!("<{to}@example.org>"));
        directory.check_usable(&target)
    };
    for (name, usable) in [
        ("a", true),
        ("b", false),
        ("c", false),
        ("d", false),
        ("e", false),
        ("f", true),
        ("f+x", false),
        ("g", true),
        ("h", false),
        ("i", false),
    ] {
        let expected = if usable {
            Ok(())
        } else {
            Err(crate::smtp::reply::MAILBOX_UNUSABLE)
        };
        assert_eq!(check(name), expected, "{name}");
    }
    std::fs::remove_dir_all(scratch.0.join("mail")).unwrap();
    assert_eq!(check("g"), Err(crate::smtp::reply::MAILBOX_AWAY));
    // One that cannot be made fails each message, too.
    std::fs::create_dir(scratch.0.join("mail")).unwrap();
    assert_eq!(check("g"), Ok(()));
    std::fs::write(&mail, "").unwrap();
    assert_eq!(check("g"), Err(crate::smtp::reply::MAILBOX_UNUSABLE));
    std::fs::remove_file(&mail).unwrap();
    std::os::unix::fs::symlink("nowhere", &mail).unwrap();
    assert_eq!(check("g"), Err(crate::smtp::reply::MAILBOX_UNUSABLE));
}

/// `%h` is the account's home: /etc/passwd serves a host's own users.
#[test]
fn homes() {
    let scratch = Scratch::new();
    let home = scratch.0.display().to_string();
    let users = format!("alice:x:1000:100:Alice:{home}:/bin/sh\ngone:*:1:1::/nonexistent:\n");
    let settings = DirectoryConfig {
        pattern: "%h/Maildir".into(),
        users: Some(scratch.file("users", &users)),
        ..settings(&scratch)
    };
    let directory = Directory::load(&settings).unwrap();
    let alice = target(&directory, "<alice@example.org>");
    assert_eq!(alice.maildir, scratch.0.join("Maildir"));
    assert_eq!(
        alice.owner,
        Some(Owner {
            uid: 1000,
            gid: 100
        })
    );
    assert_eq!(directory.check_usable(&alice), Ok(()));
    let gone = directory.check_usable(&target(&directory, "<gone@example.org>"));
    assert_eq!(gone.unwrap_err(), crate::smtp::reply::MAILBOX_UNUSABLE);
    assert_eq!(resolve(&directory, "<bob@example.org>"), Err(550));
    assert!(directory.mechanisms().is_empty());
    for homeless in [
        "joe",
        "joe:x:1:1",
        "joe:x:1:1::relative:",
        "joe:x:1:1::/a/../b:",
    ] {
        let settings = DirectoryConfig {
            users: Some(scratch.file("homeless", format!("# none\n{homeless}\n"))),
            ..settings.clone()
        };
        let error = Directory::load(&settings).err().unwrap().to_string();
        assert!(
            error.contains("homeless:2: user 'joe' has no home"),
            "{error}"
        );
    }
}

/// A mark at the beginning of a file, names in decomposed form, line ends of another system.
#[test]
fn files_of_other_systems() {
    let scratch = Scratch::new();
    let users = "\u{feff}alice:{PLAIN}x\r\nbob\r\njose\u{301}\r\n";
    let aliases = "\u{feff}sales: alice\r\nb\u{fc}ro: bob\r\n";
    let directory = with_files(&scratch, users, aliases);
    for (to, expected) in [
        ("alice", "alice"),
        ("sales", "alice"),
        ("bu\u{308}ro", "bob"),
        ("jos\u{e9}", "jos\u{e9}"),
        ("jose\u{301}", "jos\u{e9}"),
    ] {
        let found = resolve(&directory, &format!("<{to}@example.org>"));
        assert_eq!(found, one(&format!("{expected}@example.org")), "{to}");
    }
    std::fs::create_dir_all(scratch.0.join("mail/example.org/zoe\u{308}")).unwrap();
    let directory = Directory::load(&settings(&scratch)).unwrap();
    let apart = resolve(&directory, "<zoe\u{308}@example.org>");
    assert_eq!(apart, one("zoe\u{308}@example.org"), "as it is on the disk");
}

/// Accounts without a login do not affect the offered mechanisms.
#[test]
fn accounts_without_login() {
    let scratch = Scratch::new();
    let locked = "a:x\nb:*\nc:!\nd:!{PLAIN}x\ne:\nf:*LK*\n";
    let directory = with_files(&scratch, &format!("{locked}g:{{PLAIN}}x\n"), "x: a\n");
    let names: Vec<&str> = directory.mechanisms().iter().map(|m| m.name()).collect();
    assert!(names.contains(&"CRAM-MD5"), "{names:?}");
    for login in ["a", "b", "c", "d", "e", "f"] {
        assert!(
            matches!(directory.account(login), Account::Unknown),
            "{login}"
        );
    }
    assert_eq!(resolve(&directory, "<d@example.org>"), one("d@example.org"));
    let settings = DirectoryConfig {
        logins: false,
        users: Some(scratch.file("any", "a:{BLF-CRYPT}$2y$05$x\nb:nonsense\n")),
        ..settings(&scratch)
    };
    let directory = Directory::load(&settings).unwrap();
    assert!(directory.mechanisms().is_empty());
    assert_eq!(resolve(&directory, "<b@example.org>"), one("b@example.org"));
}

/// A star is not a name.
#[test]
fn star_aliases() {
    let scratch = Scratch::new();
    for star in ["*", "*@example.org"] {
        let settings = DirectoryConfig {
            aliases: Some(scratch.file("aliases", format!("{star}: alice\n"))),
            ..settings(&scratch)
        };
        let error = Directory::load(&settings).err().unwrap().to_string();
        assert!(
            error.contains("aliases:1:") && error.contains("@domain:"),
            "{error}"
        );
    }
}

/// A name that is too long for its file system is refused, however the pattern makes it so.
#[test]
fn names_that_are_too_long() {
    let scratch = Scratch::new();
    let long = |pattern: &str, octets: usize| {
        let settings = settings(&scratch);
        let root = scratch.0.join("mail").display().to_string();
        let directory = Directory::load(&DirectoryConfig {
            pattern: format!("{root}/{pattern}"),
            create: true,
            ..settings
        });
        let path = format!("<{}@example.org>", "x".repeat(octets));
        resolve(&directory.unwrap(), &path).map(|found| found.len())
    };
    assert_eq!(long("%d/%u", 255), Ok(1));
    assert_eq!(long("%d/%u/Maildir", 255), Ok(1));
    assert_eq!(long("%d/%u.mail", 250), Ok(1));
    assert_eq!(long("%d/%u.mail", 251), Err(550));
    assert_eq!(long("%u.%d", 250), Err(550));
    assert_eq!(long(&"%u/".repeat(20), 250), Err(550));
}
