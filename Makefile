# The only list of commands. Everything runs from .venv, which `setup` alone fills.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := .cache
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup generate up test check e2e bench soak compose-test lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## fill .venv (hashed lock), generate the messages, fetch Consul

$(VENV)/.locked: requirements/dev.txt
	@echo "== creating $(VENV) from requirements/dev.txt (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

PROTO_SOURCES := $(shell find protos -name '*.proto') protos/envoy.txt protos/generate.py

$(VENV)/.generated: $(VENV)/.locked $(PROTO_SOURCES)
	@echo "== generating the message classes from protos/"
	@$(BIN)/python -m protos.generate
	@touch $@

$(VENV)/.ready: $(VENV)/.generated pyproject.toml scripts/fetch_consul.py
	@echo "== installing the commands (gateway, gloo, discovery, glooctl)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@$(BIN)/python scripts/fetch_consul.py $(CACHE)/consul
	@touch $@

generate: $(VENV)/.generated ## the message classes, when a .proto changed

lock: ## pin every role's packages anew, with hashes and without addresses
	@for role in glooctl discovery gateway gloo build dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-annotate --no-header --extra $$role pyproject.toml --no-emit-package gloo-consul \
	    -o requirements/$$role.txt || exit 1; done
