#!/usr/bin/env python3
"""F19, F20: cuts the power while mail flows, and checks that every message with a 250 is there afterwards.

`powercut.py MAILSLOT [--quick] [--fs NAME] [--load NAME] [--cuts N] [--must-lose]`; needs root, /dev/fuse and loop
devices. The file system is on a loop device, whose disk records its writes (recorder.py). Clients note after each 250
how far that record was. Then the disk is rebuilt as it was at many moments: all writes up to that moment, in their
order, and, for file systems that flush the disk's cache, all writes up to the last flush and a random half of those
after it. It is repaired and mounted, and each message whose 250 came before that moment must be whole in new/ of every
recipient; new/ must not hold a part of a message. A server with `--sync none` must lose messages on the same disk,
because otherwise the test could not see any loss. Exit status: 0 if nothing was lost, 1 if something was, 77 if this
machine does not allow it, with the reason."""

import argparse
import contextlib
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time

from recorder import Recorder

MIB = 1024 * 1024
# Name, mkfs, MiB, repair before the mount, mount options, whether it flushes the disk's cache at fsync.
FILE_SYSTEMS = [
    ("ext4", "mkfs.ext4 -q -F", 128, None, "", True),
    ("ext4-nojournal", "mkfs.ext4 -q -F -O ^has_journal", 128, "e2fsck -f -y", "", False),
    ("ext2", "mkfs.ext2 -q -F -O ^dir_index", 128, "e2fsck -f -y", "", False),
    ("ext2-index", "mkfs.ext2 -q -F", 128, "e2fsck -f -y", "", False),
    ("xfs", "mkfs.xfs -q -f", 320, None, "", True),
    ("btrfs", "mkfs.btrfs -q -f -M", 160, None, "", True),
    ("f2fs", "mkfs.f2fs -q -f", 128, None, "", True),
]
# Without a journal a directory that needs its second block is written anew as an index, block by block: a cut while that sync
# runs loses names that were synced long before, whatever a program does (SECURITY.md). Such losses are counted apart and are
# no failure there. While nobody waits for a sync, nothing may be missing anywhere.
MAY_LOSE_IN_FLIGHT = ("ext4-nojournal", "ext2-index")
# So often all sessions wait for each other, so that the disk is at rest.
REST_EVERY = 5
# Name, sessions, recipients of a message as a function of session and message.
LOADS = [
    ("single", 4, lambda session, number: [f"s{session}"]),
    ("recipients", 2, lambda session, number: [f"r{n}" for n in range(50)]),
    ("shared", 20, lambda session, number: ["all"]),
    ("first", 4, lambda session, number: [f"new{session}x{number}"]),
    # Through the queue to a next hop that puts every message off; every second one has a copy here.
    ("onward", 4, lambda session, number: [f"q{session}@far.test"] + ["here"] * (number % 2)),
]


def run(command, *more, quiet=True):
    return subprocess.run([*command.split(), *map(str, more)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if quiet else None, check=False)


def must(command, *more):
    done = run(command, *more)
    if done.returncode != 0:
        raise RuntimeError(f"{command} {more}: {done.stderr.decode().strip()}")


class Mounted:
    """A file system on a loop device on a file, mounted."""

    def __init__(self, image, where, kind, options=""):
        self.image, self.where = image, where
        found = subprocess.run(["losetup", "--find", "--show", image], stdout=subprocess.PIPE, check=True)
        self.device = found.stdout.decode().strip()
        try:
            must("mount", "-t", kind, *(["-o", options] if options else []), self.device, where)
        except RuntimeError:
            run("losetup --detach", self.device)
            raise

    def end(self):
        must("umount", self.where)
        must("losetup --detach", self.device)
        # If somebody else has the device open, as udev does after each change, it is only detached when they close it.
        until = time.monotonic() + 30
        while self.is_attached():
            if time.monotonic() > until:
                raise RuntimeError(f"{self.device} is still open after half a minute")
            time.sleep(0.01)

    def is_attached(self):
        backing = pathlib.Path("/sys/block", pathlib.Path(self.device).name, "loop/backing_file")
        with contextlib.suppress(OSError):
            return backing.read_text().strip() == str(self.image.absolute())
        return False


def body(name):
    """Content that its name determines, so that a file can be seen to be whole; sizes from 0.1 to 20 KiB."""
    seed = hashlib.sha256(name.encode()).hexdigest()
    return "\n".join([seed] * (2 + int(seed[:2], 16) + (int(seed[2], 16) == 0) * 50)) + "\n"


class Later:
    """A next hop that says 450 to every recipient, so that each envelope is written anew."""

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()
        return f"smtp://127.0.0.1:{self.listener.getsockname()[1]}?tls=none"

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=self.listener.accept()[:1], daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rb") as lines, contextlib.suppress(OSError):
            client.sendall(b"220 hop\r\n")
            for line in lines:
                client.sendall(b"450 4.2.0 later\r\n" if line.startswith(b"RCPT") else b"250 ok\r\n")

    def __exit__(self, *_):
        self.listener.close()


def is_put_off(envelope):
    with contextlib.suppress(FileNotFoundError):
        return not envelope.name.endswith(".half") and "\nlast " in envelope.read_text()
    return False


class Load:
    """Clients that send until they are told to stop, and what was acknowledged when."""

    def __init__(self, recorder, port, load, session_messages, queue):
        self.recorder, self.port, self.load, self.queue = recorder, port, load, queue
        self.session_messages = session_messages
        self.acknowledged = []  # (count of the record, name, recipients)
        self.rests = []  # counts of the record while nobody waited for a 250
        self.all_here = threading.Barrier(load[1], self.rest, 60)

    def rest(self):
        """All sessions wait, and every message in the queue has been put off."""
        end = time.monotonic() + 30
        while time.monotonic() < end and not all(is_put_off(path) for path in self.queue.glob("new/*") if ",S=" not in path.name):
            time.sleep(0.01)
        self.rests.append(self.recorder.count())

    def session(self, session):
        _, _, recipients = self.load
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
            client.ehlo("client.test")
            for number in range(self.session_messages):
                name = f"{session}-{number}"
                names = recipients(session, number)
                client.sendmail("sender@client.test", [to if "@" in to else f"{to}@here.test" for to in names], f"Subject: {name}\n\n{body(name)}")
                self.acknowledged.append((self.recorder.count(), name, names))
                if (number + 1) % REST_EVERY == 0:
                    self.all_here.wait()

    def run(self):
        threads = [threading.Thread(target=self.session, args=(n,)) for n in range(self.load[1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def stored(mail):
    """(mailbox, subject) of each whole message in new/, and the files that are not whole."""
    whole, partial = set(), []
    for path in mail.glob("here.test/*/new/*"):
        head, _, content = path.read_bytes().decode("latin-1").partition("\n\n")
        subject = head.rpartition("Subject: ")[2]
        if head and content == body(subject):
            whole.add((path.parent.parent.name, subject))
        else:
            partial.append(path)
    for path in mail.parent.glob("queue/new/*,S=*"):
        head, _, content = path.read_bytes().decode("latin-1").partition("\n\n")
        subject = head.rpartition("Subject: ")[2]
        envelope = path.parent / ".".join(path.name.split(".")[:2])
        text = envelope.read_text("latin-1") if envelope.exists() else ""
        if not head or content != body(subject) or (text and not text.startswith("mailslot-envelope 1\n")):
            partial.append(path)
        whole |= {(to, subject) for to in re.findall(r"^to \d+ \d+ (\S+)$", text, re.MULTILINE)}
    return whole, partial


class Case:
    """One file system under one load, with one way to sync."""

    def __init__(self, options, work, system, load, sync):
        self.options, self.work, self.system, self.load, self.sync = options, work, system, load, sync
        self.name = f"{system[0]} {load[0]}{' --sync none' if sync == 'none' else ''}"
        self.kind = system[0].partition("-")[0]

    def record(self):
        """Lets mail flow; the base image, the record of writes, and the acknowledged messages."""
        base, disk, where = self.work / "base", self.work / "disk", self.work / "mounted"
        with open(base, "wb") as file:
            file.truncate(self.system[2] * MIB)
        must(self.system[1], base)
        where.mkdir(exist_ok=True)
        recorder = Recorder(base, disk, self.work / "log")
        try:
            mounted = Mounted(disk, where, self.kind, self.system[4])
            try:
                acknowledged = self.serve(recorder, where)
            finally:
                mounted.end()
        finally:
            log = recorder.end()
        return base, log, acknowledged

    def serve(self, recorder, where):
        (where / "mail").mkdir()
        os.sync()
        with Later() as hop:
            return self.serve_beside(hop, recorder, where)

    def serve_beside(self, hop, recorder, where):
        onward = ["--relay", hop, "--relay-from", "127.0.0.1"] if self.load[0] == "onward" else []
        command = [self.options.binary, *onward, "--listen", "smtp://127.0.0.1:0", "--domain", "here.test", "--create", "--sync", self.sync, "--maildir", "mail/%d/%u", "--max-recipients", "100"]
        server = subprocess.Popen(command, cwd=where, stderr=subprocess.PIPE)
        try:
            for line in server.stderr:
                if b"listening on" in line:
                    break
            else:
                raise RuntimeError("the server ended")
            drain = threading.Thread(target=server.stderr.read, daemon=True)
            drain.start()
            load = Load(recorder, int(line.rsplit(b":", 1)[1]), self.load, self.options.messages, where / "queue")
            load.run()
            self.rests = set(load.rests)
            return load.acknowledged
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()

    def moments(self, acknowledged):
        """The numbers of writes after which the power goes: spread over the flow, while all wait, and right after the last 250."""
        first, last = min(a[0] for a in acknowledged), max(a[0] for a in acknowledged)
        count = self.options.cuts
        spread = {first + (last - first) * n // count for n in range(count)}
        return sorted(spread | set(sorted(self.rests)[:: 4 if self.options.quick else 1]) | {last})

    def cut(self, base, log, acknowledged):
        """Lost and partial messages over all moments, and how many were looked at."""
        lost, partial, looked = [], [], 0
        rolling, done = bytearray(open(base, "rb").read()), 0
        random_half = random.Random(self.options.seed)
        for moment in self.moments(acknowledged):
            flushed = max((n for n in range(done, moment) if log[n] is None), default=None)
            after_flush = bytearray(rolling) if self.system[5] and flushed is not None else None
            for entry in log[done:moment]:
                apply(rolling, entry)
            states = [("in order", rolling)]
            if after_flush is not None:
                for entry in log[done:flushed]:
                    apply(after_flush, entry)
                for entry in log[flushed:moment]:
                    if random_half.random() < 0.5:
                        apply(after_flush, entry)
                states.append(("cache lost", after_flush))
            done = moment
            for how, image in states:
                whole, broken = self.look(image)
                due = [(to, name) for count, name, names in acknowledged if count <= moment for to in names]
                looked += len(due)
                lost += [(moment, how, *message) for message in due if message not in whole]
                partial += [(moment, how, path.name) for path in broken]
        return lost, partial, looked

    def look(self, image):
        path, where = self.work / "cut", self.work / "again"
        path.write_bytes(image)
        where.mkdir(exist_ok=True)
        if self.system[3]:
            run(self.system[3], path)
        mounted = Mounted(path, where, self.kind, self.system[4])
        try:
            return stored(where / "mail")
        finally:
            mounted.end()

    def run(self):
        base, log, acknowledged = self.record()
        lost, partial, looked = self.cut(base, log, acknowledged)
        at_rest = [what for what in lost if what[0] in self.rests]
        if self.sync == "none" or self.options.must_lose:
            good = bool(lost)
        else:
            # Names that the queue removes are not synced, so its directory is never at rest there.
            missing = [] if self.load[0] == "onward" else at_rest
            good = not partial and not (missing if self.system[0] in MAY_LOSE_IN_FLIGHT else lost)
        moments = len(self.moments(acknowledged))
        print(
            f"{'ok    ' if good else 'FAILED'} {self.name}: {len(at_rest)} lost at rest, {len(lost) - len(at_rest)} while a sync ran, "
            f"{len(partial)} partial of {looked} acknowledged copies looked for at {moments} moments, {len(self.rests)} of them at rest",
            flush=True,
        )
        for what in (at_rest + lost + partial)[:3] if not good else []:
            print(f"       {what}")
        return good


def apply(image, entry):
    if entry is not None:
        offset, data = entry
        image[offset : offset + len(data)] = data


def impossible():
    """Why this machine cannot run it."""
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if run("losetup --find").returncode != 0:
        return "no loop device"
    return None


def usable(system):
    kinds = [line.split()[-1] for line in open("/proc/filesystems")]
    if system[0].partition("-")[0] not in kinds:
        return "not in this kernel"
    tool = system[1].split()[0]
    return None if shutil.which(tool) else f"{tool} is not installed"


def main():
    # An end from outside unmounts, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=os.path.abspath)
    parser.add_argument("--quick", action="store_true", help="two loads, few moments")
    parser.add_argument("--fs", action="append", help="only this file system")
    parser.add_argument("--load", action="append", help="only this load")
    parser.add_argument("--cuts", type=int)
    parser.add_argument("--messages", type=int, help="of each session")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--must-lose", action="store_true", help="for a binary that is known to lose")
    options = parser.parse_args()
    options.cuts = options.cuts or (4 if options.quick else 20)
    options.messages = options.messages or (10 if options.quick else 40)
    if reason := impossible():
        print(f"skip   powercut: {reason}")
        return 77
    good = True
    with tempfile.TemporaryDirectory(prefix="powercut", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as work:
        for system in FILE_SYSTEMS:
            if options.fs and system[0] not in options.fs:
                continue
            if reason := usable(system):
                print(f"skip   {system[0]}: {reason}", flush=True)
                continue
            for load in LOADS:
                if (options.load and load[0] not in options.load) or (options.quick and load[0] in ("recipients", "first")):
                    continue
                good &= Case(options, pathlib.Path(work), system, load, "full").run()
            good &= Case(options, pathlib.Path(work), system, LOADS[0], "none").run()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
