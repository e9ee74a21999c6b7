# `make help` lists what there is. Only test-vm needs root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Builds target/debug/causeway as the tests have it. Without them, what only their dependencies switch on would be off in
# nearly every crate, and all be built anew.
PROGRAM := cargo test --locked --no-run --test it
.PHONY: help lab test soak test-vm verify layers goldens dependencies package scripts fix bench deb tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: tools ## bring up the two-datacenter lab in the foreground; Ctrl-C stops it
	cargo build --locked
	@# In the foreground of a terminal the lab gets a job of its own: Ctrl-C is then for the lab alone, and
	@# make ends with the lab's exit code instead of dying of the same key.
	@read -r _ _ _ _ group _ _ terminal _ </proc/$$$$/stat; \
	if [ "$$group" = "$$terminal" ]; then set -m; target/debug/causeway lab up; \
	else exec target/debug/causeway lab up; fi

test: tools ## all tests, real Consul and Envoy included (the layers are read by `make verify`)
	@cargo test --locked --no-fail-fast -- --skip architecture:: 2>&1 | awk ' \
	  { print; fflush() } \
	  /^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	  END { printf "\n%d tests passed, %d failed, %d ignored\n", passed, failed, ignored }'

soak: tools ## the long runs: simulations, random xDS clients, programs against Consul, every decoder fuzzed, the fault matrix on the lab, an hour of changes
	SYNC_SEEDS=$${SYNC_SEEDS:-3000} SYNC_PROGRAMS=$${SYNC_PROGRAMS:-3000} cargo test --locked --test it -- sync:: --nocapture
	MESH_SEEDS=$${MESH_SEEDS:-3000} cargo test --locked --lib -- app::tests:: --nocapture
	MODEL_SEED=$${MODEL_SEED:-$$(date +%s)} MODEL_STEPS=$${MODEL_STEPS:-20000000} \
	  cargo test --locked --lib -- subscription::tests::model --nocapture
	FUZZ_SECONDS=$${FUZZ_SECONDS:-300} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} cargo test --locked --test it -- fuzz::every --nocapture
	SYNC_FAULT_SEEDS=$${SYNC_FAULT_SEEDS:-20} SYNC_FAULT_REPORT=$${SYNC_FAULT_REPORT:-tests/reports/sync_faults.md} \
	  cargo test --locked --test it -- sync_faults:: --nocapture
	cargo bench --locked --bench fanout -- soak

test-vm: tools ## as root: the units and the package, in a Debian booted in a container
	$(PROGRAM)
	tests/vm/run

verify: ## formatting, lints, docs, layers, goldens, dependencies, package; writes nothing
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --locked
	@$(MAKE) --no-print-directory layers goldens dependencies package scripts

layers:
	cargo test --locked --test it -- architecture:: --nocapture

goldens:
	@if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then \
	  echo "goldens: not run: git cannot read this tree"; \
	elif dirty=$$(git status --porcelain -- tests/golden tests/package docs/metrics.md docs/configuration.md docs/examples) && [ -z "$$dirty" ]; then \
	  echo "goldens: clean"; \
	else \
	  printf 'goldens: changed and not committed; look at the difference, then commit or restore:\n%s\n' "$$dirty"; exit 1; \
	fi

dependencies:
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check; \
	else echo "dependencies: not run: cargo-deny is not installed"; fi

package:
	@if command -v dh >/dev/null && command -v lintian >/dev/null; then \
	  $(PROGRAM); rm -rf target/debian/checked; \
	  CAUSEWAY_BINARY=target/debug/causeway DEB_PROFILE=dev DEB_DIR=target/debian/checked tools/deb --lint; \
	else echo "package: not run: debhelper and lintian are not both installed"; fi

scripts:
	@if command -v shellcheck >/dev/null; then \
	  shellcheck .ci/run tests/vm/rig/boot.sh tools/deb debian/causeway.postinst debian/causeway.postrm debian/causeway.preinst debian/causeway.prerm; \
	else echo "scripts: not run: shellcheck is not installed"; fi

fix: ## format, apply lint fixes, rewrite the goldens
	cargo fmt
	cargo clippy --fix --allow-dirty --allow-staged --all-targets --locked
	UPDATE_GOLDEN=1 cargo test --locked -- golden

bench: tools ## measurements, beside the figures to reach
	cargo bench --locked

deb: ## the Debian package under target/debian/ (tools/deb tells of DEB_PROFILE and DEB_VERSION)
	@tools/deb $$(if command -v lintian >/dev/null; then echo --lint; else echo "lintian: not run: not installed" >&2; fi)

tools: ## the real Consul and Envoy under .tools/ (tools/install --help tells from where)
	@command -v python3 >/dev/null || { echo "make tools: no python3: apt-get install python3-venv" >&2; exit 1; }
	@tools/install
