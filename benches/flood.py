#!/usr/bin/env python3
"""What a flood of new triples costs a server with --greylist, compared with recipients that it refuses: microseconds of
CPU for MAIL, RCPT and RSET, in turns. `flood.py MAILSLOT`."""

import os
import pathlib
import socket
import statistics
import sys

REPO = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "tests/interop"))
import interop  # noqa: E402

ROUNDS, CONNECTIONS, EACH = 5, 1000, 90
KINDS = {"refused": ("no", b"550"), "greylisted": ("bob", b"451")}


def ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def flood(port, user, reply, first):
    """A connection's worth of transactions, each with a new reverse-path. RSET is only taken so often without a message."""
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as replies:
        replies.readline()
        client.sendall(b"EHLO c.test\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        one = f"RCPT TO:<{user}@here.test>\r\nRSET\r\n"
        client.sendall("".join(f"MAIL FROM:<{first + n}@spam.test>\r\n{one}" for n in range(EACH)).encode())
        for _ in range(EACH):
            assert [replies.readline()[:3] for _ in range(3)] == [b"250", reply, b"250"]


def main():
    costs = {kind: [] for kind in KINDS}
    with interop.scratch("flood") as home:
        (home / "mail/here.test/bob").mkdir(parents=True)
        options = ["--listen", "smtp://127.0.0.1:0", "--domain", "here.test", "--greylist", "1h", "--max-errors", "1000000"]
        with interop.mailslot(home, *options) as (pid, urls):
            first = 0
            for _ in range(ROUNDS):
                for kind, (user, reply) in KINDS.items():
                    before = ticks(pid)
                    for _ in range(CONNECTIONS):
                        flood(interop.port_of(urls[0]), user, reply, first)
                        first += EACH
                    spent = (ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
                    costs[kind].append(spent * 1e6 / CONNECTIONS / EACH)
    for kind, found in costs.items():
        print(f"{kind}: {statistics.median(found):.1f} µs of CPU each")


if __name__ == "__main__":
    main()
