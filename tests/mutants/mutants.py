#!/usr/bin/env python3
"""Breaks one line of the code at a time, and checks that a test fails. `mutants.py [WORD]…` only tries the mutants
whose description has such a word. It works on a copy of the tree in a temporary directory. `mutants.py --list` shows
the mutants and how to apply each by hand; `mutants.py --check` only checks that each still applies. The exit status is
1 if a mutant survives that is not explained."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Folder of src, the text there, its replacement, and what that breaks.
MUTANTS = [
    ("deliver", "again(|| fsync(file))", "again(|| fsync(file)).or(Ok(()))", "a failed sync is a success"),
    ("deliver", "Sync::Full => disk.sync(file),", "Sync::Full => Ok(()),", "nothing is ever synced"),
    ("deliver", 'synced.map_err(Trouble::at("fsync", &dirs.path))', "synced.or(Ok(()))", "a failed sync of new/ is acknowledged"),
    ("deliver", "let wanted = state.begun.wrapping_add(1);", "let wanted = state.begun;", "a shared sync serves those who came after it began"),
    ("deliver", "Some(errno) if self.failures != ticket.failures => Err(errno.into()),", "Some(_) if self.failures != ticket.failures => Ok(()),", "a failed shared sync is told to nobody who waited"),
    ("deliver", 'synced.map_err(dirs.in_tmp("fsync", name))', "synced.or(Ok(()))", "a failed sync of a copy is acknowledged"),
    ("deliver", "_ if full == members.len() => Err(reply::MAILBOX_FULL),", "_ if full > 0 => Err(reply::MAILBOX_FULL),", "one full mailbox bounces the message for all"),
    ("deliver", "500.. if count > 1 => reply::SOME_FULL,", "500.. if count > 9 => reply::SOME_FULL,", "one bad disk bounces the message for all"),
    ("deliver", "self.delivery(index)?.reserved = reservation == Reservation::Made;", "", "quota of a failed message is not given back"),
    ("deliver", "append(disk, dirs, -signed(octets), -1)", "append(disk, dirs, -signed(octets), 0)", "quota given back keeps the count"),
    ("deliver", "const RECEIVED_MAX: usize = 100;", "const RECEIVED_MAX: usize = 101;", "loops end one hop later"),
    ("smtp", "(State::DotCr, b'\\n') => return true,", "(State::DotCr | State::Dot, b'\\n') => return true,", "LF ends a message behind a dot"),
    ("smtp", "self.state == State::LineStart && octet != b'.'", "self.state == State::LineStart", "a dot at the start of a line is content"),
    ("smtp", "        self.bare = true;\n", "", "a bare LF is not refused"),
    ("smtp", "true if bare || text.contains(&0) =>", "true if text.contains(&0) =>", "a bare LF in a command line"),
    ("smtp", "let line = match skipped + used <= limit {", "let line = match used <= limit {", "a line that was too long is executed by its tail"),
    ("smtp", "if self.skipped > FLOOD {", "if false {", "an endless line"),
    ("smtp", "        self.user = None;\n        self.forget();", "        self.forget();", "a login before STARTTLS counts after it"),
    ("smtp", "        self.phase = Phase::Fresh;\n        self.helo = None;", "        self.helo = None;", "a transaction survives STARTTLS"),
    ("smtp", "        if more_input {", "        if false {", "plaintext after STARTTLS is executed"),
    ("smtp", "if total > self.policy.max_size.saturating_mul(2) {", "if total > self.policy.max_size.saturating_mul(3) {", "BDAT goes on past twice the limit"),
    ("smtp", "let too_large = total > self.policy.max_size;", "let too_large = size > self.policy.max_size;", "only a single chunk is held to the limit"),
    ("smtp", "if transaction.recipients.len() >= most {", "if transaction.recipients.len() > most {", "one recipient too many"),
    ("smtp", "if transaction.params.body == Some(BodyType::Binary) {", "if false {", "DATA with BINARYMIME"),
    ("auth", "if !authzid.is_empty() && authzid != authcid {", "if false {", "PLAIN acts as another user"),
    ("auth", "        if password.contains(&0) {", "        if false {", "a NUL at the end of a password"),
    ("auth", "last.channel == self.channel && last.nonce == self.nonce", "last.channel == self.channel", "SCRAM with another nonce"),
    ("auth", "last.channel == self.channel && last.nonce == self.nonce", "last.nonce == self.nonce", "SCRAM without channel binding"),
    ("smtp", "if self.dots && self.line_start && line.first() == Some(&b'.') {", "if false {", "a dot at the start of a line is not doubled for the next hop"),
    ("smtp", "self.encoder.sent() == self.envelope.content.wire", "true", "a content that is too short is ended as if it were whole"),
    ("smtp", "Planned::Rcpt(_) if self.refused => self.stray |= class == 2,", "Planned::Rcpt(_) if self.refused => {}", "a message without its MAIL is sent empty"),
    ("conn", "&& replies.iter().any(Reply::is_error)", "&& false", "LMTP relays for refused recipients too"),
    ("conn", "may_relay: self.relay.is_some_and(|(_, may_relay)| may_relay),", "may_relay: true,", "everybody may relay"),
    ("queue", "let synced = written.and_then(|()| self.syncs.file(disk, fd(&file)));", "let synced = written;", "an envelope is not synced"),
    ("queue", "self.durably(|| self.write(name, text))?;", "self.write(name, text)?;", "the name of a changed envelope is not synced"),
    ("queue", "match self.folder.remove(&name) {", "match io::Result::Ok(()) {", "the content of a message that was sent stays"),
    ("queue", "        self.kept = true;\n", "", "the envelope of an accepted message is removed"),
    ("queue", "unsaved.push((id.to_owned(), envelope.clone()));", "", "a full disk makes a message be sent twice"),
    ("queue", "let wanted = envelopes.binary_search(id).is_ok();", "let wanted = true;", "a message that was sent is sent again after a crash"),
    ("relay", "Verdict::Failed => !reported,", "Verdict::Failed => false,", "a failure is forgotten while its report cannot be queued"),
    ("relay", "!recipients.is_empty() && !envelope.from.is_empty()", "!recipients.is_empty()", "a report is reported"),
    ("relay", "matches!(stage, Stage::Reset | Stage::Mail | Stage::Idle)", "matches!(stage, Stage::Reset | Stage::Mail | Stage::Idle | Stage::End)", "a message whose end had no reply is sent again at once"),
    ("relay", "TlsMode::Required => TlsUse::Required,", "TlsMode::Required => TlsUse::Offered,", "TLS that is required is only tried"),
    ("relay", "            Err(e @ ConnectionError::Auth(_)) => return Err(e),\n", "", "a password is tried at all addresses"),
    ("relay", "policy.is_over(state.received(created), now) && state.grace <= now", "policy.is_over(state.received(created), now)", "a clock that is set forward bounces the queue"),
]
# What no test can see, and why.
EXPLAINED = {}


def place(source, folder, old):
    """The one file below the folder that holds the text."""
    found = [path for path in sorted((source / "src" / folder).rglob("*.rs")) if old in path.read_text()]
    return found[0] if found else None


def survives(tree):
    """Whether all tests pass, and which does not; None where it does not compile. What ends without a test that failed, such as a
    cargo that cannot read a manifest, says nothing of the tests."""
    for command in ("cargo test -q --locked --lib", "cargo test -q --locked --test it"):
        try:
            done = subprocess.run(command.split(), cwd=tree, capture_output=True, text=True, timeout=900)
        except subprocess.TimeoutExpired:
            return False, "the tests do not end"
        if done.returncode != 0:
            if "could not compile" in done.stderr:
                return False, None
            if "test result: FAILED" not in done.stdout:
                raise SystemExit(f"{command}: {done.stderr[-2000:]}")
            failed = [line for line in done.stdout.splitlines() if line.startswith("    ") and "::" in line]
            return False, failed[0].strip() if failed else "a test"
    return True, ""


def main(words):
    missing = [what for folder, old, _, what in MUTANTS if not place(ROOT, folder, old)]
    for what in missing:
        print(f"STALE    {what}: its line has changed")
    if words == ["--check"]:
        return bool(missing)
    chosen = [m for m in MUTANTS if m[3] not in missing and (not words or words == ["--list"] or any(word in m[3] or word == m[0] for word in words))]
    if words == ["--list"]:
        for folder, old, new, what in chosen:
            print(f"{what}\n  {place(ROOT, folder, old).relative_to(ROOT)}\n- {old}\n+ {new}")
        return False
    caught = 0
    with tempfile.TemporaryDirectory(prefix="mutants") as home:
        tree = pathlib.Path(home) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns("target", ".git"))
        whole, by = survives(tree)
        if not whole:
            raise SystemExit(f"the tests fail without any breakage: {by}")
        for folder, old, new, what in chosen:
            path = place(tree, folder, old)
            text = path.read_text()
            path.write_text(text.replace(old, new, 1))
            alive, by = survives(tree)
            path.write_text(text)
            caught += not alive and by is not None
            verdict = "SURVIVED" if alive else "caught  " if by else "NO BUILD"
            print(f"{verdict} {folder}: {what} ({EXPLAINED.get(what, by)})", flush=True)
            if alive and what in EXPLAINED:
                caught += 1
    print(f"{caught} of {len(chosen)} caught or explained")
    return caught < len(chosen) or bool(missing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
