# ilb: the targets that people and CI use. `make help` lists them.
#
# Everything works as root, by sudo, or (where no root is needed) as yourself. Nothing is skipped in silence.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

PREFIX  ?= /usr
DESTDIR ?=
KEEP    ?=

# `sudo make` has root's PATH and home: look for cargo in PATH, root's home, and the home of who called sudo.
SUDO_HOME := $(if $(SUDO_USER),$(shell getent passwd $(SUDO_USER) | cut -d: -f6))
export PATH := $(PATH):$(HOME)/.cargo/bin:$(if $(SUDO_HOME),$(SUDO_HOME)/.cargo/bin):/usr/sbin:/sbin
# rustup's proxies need to know whose toolchain they shall run.
ifneq ($(SUDO_HOME),)
ifeq ($(wildcard $(HOME)/.rustup),)
ifneq ($(wildcard $(SUDO_HOME)/.rustup),)
export RUSTUP_HOME ?= $(SUDO_HOME)/.rustup
endif
endif
endif

PROGRAMS := ilb-fastpath ilb-svcmgr lbadm
# Every crate but the lab, which is built once, in the release profile.
CRATES := --workspace --exclude ilb-tests
# Integration tests that touch no kernel.
PURE_TESTS := forward fragments icmp no_alloc noise configuration dbus mistakes

.PHONY: help deps build demo test test-pure test-lab bench lint install lab-clean clean

help: ## list the targets
	@echo 'ilb, a layer-4 load balancer for Linux'
	echo
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

deps: ## install the Debian packages that are missing, and look for cargo (needs root if any is)
	@./tests/deps.sh

build: ## build all programs (target/release)
	cargo build --release --locked --workspace

demo: deps build ## a balancer and three nginx in throw-away namespaces; KEEP=1 leaves them up (needs root)
	@KEEP='$(KEEP)' target/release/ilb-demo

test: deps ## everything CI runs: the pure tier, then the lab tier (needs root)
	@$(MAKE) --no-print-directory test-pure
	$(MAKE) --no-print-directory test-lab

# The packages named are the same in every call, because cargo builds dependencies anew for another choice of features.
test-pure: ## unit and property tests; no privileges
	@echo
	echo '==== Tier 1: pure tests (no privileges) ===='
	cargo test --locked $(CRATES) --lib --bins
	cargo test --locked $(CRATES) $(foreach test,$(PURE_TESTS),--test $(test))
	cargo test --locked $(CRATES) --doc

test-lab: build ## daemons and whole nodes in network namespaces, one at a time (needs root)
	@echo
	echo '==== Tier 2: lab tests (network namespaces, BPF, the real programs) ===='
	if [ "$$(id -u)" != 0 ]; then echo 'the lab needs root: run `sudo make test`' >&2; exit 1; fi
	# Everything, so that no new file can be forgotten; the pure tests are quick and run once more.
	cargo test --locked $(CRATES) --no-fail-fast
	cargo test --locked --release -p ilb-tests --tests --no-fail-fast -- --test-threads=1

bench: deps build ## measure, print, and write target/bench.json (needs root)
	@cargo run --locked --release -p ilb-tests --bin ilb-bench

lint: deps ## rustfmt and clippy without any warning, and the shell scripts
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	bash -n .ci/run tests/deps.sh
	shellcheck .ci/run tests/deps.sh

install: ## install what `make build` built below $(DESTDIR)$(PREFIX); settings and units too
	@for program in $(PROGRAMS); do
	  if [ ! -x "target/release/$$program" ]; then echo "target/release/$$program is not there: run \`make build\` first" >&2; exit 1; fi
	done
	install -d '$(DESTDIR)$(PREFIX)/sbin' '$(DESTDIR)$(PREFIX)/lib/ilb' '$(DESTDIR)/etc/ilb'
	install -s -m 0755 target/release/lbadm '$(DESTDIR)$(PREFIX)/sbin/lbadm'
	install -s -m 0755 target/release/ilb-fastpath target/release/ilb-svcmgr '$(DESTDIR)$(PREFIX)/lib/ilb/'
	# Settings that are there already are the administrator's.
	if [ ! -e '$(DESTDIR)/etc/ilb/ilb.toml' ]; then install -m 0644 etc/ilb.toml '$(DESTDIR)/etc/ilb/ilb.toml'; fi
	place() { # directory mode file...
	  local directory=$$1 mode=$$2; shift 2
	  for file in "$$@"; do install -D -m "$$mode" "$$file" "$(DESTDIR)$$directory/$$(basename "$$file")"; done
	}
	place '$(PREFIX)/lib/systemd/system' 0644 packaging/*.service
	place '$(PREFIX)/share/dbus-1/system.d' 0644 packaging/dbus/*.conf
	place '$(PREFIX)/share/doc/ilb' 0644 README.md docs/*.md LICENSE-*
	install -d '$(DESTDIR)$(PREFIX)/share/man/man8'
	target/release/lbadm generate-man '$(DESTDIR)$(PREFIX)/share/man/man8'
	echo 'installed below $(DESTDIR)$(PREFIX); next: edit /etc/ilb/ilb.toml'

lab-clean: ## remove what `make demo KEEP=1` and killed test runs left (needs root)
	@if [ -x target/release/ilb-lab ]; then target/release/ilb-lab clean; else cargo run --locked --release -q -p ilb-tests --bin ilb-lab -- clean; fi

clean: ## remove what was built
	cargo clean
