#!/usr/bin/env python3
"""Tests that take too long for every run: kill -9 at random moments under load, a message of 1 GiB, and the
memory of idle connections. `endurance.py MAILSLOT [ROUNDS]`; on loopback, in a temporary directory."""

import os
import pathlib
import random
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time

BINARY = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
BODY = b"0123456789abcdef" * 64


def start(home, *args):
    child = subprocess.Popen([BINARY, "--listen", "smtp://127.0.0.1:0", "--domain", "localhost", "--create", *args], cwd=home, stderr=subprocess.PIPE)
    for line in child.stderr:
        if b"listening on" in line:
            threading.Thread(target=child.stderr.read, daemon=True).start()
            return child, int(line.rsplit(b":", 1)[1])
    raise SystemExit("the server ended")


def rss(pid, what="VmRSS"):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(what + ":"):
            return int(line.split()[1])
    return 0


def send_until_dead(port, name, acknowledged):
    """Messages with a number of their own until the connection ends; those with a 250 are noted."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            file = sock.makefile("rb")
            file.readline()
            sock.sendall(b"HELO c\r\n")
            file.readline()
            for n in range(10_000):
                sock.sendall(b"MAIL FROM:<>\r\nRCPT TO:<a@localhost>\r\nRCPT TO:<b@localhost>\r\nDATA\r\n")
                if not all(file.readline()[:1] in (b"2", b"3") for _ in range(4)):
                    return
                sock.sendall(b"Subject: %s.%d\r\n\r\n%s\r\n.\r\n" % (name, n, BODY))
                if file.readline().startswith(b"250"):
                    acknowledged.append(b"%s.%d" % (name, n))
    except OSError:
        pass


def kills(home):
    acknowledged = []
    for number in range(ROUNDS):
        child, port = start(home)
        threads = [threading.Thread(target=send_until_dead, args=(port, b"%d-%d" % (number, n), acknowledged)) for n in range(4)]
        [thread.start() for thread in threads]
        time.sleep(random.random() * 0.06)
        child.send_signal(signal.SIGKILL)
        child.wait()
        [thread.join() for thread in threads]
    for mailbox in ("a", "b"):
        seen = set()
        for path in (home / "mail/localhost" / mailbox / "new").iterdir():
            octets = path.read_bytes()
            head, _, body = octets.partition(b"\n\n")
            assert body == BODY + b"\n", f"{path} is half"
            assert path.name.endswith(f",S={len(octets)}"), path
            subject = head.rsplit(b"Subject: ", 1)[1]
            assert subject not in seen, f"{subject} is there twice"
            seen.add(subject)
        lost = set(acknowledged) - seen
        assert not lost, f"lost: {sorted(lost)[:5]}"
    print(f"{ROUNDS} kills, {len(acknowledged)} messages with a 250: all there, once and whole")


def big(home):
    child, port = start(home, "--max-size", "2G")
    client = smtplib.SMTP("127.0.0.1", port)
    client.helo()
    client.mail("a@b")
    client.rcpt("big@localhost")
    client.putcmd("DATA")
    client.getreply()
    block = (b"x" * 76 + b"\r\n") * 8192
    sent = 0
    while sent < 1 << 30:
        client.sock.sendall(block)
        sent += len(block)
    client.sock.sendall(b".\r\n")
    code, _ = client.getreply()
    (path,) = (home / "mail/localhost/big/new").iterdir()
    print(f"1 GiB: {code}, {path.stat().st_size} octets on disk, peak RSS {rss(child.pid, 'VmHWM')} KiB")
    child.terminate()
    child.wait()


def idle(home):
    child, port = start(home, "--max-connections", "600", "--max-per-client", "600")
    empty = rss(child.pid)
    socks = []
    for _ in range(500):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.recv(100)
        sock.sendall(b"EHLO c\r\n")
        sock.recv(1000)
        socks.append(sock)
    full = rss(child.pid)
    print(f"idle process {empty} KiB; 500 idle sessions {full} KiB: {(full - empty) / 500:.1f} KiB each")
    child.terminate()
    child.wait()


with tempfile.TemporaryDirectory(prefix="mailslot-endurance-") as home:
    for trial in (idle, big, kills):
        (pathlib.Path(home) / trial.__name__).mkdir()
        trial(pathlib.Path(home) / trial.__name__)
