# `make` alone lists the targets. Every target makes .venv itself, from the lock files alone.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCKS := requirements/bootstrap.lock requirements/all.lock

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test unit integration acceptance test-docker test-crash test-chaos test-long check format records docs release lock clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Begin here
demo: $(READY) ## start the whole stack on this machine, send orders through it, show what happened
	@$(BIN)/towpath demo
test: $(READY) ## prove it: unit, integration (real parts) and acceptance rings; needs neither root nor Docker
	@$(BIN)/python -m tests.run unit integration acceptance

##@ The stack
up: $(READY) ## start the stack and leave it running
	@$(BIN)/towpath up
down: $(READY) ## stop it; its data stays
	@$(BIN)/towpath down

##@ One ring of tests
unit: $(READY) ## seconds, no socket
	@$(BIN)/python -m tests.run unit
integration: $(READY) ## against the real parts
	@$(BIN)/python -m tests.run integration
acceptance: $(READY) ## whole orders through the whole stack
	@$(BIN)/python -m tests.run acceptance
test-docker: $(READY) ## the compose file on a real Engine (installs one if the machine has none: needs root then)
	@$(BIN)/python -m tests.run docker
test-crash: $(READY) ## the long form of the crash tests: half an hour, not in CI
	@$(BIN)/python -m tests.run crash
test-chaos: $(READY) ## the long form of the chaos test: ten minutes of everything at once, not in CI
	@$(BIN)/python -m tests.run chaos
test-long: $(READY) ## a whole project of its own from the wheel, for minutes: not in CI
	@$(BIN)/python -m tests.run long

##@ For those who change Towpath
setup: $(READY) ## make .venv from the lock files
check: $(READY) ## format, lint, types, stale records, contracts, proof of the sagas, stale docker-compose.yml, names, docs, links
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/towpath contracts test && $(BIN)/towpath saga check sagas && $(BIN)/towpath compose --check && $(BIN)/python -m pytest -q -n 2 tests/tidy tests/unit/docs
format: $(READY) ## fix what the formatter and the linter can fix
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .
records: $(READY) ## write the record classes anew from schemas/avro
	@$(BIN)/towpath contracts generate
docs: $(READY) ## build the documentation site into site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict && echo "site/index.html"
release: $(READY) ## build the wheel into dist/, try it in an empty environment, write its SBOM (CycloneDX)
	@bash infra/release.sh $(BIN)
lock: $(READY) ## resolve the lock files anew
	@bash requirements/lock.sh $(BIN)/uv
clean: ## remove .venv and caches (the data of the stack stays: `towpath up --fresh` removes it)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

$(READY): pyproject.toml $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Towpath needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) from the lock files" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements/bootstrap.lock requirements/all.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
