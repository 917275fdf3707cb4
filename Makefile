# prosody-sidecar. `make` alone lists what there is; every target does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

# make test PYTEST_ARGS="-k cancelled -x"; make test TESTS=tests/unit; without TESTS all of them
PYTEST_ARGS ?=
# make faults ARGS="hang reset --seconds 20"
ARGS ?=
TESTS ?=

.PHONY: help demo run test lint faults crash bench clean

include packaging/packaging.mk

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## The main job as a short story: real Prosody, real sidecar, a backend that dies and comes back
	@tools/setup.sh demo
	@$(PYTHON) -m demo

run: ## The sidecar in the foreground, with a demo backend behind it: try README's curl lines
	@tools/setup.sh run
	@exec $(PYTHON) -m sidecar run --demo

test: ## Everything that must hold: lint, unit tests, then whole systems and real Prosodys
	@tools/setup.sh test
	@$(MAKE) --no-print-directory lint
	@$(PYTHON) -m tests $(TESTS) $(PYTEST_ARGS)

lint: ## ruff, mypy --strict, luacheck
	@tools/setup.sh lint
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy --strict
	@luacheck --no-color --quiet lua/

faults: ## What users get while the backend fails in each way it can, as a table
	@tools/setup.sh run
	@$(PYTHON) -m tests.system.faults $(ARGS)

crash: ## Kills the sidecar with -9 a hundred times while people join and events come in; ARGS="--kills 10" for less
	@tools/setup.sh run
	@$(PYTHON) -m tests.crash $(ARGS)

bench: ## The sidecar beside nginx, Varnish and nothing at all; ARGS="--quick" for 2 minutes instead of 10
	@tools/setup.sh bench
	@$(PYTHON) -m bench $(ARGS)

clean: ## Takes away what the other targets made here (Debian packages stay)
	@rm -rf --one-file-system .venv .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
