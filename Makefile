# The index of tasks. Each installs what it lacks first (Debian packages, by apt), see deploy/install-deps.sh.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# Where a packaged cargo was just installed beside none, the PATH of this make knows it.
CARGO ?= cargo
AARCH64 := aarch64-unknown-linux-gnu
ARMV7 := armv7-unknown-linux-gnueabihf

DEMO_VIDEO ?= /usr/share/doc/opencv-doc/examples/data/vtest.avi
DEMO_SECONDS ?= 30

.PHONY: help demo check test bench cross cross-aarch64 cross-armv7 cross-test deny

help: ## list the tasks
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: ## watch a street video, show the detections over MQTT, draw target/demo/contact-sheet.png
	@deploy/install-deps.sh build demo
	$(CARGO) build --release --locked -p ternwatchd -p ternwatch-demo
	target/release/ternwatch-demo --video "$(DEMO_VIDEO)" --seconds $(DEMO_SECONDS)

check: ## formatting and lints
	@deploy/install-deps.sh build check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test: ## every test
	@deploy/install-deps.sh build test
	$(CARGO) test --workspace --locked

bench: ## frames a second of the detector on this machine
	@deploy/install-deps.sh build
	$(CARGO) run --release --locked -p ternwatch-detector --example fps

cross: cross-aarch64 cross-armv7 ## build the daemon for 64-bit and 32-bit ARM, into target-cross/

cross-aarch64: ## ... for 64-bit ARM only
	deploy/cross.sh build $(AARCH64) --locked -p ternwatchd

cross-armv7: ## ... for 32-bit ARM only
	deploy/cross.sh build $(ARMV7) --locked -p ternwatchd

cross-test: ## the tests of kernels, bundle and detector on emulated 64-bit ARM
	deploy/cross.sh test $(AARCH64) --locked -p ternwatch-kernels -p ternwatch-bundle -p ternwatch-detector

deny: ## licences, sources, duplicates and known vulnerabilities of the dependencies
	@deploy/install-deps.sh build deny
	$(CARGO) deny --locked check $(DENY)
