#!/usr/bin/env python3
"""System calls that fail under the running server, and limits that it runs into.

`faults.py MAILSLOT [--quick]`. With strace, each call that a message needs, also one that goes to the queue, fails
once: the first, second … n-th call in a thread, with each errno. Then come the limits: a full tmpfs, RLIMIT_NOFILE,
NPROC, FSIZE, AS, a control group of 32 MiB. After each of them, every recipient of a message that had a 250 must have
it, once and whole; every other message must be absent or whole; and the next client must be served. What this machine
does not allow is printed and skipped; the exit status is 1 if something was wrong."""

import collections
import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

BINARY = os.path.abspath(sys.argv[1])
QUICK = "--quick" in sys.argv
ERRNOS = ["EIO", "ENOSPC"] if QUICK else ["EIO", "ENOSPC", "EDQUOT", "EMFILE", "EAGAIN", "ENOSYS", "ESTALE", "EINTR"]
CALLS = """openat write writev pwrite64 fsync fdatasync link linkat rename renameat renameat2 unlink unlinkat mkdir mkdirat close
    accept4 clone clone3 newfstatat fstat statx getdents64 fcntl flock ftruncate fchmod fchown fchownat sendto recvfrom
    setsockopt statfs fstatfs poll""".split()
# An interrupted call that std does not repeat is not a fault that a file system shows.
BODY = "0123456789abcdef\n" * 2000
FAILED = []


def check(what, good, more=""):
    if not good:
        FAILED.append(what)
        print(f"FAILED {what} {more}", flush=True)
    return good


@contextlib.contextmanager
def served(home, *args, scheme="smtp", limits=(), uid=None, group=None):
    """A server in `home`; its process and port."""

    def before():
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        for limit, value in limits:
            resource.setrlimit(limit, (value, value))
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)

    command = [BINARY, "--listen", f"{scheme}://127.0.0.1:0", "--hostname", "mx.test", "--domain", "here.test", "--create", *args]
    child = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, preexec_fn=before)
    log = []
    try:
        for line in child.stderr:
            log.append(line)
            if b"listening on" in line:
                break
        else:
            raise RuntimeError(f"the server ended: {b''.join(log).decode()}")
        reader = threading.Thread(target=lambda: log.extend(child.stderr), daemon=True)
        reader.start()
        yield child, int(line.rsplit(b":", 1)[1])
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def send(port, name, recipients, lmtp, content=BODY):
    """The recipients whose copy was acknowledged; nobody where the connection ends early."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            file = sock.makefile("rb")

            def reply():
                while (line := file.readline())[3:4] == b"-":
                    pass
                return line

            def ask(text):
                sock.sendall(text.encode())
                return reply()

            if not reply().startswith(b"220"):
                return set()
            ask(f"{'LHLO' if lmtp else 'EHLO'} client.test\r\n")
            ask("MAIL FROM:<sender@client.test>\r\n")
            accepted = [to for to in recipients if ask(f"RCPT TO:<{to}@here.test>\r\n").startswith((b"250", b"251"))]
            if not ask("DATA\r\n").startswith(b"354"):
                return set()
            sock.sendall(f"Subject: {name}\r\n\r\n{content}".replace("\n", "\r\n").replace("\r\r", "\r").encode() + b".\r\n")
            replies = [reply() for _ in (accepted if lmtp else [0])]
            done = replies if lmtp else replies * len(accepted)
            return {to for to, text in zip(accepted, done) if text.startswith(b"250")}
    except OSError:
        return set()


def look(what, home, acknowledged, content=BODY):
    """What lies in new/ against what was acknowledged: name -> recipients."""
    found = collections.Counter()
    mailboxes = [(path, [path.parent.parent.name]) for path in (home / "mail").glob("here.test/*/new/*")]
    for path, recipients in mailboxes + waiting(home):
        head, _, text = path.read_text().partition("\n\n")
        check(what, text == content, f"{path.name} is not whole")
        for to in recipients:
            found[head.rpartition("Subject: ")[2], to] += 1
    for name, recipients in acknowledged.items():
        for to in recipients:
            check(what, found[name, to] == 1, f"{name} is in the mailbox of {to} {found[name, to]} times")
    for (name, to), count in found.items():
        check(what, count == 1, f"{name} is in the mailbox of {to} {count} times")


def waiting(home):
    """The messages of the queue: a content file, and the recipients that its envelope names."""
    found = []
    for path in (home / "queue/new").glob("*,S=*"):
        envelope = path.parent / ".".join(path.name.split(".")[:2])
        text = envelope.read_text() if envelope.exists() else ""
        found.append((path, re.findall(r"^to \d+ \d+ (\w+)@far.test$", text, re.M)))
    return found


def options(home, mode):
    """What the server is started with to deliver by SMTP or LMTP, or to keep mail for a hop that is down."""
    if mode != "onward":
        return {"scheme": mode}, []
    (home / "aliases").write_text("a: a@far.test\nb: b@far.test\n")
    return {}, ["--aliases", "aliases", "--relay", "smtp://127.0.0.1:9"]


@contextlib.contextmanager
def traced(pid, *options):
    """strace attached to all threads of a process."""
    tracer = subprocess.Popen(["strace", "-f", "-p", str(pid), *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    lines = []
    for line in tracer.stderr:
        lines.append(line)
        if b"attached" in line:
            break
    else:
        raise RuntimeError(b"".join(lines).decode())
    reader = threading.Thread(target=lambda: lines.extend(tracer.stderr), daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        reader.join()


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="faults") as home:
        yield pathlib.Path(home)


def calls_of_a_message(mode):
    """How often each call comes, at most, in one thread while a client is served."""
    counts = collections.Counter()
    with folder() as home:
        (home / "mail").mkdir()
        given, args = options(home, mode)
        with served(home, *args, **given) as (child, port):
            greeted(port)
            with traced(child.pid, "-e", "trace=" + ",".join(CALLS)) as lines:
                send(port, "first", ["a", "b"], mode == "lmtp")
    for line in lines:
        if found := re.match(rb"(?:\[pid +(\d+)\] )?(\w+)\(", line):
            counts[found[2].decode(), found[1]] += 1
    most = collections.Counter()
    for (call, _), count in counts.items():
        most[call] = max(most[call], count)
    return most


def fail_each_call(mode):
    tried = 0
    for call, most in sorted(calls_of_a_message(mode).items()):
        nth = sorted({1, 2, 3, most // 2 or 1, most} & set(range(1, most + 1))) if QUICK or call in ("write", "recvfrom", "sendto") else range(1, most + 1)
        for errno in ERRNOS:
            for number in nth:
                fail_one(call, errno, number, mode)
                tried += 1
    print(f"ok     {tried} faults in {mode}" if not FAILED else f"       {tried} faults tried", flush=True)


def fail_one(call, errno, number, mode):
    what, lmtp = f"{call} #{number} {errno} {mode}", mode == "lmtp"
    with folder() as home:
        (home / "mail").mkdir()
        given, args = options(home, mode)
        with served(home, "--quota", "100M", *args, **given) as (child, port):
            acknowledged = {}
            # It has started when it greets: a start may end with an error.
            greeted(port)
            with traced(child.pid, "-e", f"trace={call}", "-e", f"inject={call}:error={errno}:when={number}"):
                acknowledged["faulty"] = send(port, "faulty", ["a", "b"], lmtp)
            acknowledged["next"] = send(port, "next", ["a", "b"], lmtp)
            # A failed sync of a directory may have lost entries, so nothing there is promised any more.
            check(what, acknowledged["next"] == {"a", "b"} or call == "fsync", "the next client is not served")
            check(what, child.poll() is None, "the server ended")
            look(what, home, acknowledged)


def refuse_a_call():
    """As a filter of system calls does: one that others can replace. The message is taken all the same."""
    for call in ("renameat2", "renameat2,linkat"):
        for errno in ("EPERM", "ENOSYS"):
            with folder() as home:
                (home / "mail").mkdir()
                with served(home) as (child, port):
                    each = [part for one in call.split(",") for part in ("-e", f"inject={one}:error={errno}")]
                    with traced(child.pid, "-e", f"trace={call}", *each):
                        taken = send(port, "refused", ["a"], False)
                    check(f"{call} {errno}", taken == {"a"}, "the message is not taken")
                    look(f"{call} {errno}", home, {"refused": taken})


def strace_works():
    if not shutil.which("strace"):
        return "strace is not installed"
    child = subprocess.Popen(["sleep", "60"])
    try:
        with traced(child.pid, "-e", "trace=none"):
            return None
    except RuntimeError as error:
        return str(error)
    finally:
        child.kill()
        child.wait()


# --- limits --------------------------------------------------------------------------------------


def under(what, home, count, recovers, **options):
    """Sessions at the same time against a server that has too little of something."""
    with served(home, **options) as (child, port):
        acknowledged, lock = {}, threading.Lock()

        def one(number):
            done = send(port, f"m{number}", [f"u{number % 4}", "all"], False)
            with lock:
                acknowledged[f"m{number}"] = done

        threads = [threading.Thread(target=one, args=(n,)) for n in range(count)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        check(what, child.poll() is None, "the server ended")
        look(what, home, acknowledged)
        if recovers:
            recovers(home)
        end = time.monotonic() + 20
        while not (good := greeted(port)) and time.monotonic() < end:
            time.sleep(0.05)  # the last connection's thread may not have ended yet
        check(what, good, "the next client is not served")
        if recovers:
            acknowledged["next"] = send(port, "next", ["all"], False)
            check(what, acknowledged["next"] == {"all"}, "no mail after the trouble has gone")
            look(what, home, acknowledged)
        taken = sum(bool(done) for done in acknowledged.values())
        print(f"{'ok    ' if what not in FAILED else 'FAILED'} {what}: {taken} of {len(acknowledged)} messages taken", flush=True)


def edge(what, home, sessions, **options):
    """So many sessions in the middle of a message at the same time: each is served, or hears 421 at once."""
    with served(home, "--max-connections", str(sessions), "--max-per-client", str(sessions), **options) as (child, port):
        admitted, others = [], collections.Counter()
        for _ in range(sessions):
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), timeout=60)
                file = sock.makefile("rb")
                line = file.readline()
                if line.startswith(b"220"):
                    admitted.append((sock, file))
                else:
                    others[line[:9].decode()] += 1

        def all_say(text):
            for number, (sock, _) in enumerate(admitted):
                sock.sendall(text(number).encode())
            for _, file in admitted:
                line = file.readline()
                check(what, line[:1] in (b"2", b"3"), line.decode())

        for text in ("HELO c\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<e%d@here.test>\r\n", "DATA\r\n"):
            all_say(lambda number: text % number if "%" in text else text)
        all_say(lambda number: f"Subject: m{number}\r\n\r\n" + BODY.replace("\n", "\r\n") + ".\r\n")
        look(what, home, {f"m{number}": {f"e{number}"} for number in range(len(admitted))})
        check(what, admitted and set(others) <= {"421 4.3.2"}, f"{len(admitted)} admitted, the others {dict(others)}")
        check(what, child.poll() is None, "the server ended")
        shown = "" if what in FAILED else f"{len(admitted)} of {sessions} sessions served, {sum(others.values())} heard 421"
        print(f"{'FAILED' if what in FAILED else 'ok    '} {what}: {shown}", flush=True)
        [sock.close() for sock, _ in admitted]


def edges():
    """--max-connections at the edge of what the process may have."""
    uid = 65534 if os.geteuid() == 0 else None
    cases = [(f"RLIMIT_NOFILE {files}", sessions, {"limits": [(resource.RLIMIT_NOFILE, files)]}) for files, sessions in ((64, 40), (256, 200), (1024, 600))]
    cases += [(f"RLIMIT_AS {size}M", 200, {"limits": [(resource.RLIMIT_AS, size << 20)]}) for size in (20, 32, 64)]
    cases += [("RLIMIT_NPROC 16", 40, {"limits": [(resource.RLIMIT_NPROC, 16)], "uid": uid})]
    for what, sessions, options in cases:
        with folder() as home:
            (home / "mail").mkdir()
            [os.chmod(path, 0o777) for path in (home, home / "mail")]
            edge(f"{what}, {sessions} sessions", home, sessions, **options)
    with folder() as home:
        (home / "mail").mkdir()
        with small_group(32 << 20) as group:
            if group:
                edge("a control group of 32 MiB, 512 sessions", home, 512, group=group)
                killed = re.search(r"oom_kill (\d+)", "".join(path.read_text() for path in group.glob("memory.*") if path.name in ("memory.events", "memory.oom_control")))
                check("a control group of 32 MiB", killed and killed[1] == "0", "something was killed")


@contextlib.contextmanager
def small_group(octets):
    """A control group with so much memory, where one may be made."""
    for root, file in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = pathlib.Path(root, f"faults{os.getpid()}")
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / file).exists():
                (group / file).write_text(str(octets))
                yield group
                return
        finally:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)
    print("skip   a control group of 32 MiB: none can be made here")
    yield None


def greeted(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(b"NOOP\r\n")
            file = sock.makefile("rb")
            return file.readline().startswith(b"220") and file.readline().startswith(b"250")
    except OSError:
        return False


def full_tmpfs(home):
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", home], stderr=subprocess.DEVNULL).returncode != 0:
        print("skip   full tmpfs: no mount here")
        return
    try:
        (home / "mail").mkdir()
        (home / "filler").write_bytes(bytes(100 * 1024))
        under("full tmpfs", home, 12, lambda home: [path.unlink() for path in [home / "filler"]])
    finally:
        subprocess.run(["umount", "-l", home], check=True)


def limits():
    uid = 65534 if os.geteuid() == 0 else None
    cases = [
        ("RLIMIT_NOFILE 20", 40, {"limits": [(resource.RLIMIT_NOFILE, 20)]}),
        ("RLIMIT_NOFILE 64", 40, {"limits": [(resource.RLIMIT_NOFILE, 64)]}),
        ("RLIMIT_FSIZE 16K", 8, {"limits": [(resource.RLIMIT_FSIZE, 16 * 1024)]}),
        ("RLIMIT_FSIZE 34000", 8, {"limits": [(resource.RLIMIT_FSIZE, 34_000)]}),
        # Four threads are the process's own, the rest is for connections.
        ("RLIMIT_NPROC 8", 40, {"limits": [(resource.RLIMIT_NPROC, 8)], "uid": uid}),
    ] + [(f"RLIMIT_AS {size}M", 60, {"limits": [(resource.RLIMIT_AS, size << 20)]}) for size in (24, 32, 64)]
    for what, count, options in cases:
        with folder() as home:
            (home / "mail").mkdir()
            os.chmod(home, 0o777)
            os.chmod(home / "mail", 0o777)
            try:
                under(what, home, count, None, **options)
            except RuntimeError as error:
                print(f"       {what}: does not start: {str(error).strip()}")
    with folder() as home:
        full_tmpfs(home)


if __name__ == "__main__":
    if reason := strace_works():
        print(f"skip   failing calls: {reason}")
    else:
        for mode in ("smtp", "lmtp", "onward"):
            fail_each_call(mode)
        refuse_a_call()
    limits()
    edges()
    print(f"{len(FAILED)} wrong")
    sys.exit(bool(FAILED))
