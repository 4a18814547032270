# The index of tasks. Each installs what it lacks first (Debian packages, by apt), see deploy/install-deps.sh.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
AARCH64 := aarch64-unknown-linux-gnu
ARMV7 := armv7-unknown-linux-gnueabihf

DEMO_VIDEO ?= /usr/share/doc/opencv-doc/examples/data/vtest.avi
DEMO_SECONDS ?= 30
QUANT_TOOL := target/train/quant-tool
MODEL ?= person
RECIPE ?= models/$(MODEL).toml
RUN ?= target/$(MODEL)
DEMO_PROFILE ?= release
ifeq ($(DEMO_PROFILE),dev)
# What the tests run; the example brings the features of the tests' own dependencies, so that nothing is built twice.
DEMO_BUILD = $(CARGO) build --workspace --locked --bins --example vm
DEMO = target/debug/ternwatch-demo --daemon target/debug/ternwatchd
else
# One after the other: together, cargo would give the daemon the demonstration's ability to sign.
DEMO_BUILD = $(CARGO) build --release --locked -p ternwatchd && $(CARGO) build --release --locked -p ternwatch-demo
DEMO = target/release/ternwatch-demo
endif

.PHONY: help demo check test test-home-assistant test-home-assistant-real transcript bench bench-peers bench-peers-arm load-test fuzz gate cross cross-aarch64 cross-armv7 cross-check cross-test deb deb-quant-tool deb-test vm-image vm-test reproducible release exposure deny train-default evaluate cards demo-ota

help: ## list the tasks
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

demo: ## watch a street video, show the detections over MQTT, draw target/demo/contact-sheet.png
	@deploy/install-deps.sh build demo
	$(DEMO_BUILD)
	$(DEMO) --video "$(DEMO_VIDEO)" --seconds $(DEMO_SECONDS)

demo-ota: ## send the second bundled model over MQTT to a daemon at work: it is kept, and broken ones are taken back
	@deploy/install-deps.sh build demo
	$(DEMO_BUILD)
	$(DEMO) --ota --video "$(DEMO_VIDEO)" --out target/demo-ota

check: ## formatting and lints
	@deploy/install-deps.sh build check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# Those of the daemon wait for a clock most of their time: twice as many at a time as there are processors.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
test: ## every test
	@deploy/install-deps.sh build test
	$(CARGO) test --workspace --locked

HA_VENV ?= target/home-assistant
PYTHON ?= python3.13
test-home-assistant: ## a real Home Assistant finds the daemon and follows a street video; without Python 3.13, its schemas only
	@deploy/install-deps.sh build test
	@if command -v $(PYTHON) >/dev/null; then $(MAKE) --no-print-directory test-home-assistant-real; else \
		echo "there is no $(PYTHON): what the daemon says is held against Home Assistant's schemas only"; \
		$(CARGO) test --locked -p ternwatchd --test home_assistant; fi

test-home-assistant-real:
	$(CARGO) build --locked -p ternwatchd
	[ -x $(HA_VENV)/bin/python ] || $(PYTHON) -m venv $(HA_VENV)
	$(HA_VENV)/bin/pip install -q --no-deps "$$(grep ^homeassistant tests/home_assistant/requirements.txt)"
	$(HA_VENV)/bin/pip install -q --prefer-binary -r tests/home_assistant/requirements.txt \
		-c "$$($(HA_VENV)/bin/python -c 'import homeassistant; print(homeassistant.__path__[0])')/package_constraints.txt"
	$(HA_VENV)/bin/python tests/home_assistant/schema.py --check daemon/tests/home_assistant_schema.json
	$(HA_VENV)/bin/python tests/home_assistant/run.py --daemon target/debug/ternwatchd --video "$(DEMO_VIDEO)" \
		--model models/person.tern --key models/default.pub

transcript: ## what mosquitto_sub shows of a street, into docs/transcript.txt and docs/mqtt.md
	@deploy/install-deps.sh build transcript
	$(CARGO) build --locked -p ternwatchd
	$(CARGO) run --locked -p system-tests --example transcript -- "$(DEMO_VIDEO)"

bench: ## the time of every kernel, and of every stage and layer of the models that ship, on this machine
	@deploy/install-deps.sh build
	$(CARGO) run --release --locked -p ternwatch-kernels --example conv_bench
	$(CARGO) build --release --locked -p ternwatchd
	for model in models/*.tern; do TERNWATCH_MODEL__KEY=models/default.pub target/release/ternwatchd bench --bundle "$$model"; done

bench-peers: ## the whole network beside tract, onnxruntime and ncnn, into target/peers/
	@deploy/install-deps.sh build
	deploy/peers/run.sh

bench-peers-arm: ## the whole network beside tract, onnxruntime and ncnn on 64-bit ARM, counted under QEMU; after bench-peers
	@deploy/install-deps.sh build cross-arm64 gate
	deploy/peers/arm.sh

LOAD ?= mosquitto nats --cameras 1000 --seconds 60 --rate 0.5
load-test: ## a fleet of simulated cameras against brokers of its own, LOAD says which (mosquitto nats nats-cluster) and how many
	@deploy/install-deps.sh build load
	$(CARGO) build --profile train --locked -p ternwatchd
	$(CARGO) run --profile train --locked -p system-tests --example load -- $(LOAD)

FUZZ_SECONDS ?= 60
fuzz: ## libFuzzer over everything that comes from outside, FUZZ_SECONDS for all targets together
	@deploy/install-deps.sh build fuzz
	deploy/fuzz.sh $(FUZZ_SECONDS)

gate: ## count the instructions of the kernels, fail where they became more; GATE=--whole where one is not counted, too
	@deploy/install-deps.sh build
	deploy/instructions/gate.sh $(GATE)

cross: cross-aarch64 cross-armv7 ## build the daemon for 64-bit and 32-bit ARM, into target-cross/

cross-aarch64: ## ... for 64-bit ARM only
	deploy/cross.sh build $(AARCH64) --locked -p ternwatchd

cross-armv7: ## ... for 32-bit ARM only
	deploy/cross.sh build $(ARMV7) --locked -p ternwatchd

cross-check: ## type-check the daemon for 32-bit ARM; nothing is linked
	deploy/cross.sh check $(ARMV7) --locked -p ternwatchd

# Optimization across crates would only take time.
cross-test: export CARGO_PROFILE_RELEASE_LTO=off
cross-test: ## the tests of kernels, bundle and detector on emulated 64-bit ARM, those of kernels on 32-bit ARM
	deploy/cross.sh test $(AARCH64) --locked -p ternwatch-kernels -p ternwatch-bundle -p ternwatch-detector
	deploy/cross.sh test $(ARMV7) --locked -p ternwatch-kernels

ARCHITECTURES ?= amd64 arm64 armhf
deb: ## Debian packages of the daemon for ARCHITECTURES (amd64 arm64 armhf), into target/deb/
	@deploy/install-deps.sh build deb
	deploy/deb.sh ternwatch $(ARCHITECTURES)

deb-quant-tool: ## the Debian package of quant-tool for this machine's architecture
	@deploy/install-deps.sh build deb
	deploy/deb.sh ternwatch-quant-tool $(shell dpkg --print-architecture)

deb-test: ## lintian, then install, upgrade, remove and purge in a fresh Debian 12, as root; ARM under qemu
	@deploy/install-deps.sh deb deb-test cross-arm64 cross-armhf
	lintian --fail-on error,warning,info --info target/deb/ternwatch_*.deb
	deploy/test-deb.sh $(ARCHITECTURES)

# Built with the whole workspace's features, as the tests are: nothing is built twice.
VM_REPORT ?= target/vm/report.md
vm-test: vm-image ## the arm64 package on a whole emulated ARM machine with cameras, as root: install, watch, update, failures
	$(CARGO) build --workspace --locked --bin quant-tool --example vm
	target/debug/examples/vm | tee $(VM_REPORT)

vm-image: ## ... only make that machine's disk
	@deploy/install-deps.sh build vm cross-arm64
	deploy/vm/image.sh

reproducible: ## the same commit gives the same package, byte for byte: ARCHITECTURE=arm64, the machine's own otherwise
	@deploy/install-deps.sh build deb
	deploy/reproducible.sh $(ARCHITECTURE)

release: deb ## packages, what is in them (CycloneDX) and checksums, into target/deb/
	deploy/sbom.sh ternwatchd aarch64-unknown-linux-gnu >target/deb/ternwatch-arm64.cdx.json
	deploy/sbom.sh ternwatchd armv7-unknown-linux-gnueabihf >target/deb/ternwatch-armhf.cdx.json
	deploy/sbom.sh ternwatchd x86_64-unknown-linux-gnu >target/deb/ternwatch-amd64.cdx.json
	cd target/deb && sha256sum *.deb *.cdx.json >SHA256SUMS

exposure: ## how exposed the service is, by systemd's measure: 1.6 of 10 at most
	@deploy/install-deps.sh exposure
	systemd-analyze security --offline=true --threshold=16 --no-pager systemd/ternwatch.service

deny: ## licences, sources, duplicates and known vulnerabilities of the dependencies
	@deploy/install-deps.sh build deny
	$(CARGO) deny --locked check $(DENY)

train-default: ## train a model that ships, for hours: DATA=FOLDER (with train/ and val/) KEY=SECRET.secret MODEL=person
	@deploy/install-deps.sh build
	@[ -n "$(DATA)" ] && [ -n "$(KEY)" ] || { echo "say DATA=FOLDER and KEY=FILE, see models/README.md" >&2; exit 64; }
	$(CARGO) build --profile train --locked -p quant-tool
	$(QUANT_TOOL) train --config "$(RECIPE)" --data "$(DATA)/train" --run "$(RUN)"
	$(QUANT_TOOL) quantize --config "$(RECIPE)" --data "$(DATA)/train" --run "$(RUN)"
	$(QUANT_TOOL) export --config "$(RECIPE)" --run "$(RUN)" --key "$(KEY)" --evaluate "$(DATA)/val" --out "$(RUN)/$(MODEL).tern"

cards: ## the cards of the models that ship, with a picture of what each gets wrong on a street
	@deploy/install-deps.sh build cards
	$(CARGO) build --profile train --locked -p quant-tool
	deploy/cards.sh $(QUANT_TOOL)

evaluate: ## how well the models that ship find people on annotated pictures: DATA=FOLDER (with val/)
	@deploy/install-deps.sh build
	@[ -n "$(DATA)" ] || { echo "say DATA=FOLDER, see models/README.md" >&2; exit 64; }
	$(CARGO) build --profile train --locked -p quant-tool
	for model in models/*.tern; do $(QUANT_TOOL) evaluate --bundle "$$model" --data "$(DATA)/val"; done
