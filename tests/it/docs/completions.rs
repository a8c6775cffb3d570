//! Completions for bash, zsh and fish.

use std::fmt::Write as _;

use mailslot::options::{OPTIONS, Opt, Takes};

const MADE: &str = "made from the table of options; UPDATE_DOCS=1 cargo test docs";

/// The kind of a value, as far as a shell can complete it.
enum Kind {
    Words(Vec<&'static str>),
    File,
    Directory,
    Text,
}

fn kind(opt: &Opt) -> Kind {
    match opt.value {
        "FILE" => Kind::File,
        "DIR" => Kind::Directory,
        words if words.contains('|') && !words.contains(char::is_uppercase) => {
            Kind::Words(words.split('|').collect())
        }
        _ => Kind::Text,
    }
}

/// Long name, and the letter where it has one.
fn names(opt: &Opt) -> Vec<String> {
    let letter = (!opt.letter.is_empty()).then(|| format!("-{}", opt.letter));
    let name = Some(format!("--{}", opt.name));
    letter.into_iter().chain(name).collect()
}

pub(super) fn bash() -> String {
    let mut cases = String::new();
    for opt in OPTIONS.iter().filter(|opt| opt.takes != Takes::Nothing) {
        let reply = match kind(opt) {
            Kind::Words(words) => format!(
                "COMPREPLY=($(compgen -W '{}' -- \"$word\"))",
                words.join(" ")
            ),
            Kind::File => "COMPREPLY=($(compgen -f -- \"$word\"))".to_owned(),
            Kind::Directory => "COMPREPLY=($(compgen -d -- \"$word\"))".to_owned(),
            Kind::Text => "COMPREPLY=()".to_owned(),
        };
        writeln!(
            cases,
            "        {}) {reply}; return ;;",
            names(opt).join("|")
        )
        .unwrap();
    }
    let all: Vec<String> = OPTIONS.iter().flat_map(names).collect();
    format!(
        "# bash completion for mailslot, {MADE}\n\
         _mailslot() {{\n    \
             local word=${{COMP_WORDS[COMP_CWORD]}}\n    \
             case ${{COMP_WORDS[COMP_CWORD-1]}} in\n{cases}    esac\n    \
             COMPREPLY=($(compgen -W '{}' -- \"$word\"))\n\
         }}\n\
         complete -F _mailslot mailslot\n",
        all.join(" ")
    )
}

pub(super) fn zsh() -> String {
    let mut text = format!("#compdef mailslot\n# {MADE}\n_arguments -s");
    for opt in OPTIONS {
        let help = opt
            .help
            .replace('\'', "'\\''")
            .replace('[', "\\[")
            .replace(']', "\\]");
        let help = help.replace(':', "\\:");
        let action = match kind(opt) {
            _ if opt.takes == Takes::Nothing => String::new(),
            Kind::Words(words) => format!(":{}:({})", opt.name, words.join(" ")),
            Kind::File => format!(":{}:_files", opt.name),
            Kind::Directory => format!(":{}:_files -/", opt.name),
            Kind::Text => format!(":{}: ", opt.name),
        };
        let action = if opt.takes == Takes::Maybe {
            format!(":{action}")
        } else {
            action
        };
        let star = if opt.takes == Takes::Many { "*" } else { "" };
        for name in names(opt) {
            write!(text, " \\\n  '{star}{name}[{help}]{action}'").unwrap();
        }
    }
    text.push('\n');
    text
}

pub(super) fn fish() -> String {
    let mut text = format!("# {MADE}\ncomplete -c mailslot -f\n");
    for opt in OPTIONS {
        let letter = match opt.letter {
            "" => String::new(),
            letter => format!(" -s {letter}"),
        };
        let value = match kind(opt) {
            _ if opt.takes == Takes::Nothing => String::new(),
            Kind::Words(words) => format!(" -x -a '{}'", words.join(" ")),
            Kind::File => " -r -F".to_owned(),
            Kind::Directory => " -x -a '(__fish_complete_directories)'".to_owned(),
            Kind::Text if opt.takes == Takes::Maybe => String::new(),
            Kind::Text => " -x".to_owned(),
        };
        let help = opt.help.replace('\\', "\\\\").replace('\'', "\\'");
        writeln!(
            text,
            "complete -c mailslot{letter} -l {}{value} -d '{help}'",
            opt.name
        )
        .unwrap();
    }
    text
}
