# prosody-sidecar. `make` lists the targets; every target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python

# make test PYTEST_ARGS="-k cancelled -x"; make test TESTS=tests/unit; without TESTS all of them
PYTEST_ARGS ?=
# make faults ARGS="hang reset --seconds 20"
ARGS ?=
TESTS ?=

.PHONY: help demo demo-browser run unit test test-jitsi test-shards lint format faults crash damage soak soak-shards failures long-runs bench clean

include packaging/packaging.mk

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A short demonstration: real Prosody, real sidecar, a backend that stops and starts again
	@tools/setup.sh demo
	@$(PYTHON) -m demo

demo-browser: ## A meeting in your own browser: change its settings, and see a refusal
	@tools/setup.sh demo browser
	@$(PYTHON) -m demo.browser

run: ## The sidecar in the foreground with a demo backend, for the curl commands in README
	@tools/setup.sh run
	@exec $(PYTHON) -m sidecar run --demo

unit: ## Only the unit tests, in seconds, without Prosody; PYTEST_ARGS="-k cancelled -x" for a part
	@tools/setup.sh unit
	@$(PYTHON) -m pytest tests/unit $(PYTEST_ARGS)

test: ## Lint, unit tests, and the tests with whole systems and real Prosodys
	@tools/setup.sh test
	@$(MAKE) --no-print-directory lint
	@$(PYTHON) -m tests $(TESTS) $(PYTEST_ARGS)

test-jitsi: ## The tests beside Jitsi's modules and in the browser, with an installed Jitsi: JITSI_MEET=/usr/share/jitsi-meet
	@test -n "$(JITSI_MEET)" || { echo "give the folder of your Jitsi: make test-jitsi JITSI_MEET=/usr/share/jitsi-meet" >&2; exit 2; }
	@tools/setup.sh test
	@JITSI_MEET="$(JITSI_MEET)" $(PYTHON) -m tests.rig.jitsi
	@JITSI_MEET="$(JITSI_MEET)" $(PYTHON) -m pytest -m jitsi tests/prosody tests/browser $(PYTEST_ARGS)

test-shards: ## Several sidecars with one real Valkey or Redis that fails in every way
	@tools/setup.sh test
	@$(PYTHON) -m pytest tests/shards $(PYTEST_ARGS)

lint: ## ruff, mypy --strict, luacheck; for the script in the page tsc and eslint
	@tools/setup.sh lint
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy --strict
	@luacheck --no-color --quiet lua/
	@tsc --project frontend
	@env NODE_PATH=/usr/share/nodejs eslint --format unix frontend tests/frontend demo/page

format: ## Formats the Python files, and fixes what ruff can fix
	@tools/setup.sh unit
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

faults: ## A table of what users get in each kind of backend failure
	@tools/setup.sh run
	@$(PYTHON) -m tests.system.faults $(ARGS)

crash: ## Kills the sidecar with -9 a hundred times during joins and events; ARGS="--kills 10" for fewer
	@tools/setup.sh run
	@$(PYTHON) -m tests.crash $(ARGS)

damage: ## Damages each file of the module in every way, on both Prosodys, and checks who can join
	@tools/setup.sh test
	@SOAK=1 $(PYTHON) -m pytest tests/prosody/test_guard.py --durations=5 $(PYTEST_ARGS)

soak: ## Twenty minutes in which everything goes wrong at random; ARGS="--minutes 5 --seed 7" for another run
	@tools/setup.sh run
	@$(PYTHON) -m tests.soak $(ARGS)
	@SHARDS_STEPS=100000 HISTORIES_STEPS=100000 $(PYTHON) -m pytest tests/unit/decisions/test_shards_machine.py tests/unit/decisions/test_histories.py

failures: ## Breaks a booted Debian 12 and 13 in each way of docs/failures.md, and writes its table (needs root, 15 minutes)
	@tools/setup.sh test boot
	@$(PYTHON) -m tests.failures $(ARGS)

soak-shards: ## Fifteen minutes in which the engine of three shards fails every twenty seconds; ARGS as above
	@tools/setup.sh test
	@$(PYTHON) -m tests.shards.soak $(ARGS)

long-runs: ## All long runs in sequence (about 45 minutes); a failed one does not stop the next
	@$(MAKE) --no-print-directory --keep-going --jobs=1 faults crash damage soak soak-shards

bench: ## Compares the sidecar with nginx, Varnish and no proxy; ARGS="joins herd" for some parts, "--quick" for 3 minutes instead of 15
	@tools/setup.sh bench
	@$(PYTHON) -m bench $(ARGS)

clean: ## Removes what the other targets made here (Debian packages stay)
	@rm -rf --one-file-system .venv .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
