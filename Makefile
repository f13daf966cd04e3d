PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SP := $(BIN)/stock-pipeline

.DEFAULT_GOAL := help
.PHONY: help setup run test test-unit test-faults test-soak bench up down stop start restart logs init-db produce consume tick ohlcv

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-11s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Virtual environment and packages, once

$(VENV)/.ready: requirements.lock pyproject.toml
	@echo "installing Python packages into $(VENV) (450 MB, one or two minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

run: setup ## Everything in the foreground; Ctrl-C stops it
	@$(SP) run

test: setup ## All tests
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/dagster definitions validate --log-level warning
	@$(BIN)/python -m pytest

test-unit: setup ## Tests that need no service
	@$(BIN)/python -m pytest -m "not stack"

FAULTS ?= 100
SEED ?= 1
test-faults: setup ## `run` under 1,000 trades/s and FAULTS faults, chosen by SEED; CLUSTER=1: on a Spark cluster
	@$(BIN)/python -m stock_pipeline_tests.faults --faults $(FAULTS) --seed $(SEED) $(if $(CLUSTER),--cluster)

test-soak: setup ## A day of trades, 50 times as fast, and what grows meanwhile: half an hour
	@$(BIN)/python -m stock_pipeline_tests.faults.soak

bench: setup ## All benchmarks, two hours: benchmarks/results; QUICK=1: catch-up and latency, small
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

up start: setup ## Kafka and TimescaleDB in the background; all, in containers, with STACK=docker
	@$(SP) up

down stop: setup ## Stop everything
	@$(SP) down

restart: down up ## Stop, then start again

logs: setup ## The end of a log: make logs NAME=kafka
	@$(SP) logs $(NAME)

init-db produce consume: setup ## The command of the same name
	@$(SP) $@

tick ohlcv: setup ## One Spark stream in the foreground
	@$(SP) stream $@
