//! Compares replies with the patterns of the dialogues in `tests/conformance`, which document their form.

use crate::wire::{Event, Wire};

/// Matches replies in order, and returns the pattern that failed. An optional one may match nothing.
pub fn matched(wire: &mut Wire, patterns: &[&str], came: &mut Vec<Event>) -> Result<(), String> {
    let expanded = patterns.iter().flat_map(|pattern| {
        let (codes, optional) = match pattern.strip_suffix('?') {
            Some(codes) => (codes, true),
            None => (*pattern, false),
        };
        let (codes, times) = match codes.strip_suffix('}') {
            Some(codes) => codes.split_once('{').unwrap(),
            None => (codes, "1"),
        };
        std::iter::repeat_n((codes, optional), times.parse().unwrap())
    });
    let expanded: Vec<_> = expanded.collect();
    for (at, &(codes, optional)) in expanded.iter().enumerate() {
        // Nobody need answer any more: a short wait will do.
        let may_be_all = expanded[at..].iter().all(|(_, optional)| *optional);
        let event = match codes == "silent" || may_be_all {
            true => wire.peek_silence(),
            false => wire.peek(),
        };
        match fits(codes, event) {
            true if *event == Event::Nothing => came.push(Event::Nothing),
            true => came.push(wire.take()),
            false if optional => {}
            false => {
                came.push(wire.take());
                return Err(codes.to_owned());
            }
        }
    }
    Ok(())
}

fn fits(codes: &str, event: &Event) -> bool {
    codes.split('|').any(|code| match (code, event) {
        ("closed", Event::Closed) | ("silent", Event::Nothing) => true,
        ("closed" | "silent", _) => false,
        ("x", Event::Reply(_)) => true,
        (code, Event::Reply(_)) => match (code.strip_prefix('!'), code.strip_suffix("xx")) {
            (Some(other), _) => event.code() != other,
            (None, Some(class)) => event.code().starts_with(class),
            (None, None) => event.code() == code,
        },
        _ => false,
    })
}
