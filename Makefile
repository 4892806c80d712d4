# VPC Traffic Replay: everything a developer starts. `make` alone lists it.
#
# Variables:
#   PYTHON=/path/to/python3.13   the interpreter for .venv (default: tools/find-python.sh looks for one)
#   ARGS="..."                   passed on to pytest, to the demo, to the benchmark, or to sam deploy
#   ARCH=arm64 | x86_64          make build, make deploy: workers and functions of that architecture (default: as at the last deploy)
#   KEEP=1                       make demo: stay up afterwards, for a second terminal, until Ctrl-C
#   UPGRADE=1                    make lock: take newer versions, not only what changed

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup tools system demo test lint rules types validate cfn-lint checkov scripts format bench build deploy lock clean

# Debian keeps nginx, tc and tcpdump where an ordinary user's PATH does not look.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Hundreds of short programs are started: without bytecode each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
TOOLS := $(CURDIR)/.venv/tools
TYPED := $(wildcard worker/replayer layers/mirroring/mirroring functions lab tests tools)

TEMPLATE := template.yaml
TEMPLATES := $(TEMPLATE) $(wildcard examples/*.yaml worker/image/image.yaml)
SCRIPTS = .ci/run $(shell find . -name '*.sh' -not -path './.*')

# Functions and layers are built by a python3.13 on PATH. Where nobody is called, any Region does, but there must be one.
SAM = PATH="$(CURDIR)/$(BIN):$$PATH" SAM_CLI_TELEMETRY=0 $(TOOLS)/sam/bin/sam
OFFLINE = AWS_DEFAULT_REGION=us-east-1
ifndef AWS_DEFAULT_REGION
ifdef AWS_REGION # which the AWS CLI reads, and neither SAM nor boto3
export AWS_DEFAULT_REGION := $(AWS_REGION)
endif
endif
ARCHITECTURES = $(BIN)/python tools/architectures.py

# Set-up runs again when one of these changed, when the tree moved (.ready holds the place it was made for),
# and when the interpreter under .venv went away.
READY := .venv/.ready
SETUP_INPUTS := requirements.lock pyproject.toml worker/pyproject.toml layers/mirroring/pyproject.toml tools/setup.sh tools/find-python.sh
ifneq ($(shell test -x $(BIN)/python && cat $(READY) 2>/dev/null),$(shell pwd -P))
.PHONY: $(READY)
endif

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) tools ## .venv with Python 3.13 and everything in it
	@:

$(READY): $(SETUP_INPUTS)
	@tools/setup.sh

tools: $(READY) # the programs with packages of their own, in .venv/tools: SAM CLI, emulator, checkers
	@tools/setup-tools.sh

system: ## the system programs that demo, test and bench drive (as root: installs them)
	@tools/system.sh

# Where the kernel grants it no namespaces, the demo replays recorded packets, and needs no programs.
demo: tools ## the whole product on this machine, as a story under real traffic; ends with PASS or FAIL
	@! $(BIN)/python -m lab.network.sandbox true 2>/dev/null || tools/system.sh lab
	@$(BIN)/python -m lab.demo $(ARGS)

test: tools system ## every test; ARGS="tests/worker -k name" for some of them
	@tools/test.sh $(ARGS)

lint: tools system ## ruff, mypy, shellcheck, and the templates by SAM, cfn-lint and checkov
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target checkov types cfn-lint validate scripts rules

rules: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy $(TYPED)

validate: tools
	@$(OFFLINE) $(SAM) validate --lint --template $(TEMPLATE)

cfn-lint: tools
	@$(TOOLS)/checks/bin/cfn-lint --append-rules cfn_lint_serverless.rules -- $(TEMPLATES)

checkov: tools
	@$(TOOLS)/checks/bin/checkov --framework cloudformation --compact --quiet --skip-download $(addprefix --file ,$(TEMPLATES))

scripts: system
	@shellcheck $(SCRIPTS)

format: $(READY) ## rewrites the code as ruff wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(READY) system ## the five measurements, with their ratios
	@$(BIN)/python -m tests.bench $(ARGS)

build: tools ## functions, layers and the worker's bundle into .aws-sam/, for ARCH=arm64 or x86_64
	@chosen=$$($(ARCHITECTURES) choose "$(ARCH)" $(ARGS)) && \
		$(OFFLINE) $(SAM) build --cached --parallel --parameter-overrides $$chosen && \
		$(ARCHITECTURES) pin "$(ARCH)" $(ARGS)

deploy: tools ## the stack into your AWS account; asks for its parameters, shows the changes, then asks again
	@$(ARCHITECTURES) choose "$(ARCH)" $(ARGS) >/dev/null
	@tools/credentials.sh $(ARGS)
	@$(MAKE) --no-print-directory build
	@$(SAM) deploy --guided --confirm-changeset --parameter-overrides file://.aws-sam/answers.yaml $(ARGS)

COMPILE := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.13 --no-emit-index-url

lock: $(READY) ## every lock and the layers' requirements.txt, anew from the pyproject files and tools/*.in
	@$(COMPILE) --generate-hashes $(if $(UPGRADE),--upgrade) \
		worker/pyproject.toml layers/mirroring/pyproject.toml --extra cli --group dev --output-file requirements.lock
	@for package in layers/mirroring worker; do \
		$(COMPILE) --no-annotate --constraint requirements.lock $$package/pyproject.toml --output-file $$package/requirements.txt || exit; \
	done
	@for list in tools/*.in; do \
		$(COMPILE) --generate-hashes $(if $(UPGRADE),--upgrade) $$list --output-file $${list%.in}.lock || exit; \
	done
	@$(MAKE) --no-print-directory setup

clean: ## removes .venv and all caches
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist worker/dist .aws-sam
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
