# The environment .venv is made from pyproject.toml and constraints.txt, and made anew when either changes.
#   make run ARGS="--set build.rounds=2"     make run PRESET=my.yaml     make test ARGS="tests/storage -x"

# The first Python that is 3.11 or later; PYTHON=/path/to/python decides otherwise.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
PRESET ?= quickstart
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help run test lint format types check clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

run: $(STAMP) ## the main job end to end (preset quickstart)
	@$(BIN)/policylong run --preset $(PRESET) $(ARGS)

test: $(STAMP) ## all tests
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP) ## let ruff put the format right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

check: lint types test ## what CI runs before the quickstart

clean: ## remove the environment and caches; homes stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later found; give one: make PYTHON=/path/to/python"; exit 2; }
	@echo "setting up .venv with $(PYTHON): about 3.4 GB, a few minutes"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	@touch $@
