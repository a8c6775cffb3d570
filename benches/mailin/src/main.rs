//! A peer for the benchmark: mailin-embedded with a minimal handler that delivers durably. Each message is written to
//! tmp, synced, linked for further recipients, renamed into new, and the directories synced. Arguments: the root of the
//! mailboxes, and the number of threads. Prints the address it listens on.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use mailin_embedded::{Handler, Response, Server, SslConfig, response};

static COUNT: AtomicU64 = AtomicU64::new(0);

#[derive(Default)]
struct Maildirs {
    root: PathBuf,
    targets: Vec<PathBuf>,
    name: String,
    file: Option<BufWriter<File>>,
}

impl Clone for Maildirs {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
            ..Self::default()
        }
    }
}

impl Maildirs {
    fn begin(&mut self, from: &str, to: &[String]) -> io::Result<()> {
        let local = |address: &String| {
            self.root
                .join(address.split('@').next().unwrap_or_default())
        };
        self.targets = to.iter().map(local).collect();
        self.name = format!(
            "P{}Q{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let first = self.targets.first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut file = BufWriter::new(File::create_new(first.join("tmp").join(&self.name))?);
        write!(file, "Return-Path: <{from}>\n")?;
        self.file = Some(file);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        let file = self.file.take().ok_or(io::ErrorKind::InvalidInput)?;
        file.into_inner()?.sync_all()?;
        let Some((first, others)) = self.targets.split_first() else {
            return Ok(());
        };
        let tmp = first.join("tmp").join(&self.name);
        let sync = |dir: &Path| File::open(dir)?.sync_all();
        for other in others {
            fs::hard_link(&tmp, other.join("new").join(&self.name))?;
            sync(&other.join("new"))?;
        }
        fs::rename(&tmp, first.join("new").join(&self.name))?;
        sync(&first.join("new"))
    }
}

impl Handler for Maildirs {
    fn data_start(&mut self, _domain: &str, from: &str, _is8bit: bool, to: &[String]) -> Response {
        self.begin(from, to)
            .map_or(response::INTERNAL_ERROR, |()| response::OK)
    }

    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::InvalidInput)?;
        match line.strip_suffix(b"\r\n") {
            Some(text) => file.write_all(text).and_then(|()| file.write_all(b"\n")),
            None => file.write_all(line),
        }
    }

    fn data_end(&mut self) -> Response {
        self.commit()
            .map_or(response::INTERNAL_ERROR, |()| response::OK)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let root = PathBuf::from(args.next().ok_or("which root?")?);
    let threads = args.next().ok_or("how many threads?")?.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on smtp://{}", listener.local_addr()?);
    let mut server = Server::new(Maildirs {
        root,
        ..Maildirs::default()
    });
    server
        .with_name("bench.test")
        .with_num_threads(threads)
        .with_tcp_listener(listener);
    server.with_ssl(SslConfig::None)?;
    Ok(server.serve()?)
}
