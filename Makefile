# setup · run · test · lint · bench · protos: everything else is in docs/ and CONTRIBUTING.md
SHELL := /bin/bash
PYTHON ?= python3
UV := .venv/bin/uv
BIN := .venv/bin
BUF_VERSION := 1.75.0

.PHONY: setup
setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml clients/python/pyproject.toml
	@test -x $(UV) || { $(PYTHON) -m venv .venv && .venv/bin/pip -q --disable-pip-version-check install 'uv==0.13.*'; }
	$(UV) pip install -q --python $(BIN)/python -r requirements.lock
	$(UV) pip install -q --python $(BIN)/python --no-deps -e clients/python -e .
	@touch $@
