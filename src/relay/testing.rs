//! A relay for unit tests, which has no reporter and no thread of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::logins::Logins;
use super::route::Routes;
use super::schedule::RetryPolicy;
use super::sender::{MAX_THREADS, Relay, RelayRules};
use crate::deliver::{Sync, Syncs};
use crate::net::client_tls::ClientTls;
use crate::net::dns::Resolver;
use crate::testing::Scratch;
use crate::values::Networks;

/// Puts a message with this envelope into the queue, as a start finds it. Returns the file of its content.
pub(super) fn put(dir: &Scratch, id: &str, envelope: &str) -> PathBuf {
    let new = dir.0.join("queue/new");
    std::fs::create_dir_all(&new).unwrap();
    std::fs::write(dir.0.join("queue/lock"), "").unwrap();
    let envelope = format!("mailslot-envelope 1\n{envelope}");
    std::fs::write(new.join(id), envelope).unwrap();
    let content = new.join(format!("{id}.h,S=13"));
    std::fs::write(&content, "Subject: x\n\ny").unwrap();
    content
}

/// A relay with these hops and the default times; its queue is `queue` in the directory.
pub(super) fn relay(dir: &Scratch, urls: &[&str]) -> Relay {
    let routes = urls.iter().map(|url| url.parse().unwrap()).collect();
    let rules = RelayRules {
        routes: Routes::new(routes).unwrap(),
        from: Networks::default(),
        logins: Logins::default(),
        retry_policy: RetryPolicy {
            retry: Duration::from_secs(300),
            retry_for: Duration::from_secs(5 * 86_400),
        },
        hostname: "mx.test".to_owned(),
        domain: "a.test".to_owned(),
        threads: MAX_THREADS,
        tls: ClientTls::new(None).unwrap(),
        resolver: Resolver::system(false),
        own: Vec::new(),
    };
    let syncs = Arc::new(Syncs::new(Sync::None));
    let opened = Relay::open(rules, &dir.0.join("queue"), syncs);
    opened.ok().unwrap()
}
