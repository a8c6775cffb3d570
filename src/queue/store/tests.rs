//! A queue in a scratch directory: messages from draft to end, and starts after a crash.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
use super::super::envelope::QueuedRecipient;
use super::*;
use crate::deliver::Sync;
use crate::testing::Scratch;

const ID: &str = "7.M1P2Q3";

/// The content file of a message.
fn content(dir: &Scratch, id: &str) -> String {
    let name = format!("{id}.host,S=1");
    std::fs::write(dir.0.join("new").join(&name), "x").unwrap();
    name
}

fn open(dir: &Scratch) -> Result<Queue, Failure> {
    Queue::open(&dir.0, Arc::new(Syncs::new(Sync::None)))
}

fn envelope() -> Envelope {
    let to = |address: &str| QueuedRecipient {
        address: address.into(),
        ..QueuedRecipient::default()
    };
    Envelope {
        created: 7,
        recipients: vec![to("a@b"), to("c@d")],
        ..Envelope::default()
    }
}

#[test]
fn a_message_from_draft_to_end() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    drop(queue.draft(ID, envelope(), None).unwrap());
    assert!(queue.ids().unwrap().is_empty());
    queue
        .draft(ID, envelope(), None)
        .unwrap()
        .keep(&content(&dir, ID));
    assert_eq!(queue.ids().unwrap(), [ID]);
    assert!(queue.content(ID).is_ok());
    let left = queue
        .change(ID, &envelope(), &mut |envelope| {
            drop(envelope.recipients.remove(0))
        })
        .unwrap();
    assert_eq!(left.unwrap().recipients[0].address, "c@d");
    assert_eq!(
        queue
            .change(ID, &envelope(), &mut |envelope| envelope.recipients.clear())
            .unwrap(),
        None
    );
    assert!(queue.ids().unwrap().is_empty() && queue.content(ID).is_err());
    assert!(queue.change(ID, &envelope(), &mut |_| {}).is_err());
}

/// Whatever modes the directories had that were there before.
#[test]
fn only_the_owner_may_enter() {
    use std::os::unix::fs::PermissionsExt;

    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    for others in [None, Some("file")] {
        let dir = Scratch::new();
        let inner = ["new", "tmp"].map(|name| dir.0.join(name));
        inner
            .iter()
            .for_each(|path| std::fs::create_dir(path).unwrap());
        for path in inner.iter().chain([&dir.0]) {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o775)).unwrap();
        }
        if let Some(name) = others {
            std::fs::write(dir.0.join(name), "of somebody else").unwrap();
        }
        let queue = open(&dir).unwrap();
        let draft = queue.draft(ID, envelope(), None).unwrap();
        let top = if others.is_some() { 0o775 } else { 0o700 };
        assert_eq!(mode(&dir.0), top);
        for name in ["new", "tmp", "cur"] {
            assert_eq!(mode(&dir.0.join(name)), 0o700, "{name}");
        }
        assert_eq!(mode(&dir.0.join("new").join(ID)), 0o600);
        assert_eq!(mode(&dir.0.join("lock")), 0o600);
        drop(draft);
    }
}

#[test]
fn a_queue_has_one_process() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    let second = open(&dir);
    assert!(second.is_err_and(|failure| failure.status() == 75));
    drop(queue);
    assert!(open(&dir).is_ok());
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    queue
        .draft("1.M1P1Q1", envelope(), None)
        .unwrap()
        .keep("gone");
    queue
        .draft(ID, envelope(), None)
        .unwrap()
        .keep(&content(&dir, ID));
    std::fs::write(dir.0.join("new/8.M1P1Q1.half"), "mailsl").unwrap();
    std::fs::write(dir.0.join("new/9.M1P1Q1"), "damaged").unwrap();
    content(&dir, "9.M1P1Q1");
    let sent = dir.0.join("new").join(content(&dir, "5.M1P1Q1"));
    drop(queue);
    let queue = open(&dir).unwrap();
    assert_eq!(queue.ids().unwrap(), [ID, "9.M1P1Q1"]);
    assert!(!sent.exists());
    // A damaged envelope is kept, and the error names the line.
    let wrong = queue.read("9.M1P1Q1").unwrap_err().to_string();
    assert!(
        wrong.ends_with("new/9.M1P1Q1:1: not an envelope"),
        "{wrong}"
    );
}

/// Most messages are sent at once: their envelopes are not read from the disk, up to a number of messages.
#[test]
fn the_latest_envelopes_are_in_memory_until_they_are_changed() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    let ids: Vec<String> = (0..FRESH + 5).map(|n| format!("7.M1P1Q{n}")).collect();
    for id in &ids {
        queue
            .draft(id, envelope(), None)
            .unwrap()
            .keep(&content(&dir, id));
        std::fs::remove_file(dir.0.join(MESSAGES).join(id)).unwrap();
    }
    let known = ids.iter().filter(|id| queue.read(id).is_ok()).count();
    assert_eq!(known, FRESH);
    let last = &ids[FRESH + 4];
    std::fs::write(dir.0.join(MESSAGES).join(last), envelope().to_text()).unwrap();
    let changed = queue.change(last, &envelope(), &mut |envelope| {
        envelope.recipients.truncate(1)
    });
    assert_eq!(changed.unwrap(), Some(read(&dir.0, last).unwrap()));
    std::fs::remove_file(dir.0.join(MESSAGES).join(last)).unwrap();
    assert!(queue.read(last).is_err());
    let mut many = envelope();
    many.recipients = vec![many.recipients[0].clone(); FRESH_RECIPIENTS + 1];
    queue
        .draft(ID, many, None)
        .unwrap()
        .keep(&content(&dir, ID));
    std::fs::remove_file(dir.0.join(MESSAGES).join(ID)).unwrap();
    assert!(queue.read(ID).is_err());
}

#[test]
fn small_contents_are_in_memory_as_long_as_their_file_is_there() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    let octets = |id: &str| match queue.content(id) {
        Ok(QueuedContent::Memory(octets)) => Some(octets.len()),
        Ok(QueuedContent::File(_)) => None,
        Err(e) => panic!("{e}"),
    };
    for (id, size, kept) in [
        ("1.M1P1Q1", Some(0), Some(0)),
        ("2.M1P1Q1", Some(FRESH_OCTETS), Some(FRESH_OCTETS)),
        ("3.M1P1Q1", Some(FRESH_OCTETS + 1), None),
        ("4.M1P1Q1", None, None),
    ] {
        let draft = queue.draft(id, envelope(), size.map(|size| vec![b'x'; size].into()));
        draft.unwrap().keep(&content(&dir, id));
        assert_eq!(octets(id), kept, "{id}");
    }
    let change = |id| {
        queue.change(id, &envelope(), &mut |envelope| {
            envelope.recipients.truncate(1)
        })
    };
    change("1.M1P1Q1").unwrap();
    assert_eq!(octets("1.M1P1Q1"), None, "after the first try");
    // Removed by hand.
    std::fs::remove_file(dir.0.join("new/2.M1P1Q1.host,S=1")).unwrap();
    let gone = queue.content("2.M1P1Q1").err().unwrap();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    // While it was being sent.
    let settled = queue.change("2.M1P1Q1", &envelope(), &mut |envelope| {
        envelope.recipients.clear()
    });
    assert_eq!(settled.unwrap(), None);
    assert!(queue.read("2.M1P1Q1").is_err());
}

/// An id is unique, but if it were not, nobody's envelope would be replaced.
#[test]
fn a_draft_replaces_nothing() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    queue
        .draft(ID, envelope(), None)
        .unwrap()
        .keep(&content(&dir, ID));
    let second = queue.draft(ID, envelope(), None).err().unwrap();
    assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(read(&dir.0, ID).unwrap(), envelope());
}

/// Without the envelopes of that directory the contents would count as sent.
#[test]
fn envelopes_of_an_earlier_version_are_taken_over() {
    let dir = Scratch::new();
    drop(open(&dir).unwrap());
    content(&dir, ID);
    let old = dir.0.join(OLD_ENVELOPES);
    std::fs::create_dir(&old).unwrap();
    for name in [ID, "8.M1P1Q1", "9.M1P1Q1.half"] {
        std::fs::write(old.join(name), envelope().to_text()).unwrap();
    }
    let queue = open(&dir).unwrap();
    assert_eq!(queue.ids().unwrap(), [ID]);
    assert_eq!(queue.read(ID).unwrap(), envelope());
    assert!(queue.content(ID).is_ok() && !old.exists());
    assert_eq!(std::fs::read_dir(dir.0.join(MESSAGES)).unwrap().count(), 2);
}

#[test]
fn files_are_known_by_their_names() {
    for (name, kind) in [
        (ID, Some(FileKind::Envelope)),
        ("7.M1P2Q3.half", Some(FileKind::Half)),
        ("7.M1P2Q3.mx.a.test,S=12", Some(FileKind::Content(ID))),
        ("7.M1P2Q3.half,S=12", Some(FileKind::Content(ID))),
        ("README.Md", None),
        ("7.txt", None),
        ("7", None),
        (".Mail", None),
    ] {
        assert_eq!(FileKind::of(name), kind, "{name}");
    }
}

/// A file too long to be read again would keep its message from being sent or returned for ever.
#[test]
fn an_envelope_never_becomes_too_long_to_be_read() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    let of = |count: usize| Envelope {
        recipients: vec![envelope().recipients[0].clone(); count],
        ..envelope()
    };
    let refused = queue.draft("8.M1P2Q3", of(300_000), None).err().unwrap();
    assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
    assert!(queue.ids().unwrap().is_empty());
    queue
        .draft(ID, of(6_000), None)
        .unwrap()
        .keep(&content(&dir, ID));
    let answer = "x".repeat(1_000);
    let fail = &mut |envelope: &mut Envelope| {
        for to in &mut envelope.recipients {
            (to.last, to.tries) = (Some(answer.clone()), 1);
        }
    };
    queue.change(ID, &of(6_000), fail).unwrap();
    let read = queue.read(ID).unwrap();
    assert_eq!(read.recipients.len(), 6_000);
    assert!(read.recipients.iter().all(|to| to.tries == 1));
}

#[test]
fn a_mailbox_is_no_queue() {
    let dir = Scratch::new();
    std::fs::create_dir(dir.0.join("new")).unwrap();
    let mail = dir.0.join("new").join(content(&dir, ID));
    let failure = open(&dir).err().unwrap();
    assert_eq!(failure.status(), 78);
    assert!(failure.to_string().contains("mailbox"), "{failure}");
    assert!(mail.exists() && !dir.0.join("lock").exists());
    // Beside its envelope it is the content of a queue.
    std::fs::write(dir.0.join("new").join(ID), envelope().to_text()).unwrap();
    assert_eq!(open(&dir).unwrap().ids().unwrap(), [ID]);
    assert!(mail.exists());
}

#[test]
fn a_directory_that_was_replaced_takes_no_mail() {
    let dir = Scratch::new();
    let queue = open(&dir).unwrap();
    let new = dir.0.join("new");
    std::fs::rename(&new, dir.0.join("away")).unwrap();
    assert!(queue.draft(ID, envelope(), None).is_err());
    std::fs::create_dir(&new).unwrap();
    assert!(queue.draft(ID, envelope(), None).is_err());
    std::fs::remove_dir(&new).unwrap();
    std::fs::rename(dir.0.join("away"), &new).unwrap();
    assert!(queue.draft(ID, envelope(), None).is_ok());
}

/// As without descriptors: what was sent is not sent again because of that.
#[test]
fn a_change_of_an_envelope_that_cannot_be_read() {
    let dir = Scratch::new();
    drop(open(&dir).unwrap());
    let path = dir.0.join("new").join(ID);
    std::fs::write(&path, envelope().to_text()).unwrap();
    content(&dir, ID);
    let queue = open(&dir).unwrap();
    let known = queue.read(ID).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let settle = &mut |envelope: &mut Envelope| envelope.recipients.truncate(1);
    assert!(queue.change(ID, &known, settle).is_err());
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, known.to_text()).unwrap();
    assert_eq!(queue.read(ID).unwrap().recipients.len(), 1);
}
