//! Compares `tests/conformance/requirements.md` with the ids that sources and tests cite. A requirement without a
//! citation must be in the list here, with the reason, and one with a citation must not.

use std::collections::BTreeSet;
use std::path::Path;

use crate::conformance;

/// Requirements that a case of `dialogues.json` tests; those can't cite anything themselves.
const BY_CASES: &[(&str, &str)] = &[
    ("R012", "go-smtp-013"),
    ("R014", "go-smtp-017"),
    ("R015", "go-smtp-031"),
    ("R025", "dovecot-004"),
    ("R029", "dovecot-047"),
    ("R051", "go-smtp-017"),
    ("R066", "dovecot-013"),
    ("R072", "dovecot-024"),
    ("R093", "go-smtp-029"),
    ("R125", "go-smtp-030"),
    ("R140", "aiosmtpd-242"),
    ("R161", "go-smtp-001"),
    ("R162", "aiosmtpd-166"),
    ("R164", "go-smtp-002"),
    ("R166", "dovecot-048"),
    ("R168", "aiosmtpd-174"),
    ("R182", "smtp-server-054"),
    ("A12", "smuggling-tools-007"),
    ("A17", "smtp-server-019"),
    ("F30", "dovecot-059"),
    ("F33", "go-smtp-031"),
];

/// Requirements that no test cites, and why.
#[rustfmt::skip]
const WITHOUT: &[(&str, &str)] = &[
    ("R065", "the default of --timeout; no test waits for it"),
    ("R068", "nothing runs after the end of data but the commit; no test of its time"),
    ("R095", "replies of one message leave together; no test of their time"),
    ("R131", "a certificate that can't be read ends the start, so STARTTLS is never unavailable"),
    ("R189", "there is no mode that refuses all mail"),
    ("R203", "no Authentication-Results is added, and what comes is left alone"),
    ("R210", "no test yet of a tmp on another file system than its new"),
    ("R213", "a slow message ends by --timeout and the floor; no test of 24 hours"),
    ("R216", "the system sets it; no test"),
    ("R218", "nothing but the sweep of tmp touches old files; no test"),
    ("F68", "a limit of memory for the whole process: make soak and the benchmark measure it; no test sets one"),
    ("F69", "deadlines are those of the monotonic clock, which stops while the machine sleeps; no test puts one to sleep"),
];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
}

/// A letter and as many digits.
fn is_id(word: &str, letter: char, digits: usize) -> bool {
    let number = word.strip_prefix(letter).unwrap_or_default();
    number.len() == digits && number.bytes().all(|b| b.is_ascii_digit())
}

/// R001 and F01 stand anywhere in the text, A1 in a heading.
fn required(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| line.strip_prefix("### A").map(|rest| format!("A{rest}"));
    let attacks = text.lines().filter_map(heading);
    let attacks = attacks.filter_map(|line| words(&line).next().map(str::to_owned));
    let others = words(text).filter(|word| is_id(word, 'R', 3) || is_id(word, 'F', 2));
    others.map(str::to_owned).chain(attacks).collect()
}

/// The ids of a text; ranges too: a word, "to" or a dash, a word.
fn cite(text: &str, found: &mut BTreeSet<String>) {
    let text = text.replace('–', " to ");
    let all: Vec<&str> = words(&text).filter(|word| !word.is_empty()).collect();
    found.extend(all.iter().map(|&word| word.to_owned()));
    for range in all.windows(3) {
        let (from, to) = (range[0], range[2]);
        for (letter, digits) in [('R', 3), ('F', 2)] {
            if range[1] == "to" && is_id(from, letter, digits) && is_id(to, letter, digits) {
                let number = |id: &str| id[1..].parse::<usize>().unwrap();
                let ids = number(from)..=number(to);
                found.extend(ids.map(|n| format!("{letter}{n:0digits$}")));
            }
        }
    }
}

#[test]
fn ranges_are_cited_too() {
    let mut found = BTreeSet::new();
    cite("/// F01–F03, R120 to R122. A1", &mut found);
    for id in ["F01", "F02", "F03", "R120", "R121", "R122", "A1"] {
        assert!(found.contains(id), "{id}");
    }
}

/// The words of all sources and dialogues except this file.
fn collect(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if path.is_dir() {
            collect(&path, found);
        } else if matches!(kind, Some("rs" | "txt" | "py")) && !path.ends_with("it/index.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            cite(&text, found);
        }
    }
}

#[test]
fn every_requirement_is_cited_or_listed() {
    let requirements = conformance::file("requirements.md");
    let dialogues = conformance::file("dialogues.json");
    let required = required(&requirements);
    let mut cited = BTreeSet::new();
    for dir in ["src", "tests"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut cited);
    }
    for (id, case) in BY_CASES {
        let named = format!("\"id\": \"{case}\"");
        assert!(dialogues.contains(&named), "{id}: no case {case}");
        cited.insert((*id).to_owned());
    }
    let uncited: Vec<&String> = required.difference(&cited).collect();
    println!(
        "{} of {} without a test: {uncited:?}",
        uncited.len(),
        required.len()
    );
    let mut wrong = Vec::new();
    for id in &uncited {
        if !WITHOUT.iter().any(|(listed, _)| listed == id) {
            wrong.push(format!("{id} is cited nowhere and not listed"));
        }
    }
    let mut listed = BTreeSet::new();
    for (id, reason) in WITHOUT {
        if !listed.insert(id) {
            wrong.push(format!("{id} is listed twice"));
        } else if !required.contains(*id) {
            wrong.push(format!("{id} is listed and no requirement"));
        } else if cited.contains(*id) {
            wrong.push(format!("{id} is listed ({reason}) and cited"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The words of a Markdown text that are set as code.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// SECURITY.md names tests: each exists, by its function, dialogue or target of make.
#[test]
fn security_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let makefile = std::fs::read_to_string(root.join("Makefile")).unwrap();
    let table = text.split("## ").find(|part| part.starts_with("How each"));
    let mut words = BTreeSet::new();
    for dir in ["src", "tests"] {
        tests(&root.join(dir), &mut words);
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    for name in code(table.unwrap()) {
        let is_test = name.contains('_') && !name.contains(['(', '/']);
        let exists = match (name.strip_prefix("make "), name.ends_with(".txt")) {
            (Some(target), _) => makefile.contains(&format!("\n{target}:")),
            (_, true) => root.join("tests/dialogues").join(name).exists(),
            _ if is_test => words.contains(name),
            _ => continue,
        };
        count += 1;
        wrong.extend((!exists).then_some(name));
    }
    assert!(
        wrong.is_empty() && count > 30,
        "{count} names, wrong: {wrong:?}"
    );
}

/// The names of all tests below a directory.
fn tests(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let own = text.split("#[test]\n").skip(1);
            let names = own.filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

/// Each row of the rules of relaying names tests, and all of them exist.
#[test]
fn rules_of_relaying_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    for dir in ["src", "tests"] {
        tests(&root.join(dir), &mut known);
    }
    let scripts = ["tests/interop", "tests/queue", "tests/powercut", "benches"];
    let exists = |name: &str| match (name.strip_prefix("config/"), name.split_once(": ")) {
        (Some(case), _) => root.join("tests/config").join(case).join("args").exists(),
        (_, Some((script, words))) => scripts.iter().any(|dir| {
            let text = std::fs::read_to_string(root.join(dir).join(script));
            text.is_ok_and(|text| text.contains(words))
        }),
        _ => known.contains(name),
    };
    let text = conformance::file("onward.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule"));
    let (mut wrong, mut count) = (Vec::new(), 0);
    for row in rows {
        let (rule, named) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let names: Vec<&str> = code(named).collect();
        if names.is_empty() {
            wrong.push(format!("no test: {rule}"));
        }
        let missing = names.into_iter().filter(|name| !exists(name));
        wrong.extend(missing.map(|name| format!("{name}: {rule}")));
        count += 1;
    }
    assert!(wrong.is_empty() && count > 80, "{count} rows: {wrong:#?}");
}
