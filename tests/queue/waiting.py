#!/usr/bin/env python3
"""Memory with a long queue: many messages, for many domains, wait for a hop that is down, while the server starts,
tries, lists and accepts mail. `waiting.py MAILSLOT [--quick]` fails if a hundred thousand messages take more than 64
MiB."""

import argparse
import pathlib
import re
import smtplib
import socket
import subprocess
import sys
import tempfile
import time


def fill(queue, count):
    """Messages as the server writes them: tried once, due in the next seconds."""
    for part in ("new", "tmp", "cur"):
        (queue / part).mkdir(parents=True, mode=0o700)
    now = int(time.time())
    for number in range(count):
        ident = f"{now - 60}.M{number % 1_000_000}P1Q{number}"
        (queue / "new" / f"{ident}.mx.test,S=40").write_text("Received: from x\n\nSubject: x\n\nbody of it\n")
        (queue / "new" / ident).write_text(
            f"mailslot-envelope 1\nfrom sender{number}@a.test\ncreated {now - 60}\ncontent lines\n"
            f"to {now + number % 600} 1 user{number}@domain{number % 1000}.test\nlast 4.4.1 connect to hop: refused\n")


def memory(pid, field):
    return int(re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", default="target/release/mailslot")
    parser.add_argument("--quick", action="store_true", help="10,000 messages")
    given = parser.parse_args()
    given.messages, most = (10_000, 20) if given.quick else (100_000, 64)
    binary = str(pathlib.Path(given.binary).resolve())
    with tempfile.TemporaryDirectory(prefix="mailslot-waiting-") as home, socket.socket() as gone:
        home = pathlib.Path(home)
        gone.bind(("127.0.0.1", 0))
        fill(home / "queue", given.messages)
        command = [binary, "--listen", "smtp://127.0.0.1:0", "-d", "a.test", "--create", "--relay-from", "127.0.0.0/8",
                   "--relay", f"smtp://127.0.0.1:{gone.getsockname()[1]}"]
        began = time.monotonic()
        child = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)
        port = next(int(line.rsplit(":", 1)[1]) for line in child.stderr if "listening on" in line)
        with smtplib.SMTP("127.0.0.1", port, timeout=120) as client:
            client.sendmail("me@a.test", ["local@a.test", "far@b.test"], "Subject: y\r\n\r\nz\r\n")
        ready = time.monotonic() - began
        listed = subprocess.run([binary, "--queue-list"], cwd=home, capture_output=True, text=True, check=True).stdout
        subprocess.run([binary, "--queue-run"], cwd=home, capture_output=True, check=True)
        time.sleep(3)
        now, peak = memory(child.pid, "VmRSS"), memory(child.pid, "VmHWM")
        child.terminate()
        child.stderr.close()
        status = child.wait(60)
    total = int(re.search(r"(\d+) in the queue", listed)[1])
    good = total == given.messages + 1 and peak <= most and status == 0
    print(f"waiting: {total} messages, first mail after {ready:.1f} s, {now:.1f} MiB, {peak:.1f} MiB at most")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
