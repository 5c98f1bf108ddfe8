# Plimsoll. `make help` lists what can be asked for.
SHELL := /bin/bash
PY := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup lab test coverage check bench proto cni bpf format clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

setup:  ## Install missing apt packages and the virtual environment
	@deploy/setup.sh

cni: setup  ## Build the CNI plugin
	@$(MAKE) --no-print-directory -C services/node/cni

bpf: setup  ## Build the eBPF programs
	@$(MAKE) --no-print-directory -s -C bpf

lab: cni bpf  ## Run a whole Plimsoll on this machine; ARGS="--nodes 5 --pods 20 --once"
	@$(PY) -m lab $(ARGS)

test: cni bpf  ## Run all tests on two cores; ARGS="-k watermarks" runs some, ARGS=-n0 one after the other
	@$(PY) -m pytest -n 2 $(ARGS)

coverage: setup  ## Tell which branches of the eBPF programs no test takes
	@$(PY) -m tests.datapath.coverage

check: setup  ## Lint, types, imports, protos
	@deploy/check.sh

bench: cni bpf  ## Run the benchmarks and print their table
	@$(PY) -m tests.bench $(ARGS)

proto: setup  ## Regenerate the stubs from the protos
	@deploy/proto.sh

format: setup  ## Format Python, C and protos
	@.venv/bin/ruff check --fix-only -q . ; .venv/bin/ruff format -q . ; .venv/bin/buf format -w
	@clang-format-19 --style=file:bpf/.clang-format -i bpf/*.bpf.c bpf/include/*.h tests/datapath/bpf/*.c

clean:  ## Remove what builds and tests left behind
	@rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	@$(MAKE) --no-print-directory -C services/node/cni clean
	@$(MAKE) --no-print-directory -C bpf clean
