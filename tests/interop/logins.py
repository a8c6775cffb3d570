#!/usr/bin/env python3
"""Logins and greylisting with real programs: curl, swaks, msmtp and Python log in with tokens that openssl signed,
Python with passwords that `doveadm pw` stored, and a Postfix tries again until its mail is accepted. `logins.py
MAILSLOT`; what is not installed is printed and skipped."""

import base64
import getpass
import json
import smtplib
import ssl
import subprocess
import time

import interop
from interop import check, free_port, mailslot, messages, need, port_of, postfix, scratch, skip, wait_for

CERT = interop.REPO / "tests/tls/cert.pem"
KEY = interop.REPO / "tests/tls/key.pem"


def url64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def make_key(case):
    key = case / "signing.pem"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True, timeout=60)
    shown = subprocess.run(["openssl", "rsa", "-in", key, "-noout", "-modulus"], check=True, capture_output=True, text=True, timeout=60)
    modulus = bytes.fromhex(shown.stdout.strip().removeprefix("Modulus="))
    jwk = {"kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig", "n": url64(modulus), "e": "AQAB"}
    (case / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    return key


def token(key, **more):
    claims = {"iss": "https://id.test", "aud": "mail", "exp": int(time.time()) + 600, "email": "alice@here.test", **more}
    parts = [{"alg": "RS256", "typ": "JWT", "kid": "k"}, claims]
    body = ".".join(url64(json.dumps(part).encode()) for part in parts)
    signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=body.encode(), check=True, capture_output=True, timeout=60)
    return f"{body}.{url64(signed.stdout)}"


def by_curl(case, port, shown):
    command = ["curl", "-sS", "-k", "--ssl-reqd", f"smtp://127.0.0.1:{port}", "--user", "alice", "--oauth2-bearer", shown,
               "--mail-from", "alice@here.test", "--mail-rcpt", "curl@here.test", "-T", "-"]
    return subprocess.run(command, input=b"Subject: c\r\n\r\nx\r\n", capture_output=True, timeout=60).returncode == 0


def by_swaks(case, port, shown):
    command = ["swaks", "--server", f"127.0.0.1:{port}", "--tls", "-f", "alice@here.test", "-t", "swaks@here.test",
               "--auth", "XOAUTH2", "--auth-user", "alice", "--auth-password", shown, "--body", "x"]
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def by_msmtp(case, port, shown, method="oauthbearer"):
    command = ["msmtp", "--host=127.0.0.1", f"--port={port}", f"--auth={method}", "--user=alice", f"--passwordeval=echo {shown}",
               "--tls=on", "--tls-starttls=on", "--tls-certcheck=off", "--file=/dev/null", "--from=alice@here.test", "msmtp@here.test"]
    return subprocess.run(command, input=b"Subject: m\n\nx\n", capture_output=True, timeout=60).returncode == 0


def by_python(case, port, shown, method="XOAUTH2"):
    context = ssl._create_unverified_context()
    response = {"XOAUTH2": f"user=alice\x01auth=Bearer {shown}\x01\x01", "OAUTHBEARER": f"n,a=alice,\x01auth=Bearer {shown}\x01\x01"}
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.starttls(context=context)
        client.ehlo()
        try:
            client.auth(method, lambda challenge=None: "\x01" if challenge else response[method])
        except smtplib.SMTPAuthenticationError as refused:
            return refused.smtp_code != 535
        client.sendmail("alice@here.test", ["python@here.test"], "Subject: p\r\n\r\nx\r\n")
    return True


def swaks_has_tokens():
    if why := need("swaks"):
        return why
    shown = subprocess.run(["swaks", "--support"], capture_output=True, text=True, timeout=60)
    return None if "XOAUTH2" in shown.stdout else "this swaks has no XOAUTH2"


def tokens(home):
    case = home / "tokens"
    (case / "mail").mkdir(parents=True)
    key = make_key(case)
    (case / "users").write_text("alice:x\n")
    oauth = "jwks.json?issuer=https://id.test&audience=mail&claim=email"
    clients = [("curl", need("curl"), by_curl), ("swaks", swaks_has_tokens(), by_swaks), ("msmtp, OAUTHBEARER", need("msmtp"), by_msmtp),
               ("msmtp, XOAUTH2", need("msmtp"), lambda *a: by_msmtp(*a, method="xoauth2")), ("Python, XOAUTH2", None, by_python),
               ("Python, OAUTHBEARER", None, lambda *a: by_python(*a, method="OAUTHBEARER"))]
    with mailslot(case, "--listen", "submission://127.0.0.1:0", "--tls-cert", str(CERT), "--tls-key", str(KEY), "--users", "users",
                  "--create", "--domain", "here.test", "--oauth", oauth) as (_, urls):
        good, expired = token(key), token(key, exp=int(time.time()) - 600)
        for name, why, send in clients:
            if why:
                skip(f"{name} logs in by a token", why)
                continue
            before = len(list(case.glob("mail/*/*/new/*")))
            sent = send(case, port_of(urls[0]), good)
            refused = not send(case, port_of(urls[0]), expired)
            arrived = len(list(case.glob("mail/*/*/new/*"))) - before
            check(f"{name} logs in by a token, and not by one that has expired", sent and refused and arrived == 1, f"{sent} {refused} {arrived}")
    said = (case / "mailslot.log").read_text()
    check("the log tells why", "expired" in said and "login failed" in said)


FORMS = ["PLAIN", "CRAM-MD5", "SCRAM-SHA-256", "SSHA256", "SSHA512", "SHA256-CRYPT", "SHA512-CRYPT", "CRYPT"]


def doveadm(scheme):
    # {CRYPT} is bcrypt by default there.
    name = "SHA512-CRYPT" if scheme == "CRYPT" else scheme
    done = subprocess.run([interop.find("doveadm"), "pw", "-s", name, "-p", "secret"], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip().replace(f"{{{name}}}", f"{{{scheme}}}")


def passwords(home):
    """Each form in a users file, as Dovecot stores it: the right password, a wrong one, and the time of a right one."""
    case = home / "forms"
    (case / "mail").mkdir(parents=True)
    (case / "users").write_text("".join(f"{form.lower()}:{doveadm(form)}\n" for form in FORMS))
    with mailslot(case, "--listen", "submission://127.0.0.1:0", "--insecure-auth", "--users", "users", "--domain", "here.test") as (_, urls):
        def login(user, password):
            with smtplib.SMTP("127.0.0.1", port_of(urls[0]), timeout=60) as client:
                client.ehlo()
                client.user, client.password = user, password
                begun = time.monotonic()
                try:
                    client.auth("PLAIN", client.auth_plain)
                except smtplib.SMTPAuthenticationError as refused:
                    return refused.smtp_code, 0
                return 235, (time.monotonic() - begun) * 1000

        for form in FORMS:
            right, wrong = [login(form.lower(), "secret") for _ in range(5)], login(form.lower(), "Secret")[0]
            good = {code for code, _ in right} == {235} and wrong == 535
            check(f"a password that doveadm stored as {form}", good, f"{min(took for _, took in right):.1f} ms" if good else f"{right} {wrong}")
    for form in ("BLF-CRYPT", "ARGON2ID"):
        (case / "other").write_text(f"u:{{{form}}}$2y$05$x\n")
        command = [interop.BINARY, "--check", "--insecure-auth", "--users", "other"]
        done = subprocess.run(command, cwd=case, capture_output=True, text=True, timeout=60)
        check(f"{form} is refused at the start, with file and line", done.returncode == 78 and "other:1" in done.stderr, done.stderr.strip()[:60])


def greylisted(home):
    case, hop = home / "grey", home / "front"
    (case / "mail").mkdir(parents=True)
    hop.mkdir()
    with mailslot(case, "--listen", "smtp://127.0.0.1:0", "--create", "--domain", "example.org", "--greylist", "5s,grey") as (_, urls):
        port = free_port()
        more = "minimal_backoff_time = 2s\nmaximal_backoff_time = 4s\nqueue_run_delay = 2s\nsmtp_tls_security_level = none\n"
        more += "relay_recipient_maps =\nsmtp_destination_concurrency_limit = 2\n"
        with postfix(hop, f"smtp:[127.0.0.1]:{port_of(urls[0])}", port, more):
            begun = time.monotonic()
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                client.sendmail("s@front.test", ["user0@example.org"], "Subject: g\r\n\r\nx\r\n")
            found = wait_for(lambda: messages(case / "mail/example.org/user0"), 90)
            took = time.monotonic() - begun
            put_off = (case / "mailslot.log").read_text().count("451 4.7.1")
            check("Postfix tries again until its mail is taken", bool(found) and put_off > 0 and took >= 4, f"after {took:.1f} s, put off {put_off} times")
            with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
                client.sendmail("other@front.test", ["user1@example.org"], "Subject: h\r\n\r\nx\r\n")
            found = wait_for(lambda: messages(case / "mail/example.org/user1"), 30)
            check("from then on its mail is not put off", bool(found) and (case / "mailslot.log").read_text().count("451 4.7.1") == put_off)
    check("the list is kept in its file", (case / "grey").stat().st_size > 48)


def main():
    with scratch("logins") as home:
        if why := need("openssl"):
            skip("tokens", why)
        else:
            tokens(home)
        if why := need("doveadm"):
            skip("passwords of Dovecot", why)
        else:
            passwords(home)
        root = None if getpass.getuser() == "root" else "needs root"
        if why := root or need("postfix", "master", "postconf"):
            skip("Postfix and greylisting", why)
        else:
            greylisted(home)
    interop.finish()


if __name__ == "__main__":
    main()
