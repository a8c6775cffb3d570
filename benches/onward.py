#!/usr/bin/env python3
"""Mail onward: messages of 4 KiB from Postfix's smtp-source through the queue to its smtp-sink on loopback, by mailslot and
by a Postfix of this run's own, on the same file system. The time is from the first octet to the last message in the sink,
the CPU that of the server's processes. `onward.py MAILSLOT [--messages N] [--rounds N]`."""

import argparse
import contextlib
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/interop"))
arguments, sys.argv = sys.argv[1:], sys.argv[:1]
import interop  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")


class Sink:
    """smtp-sink, and how many messages it has."""

    def __enter__(self):
        self.port, self.count = interop.free_port(), 0
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [interop.find("smtp-sink"), *user, "-c", f"127.0.0.1:{self.port}", "1000"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self.read, daemon=True).start()
        return self

    def read(self):
        text = b""
        while octets := os.read(self.child.stdout.fileno(), 4096):
            text = (text + octets)[-200:]
            for part in text.split(b"\r"):
                for word in part.split():
                    if word.startswith(b"mesg="):
                        with contextlib.suppress(ValueError):
                            self.count = max(self.count, int(word[5:]))

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


def processor(pid):
    """Seconds of a process, of its children that ended, and of those that run."""
    total = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat.read_text().rpartition(")")
            fields = rest.split()
            if int(stat.parent.name) == pid:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) == pid:
                total += sum(map(int, fields[11:13]))
    return total / TICK


def load(port, sink, count):
    """Sends the messages and waits for the last of them in the sink; the seconds."""
    before, began = sink.count, time.monotonic()
    subprocess.run([interop.find("smtp-source"), "-s", "10", "-l", "4096", "-m", str(count), "-f", "a@here.test", "-t",
                    "u@example.org", f"127.0.0.1:{port}"], check=True, timeout=300)
    while sink.count - before < count:
        if time.monotonic() > began + 300:
            raise SystemExit(f"{sink.count - before} of {count} arrived")
        time.sleep(0.002)
    return time.monotonic() - began


@contextlib.contextmanager
def by_mailslot(home, sink):
    command = [interop.BINARY, "-q", "--listen", f"smtp://127.0.0.1:{(port := interop.free_port())}", "-d", "here.test", "--create",
               "--relay-from", "127.0.0.1", "--relay", f"smtp://127.0.0.1:{sink.port}?tls=none&connections=20"]
    child = subprocess.Popen(command, cwd=home)
    try:
        time.sleep(0.3)
        yield port, child.pid
    finally:
        child.terminate()
        child.wait(60)


@contextlib.contextmanager
def by_postfix(home, sink):
    home.chmod(0o755)
    port = interop.free_port()
    with interop.postfix(home, f"smtp:[127.0.0.1]:{sink.port}", port, "in_flow_delay = 0\n") as queue:
        yield port, int((queue / "pid/master.pid").read_text())


def measure(home, start, count):
    home.mkdir()
    with Sink() as sink, start(home, sink) as (port, pid):
        load(port, sink, count // 10)
        before = processor(pid)
        seconds = load(port, sink, count)
        return count / seconds, (processor(pid) - before) * 1000 / count * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", default="target/release/mailslot")
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    interop.BINARY = str(pathlib.Path(given.binary).resolve())
    programs = {"mailslot": by_mailslot}
    if why := interop.need("postfix", "smtp-sink", "smtp-source"):
        return print(f"onward: {why}")
    if os.geteuid() == 0:
        programs["Postfix"] = by_postfix
    results = {name: [] for name in programs}
    with tempfile.TemporaryDirectory(prefix="mailslot-onward-", dir=os.environ.get("BENCH_DIR")) as home:
        pathlib.Path(home).chmod(0o755)
        for number in range(given.rounds):
            for name, start in programs.items():
                results[name].append(measure(pathlib.Path(home) / f"{name}{number}", start, given.messages))
    print(f"{'onward, 4 KiB, 10 sessions':28} {'messages/s':>12} {'CPU ms/1000':>12}")
    for name, rows in results.items():
        rate, cost = (statistics.median(column) for column in zip(*rows))
        print(f"{name:28} {rate:12.0f} {cost:12.0f}")
    return None


if __name__ == "__main__":
    main()
