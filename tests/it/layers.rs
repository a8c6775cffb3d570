//! The allowed imports between modules: a list of every edge. The protocol does no I/O, sockets know no SMTP, files
//! know no sockets. No two files import each other, and no file imports from its own folder's mod.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Modules, and those they may import.
#[rustfmt::skip]
const EDGES: &[(&str, &str)] = &[
    ("auth", "encoding lock"),
    ("client", "encoding net random smtp"),
    ("clock", "read"),
    ("cmd", "auth client clock encoding failure net options queue random read relay settings smtp"),
    ("config", "deliver directory failure greylist net oauth options relay settings smtp sys values"),
    ("conn", "auth clock deliver directory encoding greylist maillog net oauth queue random relay report smtp state throttle values"),
    ("deliver", "clock lock smtp warnings"),
    ("directory", "auth deliver encoding failure lock punycode smtp warnings"),
    ("failure", "read"),
    ("greylist", "failure lock random read"),
    ("log_queue", "lock"),
    ("maillog", "encoding smtp"),
    ("metrics", "lock"),
    ("net", "encoding lock punycode random read sys values warnings"),
    ("oauth", "auth failure"),
    ("queue", "deliver failure lock"),
    ("relay", "client clock deliver encoding failure lock metrics net options queue read report settings smtp values"),
    ("report", "encoding smtp"),
    ("server", "auth clock config conn deliver failure greylist lock log_queue maillog metrics net relay smtp state sys throttle"),
    ("settings", "failure options"),
    ("smtp", "auth encoding"),
    ("state", "auth clock config deliver directory greylist metrics net oauth relay smtp throttle values"),
    ("sys", "encoding failure read"),
    ("throttle", "lock rates"),
    ("values", "encoding"),
    ("warnings", "lock"),
];

/// Pure modules, and the names that they must not use.
const PURE: &[&str] = &["auth", "encoding", "options", "punycode", "smtp", "values"];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::os::unix::net",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "nix::",
];

/// Files by their path under src, without their unit tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut dirs = vec![root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            if path.is_dir() {
                dirs.push(path);
            } else if !is_test(&name) {
                found.insert(
                    name,
                    without_tests(&std::fs::read_to_string(&path).unwrap()),
                );
            }
        }
    }
    found
}

fn is_test(name: &str) -> bool {
    let ends = ["tests.rs", "testing.rs", "faults.rs"]
        .iter()
        .any(|end| name.ends_with(end));
    ends || name.contains("tests/") || name.contains("crash_model/")
}

fn without_tests(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The path of a file as a module: `smtp/session/mod.rs` is smtp, session.
fn module(file: &str) -> Vec<String> {
    let name = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let name = if ["lib", "main"].contains(&name) {
        ""
    } else {
        name
    };
    name.split('/')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `a::{b, c::{d}}` is a::b and a::c::d.
fn paths(tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree.trim().to_owned()];
    };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let mut depth = 0;
    let parts = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    parts
        .flat_map(paths)
        .map(|path| format!("{}{path}", head.trim()))
        .collect()
}

/// Paths that code names without importing them.
fn inline(code: &str) -> Vec<String> {
    let word = |rest: &str, begin: &str| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        format!("{begin}{}", &rest[..end.unwrap_or(rest.len())])
    };
    let begins = ["crate::", "super::"];
    let all = begins
        .iter()
        .map(|begin| code.split(begin).skip(1).map(move |r| word(r, begin)));
    all.flatten().collect()
}

/// The files that a file imports from.
fn imports(file: &str, text: &str, all: &BTreeMap<String, String>) -> BTreeSet<String> {
    let statements = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut named = Vec::new();
    for (at, part) in statements.split("use ").enumerate() {
        let (tree, code) = if at == 0 {
            ("", part)
        } else {
            part.split_once(';').unwrap_or_default()
        };
        named.extend(paths(tree));
        named.extend(inline(code));
    }
    let mut found = BTreeSet::new();
    for path in named {
        let mut base = module(file);
        let mut parts: Vec<String> = path
            .split("::")
            .map(|part| part.trim().to_owned())
            .collect();
        match parts[0].as_str() {
            "crate" | "mailslot" => base.clear(),
            "self" => {}
            "super" => drop(base.pop()),
            _ => continue,
        }
        parts.remove(0);
        base.extend(parts);
        found.extend(target(&base, all).filter(|target| target != file));
    }
    found
}

/// The file that the beginning of a path names.
fn target(path: &[String], all: &BTreeMap<String, String>) -> Option<String> {
    (1..=path.len()).rev().find_map(|length| {
        let name = path[..length].join("/");
        let files = [format!("{name}.rs"), format!("{name}/mod.rs")];
        files.into_iter().find(|file| all.contains_key(file))
    })
}

fn graph() -> BTreeMap<String, BTreeSet<String>> {
    let all = sources();
    let edges = |(file, text): (&String, &String)| (file.clone(), imports(file, text, &all));
    all.iter().map(edges).collect()
}

fn top(file: &str) -> &str {
    file.split('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs")
}

#[test]
fn every_edge_is_allowed_and_every_allowed_one_exists() {
    let mut found = BTreeSet::new();
    for (file, targets) in graph() {
        for target in targets.iter().filter(|target| top(target) != top(&file)) {
            found.insert((top(&file).to_owned(), top(target).to_owned()));
        }
    }
    found.retain(|(from, _)| !["main", "lib"].contains(&from.as_str()));
    let row = |(from, to): &(&'static str, &'static str)| {
        let edge = |to: &'static str| ((*from).to_owned(), to.to_owned());
        to.split(' ').map(edge).collect::<Vec<_>>()
    };
    let allowed: BTreeSet<_> = EDGES.iter().flat_map(row).collect();
    let new: Vec<_> = found.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "not in EDGES: {new:?}; gone: {gone:?}"
    );
}

#[test]
fn no_two_files_import_each_other() {
    let graph = graph();
    let back = |from: &String, to: &String| graph.get(to).is_some_and(|to| to.contains(from));
    let mut wrong = Vec::new();
    for (file, targets) in &graph {
        let mutual: Vec<_> = targets.iter().filter(|target| back(file, target)).collect();
        wrong.extend((!mutual.is_empty()).then(|| format!("{file} and {mutual:?}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_front_door_is_not_used_from_inside() {
    let mut wrong = Vec::new();
    for (file, targets) in graph() {
        for target in targets {
            let folder = target.strip_suffix("mod.rs");
            let inside = folder.is_some_and(|folder| file.starts_with(folder));
            wrong.extend(inside.then(|| format!("{file} imports from {target}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_protocol_does_no_io() {
    let all = sources();
    let pure = all.iter().filter(|(file, _)| PURE.contains(&top(file)));
    for (file, text) in pure.clone() {
        let words: Vec<_> = IMPURE.iter().filter(|word| text.contains(*word)).collect();
        assert!(words.is_empty(), "{file} has {words:?}");
    }
    assert!(pure.count() > 20);
}

#[test]
fn nested_imports_are_read() {
    assert_eq!(
        paths("a::{b, c::{d, e}, f}"),
        ["a::b", "a::c::d", "a::c::e", "a::f"]
    );
    assert_eq!(paths("a::b as c"), ["a::b as c"]);
    assert_eq!(
        inline("f(crate::a::b(), super::c::D)"),
        ["crate::a::b", "super::c::D"]
    );
}

/// A mod.rs is the front door of its folder: documentation, modules and re-exports.
#[test]
fn a_front_door_has_no_code() {
    for (file, text) in sources() {
        if !file.ends_with("/mod.rs") {
            continue;
        }
        let code = text.split("#![allow").next().unwrap_or_default();
        for statement in code.split(';').map(str::trim) {
            let statement = statement.trim_start_matches("#[cfg(test)]").trim();
            let begins = ["mod ", "pub mod ", "pub(crate) use ", "pub use "];
            let allowed = begins.iter().any(|begin| statement.starts_with(begin));
            assert!(allowed || statement.is_empty(), "{file}: {statement}");
        }
    }
}

/// A function fits a screen.
#[test]
fn functions_have_at_most_50_lines() {
    for (file, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_function = code.starts_with("fn ") || code.contains(" fn ");
            if !is_function || line.ends_with(';') || line.ends_with('}') {
                continue;
            }
            let indent = &line[..line.len() - code.len()];
            let end = format!("{indent}}}");
            let body = lines[at..].iter().position(|line| *line == end);
            let declared = lines[at..].iter().position(|line| line.ends_with(';'));
            let opened = lines[at..].iter().position(|line| line.ends_with('{'));
            if opened.is_none() || declared < opened && declared.is_some() {
                continue;
            }
            let length = body.map_or(0, |last| last + 1);
            assert!(length <= 50, "{file}:{}: {length} lines: {code}", at + 1);
        }
    }
}

/// Types of one name in two files: the client's and the server's side of one thing, a trait's own type, and what a lock
/// guards in its file.
const SHARED_NAMES: &[&str] = &["Channel", "Err", "Recipient", "State", "Transaction"];

/// A type's name has one meaning.
#[test]
fn names_of_types_are_unique() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources() {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let kind = words.find(|word| !word.starts_with("pub"));
            if let (Some("struct" | "enum" | "trait" | "type"), Some(rest)) = (kind, words.next()) {
                let end = rest.find(|c: char| !c.is_alphanumeric());
                let name = rest[..end.unwrap_or(rest.len())].to_owned();
                found.entry(name).or_default().insert(file.clone());
            }
        }
    }
    found.retain(|name, files| files.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    assert!(found.is_empty(), "{found:#?}");
}
