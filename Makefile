.PHONY: all build run test fuzz lint interop endurance faults powercut queue soak mutants bench timing doc clean install uninstall deb
PREFIX ?= /usr/local
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Where cargo puts it.
BINARY = $(or $(CARGO_TARGET_DIR),target)/release/mailslot
all: build
build:
	cargo build --release --locked
run: build
	$(BINARY) --create
test:
	cargo test --locked
# Each target of fuzz/ for FUZZ_SECONDS, with cargo-fuzz (RUSTC_BOOTSTRAP lets a stable compiler do it); without
# cargo-fuzz, random sessions from a seed that is printed. FUZZ_TARGETS: only these targets.
FUZZ_TARGETS ?= $(notdir $(wildcard fuzz/corpus/*))
fuzz:
	@if cargo fuzz --version >/dev/null 2>&1; then \
		for target in $(FUZZ_TARGETS); do \
			echo "$$target"; \
			RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_total_time=$${FUZZ_SECONDS:-60} -timeout=10 -print_final_stats=1 || exit 1; \
		done; \
	else \
		FUZZ_SECONDS=$${FUZZ_SECONDS:-60} cargo test --release --locked --test it fuzz::random -- --nocapture; \
	fi
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
# The documentation of the code; a broken link is an error.
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
# Postfix, Dovecot and clients against the binary; what is not installed is printed and skipped.
interop: build
	python3 tests/interop/interop.py $(BINARY)
	python3 tests/interop/relay.py $(BINARY)
	python3 tests/interop/callers.py $(BINARY)
	python3 tests/interop/reports.py $(BINARY)
	python3 tests/interop/hops.py $(BINARY)
	python3 tests/interop/fronts.py $(BINARY)
	python3 tests/interop/recipes.py $(BINARY)
	python3 tests/interop/machines.py $(BINARY)
	python3 tests/interop/proxies.py $(BINARY)
	python3 tests/interop/metrics.py $(BINARY)
	python3 tests/interop/logins.py $(BINARY)
# A thousand kills under load, a message of 1 GiB, idle memory: minutes, and not part of the tests.
endurance: build
	python3 tests/interop/endurance.py $(BINARY)
# System calls that fail under the running server, and limits that it runs into. ARGS=--quick: two errnos.
faults: build
	python3 tests/faults/faults.py $(BINARY) $(ARGS)
# Overload. SECONDS=60: two minutes; SECONDS=600 by hand.
soak: build
	python3 tests/soak/soak.py $(BINARY) $(or $(SECONDS),60)
# Relaying while the server is killed and the next hop goes up and down; and memory with a long queue. ARGS=--quick: a
# minute.
queue: build
	python3 tests/queue/kill.py $(BINARY) $(ARGS)
	python3 tests/queue/waiting.py $(BINARY) $(ARGS)
# Breaks one line at a time: a test must fail. ARGS: words of a description, or --list.
mutants:
	python3 tests/mutants/mutants.py $(ARGS)
# Power cuts at many moments on real file systems (root, loop devices, /dev/fuse). ARGS=--quick: a minute and a half.
powercut: build
	python3 tests/powercut/powercut.py $(BINARY) $(ARGS) || [ $$? = 77 ]
# QUICK=1: under two minutes; FULL=1: the large idle and flatness figures too; BENCH_DIR=...: another disk;
# ONLY='tmpfs, 10': the rows with these words; LOAD='sessions=4 size=65536 ...': that load (benches/given.rs);
# WAYS=1: ways to make messages durable on that disk, without a server.
bench:
	QUICK="$(QUICK)" FULL="$(FULL)" BENCH_DIR="$(BENCH_DIR)" ONLY="$(ONLY)" LOAD="$(LOAD)" WAYS="$(WAYS)" cargo bench --locked --bench mailslot
# The time of a failed login of known, unknown and locked accounts. PROFILE=dev: without a release build.
timing:
	cargo bench --locked --bench timing $(if $(PROFILE),--profile $(PROFILE))
# Below PREFIX, which DESTDIR precedes for a package; UNITDIR is for systemd units.
install: build
	install -D -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/sbin/mailslot
	install -D -m 0644 contrib/mailslot.8 $(DESTDIR)$(MANDIR)/man8/mailslot.8
	install -D -m 0644 contrib/mailslot-users.5 $(DESTDIR)$(MANDIR)/man5/mailslot-users.5
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@PREFIX@|$(PREFIX)|' contrib/mailslot.service >$(DESTDIR)$(UNITDIR)/mailslot.service
	install -m 0644 contrib/mailslot.socket $(DESTDIR)$(UNITDIR)/mailslot.socket
	install -d $(DESTDIR)$(PREFIX)/share/mailslot/init
	sed 's|@PREFIX@|$(PREFIX)|' contrib/init/openrc >$(DESTDIR)$(PREFIX)/share/mailslot/init/openrc
	sed 's|@PREFIX@|$(PREFIX)|' contrib/init/busybox >$(DESTDIR)$(PREFIX)/share/mailslot/init/busybox
	chmod 0755 $(DESTDIR)$(PREFIX)/share/mailslot/init/openrc $(DESTDIR)$(PREFIX)/share/mailslot/init/busybox
	install -D -m 0644 contrib/fail2ban/mailslot.conf $(DESTDIR)$(PREFIX)/share/mailslot/fail2ban.conf
	install -D -m 0644 contrib/completions/mailslot.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/mailslot
	install -D -m 0644 contrib/completions/_mailslot $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_mailslot
	install -D -m 0644 contrib/completions/mailslot.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mailslot.fish
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/mailslot
	rm -f $(DESTDIR)$(MANDIR)/man8/mailslot.8 $(DESTDIR)$(MANDIR)/man5/mailslot-users.5
	rm -f $(DESTDIR)$(UNITDIR)/mailslot.service $(DESTDIR)$(UNITDIR)/mailslot.socket
	rm -rf $(DESTDIR)$(PREFIX)/share/mailslot
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/mailslot
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_mailslot
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mailslot.fish
# A Debian package of the same files, below target/ (or CARGO_TARGET_DIR). Of Debian's tools it only needs dpkg-deb.
deb: build
	rm -rf $(dir $(BINARY))deb
	$(MAKE) -o build install DESTDIR=$(dir $(BINARY))deb PREFIX=/usr UNITDIR=/lib/systemd/system
	contrib/debian/build $(dir $(BINARY))deb
clean:
	cargo clean
