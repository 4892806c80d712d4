# VPC Traffic Replay: everything a developer starts. `make` alone lists it.
#
# Variables:
#   PYTHON=/path/to/python3.13   the interpreter for .venv (default: tools/find-python.sh looks for one)
#   ARGS="..."                   passed on to pytest, to the demo or to the benchmark
#   KEEP=1                       make demo: keep the logs of the run in demo-files/
#   UPGRADE=1                    make lock: take newer versions, not only what changed

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup system demo test lint rules types format bench lock clean

# Debian keeps nginx, tc and tcpdump where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

BIN := .venv/bin
TYPED := $(wildcard worker/replayer layers/mirroring/mirroring functions lab tests)

# Set-up runs again when one of these changed, when the tree moved (.ready holds the place it was made for),
# and when the interpreter under .venv went away.
READY := .venv/.ready
SETUP_INPUTS := requirements.lock pyproject.toml worker/pyproject.toml layers/mirroring/pyproject.toml tools/setup.sh tools/find-python.sh
ifneq ($(shell test -x $(BIN)/python && cat $(READY) 2>/dev/null),$(shell pwd -P))
.PHONY: $(READY)
endif

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## .venv with Python 3.13 and everything in it
	@:

$(READY): $(SETUP_INPUTS)
	@tools/setup.sh

system: ## the system programs that demo, test and bench drive (as root: installs them)
	@tools/system.sh

demo: $(READY) system ## real traffic, mirrored by the kernel and replayed; ends with PASS or FAIL
	@$(BIN)/python -m lab.demo $(ARGS)

# One process: the end-to-end tests measure time and share two cores with the servers they start.
test: $(READY) system ## every test; ARGS="tests/worker -k name" for some of them
	@$(BIN)/python -m pytest $(ARGS)

lint: rules types ## ruff (rules and format) and mypy

rules: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy $(TYPED)

format: $(READY) ## rewrites the code as ruff wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY) system ## the five measurements, with their ratios
	@$(BIN)/python -m tests.bench $(ARGS)

lock: $(READY) ## requirements.lock, and the layer's requirements.txt, anew from the pyproject files
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.13 \
		--generate-hashes --no-emit-index-url $(if $(UPGRADE),--upgrade) \
		worker/pyproject.toml layers/mirroring/pyproject.toml --extra cli --group dev --output-file requirements.lock
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.13 \
		--no-emit-index-url --no-annotate --constraint requirements.lock \
		layers/mirroring/pyproject.toml --output-file layers/mirroring/requirements.txt
	@$(MAKE) --no-print-directory setup

clean: ## removes .venv and all caches
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist worker/dist
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
