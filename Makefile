# make: set up and run the main job. make help: everything else.
.DEFAULT_GOAL := run
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config/config.yaml
SNAKEMAKE := PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakemake --cores all
INSTALL := $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib nsvit > /dev/null || true  # all cores; pip uses one, and none for nsvit

.PHONY: help setup cluster run test test-kills test-slurm bench lint format pretrain schema docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

run: setup ## (default) set up .venv and run the main job (CONFIG=config/smoke.yaml for another)
	$(SNAKEMAKE) --configfile $(CONFIG)

setup: $(VENV)/.run ## the virtual environment alone (PYTHON=python3.12 for another interpreter)

cluster: $(VENV)/.cluster ## Snakemake's plugins for clusters (docs/cluster.md)

test: $(VENV)/.dev ## every test but test-kills and test-slurm
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadgroup

test-kills: $(VENV)/.dev ## the smoke workflow, killed 24 times at random moments; minutes (NSVIT_KILLS=6 for fewer)
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -s tests/kills

test-slurm: $(VENV)/.dev $(VENV)/.cluster ## the smoke workflow through a real SLURM of one node (root; apt unless SLURM is installed)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.slurm || { code=$$?; \
	  [ $$code -eq 77 ] && echo "make test-slurm: LEFT OUT, nothing was tested"; exit $$code; }

bench: $(VENV)/.dev ## speed beside the published procedure and foolbox, into docs/benchmarks.md; minutes
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m benchmarks $(BENCH)

lint: $(VENV)/.dev ## formatting, style, types, layers of imports (the workflow is linted by a test)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow

format: $(VENV)/.dev ## format everything
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

pretrain: setup ## train the shipped weights from scratch, into results/menagerie/pretrained
	$(SNAKEMAKE) pretrain --configfile $(CONFIG)

schema: setup ## write config/schema.json from nsvit/config/
	$(BIN)/nsvit config-schema --out config/schema.json

docs: setup ## copy the finished default run into README.md and docs/default_run.md
	$(BIN)/python docs/refresh.py

clean: ## remove the results of every experiment, and the environment
	rm -rf $(VENV) .snakemake
	find results -mindepth 1 -not -name README.md -delete

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nsvit needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(INSTALL) -e '.[dev]'
	@$(COMPILE)
	@touch $@

$(VENV)/.cluster: $(VENV)/.run
	$(INSTALL) -e '.[cluster]'
	@touch $@
