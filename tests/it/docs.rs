//! The documentation of options in README, man page and completions is generated from their table: `UPDATE_DOCS=1 cargo
//! test docs` writes it, and these tests compare it.

mod completions;
mod man;

use std::fmt::Write as _;
use std::path::Path;

use mailslot::options::{OPTIONS, Opt, Takes};

/// Compares a file with what it should be, or writes it.
fn compare(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let shown = std::fs::read_to_string(&path).unwrap();
    let name = path.display();
    assert!(
        shown == expected,
        "{name} differs; run UPDATE_DOCS=1 cargo test docs"
    );
}

/// The value as it is written after the option: ` SIZE`, `[=URL]` or nothing.
fn value(opt: &Opt) -> String {
    match opt.takes {
        Takes::Nothing => String::new(),
        Takes::Maybe => format!("[={}]", opt.value),
        Takes::One | Takes::Many => format!(" {}", opt.value),
    }
}

fn table() -> String {
    let mut text = String::from("| option | meaning | default |\n|---|---|---|\n");
    for opt in OPTIONS {
        let letter = match opt.letter {
            "" => String::new(),
            letter => format!("-{letter}, "),
        };
        let default = match opt.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let (name, value) = (opt.name, value(opt).replace('|', "\\|"));
        writeln!(
            text,
            "| `{letter}--{name}{value}` | {} | {default} |",
            opt.help
        )
        .unwrap();
    }
    text
}

#[test]
fn the_readme_has_the_option_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (head, rest) = readme.split_once("<!-- options -->\n").unwrap();
    let (_, tail) = rest.split_once("<!-- /options -->").unwrap();
    let table = table();
    let expected = format!("{head}<!-- options -->\n{table}<!-- /options -->{tail}");
    compare("README.md", &expected);
}

#[test]
fn the_man_page_has_the_options() {
    compare("contrib/mailslot.8", &man::page());
}

#[test]
fn the_completions_have_the_options() {
    compare("contrib/completions/mailslot.bash", &completions::bash());
    compare("contrib/completions/_mailslot", &completions::zsh());
    compare("contrib/completions/mailslot.fish", &completions::fish());
}

/// mandoc(1) finds nothing to complain of; skipped where it is not installed.
#[test]
fn the_man_pages_are_clean() {
    for page in ["contrib/mailslot.8", "contrib/mailslot-users.5"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let mut mandoc = std::process::Command::new("mandoc");
        let Ok(output) = mandoc.args(["-Tlint", "-Wall"]).arg(path).output() else {
            eprintln!("skipped: no mandoc on this machine");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // Which operating system it is is not this page's to say.
        let faults = said
            .lines()
            .filter(|line| !line.contains("lacks OS version"));
        assert_eq!(faults.collect::<Vec<_>>(), Vec::<&str>::new());
    }
}

/// bash reads the completions and offers an option by its first letters.
#[test]
fn bash_completes() {
    let script = "source contrib/completions/mailslot.bash; COMP_WORDS=(mailslot --hash); \
                  COMP_CWORD=1; _mailslot; echo \"${COMPREPLY[@]}\"";
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", script])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let Ok(output) = bash.output() else {
        eprintln!("skipped: no bash on this machine");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--hash-password\n");
}
