# Softstep's commands. Needs Python >= 3.11 and make; everything else is installed into .venv. The tests also need some
# programs: apt-get install --no-install-recommends prometheus nginx-light nghttp2-client tini bubblewrap strace openssl
# chromium postgresql pgbouncer. Without the last two, the tests of a log in PostgreSQL are skipped.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test matrix check clients torture failover simulation conformance conversions exports hostile-sources determinism properties lock release-check models bench clean

PYTHON ?= python3
# Each Python other than the default has an environment of its own, such as .venv-3.13.
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
BIN := $(VENV)/bin
# Test processes; a module's tests stay in one of them, so that they share its servers. Many tests wait for a service, so
# there is one process more than the two processors of CI.
TEST_PROCESSES ?= 3
PYTHONS ?= python3.11 python3.12 python3.13

# The sources of machine code, as in service/compiler.py.
KERNELS := service/compiler.py $(wildcard service/softmax/kernels/*.py) $(wildcard service/fields/kernels/*.py) service/serve/wire/row_scanner.py \
  service/serve/models/single_row.py service/serve/metrics/counters.py service/serve/limits/bucket_kernels.py
KERNELS += service/store/log/sparse_kernels.py

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

# Modules are compiled when they are first imported, and most of them never are; then they are kept.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE

# Each stamp stands for one set of locked packages, so that serving needs no test tools.
$(VENV)/serve.stamp: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --require-hashes --requirement requirements.lock
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev.stamp: $(VENV)/serve.stamp requirements-dev.lock
	$(PIP_INSTALL) --require-hashes --requirement requirements-dev.lock
	touch $@

$(VENV)/kernels.stamp: $(VENV)/serve.stamp $(KERNELS)
	$(BIN)/softstep warm
	touch $@

serve: $(VENV)/kernels.stamp ## install, compile the kernels and serve models/ on port 8000
	$(BIN)/softstep serve --models models --data data

# The packages of the tests are installed while the kernels are compiled.
test: $(VENV)/serve.stamp ## everything that CI runs: style, types, rooms and tests
	$(MAKE) --no-print-directory --jobs 3 $(VENV)/kernels.stamp check clients
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

matrix: ## run `make test` on each supported Python that is installed; the image runs 3.13
	for version in $(PYTHONS); do \
	  if command -v $$version >/dev/null; then $(MAKE) --no-print-directory test PYTHON=$$version || exit 1; \
	  else echo "$$version is not installed"; fi; \
	done

check: $(VENV)/dev.stamp ## style, types and the import order
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file client/pyproject.toml client/softstep_client
	$(BIN)/lint-imports

clients: $(VENV)/dev.stamp ## install the libraries that the tests run, each into an environment below build
	$(BIN)/python -m tests.clients.environments

torture: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## kill, fail and fuzz everything for some 50 minutes (needs strace); writes docs/reliability.md
	$(BIN)/python -m tests.torture

failover: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## kill, cut off and promote PostgreSQL servers for some 20 minutes; writes docs/failover.md
	$(BIN)/python -m tests.torture.failover

simulation: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## run 10,000 schedules of three replicas whose log forks; writes docs/simulation.md
	$(BIN)/python -m tests.simulation

conformance: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## send a thousand requests of each operation of the OpenAPI document; writes docs/conformance.md
	$(BIN)/python -m tests.conformance --write

conversions: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## convert random models of other libraries and compare each with its source; writes docs/conversions.md
	$(BIN)/python -m tests.conversions --write

exports: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## write random models as ONNX and as files, and compare what reads them with the service; writes docs/exports.md
	$(BIN)/python -m tests.exports --write

hostile-sources: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## give hostile files to the importers and measure what they take; writes docs/hostile_sources.md
	$(BIN)/python -m tests.hostile_sources --write

determinism: $(VENV)/dev.stamp ## compare the bits of all kernels between processors; writes docs/equal_bits.md
	$(BIN)/python -m tests.determinism --write

properties: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## run the property tests of `make test` with four times as many examples
	$(BIN)/python -m pytest --hypothesis-profile thorough --numprocesses $(TEST_PROCESSES) --dist loadfile \
	  $$(grep --recursive --files-with-matches --include 'test_*.py' 'examples(' tests)

lock: ## resolve the locked requirements again
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet uv
	.venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra build --extra convert --extra dev --extra grpc --extra postgres --extra train --output-file requirements-dev.lock pyproject.toml
	.venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --extra build --extra grpc --extra postgres --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	.venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --group release --output-file requirements-release.lock
	.venv/lock/bin/uv --directory docs/examples pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --constraint ../../requirements.lock --excludes embed_texts.excluded --output-file embed_texts.txt embed_texts.in
	.venv/lock/bin/uv --directory tests/clients/requirements pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --constraint ../../../requirements.lock --output-file autograd.txt autograd.in
	for name in kserve mlflow mlserver; do \
	  .venv/lock/bin/uv --directory tests/clients/requirements pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --excludes $$name.excluded --output-file $$name.txt $$name.in || exit 1; \
	done
	.venv/lock/bin/uv --directory loadtest/peers pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --constraint ../../requirements-dev.lock --output-file rivals.txt rivals.in
	.venv/lock/bin/uv --directory loadtest/peers pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --output-file vowpalwabbit.txt vowpalwabbit.in

# Locks that are audited; the first has all packages of requirements.lock too. Then build tools that the image removes.
AUDITED := requirements-dev.lock requirements-release.lock
BUILD_TOOLS := editables hatchling pathspec pluggy trove-classifiers

release-check: ## audit the locked packages, and write the bill of materials to build/sbom.json; needs the network
	rm -rf build/release build/runtime
	$(PYTHON) -m venv build/release
	$(PYTHON) -m venv --without-pip build/runtime
	build/release/bin/python -m pip install --quiet --require-hashes --requirement requirements-release.lock
	build/release/bin/python -m pip --python build/runtime/bin/python install --quiet --require-hashes --requirement requirements.lock
	build/release/bin/python -m pip --python build/runtime/bin/python install --quiet --no-deps --no-build-isolation .
	build/release/bin/python -m pip --python build/runtime/bin/python uninstall --quiet --yes $(BUILD_TOOLS)
	sed "s/^dynamic = .*/version = \"$$(build/runtime/bin/softstep --version)\"/" pyproject.toml >build/sbom.toml
	build/release/bin/cyclonedx-py environment --pyproject build/sbom.toml --output-reproducible --output-format JSON --output-file build/sbom.json build/runtime/bin/python
	for lock in $(AUDITED); do \
	  build/release/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes --requirement $$lock || { \
	    echo "release-check: a package of $$lock has a known vulnerability, or was not audited; see the lines above (pip-audit needs the network)" >&2; exit 1; }; \
	done

models: $(VENV)/dev.stamp ## train the shipped models again; needs the network once, for skl2onnx and Vowpal Wabbit
	$(BIN)/python models/train.py --sources

bench: $(VENV)/dev.stamp $(VENV)/kernels.stamp ## measure Softstep beside its peers; writes docs/benchmarks and the table in README
	$(BIN)/python loadtest/bench.py

clean: ## remove what was installed and compiled
	rm -rf .venv .venv-* build dist
	find service -name __pycache__ -type d -prune -exec rm -rf {} +
