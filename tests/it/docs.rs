//! The README's option table is made from the options.

use mailslot::options::OPTIONS;
use std::fmt::Write as _;

fn table() -> String {
    let mut text = String::from("| option | meaning | default |\n|---|---|---|\n");
    for opt in OPTIONS {
        let letter = if opt.letter.is_empty() {
            String::new()
        } else {
            format!("-{}, ", opt.letter)
        };
        let value = if opt.value.is_empty() {
            String::new()
        } else {
            format!(" {}", opt.value.replace('|', "\\|"))
        };
        let default = if opt.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", opt.default)
        };
        writeln!(
            text,
            "| `{letter}--{}{value}` | {} | {default} |",
            opt.name, opt.help
        )
        .unwrap();
    }
    text
}

#[test]
fn the_readme_has_the_option_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (head, rest) = readme.split_once("<!-- options -->\n").unwrap();
    let (shown, tail) = rest.split_once("<!-- /options -->").unwrap();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(
            path,
            format!("{head}<!-- options -->\n{}<!-- /options -->{tail}", table()),
        )
        .unwrap();
        return;
    }
    assert_eq!(shown, table(), "run UPDATE_README=1 cargo test docs");
}
