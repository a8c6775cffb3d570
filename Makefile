.PHONY: all build run test fuzz lint interop endurance bench clean install
all: build
build:
	cargo build --release --locked
run: build
	./target/release/mailslot --create
test:
	cargo test --locked
# Random sessions for FUZZ_SECONDS, from a seed that is printed.
fuzz:
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} cargo test --release --locked --test it fuzz -- --nocapture
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
# Postfix, Dovecot and clients against the binary; what is not installed is said and skipped.
interop: build
	python3 tests/interop/interop.py target/release/mailslot
# A thousand kills under load, a message of 1 GiB, idle memory: minutes, and not part of the tests.
endurance: build
	python3 tests/interop/endurance.py target/release/mailslot
# QUICK=1: under two minutes; FULL=1: the large idle and flatness figures too; BENCH_DIR=...: another disk;
# ONLY='tmpfs, 10': the rows with these words; LOAD='sessions=4 size=65536 ...': that load (benches/given.rs);
# WAYS=1: ways to make messages durable on that disk, without a server.
bench:
	QUICK="$(QUICK)" FULL="$(FULL)" BENCH_DIR="$(BENCH_DIR)" ONLY="$(ONLY)" LOAD="$(LOAD)" WAYS="$(WAYS)" cargo bench --locked --bench mailslot
install: build
	install -D -m 0755 target/release/mailslot $(DESTDIR)/usr/local/sbin/mailslot
	install -D -m 0644 contrib/mailslot.service $(DESTDIR)/usr/local/lib/systemd/system/mailslot.service
clean:
	cargo clean
