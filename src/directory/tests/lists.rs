//! Lists: their cost, their members, and the maximum number of members.

use super::*;

/// A list of `members` accounts under the name `all`, and other lists of it.
fn list(scratch: &Scratch, members: usize, max_recipients: usize) -> Directory {
    let users: String = (0..members).map(|n| format!("u{n}\n")).collect();
    let all: Vec<String> = (0..members).map(|n| format!("u{n}")).collect();
    let aliases = format!(
        "all: {}\nmore: all, u0\nout: all, x@y.net\n",
        all.join(", ")
    );
    let settings = DirectoryConfig {
        users: Some(scratch.file("users", &users)),
        aliases: Some(scratch.file("aliases", &aliases)),
        max_recipients,
        ..settings(scratch)
    };
    Directory::load(&settings).unwrap()
}

fn path(text: &str) -> ForwardPath {
    ForwardPath::from_text(text).unwrap()
}

/// A list is expanded once for all spellings, and its members are shared.
#[test]
fn a_list_is_followed_once() {
    let scratch = Scratch::new();
    let directory = list(&scratch, 1_000, 1_000);
    let first = directory
        .resolve(&path("<all@example.org>"), CONTEXT)
        .unwrap();
    assert!(first.list().is_some());
    for n in 0..1_000 {
        for to in [
            "<all@example.org>".to_owned(),
            "<ALL@Example.org>".to_owned(),
            format!("<all+{n}@example.org>"),
        ] {
            let again = directory.resolve(&path(&to), CONTEXT).unwrap();
            assert_eq!(first.list(), again.list(), "{to}");
        }
    }
    let more = directory
        .resolve(&path("<more@example.org>"), CONTEXT)
        .unwrap();
    assert_eq!(more.len(), 1_000);
    for target in more.iter() {
        assert!(first.iter().any(|known| Arc::ptr_eq(known, target)));
    }
}

/// A subaddress is passed on to few members if one has that folder; all other lists are shared, by whatever lists they
/// are reached.
#[test]
fn subaddresses_of_lists_of_lists() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.0.join("mail/example.org/u1/.x")).unwrap();
    for (members, details, shared) in [
        (16, ["x", "X"], false),
        (16, ["x", "y"], false),
        (16, ["y", "z"], true),
        (17, ["x", "y"], true),
        (500, ["x", "y"], true),
    ] {
        let directory = list(&scratch, members, 1_000);
        for name in ["all", "more"] {
            let [one, other] = details.map(|detail| {
                let to = path(&format!("<{name}+{detail}@example.org>"));
                directory.resolve(&to, CONTEXT).unwrap()
            });
            assert_eq!((one.len(), other.len()), (members, members));
            let same = one.list() == other.list();
            assert_eq!(same, shared, "{name} {members} {details:?}");
            let folders = one.iter().filter(|target| target.folder.is_some());
            assert_eq!(folders.count(), usize::from(!shared));
        }
    }
}

/// A list with more members than a transaction may have is never accepted.
#[test]
fn long_lists() {
    let scratch = Scratch::new();
    let directory = list(&scratch, 10, 9);
    for to in ["all", "all+x", "more", "out"] {
        let refusal = directory.resolve(&path(&format!("<{to}@example.org>")), CONTEXT);
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.code(), 452, "{to}");
        assert_eq!(refusal, crate::smtp::reply::TOO_MANY_RECIPIENTS);
    }
    let directory = list(&scratch, 9, 9);
    let all = |to: &str| resolve(&directory, to).map(|found| found.len());
    assert_eq!(all("<all@example.org>"), Ok(9));
    assert_eq!(all("<more@example.org>"), Ok(9));
    assert_eq!(all("<out@example.org>"), Err(551));
}

/// If mailboxes are directories, a list follows them.
#[test]
fn members_come_and_go() {
    let scratch = Scratch::new();
    let settings = DirectoryConfig {
        aliases: Some(scratch.file("aliases", "all: a, b\n")),
        ..settings(&scratch)
    };
    let directory = Directory::load(&settings).unwrap();
    std::fs::create_dir_all(scratch.0.join("mail/example.org/a")).unwrap();
    assert_eq!(
        resolve(&directory, "<all@example.org>"),
        one("a@example.org")
    );
    std::fs::create_dir_all(scratch.0.join("mail/example.org/b")).unwrap();
    let both = Ok(vec!["a@example.org".to_owned(), "b@example.org".to_owned()]);
    let mut tries = 0;
    while resolve(&directory, "<all@example.org>") != both {
        tries += 1;
        assert!(tries < 10_000_000, "never heard of");
    }
}

/// With accounts only the files decide who the members are, but folders come and go.
#[test]
fn folders_of_members_come_and_go() {
    let scratch = Scratch::new();
    let settings = DirectoryConfig {
        users: Some(scratch.file("users", "a\nb\n")),
        aliases: Some(scratch.file("aliases", "spam: a+Spam\nall: spam, b\n")),
        ..settings(&scratch)
    };
    let directory = Directory::load(&settings).unwrap();
    let folder = scratch.0.join("mail/example.org/a/.Spam");
    let first = |to: &str| resolve(&directory, to).unwrap().remove(0);
    for alias in ["<spam@example.org>", "<all@example.org>"] {
        for exists in [false, true] {
            match exists {
                true => std::fs::create_dir_all(&folder).unwrap(),
                false => drop(std::fs::remove_dir(&folder)),
            }
            let mut tries = 0;
            while first(alias).ends_with(":.Spam") != exists {
                tries += 1;
                assert!(tries < 1_000_000, "never heard of: {alias} {exists}");
            }
        }
    }
}

/// Remote members of a list are relayed if possible, and counted.
#[test]
fn remote_members() {
    let scratch = Scratch::new();
    let directory = list(&scratch, 2, 3);
    let onward = |address: &str| {
        let here = directory.resolve(&path("<u0@example.org>"), CONTEXT).ok()?;
        let mut target = Target::clone(here.first()?);
        target.address = address.to_owned();
        Some(target)
    };
    let context = ResolveContext {
        onward: Some(&onward),
        ..CONTEXT
    };
    let found = directory
        .resolve(&path("<out@example.org>"), context)
        .unwrap();
    assert_eq!(found.last().unwrap().address, "x@y.net");
    let code = |to: &str, context| directory.resolve(&path(to), context).map_err(|r| r.code());
    assert_eq!(code("<a@y.net>", context).unwrap_err(), 550);
    assert!(
        code(
            "<a@y.net>",
            ResolveContext {
                may_relay: true,
                ..context
            }
        )
        .is_ok()
    );
}

/// Only a single mailbox is told by which other address it was reached.
#[test]
fn the_address_that_was_asked_for() {
    let scratch = Scratch::new();
    let directory = with_files(&scratch, USERS, ALIASES);
    let original = |to: &str| {
        let found = directory.resolve(&path(to), CONTEXT).unwrap();
        let found: Vec<_> = found.iter().map(|target| target.original.clone()).collect();
        found
    };
    let asked = |address: &str| vec![Some(address.to_owned())];
    assert_eq!(original("<Sales@example.org>"), [None, None, None]);
    assert_eq!(original("<bob@example.org>"), [None]);
    assert_eq!(
        original("<x@b\u{fc}cher.example>"),
        asked("x@b\u{fc}cher.example")
    );
    assert_eq!(
        original("<Y@b\u{fc}cher.example>"),
        asked("Y@b\u{fc}cher.example")
    );
}
