//! The raw limit: threads that do only what durability asks, with std and nothing else, for the same messages on the same
//! disk: create in tmp, write, sync the file, rename into new, sync new. What a server reaches is a share of this.

use crate::load::{Load, Sample, measure};
use crate::message::Template;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes the messages of a load into the mailbox `u0` of `dir`, as many threads as it has sessions.
pub(crate) fn run(dir: &Path, load: &Load, template: &Template) -> io::Result<Sample> {
    let (tmp, new) = (dir.join("u0/tmp"), dir.join("u0/new"));
    let mut workers = Vec::new();
    for _ in 0..load.sessions {
        let (tmp, new, mut template) = (tmp.clone(), new.clone(), template.clone());
        let directory = File::open(&new)?;
        workers.push(move |number: usize| {
            let name = format!("1700000000.M{number}P1Q{number}.bench.test,S={}", load.size);
            let path = tmp.join(&name);
            let mut file = File::create_new(&path)?;
            file.write_all(template.stored(number))?;
            file.sync_all()?;
            fs::rename(&path, new.join(&name))?;
            directory.sync_all()
        });
    }
    measure(
        std::process::id(),
        load.messages,
        template.plain.len(),
        workers,
        || Ok(()),
    )
}
