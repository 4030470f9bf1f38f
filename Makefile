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
PAIR    ?=
# Where units go, and how programs are stripped (a package does that by itself).
UNITS   ?= $(PREFIX)/lib/systemd/system
STRIP   ?= -s

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
# Every crate but the lab. (Its own choice of features is the same as that of all, so nothing is built twice.)
CRATES := --workspace --exclude ilb-tests
# Integration tests that touch no kernel.
PURE_TESTS := simulation wire peer forward accept_mode lifecycle persistence counts express attack listing explain pools fragments replay icmp tunnels no_alloc noise configuration dbus mistakes network protocols probes resolver scripts completion engine import detection journal relay

.PHONY: help deps build demo lab test test-pure test-lab fuzz bench lint soak dbus-docs journal-docs install deb lab-clean clean
# The others, whatever files there are, so that no new one can be forgotten.
KERNEL_TESTS := $(filter-out $(PURE_TESTS),$(sort $(notdir $(basename \
  $(filter-out tests/tests/%,$(wildcard */tests/*.rs */*/tests/*.rs))))))
# Where property tests begin, so that a run that fails can be repeated by anybody. `make soak` begins elsewhere each time.
export PROPTEST_RNG_SEED ?= 1
ROUNDS ?= 10
# How many files of lab tests run at a time. Most of their time they wait.
LANES ?= 2

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

lab: deps build ## an empty balancer, three web servers and a client that stay up, to follow docs/tutorial.md; PAIR=1: two balancers, for docs/pair.md (needs root)
	@target/release/ilb-lab up $(if $(PAIR),pair)

test: deps ## everything CI runs: the pure tier, then the lab tier (needs root)
	@$(MAKE) --no-print-directory test-pure
	$(MAKE) --no-print-directory fuzz SECONDS=10
	$(MAKE) --no-print-directory test-lab

test-pure: ## unit and property tests; no privileges
	@echo
	echo "==== Tier 1: pure tests (no privileges), $$(date -u +%T) ===="
	cargo test --locked --workspace --lib --bins
	cargo test --locked $(CRATES) $(foreach test,$(PURE_TESTS),--test $(test))
	cargo test --locked $(CRATES) --doc

# The lab's programs are built as people get them: what tests count on two busy processors shall not depend on slower ones.
test-lab: build ## daemons and whole nodes in network namespaces, LANES=2 files at a time (needs root)
	@echo
	echo "==== Tier 2: lab tests (network namespaces, BPF, the real programs), $$(date -u +%T) ===="
	if [ "$$(id -u)" != 0 ]; then echo 'the lab needs root: run `sudo make test`' >&2; exit 1; fi
	cargo build --locked --workspace --bins --examples # tests start some of them
	cargo test --locked $(CRATES) --no-fail-fast $(foreach test,$(KERNEL_TESTS),--test $(test))
	tests/lab.sh $(LANES)

# Coverage for libFuzzer by the compiler's own pass, so that a stable toolchain will do; only our crates' dependencies
# on the target are instrumented, hence the explicit target. What is found lands in tests/fuzz/regressions, which
# `cargo test` replays; inputs that reach something new are kept in target/fuzz-corpus.
FUZZ_TARGETS := packet quoted control settings snapshot vrrp sync pair process import document
FUZZ_FLAGS := -Cpasses=sancov-module -Ccodegen-units=1 -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
TARGET_DIR = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
SECONDS ?= 300
KILLS ?= 500
SEED ?= 1

fuzz: ## SECONDS=300 of libFuzzer for each target; FUZZ_TARGETS=process for one
	@echo
	echo "==== Fuzzing: $(SECONDS) s for each of $(FUZZ_TARGETS), $$(date -u +%T) ===="
	RUSTFLAGS='$(FUZZ_FLAGS)' cargo build --locked --profile fuzz --target '$(HOST)' -p ilb-fuzz --features libfuzzer --bins
	for target in $(FUZZ_TARGETS); do
	  mkdir -p "$(TARGET_DIR)/fuzz-corpus/$$target" "tests/fuzz/regressions/$$target"
	  echo "-- $$target"
	  log="$(TARGET_DIR)/fuzz-corpus/$$target.log"
	  if ! "$(TARGET_DIR)/$(HOST)/fuzz/fuzz-$$target" -max_total_time=$(SECONDS) -timeout=60 -rss_limit_mb=4096 -use_value_profile=1 \
	      -print_final_stats=1 -artifact_prefix="tests/fuzz/regressions/$$target/" \
	      "$(TARGET_DIR)/fuzz-corpus/$$target" "tests/fuzz/corpus/$$target" "tests/fuzz/regressions/$$target" >"$$log" 2>&1; then
	    tail -n 60 "$$log" >&2; echo "fuzzing '$$target' found something: see above" >&2; exit 1
	  fi
	  grep -E 'number_of_executed_units|average_exec_per_sec|cov:' "$$log" | tail -n 3
	done

bench: deps build ## measure, print, and write target/bench.json (needs root)
	@cargo run --locked --release -p ilb-tests --bin ilb-bench

lint: deps ## rustfmt and clippy without any warning, and the shell scripts
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	bash -n .ci/run tests/deps.sh tests/lab.sh tests/src/lab/system.sh
	shellcheck .ci/run tests/deps.sh tests/lab.sh tests/src/lab/system.sh

soak: ## property tests from ROUNDS=10 other seeds; KILLS=500 of kill -9 of the manager under changes, a thousand damaged databases; SEED=1
	for round in $$(seq $(ROUNDS)); do
	  export PROPTEST_RNG_SEED=$$((RANDOM << 15 | RANDOM))
	  echo "-- property tests from seed $$PROPTEST_RNG_SEED"
	  cargo test --locked $(CRATES) --quiet $(foreach test,$(PURE_TESTS),--test $(test))
	done
	ILB_KILLS='$(KILLS)' ILB_SEED='$(SEED)' cargo test --locked -p ilb-svcmgr --test kills -- --nocapture
	cargo test --locked -p ilb-svcmgr --bins -- --nocapture a_thousand_damaged_databases

dbus-docs: ## write packaging/dbus/interfaces and the tables of docs/dbus.md from what the manager says of itself
	ILB_WRITE=1 cargo test --locked -p ilb-svcmgr --test interfaces files_and_documentation

journal-docs: ## write packaging/journal/ilb.catalog and the table of docs/operations.md from what the programs know
	ILB_WRITE=1 cargo test --locked -p ilb-node --test journal catalogue_and_documentation

# Where what was built lies: `make install BUILT=target/debug` installs a debug build.
BUILT ?= $(TARGET_DIR)/release

install: ## install what `make build` built below $(DESTDIR)$(PREFIX): programs, settings, units, users, bus, documents
	@for program in $(PROGRAMS); do
	  if [ ! -x "$(BUILT)/$$program" ]; then echo "$(BUILT)/$$program is not there: run \`make build\` first" >&2; exit 1; fi
	done
	install -d '$(DESTDIR)$(PREFIX)/sbin' '$(DESTDIR)$(PREFIX)/lib/ilb' '$(DESTDIR)/etc/ilb'
	# An empty place for the pins of the XDP program: see ilb-fastpath.service.
	install -d '$(DESTDIR)$(PREFIX)/lib/ilb/bpf/ilb'
	install $(STRIP) -m 0755 '$(BUILT)/lbadm' '$(DESTDIR)$(PREFIX)/sbin/lbadm'
	install $(STRIP) -m 0755 '$(BUILT)/ilb-fastpath' '$(BUILT)/ilb-svcmgr' '$(DESTDIR)$(PREFIX)/lib/ilb/'
	# Settings that are there already are the administrator's.
	if [ ! -e '$(DESTDIR)/etc/ilb/ilb.toml' ]; then install -m 0644 etc/ilb.toml '$(DESTDIR)/etc/ilb/ilb.toml'; fi
	place() { # directory mode file...
	  local directory=$$1 mode=$$2; shift 2
	  for file in "$$@"; do install -D -m "$$mode" "$$file" "$(DESTDIR)$$directory/$$(basename "$$file")"; done
	}
	place '$(UNITS)' 0644 packaging/*.service
	sed -i 's|=\([+-]*\)/usr/lib/ilb/|=\1$(PREFIX)/lib/ilb/|' '$(DESTDIR)$(UNITS)'/ilb.service '$(DESTDIR)$(UNITS)'/ilb-fastpath.service
	place '$(PREFIX)/lib/sysusers.d' 0644 packaging/sysusers/*.conf
	place '$(PREFIX)/lib/tmpfiles.d' 0644 packaging/tmpfiles/*.conf
	place '$(PREFIX)/lib/systemd/catalog' 0644 packaging/journal/*.catalog
	place '$(PREFIX)/share/dbus-1/system.d' 0644 packaging/dbus/*.conf
	place '$(PREFIX)/share/dbus-1/system-services' 0644 packaging/dbus/*.service
	place '$(PREFIX)/share/dbus-1/interfaces' 0644 packaging/dbus/interfaces/*.xml
	place '$(PREFIX)/share/polkit-1/actions' 0644 packaging/polkit/*.policy
	place '$(PREFIX)/share/doc/ilb/examples' 0644 packaging/grafana/ilb.json packaging/prometheus/ilb.rules.yml
	place '$(PREFIX)/share/doc/ilb' 0644 README.md docs/*.md LICENSE-*
	place '$(PREFIX)/share/doc/ilb/examples' 0644 packaging/examples/*.toml
	install -d '$(DESTDIR)$(PREFIX)/share/man/man8'
	'$(BUILT)/lbadm' generate-man '$(DESTDIR)$(PREFIX)/share/man/man8'
	install -d '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' '$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions' '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d'
	'$(BUILT)/lbadm' completion bash >'$(DESTDIR)$(PREFIX)/share/bash-completion/completions/lbadm'
	'$(BUILT)/lbadm' completion zsh >'$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_lbadm'
	'$(BUILT)/lbadm' completion fish >'$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lbadm.fish'
	echo 'installed below $(DESTDIR)$(PREFIX)'
	if [ -z '$(DESTDIR)' ]; then
	  # What a package's scripts would do. Without systemd the users have to be made in another way.
	  if command -v systemd-sysusers >/dev/null; then systemd-sysusers ilb.conf; fi
	  if [ -d /run/systemd/system ]; then systemctl daemon-reload; journalctl --update-catalog; fi
	  if [ -S /run/dbus/system_bus_socket ]; then busctl call -q org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig; fi
	  echo 'next: edit /etc/ilb/ilb.toml, then: systemctl enable --now ilb'
	fi

DEB := $(TARGET_DIR)/deb

deb: ## a Debian package of what `make build` built, in target/deb
	@rm -rf '$(DEB)'
	mkdir -p '$(DEB)/source'
	cp -r packaging/debian '$(DEB)/source/debian'
	cd '$(DEB)/source'
	# Another version than that of the changelog, for tests of upgrades: make deb VERSION=0.1.1
	if [ -n '$(VERSION)' ]; then sed -i '1s/(.*)/($(VERSION))/' debian/changelog; fi
	ILB_SOURCES='$(CURDIR)' BUILT='$(abspath $(BUILT))' debian/rules binary
	ls -1 '$(abspath $(DEB))'/*.deb

lab-clean: ## remove what `make lab`, `make demo KEEP=1` and killed test runs left (needs root)
	@if [ -x target/release/ilb-lab ]; then target/release/ilb-lab clean; else cargo run --locked --release -q -p ilb-tests --bin ilb-lab -- clean; fi

clean: ## remove what was built
	cargo clean
