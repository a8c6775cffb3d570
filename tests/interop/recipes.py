#!/usr/bin/env python3
"""Recipes of the README run as written: mailslot behind a Postfix with Debian's own configuration, and the image of
contrib/Dockerfile built and run by podman, behind a Postfix as contrib/compose.yaml configures it. `recipes.py
MAILSLOT`, as root. The first stage of the build is a stand-in that holds the binary to test, because no registry is
used. What cannot run here is printed and skipped."""

import contextlib
import json
import os
import pathlib
import re
import smtplib
import subprocess

import interop
from interop import REPO, check, find, free_port, messages, need, readme, scratch, skip, wait_for

POSTFIX = pathlib.Path("/usr/share/postfix")


# --- Postfix -------------------------------------------------------------------------------------


def send(to):
    """A message to Postfix's port 25 as a shell command."""
    return f"printf 'From: s@client.test\\r\\nSubject: hello\\r\\n\\r\\nx\\r\\n' | curl -sS smtp://127.0.0.1 --mail-from s@client.test --mail-rcpt {to} -T -"


def behind_postfix(home):
    """The README's blocks in a new network, with /etc, /run, /srv and the spools of their own."""
    case = home / "postfix"
    for name in ("etc", "work", "srv"):
        (case / name).mkdir(parents=True)
    serve, configure = readme("mkdir -p /run/mailslot"), readme("postconf -e 'virtual_mailbox_domains")
    script = f"""set -e
export PATH={home}:$PATH:/usr/sbin
ip link set lo up
mount -t tmpfs none {case}/work
mkdir {case}/work/upper {case}/work/work
mount -t overlay -o lowerdir=/etc,upperdir={case}/work/upper,workdir={case}/work/work overlay /etc
mount --bind {case}/srv /srv
for dir in /run /var/spool /var/lib/postfix; do mount -t tmpfs none $dir; done
mkdir /var/spool/postfix
chmod 755 /var/lib/postfix
chown postfix: /var/lib/postfix
mkdir -p /etc/postfix
cp {POSTFIX}/main.cf.debian /etc/postfix/main.cf
cp {POSTFIX}/master.cf.dist /etc/postfix/master.cf
printf '%s\\n' 'myhostname = mx.front.test' 'mydestination = $myhostname, localhost' 'maillog_file = {case}/maillog' \\
  'maillog_file_prefixes = /' 'mynetworks = 192.0.2.0/24' >>/etc/postfix/main.cf
postfix start >/dev/null
cd {case}
({serve}) 2>mailslot.log &
while ! grep -q 'mail for example.org' mailslot.log; do sleep 0.1; done
{configure}
{send('alice@example.org')}
{send('nobody@example.org')} 2>refused || true
while ! ls /srv/mail/example.org/alice/new/* >/dev/null 2>&1; do sleep 0.1; done
"""
    # Whatever has been started ends with the namespace of its processes.
    command = ["timeout", "60", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    with open(case / "said", "wb") as said:
        done = subprocess.run(command, stdout=said, stderr=said, cwd=case)
    found = messages(case / "srv/mail/example.org/alice")
    text = found[0].read_text() if found else ""
    log = (case / "maillog").read_text() if (case / "maillog").exists() else ""
    good = done.returncode == 0 and len(found) == 1 and "(mailslot) with LMTP" in text and "by mx.front.test (Postfix)" in text
    check("Postfix with Debian's configuration and the README's commands delivers", good, "" if good else f"{done.returncode} {(case / 'said').read_text()[-400:]} {log[-800:]}")
    refused = (case / "refused").read_text() if (case / "refused").exists() else ""
    check("and refuses a recipient that mailslot does not know, with 550", "550" in refused and "status=bounced" not in log, refused.strip())


# --- The image -----------------------------------------------------------------------------------

CARGO = """#!/bin/sh
# The stage's compiler: it knows the binary already.
[ "$*" = "build --release --locked --bin mailslot" ] && [ -f src/main.rs ] && [ -f .cargo/config.toml ] || exit 1
mkdir -p target/release && cp /built/mailslot target/release/mailslot
"""


class Engine:
    """podman with a storage of its own."""

    def __init__(self, home):
        self.case = home / "image"
        self.case.mkdir()
        runtime = next((r for r in ("runc", "crun") if find(r)), None)
        self.options = ["podman", "--root", f"{self.case}/storage", "--runroot", f"{self.case}/run", "--storage-driver", "vfs",
                        "--cgroup-manager", "cgroupfs", *(["--runtime", runtime] if runtime else [])]

    def __call__(self, *words, timeout=120):
        return subprocess.run([*self.options, *map(str, words)], capture_output=True, text=True, timeout=timeout, cwd=REPO)

    def docker(self, block, **changes):
        """Runs a line of the README that begins with docker, with changes that keep it off the host."""
        for old, new in changes.values():
            assert old in block, old
            block = block.replace(old, new)
        return self(*re.split(r"\s+", block.strip())[1:])


def base(engine):
    """The image that the first stage begins with."""
    tree = engine.case / "base"
    for name in ("usr", "built", "proc", "dev", "sys", "tmp", "etc", "var/tmp", "compiler"):
        (tree / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    (tree / "compiler/cargo").write_text(CARGO)
    (tree / "compiler/cargo").chmod(0o755)
    (engine.case / "Containerfile").write_text("FROM scratch\nCOPY base /\nENV PATH=/compiler:/usr/bin\n")
    return engine("build", "-q", "-t", "docker.io/library/rust:1-bookworm", "-f", engine.case / "Containerfile", engine.case)


# What a host without limits of its own to raise allows, and no timer of systemd's.
LIMITS = "--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --no-healthcheck"


@contextlib.contextmanager
def running(engine, *words):
    """A container, in the network of the host; yields its name."""
    name = f"mailslot-{os.getpid()}-{free_port()}"
    log = engine.case / f"{name}.log"
    with open(log, "wb") as out:
        child = subprocess.Popen([*engine.options, "run", "--rm", "--name", name, "--network", "host", *LIMITS.split(), *map(str, words)], stdout=out, stderr=out)
    try:
        wait_for(lambda: b"mail for" in log.read_bytes() or child.poll() is not None, 30)
        yield name
    finally:
        stopped = engine("stop", "-t", "20", name)
        status = child.wait(40)
        check("the container ends with status 0 at its STOPSIGNAL", status == 0 and stopped.returncode == 0, "" if status == 0 else log.read_text()[-500:])


def image(home):
    engine = Engine(home)
    try:
        if (done := base(engine)).returncode != 0:
            return skip("the image", f"podman cannot build here: {done.stderr.strip()[-200:]}")
        build, run = readme("docker build").strip().split("\n")
        built = f"--format docker --isolation chroot --pull=never -q -v /usr:/usr:ro -v {home}:/built:ro"
        done = engine.docker(build, name=("docker build", f"docker build {built}"))
        check("the README's docker build", done.returncode == 0, done.stderr[-500:])
        shown = json.loads(engine("image", "inspect", "mailslot").stdout)[0]
        config, health = shown["Config"], shown.get("Healthcheck", {}).get("Test")
        facts = config["User"], config["StopSignal"], list(config["Volumes"]), health, config["Entrypoint"]
        check("the image's user, STOPSIGNAL, volume, HEALTHCHECK", facts == ("1000:1000", "SIGTERM", ["/mail"], ["CMD", "/mailslot", "--healthcheck"], ["/mailslot"]), facts)
        size, binary = shown["Size"], os.path.getsize(interop.BINARY)
        check("the image holds nothing but the binary", size < binary + 20_000, f"{size} octets, the binary {binary}")
        probe = engine("run", "--rm", *LIMITS.split(), "--network", "host", "mailslot", "--version")
        if probe.returncode != 0:
            return skip("the image running", f"podman cannot run here: {probe.stderr.strip()[-200:]}")
        serve(engine, run)
        composed(home, engine)
    finally:
        engine("system", "reset", "--force")


def serve(engine, run):
    """The README's docker run, as the image's user and as another one, each with a new volume."""
    words = run.split()
    assert words[:2] == ["docker", "run"] and "25:2525" in words
    at = words.index("-p")
    words = words[2:at] + words[at + 2:]
    for user in ("1000", "4242:4242"):
        port = free_port()
        volume = f"mail-{user.partition(':')[0]}"
        options = ["--user", user, "-e", f"MAILSLOT_LISTEN=smtp://127.0.0.1:{port}"]
        with running(engine, *options, *(word.replace("mail:/mail", f"{volume}:/mail") for word in words)) as name:
            healthy = engine("exec", name, "/mailslot", "--healthcheck")
            check(f"user {user}: --healthcheck in the container", healthy.returncode == 0, healthy.stderr[-300:])
            with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
                client.sendmail("s@client.test", ["alice@example.org"], "Subject: x\r\n\r\nx\r\n")
            pid = json.loads(engine("inspect", name).stdout)[0]["State"]["Pid"]
            fields = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
            first = fields["NSpid"].split()[-1] == "1" and fields["Uid"].split()[0] == user.partition(":")[0]
            check(f"user {user}: is pid 1 of its container", first, fields["NSpid"])
        where = pathlib.Path(json.loads(engine("volume", "inspect", volume).stdout)[0]["Mountpoint"])
        found = messages(where / "example.org/alice")
        owner = str(found[0].stat().st_uid) if found else None
        check(f"user {user}: the mail is in the volume, and is that user's", owner == user.partition(":")[0], owner)


def composed(home, engine):
    """The two services of compose.yaml: the image, and a Postfix of this host with those settings."""
    text = (REPO / "contrib/compose.yaml").read_text()
    parts = text.split("  postfix:\n")
    read = lambda part: {name: value.strip('"') for name, value in re.findall(r"^      ([A-Za-z_]+): (\S+)$", part, re.M)}
    ours, theirs = map(read, parts)
    port, front = free_port(), free_port()
    ours["MAILSLOT_LISTEN"] = ours["MAILSLOT_LISTEN"].replace("lmtp://:2424", f"lmtp://127.0.0.1:{port}")
    options = [word for name, value in ours.items() for word in ("-e", f"{name}={value}")]
    limits = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "-v", "composed:/mail"]
    case = home / "composed"
    case.mkdir()
    case.chmod(0o755)
    settings = {name.removeprefix("POSTFIX_"): value.replace("mailslot:2424", f"127.0.0.1:{port}") for name, value in theirs.items() if name.startswith("POSTFIX_")}
    more = "relay_domains =\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
    with running(engine, *limits, *options, "mailslot"), interop.postfix(case, "error:nowhere", front, more):
        interop.listens(front)
        with smtplib.SMTP("127.0.0.1", front, timeout=20) as client:
            client.sendmail("s@client.test", ["alice@example.org"], "Subject: x\r\n\r\nx\r\n")
        where = pathlib.Path(json.loads(engine("volume", "inspect", "composed").stdout)[0]["Mountpoint"])
        found = wait_for(lambda: messages(where / "example.org/alice"), 30)
    good = bool(found) and "by front.example.net (Postfix)" in found[0].read_text()
    check("compose.yaml: Postfix hands mail to the container", good, "" if good else (case / "maillog").read_text()[-600:])


def main():
    with scratch("recipes") as home:
        root = None if os.geteuid() == 0 else "needs root"
        own = None if (POSTFIX / "main.cf.debian").exists() else "not installed: Debian's Postfix"
        if why := root or need("postfix", "postconf", "unshare", "ip", "curl") or own:
            skip("Postfix by the README", why)
        else:
            behind_postfix(home)
        if why := root or need("podman", "postfix"):
            skip("the image", why)
        else:
            image(home)
    interop.finish()


if __name__ == "__main__":
    main()
