# `make run` and `make test` set everything up by themselves. What each target needs is built once, under .cache/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# Bytecode and rewritten assertions are kept, also where the environment turns that off: collecting takes half as long.
PYTEST := env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m pytest
# A worker runs whole files, so that module fixtures are made once. tests/conftest.py orders them: the longest first.
FILES := --dist loadfile --no-loadscope-reorder
BIN := .venv/bin
UV := .cache/uv/bin/uv
UV_VERSION := 0.13.*
BUF := $(BIN)/buf
# The oldest that the client supports: stubs load with every later one.
PROTOC_TOOLS := grpcio-tools==1.74.0 mypy-protobuf==3.7.0

.PHONY: help
help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: .venv/.ready ## Install everything that is pinned into .venv.

$(UV):
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/pip -q --disable-pip-version-check install 'uv==$(UV_VERSION)'

.venv/.ready: requirements.lock pyproject.toml clients/python/pyproject.toml | $(UV)
	@test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) .venv
	@$(UV) pip sync -q --compile-bytecode --python $(BIN)/python requirements.lock
	@$(UV) pip install -q --python $(BIN)/python --no-deps -e clients/python -e .
	@touch $@

.PHONY: run
run: setup ## Run a server with everything it needs on this machine, and a table of example routes.
	@exec $(BIN)/pointsman-server dev --demo

.PHONY: tools
tools: setup .cache/protoc/.ready ## Build what tests call from outside: Kafka's jars, Debian's programs, clients in other languages.
	@$(BIN)/python -m tests.support.tools
	@$(BIN)/python -m tests.support.kafka
	@$(BIN)/python -m tests.support.debian
	@$(BIN)/python -m tests.support.grpc_js
	@$(BIN)/python -m tests.support.xds_clients.programs
	@$(BIN)/python -m tests.support.examples --quiet

.PHONY: examples
examples: setup .cache/protoc/.ready ## Build the example clients in Go, TypeScript and Java, and print where.
	@$(BIN)/python -m tests.support.examples

.PHONY: check
check: PARALLEL ?= -n auto --maxprocesses 4 $(FILES)
check: setup ## Lint, then run the unit tests and the contracts on fakes, in under a minute: before every commit.
	@$(MAKE) -s lint-code $(if $(shell git status --porcelain protos clients/python/pointsman/v1),lint-protos lint-stubs)
	@$(PYTEST) -q $(PARALLEL) -m 'not engines' tests/unit tests/contract $(ARGS)

.PHONY: test
# Four, also on two cores: integration and e2e tests mostly wait for engines and processes.
test: PARALLEL ?= -n 4 $(FILES)
test: tools ## Run the whole suite. ARGS go to pytest, as in make test ARGS='tests/unit -x'.
	@$(PYTEST) $(PARALLEL) $(ARGS)

.PHONY: bench
bench: tools ## Measure beside the floor, etcd and the database, into docs/benchmarks. About 10 minutes; see its page.
	@$(BIN)/python -m tests.bench $(ARGS)

.PHONY: bench-quick
bench-quick: setup ## A subset, one short round, in under a minute: says that the benchmark works. Keeps nothing.
	@$(BIN)/python -m tests.bench --quick $(ARGS)

.PHONY: fuzz
fuzz: setup ## Fuzz every target for a time, as in make fuzz ARGS='--seconds 600'. The corpus stays in .cache/fuzz.
	@$(BIN)/python -m tests.fuzz $(ARGS)

.PHONY: mutants
mutants: setup ## See whether tests notice small changes of the code, as in make mutants ARGS='reads/resolver.py'.
	@$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: bench-abuse
bench-abuse: setup ## Measure what abusers cost other callers, on each transport. About eight minutes.
	@$(BIN)/python -m tests.bench.abuse $(ARGS)

.PHONY: soak
soak: setup ## Weigh 5,000 open streams, many calls and clients that restart. 11 minutes; ARGS='--seconds 60' for less.
	@$(BIN)/python -m tests.bench.soak $(ARGS)

.PHONY: faults
faults: tools ## Break everything once under load, and check every promise: docs/promises.md. Under 5 minutes.
	@# 2: the run says nothing, for instance because the machine was too busy. 1, a broken promise, is final.
	@$(BIN)/python -m tests.faults $(ARGS) || { (($$? == 2)) && echo 'an invalid run: once more' >&2 \
		&& $(BIN)/python -m tests.faults $(ARGS); }

.PHONY: faults-long
faults-long: tools ## The same for 1,000,000 operations, 100 injections and 35 minutes at least.
	@$(BIN)/python -m tests.faults --operations 1000000 --injections 100 --seconds 2100 $(ARGS)

.PHONY: lint
lint: setup .cache/protoc/.ready ## Check style, types, layers, protos, stubs, documents and pins.
	@$(MAKE) -s lint-code lint-protos lint-stubs lint-docs lint-pins lint-workflows

.PHONY: lint-code
lint-code: setup
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -1

.PHONY: lint-protos
lint-protos: image
	@$(BUF) lint .cache/protos/image.binpb --path pointsman
	@$(BUF) breaking .cache/protos/image.binpb --against protos/released.binpb --path pointsman

.PHONY: lint-stubs
lint-stubs: protos
	@git diff --exit-code -- clients/python/pointsman/v1 server/pointsman_server/rpc/openapi.yaml \
		|| { echo 'the committed stubs or OpenAPI document are not those of protos/: run `make protos` and commit them' >&2; exit 1; }

.PHONY: lint-docs
lint-docs: setup
	@$(BIN)/python -m tests.support.reference --check
	@$(BIN)/python -m tests.support.chart_schema --check

.PHONY: lint-pins
lint-pins: setup | $(UV)
	@$(UV) pip install -q --dry-run --python $(BIN)/python --require-hashes -r requirements.lock
	@! grep -nE 'https?://|--(extra-)?index-url|--find-links' requirements.lock
	@! grep -n '"resolved"' tests/support/{grpc_js,xds_clients/node}/package-lock.json clients/examples/typescript/package-lock.json

.PHONY: lint-workflows
lint-workflows: .cache/bin/actionlint
	@.cache/bin/actionlint
	@$(BIN)/python -m tests.support.zizmor

.PHONY: image
image: setup .cache/protoc/.ready
	@$(BIN)/python protos/build.py

.PHONY: protos
protos: image .cache/bin/protoc-gen-openapi ## Generate the Python stubs and the OpenAPI document from protos/.
	@$(BUF) generate 2> >(grep -v '^Writing mypy' >&2)
	@$(BUF) generate --template buf.openapi.yaml
	@$(BIN)/python protos/openapi.py

# The descriptors of the xDS API that the server serves, from a wheel that is installed nowhere else.
XDS_PROTOS := xds-protos==1.85.0

.PHONY: xds-descriptors
xds-descriptors: setup | $(UV) ## Take the descriptors of the xDS API from the wheel xds-protos into the server.
	@test -x .cache/xds-protos/bin/python || $(UV) venv -q --python $(BIN)/python .cache/xds-protos
	@$(UV) pip install -q --python .cache/xds-protos/bin/python '$(XDS_PROTOS)'
	@.cache/xds-protos/bin/python protos/xds_descriptors.py

.cache/bin/protoc-gen-openapi .cache/bin/helm .cache/bin/actionlint: | setup
	@$(BIN)/python -m tests.support.tools

.cache/protoc/.ready: .venv/.ready | $(UV)
	@test -x .cache/protoc/bin/python || $(UV) venv -q --python $(BIN)/python .cache/protoc
	@$(UV) pip install -q --python .cache/protoc/bin/python $(PROTOC_TOOLS)
	@touch $@

.PHONY: docs
docs: setup ## Write the generated tables of docs/reference, and the settings in the schema of the chart.
	@$(BIN)/python -m tests.support.reference --write
	@$(BIN)/python -m tests.support.chart_schema --write

.PHONY: manifests
manifests: .cache/bin/helm ## Render deploy/kubernetes from the chart in deploy/helm.
	@$(BIN)/python -m tests.support.helm

UPGRADE ?= --upgrade
.PHONY: lock
lock: setup | $(UV) ## Pin the newest versions that pyproject.toml allows; make lock UPGRADE= pins only what is new.
	@$(UV) pip compile -q $(UPGRADE) --python-version 3.11 --universal --no-emit-index-url --no-emit-find-links \
		--no-annotate --no-header --generate-hashes --group dev --all-extras --no-emit-package pointsman \
		-o requirements.lock pyproject.toml clients/python/pyproject.toml

# What is committed is built, never what lies in the tree. TRANSPORT=grpcio leaves Envoy out.
TRANSPORT ?= envoy
IMAGE_ARCHIVE := .cache/image/$(TRANSPORT).tar

.PHONY: image-oci
image-oci: ## Build the image with buildah, podman or docker; TRANSPORT=grpcio is the one without Envoy.
	@mkdir -p $(dir $(IMAGE_ARCHIVE))
	@deploy/image/build.sh $(IMAGE_ARCHIVE)

.PHONY: image-check
image-check: ## Measure the image that image-oci built, and start it read-only as any user. As root.
	@$(PYTHON) deploy/image/check.py $(IMAGE_ARCHIVE)

.PHONY: dist
dist: | $(UV) ## Build the two distributions, pointsman and pointsman-server, into dist.
	@rm -rf dist
	@$(UV) build -q --out-dir dist/pointsman clients/python
	@$(UV) build -q --out-dir dist/pointsman-server .

.PHONY: chart
chart: .cache/bin/helm ## Package the Helm chart into .cache/chart.
	@.cache/bin/helm package deploy/helm/pointsman --destination .cache/chart

# What .github/workflows/release.yml runs, with TAG, REGISTRY and GITHUB_REPOSITORY set: docs/releasing.md.
.PHONY: release-check
release-check: ## Check that every file names the version of TAG, as in make release-check TAG=v0.1.0.
	@$(PYTHON) deploy/release/notes.py check "$(TAG)"

.PHONY: release-notes
release-notes: ## Print the notes of the release TAG.
	@$(PYTHON) deploy/release/notes.py print "$(TAG)"

.PHONY: release-image release-verify-image release-verify-chart
release-image release-verify-image release-verify-chart:
	@$(PYTHON) deploy/release/artifacts.py $(@:release-%=%)

.PHONY: release-chart
release-chart: chart
	@HELM=.cache/bin/helm $(PYTHON) deploy/release/artifacts.py chart

.PHONY: release-github
release-github:
	@$(MAKE) -s release-notes | gh release create "$(TAG)" --verify-tag --title "$(TAG)" --notes-file -

.PHONY: clean
clean: ## Remove what was built and what dev kept.
	@rm -rf .venv .cache .mutants .pointsman dist
