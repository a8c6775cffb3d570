//! The contents of contrib except man pages: units, scripts and filters, tested with the real programs if they are
//! installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mailslot::options::OPTIONS;

use crate::server::{Server, Setup};

fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(contrib(name)).unwrap()
}

/// `None`, with a message, if the program is not installed.
fn run(command: &mut Command) -> Option<Output> {
    let output = command.output().ok();
    if output.is_none() {
        eprintln!(
            "skipped: no {} on this machine",
            command.get_program().display()
        );
    }
    output
}

#[test]
fn the_unit_leaves_little_exposed() {
    let dir = std::env::temp_dir().join(format!("mailslot-unit-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let unit = dir.join("mailslot.service");
    let prefixed = read("mailslot.service").replace("@PREFIX@", "/usr");
    // Without chown `?group=` of a socket would end the server.
    assert!(prefixed.contains("SystemCallFilter=setrlimit prlimit64 @chown\n"));
    // At boot an address may not be there yet (71). Five starts within 10 seconds would be the last.
    assert!(prefixed.contains("RestartSec=5\nRestartPreventExitStatus=64 78\n"));
    // The package makes it private, and systemd would open it for all.
    assert!(prefixed.contains("StateDirectory=mailslot\nStateDirectoryMode=0700\n"));
    // Without netlink it would not know its own addresses, and send mail to itself (`mx:`).
    let families = "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\n";
    assert!(prefixed.contains(families));
    std::fs::write(&unit, prefixed).unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .arg(&unit);
    let output = run(&mut analyze);
    std::fs::remove_dir_all(&dir).unwrap();
    let Some(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = said.split("mailslot.service: ").nth(1).unwrap_or_default();
    let figure: f32 = figure
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .unwrap();
    assert!(figure <= 2.0, "{said}");
}

#[test]
fn init_scripts_are_scripts() {
    for name in ["init/openrc", "init/busybox"] {
        let output = run(Command::new("sh").arg("-n").arg(contrib(name))).unwrap();
        assert!(output.status.success(), "{name}");
    }
}

/// A second start would replace the pid in the file by that of a process that ends at once, and `stop` find nothing.
/// The pid of another program, after a crash, does not keep it from starting.
#[test]
fn the_busybox_script_starts_one_server() {
    let dir = std::env::temp_dir().join(format!("mailslot-init-{}", std::process::id()));
    let path = |name: &str| dir.join(name).display().to_string();
    let script = |name: &str, text: &str| {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.join(name), mode).unwrap();
    };
    script(
        "sbin/mailslot",
        "#!/bin/sh\n[ $# = 0 ] && read -r line\nexit 0\n",
    );
    let started = format!(
        "#!/bin/sh\necho x >{}\n: >{}\n",
        path("started"),
        path("run/mailslot.log")
    );
    script("bin/start-stop-daemon", &started);
    script("bin/logger", "#!/bin/sh\n");
    let text = read("init/busybox").replace("@PREFIX@", &path(""));
    script(
        "S50mailslot",
        &text.replace("=/run/", &format!("={}", path("run/"))),
    );
    std::fs::create_dir(dir.join("run")).unwrap();
    let mut server = Command::new(dir.join("sbin/mailslot"));
    let mut server = server.stdin(std::process::Stdio::piped()).spawn().unwrap();
    for (pid, starts) in [(server.id(), false), (std::process::id(), true)] {
        std::fs::write(dir.join("run/mailslot.pid"), pid.to_string()).unwrap();
        let mut start = Command::new("sh");
        start.args([&path("S50mailslot"), "start"]);
        start.env(
            "PATH",
            format!("{}:{}", path("bin"), std::env::var("PATH").unwrap()),
        );
        let output = run(&mut start).unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(dir.join("started").exists(), starts);
    }
    drop(server.stdin.take());
    server.wait().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

/// `make uninstall` removes everything that `make install` has put under DESTDIR.
#[test]
fn what_is_installed_can_be_removed() {
    let root = std::env::temp_dir().join(format!("mailslot-install-{}", std::process::id()));
    let make = |goal: &str| {
        let mut make = Command::new("make");
        // The binary of this test, so that no release is built.
        make.args(["-s", "-o", "build", goal, "PREFIX=/opt/mailslot"]);
        make.arg(format!("DESTDIR={}", root.display()));
        make.arg(format!("BINARY={}", env!("CARGO_BIN_EXE_mailslot")));
        run(make.current_dir(env!("CARGO_MANIFEST_DIR")))
    };
    let Some(output) = make("install") else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let prefix = root.join("opt/mailslot");
    for file in [
        "sbin/mailslot",
        "share/man/man8/mailslot.8",
        "share/man/man5/mailslot-users.5",
        "lib/systemd/system/mailslot.service",
        "share/mailslot/init/openrc",
    ] {
        assert!(prefix.join(file).is_file(), "{file}");
    }
    let unit = prefix.join("lib/systemd/system/mailslot.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.contains("ExecStart=/opt/mailslot/sbin/mailslot "));
    assert!(make("uninstall").unwrap().status.success());
    let left = Command::new("find")
        .arg(&root)
        .args(["-type", "f"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    std::fs::remove_dir_all(&root).unwrap();
}

/// Every target that uses the binary takes it from CARGO_TARGET_DIR, or from target/ without it.
#[test]
fn make_finds_the_binary_where_cargo_puts_it() {
    for (dir, binary) in [
        ("/elsewhere", "/elsewhere/release/mailslot"),
        ("", "target/release/mailslot"),
    ] {
        for goal in ["run", "install", "interop", "faults", "soak", "powercut"] {
            let mut make = Command::new("make");
            make.args(["--dry-run", "-o", "build", goal]);
            make.env("CARGO_TARGET_DIR", dir).env_remove("MAKEFLAGS");
            let Some(output) = run(make.current_dir(env!("CARGO_MANIFEST_DIR"))) else {
                return;
            };
            let recipe = String::from_utf8_lossy(&output.stdout).into_owned();
            let words = recipe.split_whitespace();
            let mut binaries = words.filter(|word| word.ends_with("release/mailslot"));
            assert_eq!(binaries.next(), Some(binary), "{goal}: {recipe}");
            assert!(binaries.all(|word| word == binary), "{goal}: {recipe}");
        }
    }
}

/// The Debian package: its files, their owner, and a configuration that its own binary accepts.
#[test]
fn the_package_is_whole() {
    let target = std::env::temp_dir().join(format!("mailslot-deb-{}", std::process::id()));
    std::fs::create_dir_all(target.join("release")).unwrap();
    let binary = target.join("release/mailslot");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_mailslot"), binary).unwrap();
    let mut make = Command::new("make");
    make.args(["-s", "-o", "build", "deb"]);
    make.env("CARGO_TARGET_DIR", &target)
        .env("SOURCE_DATE_EPOCH", "0");
    // The binary of a debug build is large.
    make.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    // Another make around this one has its options in there.
    make.env_remove("MAKEFLAGS");
    make.current_dir(env!("CARGO_MANIFEST_DIR"));
    let found = run(Command::new("dpkg-deb").arg("--version")).and_then(|_| run(&mut make));
    let Some(made) = found else {
        std::fs::remove_dir_all(&target).unwrap();
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let version = env!("CARGO_PKG_VERSION");
    let packages = std::fs::read_dir(target.join("release")).unwrap();
    let package = packages
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|name| name == "deb"))
        .unwrap();
    let list = run(Command::new("dpkg-deb").arg("--contents").arg(&package)).unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for file in [
        "/usr/sbin/mailslot",
        "/usr/share/man/man8/mailslot.8.gz",
        "/usr/share/man/man5/mailslot-users.5.gz",
        "/lib/systemd/system/mailslot.service",
        "/usr/share/doc/mailslot/copyright",
        "/etc/mailslot.conf",
    ] {
        let line = list
            .lines()
            .find(|line| line.ends_with(&format!(".{file}")));
        let line = line.unwrap_or_else(|| panic!("{file}: {list}"));
        assert!(line.contains(" root/root "), "{line}");
    }
    let fields = run(Command::new("dpkg-deb").arg("--field").arg(&package)).unwrap();
    let fields = String::from_utf8_lossy(&fields.stdout).into_owned();
    assert!(
        fields.contains(&format!("Version: {version}\n")),
        "{fields}"
    );
    for place in ["@VERSION@", "@ARCHITECTURE@", "@MAINTAINER@", "@SIZE@"] {
        assert!(!fields.contains(place), "{fields}");
    }
    let config = contrib("debian/mailslot.conf");
    let mut check = Command::new(env!("CARGO_BIN_EXE_mailslot"));
    let check = check.arg("--check").arg("--config").arg(config);
    assert!(run(check).unwrap().status.success());
    std::fs::remove_dir_all(&target).unwrap();
}

/// An upgrade succeeds although the server cannot start, as with a configuration that is unusable at the moment.
#[test]
fn a_package_is_configured_without_a_server() {
    let dir = std::env::temp_dir().join(format!("mailslot-postinst-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, status) in [("adduser", 0), ("install", 0), ("systemctl", 1)] {
        let program = dir.join(name);
        std::fs::write(&program, format!("#!/bin/sh\nexit {status}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
    }
    let script = read("debian/postinst").replace("/run/systemd/system", "/");
    let mut sh = Command::new("/bin/sh");
    sh.args(["-c", &script, "postinst", "configure"]);
    let output = run(sh.env("PATH", &dir)).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// No option is misspelt where nothing else would notice.
#[test]
fn variables_and_options_exist() {
    let known = |word: &str| OPTIONS.iter().any(|opt| opt.variable() == word);
    let split = |c: char| !(c.is_ascii_uppercase() || c == '_');
    for file in ["Dockerfile", "compose.yaml"] {
        let text = read(file);
        let mut variables = text
            .split(split)
            .filter(|word| word.starts_with("MAILSLOT_"));
        assert!(
            variables.clone().count() > 1 && variables.all(known),
            "{file}"
        );
    }
    let scripts = [
        "mailslot.service",
        "init/openrc",
        "init/busybox",
        "Dockerfile",
    ];
    for text in scripts.map(read) {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'));
        for name in words.filter_map(|word| word.strip_prefix("--")) {
            let others = [
                "read-only",
                "release",
                "locked",
                "from",
                "bin",
                "interval",
                "timeout",
            ];
            let own = OPTIONS.iter().any(|opt| opt.name == name);
            assert!(
                own || others.contains(&name)
                    || name.starts_with("start-")
                    || name.is_empty()
                    || ["signal", "pidfile"].contains(&name),
                "--{name}"
            );
        }
    }
}

/// A wrong login leaves a line that the filter takes the client's address from.
#[test]
fn fail2ban_finds_a_wrong_login() {
    let setup = Setup {
        args: ["--users", "users", "--insecure-auth"]
            .map(str::to_owned)
            .into(),
        files: vec![("users".into(), "alice:{PLAIN}secret\n".into())],
        ..Setup::default()
    };
    let server = Server::launch(&setup).unwrap();
    let mut client = server.client();
    client.send(b"EHLO c\r\nAUTH PLAIN AGFsaWNlAHdyb25n\r\nQUIT\r\n");
    let replies: Vec<String> = (0..4).map(|_| client.reply()).collect();
    assert!(replies[2].starts_with("535"), "{replies:?}");
    server.logged("login failed");
    server.logged("messages=0");
    let log = server.dir.join("log");
    std::fs::write(&log, server.log()).unwrap();
    let mut regex = Command::new("fail2ban-regex");
    regex
        .args(["--print-all-matched"])
        .arg(&log)
        .arg(contrib("fail2ban/mailslot.conf"));
    let Some(output) = run(&mut regex) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("Lines: ") && said.contains(", 1 matched"),
        "{said}"
    );
}
