#!/usr/bin/env python3
"""Relaying: messages of 4 KiB from Postfix's smtp-source through the queue to its smtp-sink on loopback, by mailslot and
by a Postfix, an OpenSMTPD and a nullmailer of this run's own, on the same file system. The last two are unpacked, not installed. The time is from the first octet to the last message in the sink,
the CPU that of the server's processes. With `--stuck` the mail stays here, without `--relay`, with it, and with it beside
a thousand messages that wait for a hop which takes connections and never says a word. The queues are made below
BENCH_DIR. On ext4 without a journal that should be a directory in the root, which has inodes of its own: there each new
file costs a look at every inode that was freed nearby within the last minutes, by whatever ran before.
`onward.py MAILSLOT [--messages N] [--rounds N] [--stuck]`."""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/interop"))
arguments, sys.argv = sys.argv[1:], sys.argv[:1]
import fronts  # noqa: E402
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
                total += sum(map(int, fields[11:15]))
    return total / TICK


def send(port, to, count):
    subprocess.run([interop.find("smtp-source"), "-s", "10", "-l", "4096", "-m", str(count), "-f", "a@here.test", "-t", to,
                    f"127.0.0.1:{port}"], check=True, timeout=300)


def load(port, sink, count):
    """Sends the messages and waits for the last of them in the sink; the seconds."""
    before, began = sink.count, time.monotonic()
    send(port, "u@example.org", count)
    while sink.count - before < count:
        if time.monotonic() > began + 300:
            raise SystemExit(f"{sink.count - before} of {count} arrived")
        time.sleep(0.002)
    return time.monotonic() - began


def by_mailslot(home, sink):
    return serving(home, ["--relay-from", "127.0.0.1", "--relay", f"smtp://127.0.0.1:{sink.port}?tls=none&connections=20"])


@contextlib.contextmanager
def serving(home, options):
    command = [interop.BINARY, "-q", "--listen", f"smtp://127.0.0.1:{(port := interop.free_port())}", "-d", "here.test", "--create"]
    child = subprocess.Popen([*command, *options], cwd=home)
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


@contextlib.contextmanager
def unpacked(home, packages, command, port):
    """A daemon out of packages, with its queue below `home`."""
    home.chmod(0o755)
    if not (root := fronts.unpack(home, packages)):
        raise SystemExit(f"no packages {' '.join(packages)} to be had")
    (spool := home / "spool").mkdir()
    with fronts.unpacked(home, root, command, spool) as child:
        if not interop.listens(port):
            raise SystemExit((home / "daemon.log").read_text()[-500:])
        yield port, child.pid


@contextlib.contextmanager
def by_opensmtpd(home, sink):
    (config := home / "smtpd.conf").write_text(f"""
listen on 127.0.0.1 port {(port := interop.free_port())} hostname here.test
action "onward" relay host "smtp://127.0.0.1:{sink.port}"
match from any for any action "onward"
""")
    config.chmod(0o600)
    # It asks for the name of each client, and a name server far away must not be what is measured.
    (home / "resolv.conf").write_text("lookup file\n")
    names = pathlib.Path("/etc/resolv.conf").resolve()
    script = f"mount --bind {home}/resolv.conf {names}; exec /usr/sbin/smtpd -d -f {config}"
    with unpacked(home, ["opensmtpd"], ["sh", "-ec", script], port) as running:
        yield running


INETD = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=100)
if os.fork() == 0:
    os.execv("/usr/sbin/nullmailer-send", ["nullmailer-send"])
while True:
    client = listener.accept()[0]
    if os.fork() == 0:
        os.dup2(client.fileno(), 0), os.dup2(client.fileno(), 1)
        os.execv("/usr/bin/nullmailer-smtpd", ["nullmailer-smtpd"])
    client.close()
    while os.waitpid(-1, os.WNOHANG)[0]:
        pass
"""


@contextlib.contextmanager
def by_nullmailer(home, sink):
    """nullmailer-smtpd is started for each connection, as by inetd."""
    (home / "inetd.py").write_text(INETD)
    (config := home / "nullmailer").mkdir()
    (config / "remotes").write_text(f"127.0.0.1 smtp --port={sink.port}\n")
    (config / "me").write_text("here.test\n")
    port = interop.free_port()
    script = f"""mount -t tmpfs none /mnt && mkdir -p /mnt/etc && cp -r {config} /mnt/etc/
mount -t overlay -o lowerdir=/mnt/etc:/etc overlay /etc
mkdir -p /var/spool/nullmailer/queue /var/spool/nullmailer/tmp /var/spool/nullmailer/failed
mkfifo /var/spool/nullmailer/trigger
chown -R mail: /var/spool/nullmailer
exec {sys.executable} {home}/inetd.py {port}"""
    with unpacked(home, ["nullmailer"], ["sh", "-ec", script], port) as running:
        yield running


def measure(home, start, count):
    home.mkdir()
    with Sink() as sink, start(home, sink) as (port, pid):
        load(port, sink, count // 10)
        before = processor(pid)
        seconds = load(port, sink, count)
        return count / seconds, (processor(pid) - before) * 1000 / count * 1000


def measure_local(home, waiting, count):
    """Messages a second that stay here, CPU, MiB of memory, threads and descriptors; `waiting` is None without a relay."""
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        relay = ["--relay-from", "127.0.0.1", "--relay", f"smtp://127.0.0.1:{silent.getsockname()[1]}?tls=none"]
        with serving(home, [] if waiting is None else relay) as (port, pid):
            send(port, "u@here.test", count // 10)
            if waiting:
                send(port, "u@example.org", waiting)
            before, began = processor(pid), time.monotonic()
            send(port, "u@here.test", count)
            seconds, used = time.monotonic() - began, processor(pid) - before
            process = pathlib.Path(f"/proc/{pid}")
            kept = sum("," not in name for name in os.listdir(home / "queue/new")) if waiting else 0
            if kept != (waiting or 0):
                raise SystemExit(f"{kept} of {waiting} wait")
            memory = int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())[1]) / 1024
            return count / seconds, used * 1e6 / count, memory, *(len(os.listdir(process / what)) for what in ("task", "fd"))


def main_local(given):
    cases = {"without --relay": None, "with --relay": 0, "1,000 wait for a stuck hop": 1_000}
    results = {name: [] for name in cases}
    with tempfile.TemporaryDirectory(prefix="mailslot-stuck-", dir=os.environ.get("BENCH_DIR")) as home:
        for number in range(given.rounds):
            for name, waiting in cases.items():
                results[name].append(measure_local(pathlib.Path(home) / f"{number}{waiting}", waiting, given.messages))
    print(f"{'mail that stays, 4 KiB':28} {'messages/s':>12} {'CPU ms/1000':>12} {'RSS MiB':>8} {'threads':>8} {'open':>6}")
    for name, rows in results.items():
        rate, cost, memory, threads, files = (statistics.median(column) for column in zip(*rows))
        print(f"{name:28} {rate:12.0f} {cost:12.0f} {memory:8.1f} {threads:8.0f} {files:6.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?", default="target/release/mailslot")
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stuck", action="store_true", help="local mail beside a hop that never answers")
    parser.add_argument("--only", help="names of programs, with commas between them")
    given = parser.parse_args(arguments)
    interop.BINARY = str(pathlib.Path(given.binary).resolve())
    # The way to start it, and by how much fewer messages than the others it is given.
    programs = {"mailslot": (by_mailslot, 1)}
    if why := interop.need("postfix", "smtp-sink", "smtp-source"):
        return print(f"onward: {why}")
    if os.geteuid() == 0:
        programs |= {"Postfix": (by_postfix, 1), "OpenSMTPD": (by_opensmtpd, 10), "nullmailer": (by_nullmailer, 10)}
    if given.stuck:
        return main_local(given)
    if given.only:
        programs = {name: programs[name] for name in given.only.split(",")}
    results = {name: [] for name in programs}
    with tempfile.TemporaryDirectory(prefix="mailslot-onward-", dir=os.environ.get("BENCH_DIR")) as home:
        pathlib.Path(home).chmod(0o755)
        for number in range(given.rounds):
            for name, (start, fewer) in programs.items():
                results[name].append(measure(pathlib.Path(home) / f"{name}{number}", start, given.messages // fewer))
    print(f"{'onward, 4 KiB, 10 sessions':28} {'messages/s':>12} {'CPU ms/1000':>12}")
    for name, rows in results.items():
        rate, cost = (statistics.median(column) for column in zip(*rows))
        print(f"{name:28} {rate:12.0f} {cost:12.0f}")
    return None


if __name__ == "__main__":
    main()
