.PHONY: all build run test lint clean install
all: build
build:
	cargo build --release --locked
run: build
	./target/release/mailslot --create
test:
	cargo test --locked
lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
install: build
	install -D -m 0755 target/release/mailslot $(DESTDIR)/usr/local/sbin/mailslot
clean:
	cargo clean
