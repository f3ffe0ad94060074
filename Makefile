# `make run` and `make test` need Linux, git, make and Python 3.11 or 3.12; everything else they install into .venv.
# Settings: BACKEND=cpu|gpu (default: gpu where nvidia-smi works), PYTHON=…, PIP_FIND_LINKS=folder of wheels.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
BACKEND ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
LOCK := requirements/$(BACKEND).txt
STAMP := $(VENV)/installed-$(BACKEND)
WORLDS := $(VENV)/installed-worlds
UV := $(BIN)/python -m uv

# uv does not read PIP_FIND_LINKS. Without such a folder the CPU build of torch comes from PyTorch's own index.
ifdef PIP_FIND_LINKS
TORCH_SOURCE := --find-links "$(PIP_FIND_LINKS)"
else ifeq ($(BACKEND),cpu)
TORCH_SOURCE := --torch-backend cpu
endif

# uv does not read where pip takes packages from either.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

# Nothing calls home: each tool reads its own variable, in its own spelling.
export DO_NOT_TRACK := 1
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export VLLM_NO_USAGE_STATS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
# The default model is inside a package; set HF_HUB_OFFLINE=0 to take one from the hub.
export HF_HUB_OFFLINE ?= 1
# Commands that steptool starts (dvc, and the stages through it) are the ones in .venv.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run compare bench serve deploy services test test-slow chaos regime lint format lock doctor clean

help:  ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP)  ## install everything into .venv (the other targets do it themselves)

$(STAMP): $(LOCK) requirements/model.txt requirements/bootstrap.txt pyproject.toml
	@python=""; \
	for candidate in $(PYTHON) python3.11 python3.12 python3; do \
	    if "$$candidate" -c 'import sys; raise SystemExit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; \
	    then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "No Python 3.11 or 3.12 was found. Install one (Debian: apt install python3 python3-venv)," \
	        "or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) for $(BACKEND) with $$("$$python" --version); the first time takes some minutes."; \
	"$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/bootstrap.txt
	$(UV) pip install --python $(BIN)/python --no-deps --compile-bytecode $(TORCH_SOURCE) -r $(LOCK) -r requirements/model.txt
	$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: $(STAMP)  ## run the pipeline, from tasks to registered model, and print the results table
	$(BIN)/steptool run

compare: $(STAMP)  ## train every method on three seeds, and print how they compare: hours; it goes on where it stopped
	$(BIN)/dvc repro benchmarks/compare/dvc.yaml
	@cat benchmarks/compare/made/table.md

# Benchmarks of others, which only this target needs, without their dependencies: the lock has what they import.
$(WORLDS): requirements/worlds.txt $(STAMP)
	$(UV) pip install --python $(BIN)/python --no-deps $(TORCH_SOURCE) -r requirements/worlds.txt
	@touch $@

LIMIT ?= 10
bench: $(WORLDS)  ## measure base, sft and ppo2 of `make run` on every world that needs no judge (minutes; it resumes)
	$(BIN)/steptool bench all --policy base --policy sft --policy ppo2 --against sft --limit $(LIMIT)

PREFECT_PORT ?= 4200
MLFLOW_PORT ?= 5000
serve: $(STAMP)  ## run a Prefect server, a worker and MLflow's pages on this machine until Ctrl-C
	$(BIN)/steptool serve --port $(PREFECT_PORT) --mlflow-port $(MLFLOW_PORT)

deploy: $(STAMP)  ## register infra/prefect.yaml with the Prefect server at PREFECT_API_URL
	$(BIN)/steptool deploy

# Each worker computes with one thread: several would wait for each other.
test: $(STAMP)  ## run the quick tests, on all cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 8 --dist worksteal

test-slow: $(STAMP)  ## run all tests, also those with a real engine, server or pipeline
	$(BIN)/python -m pytest

N ?= 20
SEED ?= 1
JOB ?= toy
chaos: $(STAMP)  ## kill the processes of a pipeline at random moments: make chaos N=20 SEED=1 JOB=toy|tiny
	STEPTOOL_CHAOS_ROUNDS=$(N) STEPTOOL_CHAOS_SEED=$(SEED) STEPTOOL_CHAOS_JOB=$(JOB) $(BIN)/python -m pytest tests/chaos -s

regime: $(STAMP)  ## print which credit agrees with the truth, by horizon, attempts and verdict (minutes; resumes)
	$(BIN)/python -m benchmarks.regime

lint: $(STAMP)  ## check the code with ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## rewrite the code as `make lint` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Resolved for the older Python: those versions install on 3.12 too. Names and versions only, no addresses.
COMPILE := $(UV) pip compile pyproject.toml --quiet --upgrade --python-version 3.11 --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --extra dev --extra flows --extra services --extra bfcl --extra tau2
lock: $(STAMP)  ## pin the newest versions that pyproject.toml allows
	$(COMPILE) --extra cpu $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu) -o requirements/cpu.txt
	$(COMPILE) --extra gpu -o requirements/gpu.txt

services: $(STAMP)  ## run a team's services without containers (PostgreSQL, S3, MLflow, Prefect) until Ctrl-C
	$(BIN)/python -m steptool.orchestration.services.team

doctor: $(STAMP)  ## say what this machine lacks, and how to fix it
	$(BIN)/steptool doctor

clean:  ## remove caches of tools; .venv, data and models stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
