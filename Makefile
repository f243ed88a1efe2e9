# The only list of commands. Everything runs from .venv, which `setup` alone fills.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := .cache
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup generate up test check format e2e bench soak compose-test lock clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## fill .venv (hashed lock), generate the messages, fetch Consul

$(VENV)/.locked: requirements/dev.txt
	@echo "== creating $(VENV) from requirements/dev.txt (about a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

PROTO_SOURCES := $(shell find protos -name '*.proto') protos/envoy.txt protos/construct.py protos/generate.py

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
	@for role in glooctl discovery gateway gloo petstore build dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-annotate --no-header --extra $$role pyproject.toml --no-emit-package gloo-consul \
	    -o requirements/$$role.txt || exit 1; done

up: setup ## the whole system as local processes (every port moves: PORT_OFFSET=10000, HTTP_PORT=…)
	@$(BIN)/python scripts/up.py

test: setup ## all tests but the container ones and the long ones
	$(BIN)/pytest -n 2 -m "not compose and not soak"

check: setup ## formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## mend formatting and what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

e2e: setup ## the stories against real Consul, Envoy and our processes
	$(BIN)/pytest -m "e2e and not soak"

bench: setup ## write-to-live times, bursts, starts, fan-out, beside a control plane that does nothing
	$(BIN)/python -m benchmarks

soak: setup ## the long tests
	$(BIN)/pytest -m soak --timeout 0

compose-test: setup ## the compose file, in real containers
	@docker compose version >/dev/null 2>&1 && docker info >/dev/null 2>&1 \
	  || { echo "compose-test needs a running Docker with the compose plugin (is DOCKER_HOST right?)" >&2; exit 1; }
	$(BIN)/pytest -m compose --timeout 1200

clean: ## remove everything that was made here, but not .venv
	rm -rf .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +
