#!/usr/bin/env python3
"""Relaying while the server is killed every few seconds and the next hop goes up and down at random. Each message that
got its 250 must arrive at the hop. It may arrive twice only if a kill or a broken connection came between its dot and
the next command on that connection, because by then it was settled. `kill.py MAILSLOT [--quick] [--seed N]`."""

import argparse
import collections
import contextlib
import pathlib
import random
import re
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

SUBJECT = re.compile(rb"^Subject: (\d+)\r?$", re.M)


class Hop:
    """A next hop on a port of its own, that notes what arrives and on which connection."""

    def __init__(self, chance):
        self.chance, self.lock = chance, threading.Lock()
        self.arrived = collections.defaultdict(list)
        self.sockets, self.server, self.steady = set(), None, False
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def up(self):
        hop = self

        class Handler(socketserver.StreamRequestHandler):
            disable_nagle_algorithm = True

            def handle(self):
                with contextlib.suppress(OSError, ValueError):
                    hop.serve(self.rfile, self.wfile)

            def setup(self):
                super().setup()
                hop.sockets.add(self.request)

            def finish(self):
                hop.sockets.discard(self.request)
                with contextlib.suppress(OSError, ValueError):
                    super().finish()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True

            def handle_error(self, request, address):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self):
        self.server.shutdown()
        self.server.server_close()
        for each in list(self.sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def serve(self, lines, out):
        """One connection. What a command follows was settled by the client: that is noted beside the message."""
        last = None
        out.write(b"220 hop\r\n")
        while line := lines.readline():
            if last:
                last["settled"], last = True, None
            verb = line.split()[0].upper()
            if verb == b"EHLO":
                out.write(b"250-hop\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                out.write(b"354 go\r\n")
                content = b""
                while (line := lines.readline()) != b".\r\n":
                    if not line:
                        return
                    content += line
                last = {"settled": False}
                with self.lock:
                    self.arrived[int(SUBJECT.search(content)[1])].append(last)
                    drop = not self.steady and self.chance.random() < 0.01
                if drop:
                    return
                out.write(b"250 2.0.0 ok\r\n")
            elif verb == b"QUIT":
                out.write(b"221 bye\r\n")
                return
            else:
                out.write(b"250 ok\r\n")


class Mailslot:
    """The server under test: killed and started again on the same port and queue."""

    def __init__(self, binary, home, hop):
        self.home, self.kills = home, 0
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.command = [binary, "--listen", f"smtp://127.0.0.1:{self.port}", "-d", "a.test", "--create", "--relay",
                        f"smtp://127.0.0.1:{hop.port}?tls=none", "--relay-from", "127.0.0.0/8", "--retry", "1s", "-q"]
        self.start()

    def start(self):
        self.child = subprocess.Popen(self.command, cwd=self.home)

    def kill(self):
        self.child.kill()
        self.child.wait()
        self.kills += 1
        self.start()

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(60)

    def hurry(self):
        subprocess.run([self.command[0], "--queue-run"], cwd=self.home, capture_output=True, timeout=60)

    def waiting(self):
        return len(list((self.home / "queue/new").glob("*,S=*")))


class Submitters:
    """Clients that send numbered messages until enough of them were accepted."""

    def __init__(self, port, count):
        self.port, self.count, self.lock = port, count, threading.Lock()
        self.accepted, self.next = set(), 0
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(4)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while len(self.accepted) < self.count:
            with contextlib.suppress(OSError):
                self.connection()
            time.sleep(0.01)

    def connection(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as peer:
            replies = peer.makefile("rb")

            def ask(octets, code):
                if octets:
                    peer.sendall(octets)
                if not replies.readline().startswith(code):
                    raise OSError("refused, or gone")

            ask(b"", b"220")
            ask(b"HELO c\r\n", b"250")
            for _ in range(100):
                with self.lock:
                    number, self.next = self.next, self.next + 1
                ask(b"MAIL FROM:<>\r\n", b"250")
                ask(b"RCPT TO:<x@b.test>\r\n", b"25")
                ask(b"DATA\r\n", b"354")
                ask(b"Subject: %d\r\n\r\n%s\r\n.\r\n" % (number, b"x" * 2000), b"250")
                with self.lock:
                    self.accepted.add(number)
                    if len(self.accepted) >= self.count:
                        return

    def alive(self):
        return any(thread.is_alive() for thread in self.threads)


def trouble(hop, mailslot, submitters, chance):
    """Until all is submitted and most of it has arrived: the hop up and down, the server killed."""
    is_up, change, kill = True, 0.0, time.monotonic() + 1
    while submitters.alive() or len(hop.arrived) < submitters.count * 9 // 10:
        now = time.monotonic()
        if now >= change:
            (hop.down if is_up else hop.up)()
            is_up, change = not is_up, now + chance.uniform(0.1, 0.7 if is_up else 2.0)
        if now >= kill:
            mailslot.kill()
            kill = now + chance.uniform(0.7, 3)
        time.sleep(0.01)
    return is_up


def settle(mailslot, seconds):
    """Has what waits tried until nothing does any more."""
    end = time.monotonic() + seconds
    while mailslot.waiting() and time.monotonic() < end:
        mailslot.hurry()
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", default="target/release/mailslot")
    parser.add_argument("--quick", action="store_true", help="500 messages instead of 10,000")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    count, chance = 500 if given.quick else 10_000, random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="mailslot-kill-") as home:
        hop = Hop(chance)
        hop.up()
        mailslot = Mailslot(str(pathlib.Path(given.binary).resolve()), pathlib.Path(home), hop)
        submitters = Submitters(mailslot.port, count)
        began = time.monotonic()
        try:
            if not trouble(hop, mailslot, submitters, chance):
                hop.up()
            hop.steady = True
            # One kill more in the middle of what is left, and then peace.
            mailslot.kill()
            settle(mailslot, 300)
            left, status = mailslot.waiting(), mailslot.stop()
        finally:
            mailslot.child.kill()
        hop.down()
    lost = submitters.accepted - set(hop.arrived)
    events = [event for events in hop.arrived.values() for event in events[:-1]]
    wrong = sum(event["settled"] for event in events)
    print(f"kill: {len(submitters.accepted)} accepted, {mailslot.kills} kills, {time.monotonic() - began:.0f} s: "
          f"{len(lost)} lost, {len(events)} twice ({wrong} of them after they were settled), {left} left, status {status}")
    sys.exit(1 if lost or wrong or left or status else 0)


if __name__ == "__main__":
    main()
