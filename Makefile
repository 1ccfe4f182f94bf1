PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-long lint smoke gpu clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: .venv/.installed ## install everything into .venv

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

# One thread: at this size several gain little, and on a busy machine they wait for each other.
demo smoke: export OMP_NUM_THREADS = 1
demo: setup ## restore, train, invert and edit rendered portraits: four pictures in some minutes
	$(BIN)/python -m experiments.demo --overwrite

test: setup ## the test suite, minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: setup ## the long tests as well
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

METHODS := $(sort $(basename $(notdir $(wildcard experiments/configs/methods/*.yaml))))

smoke: setup ## every method for a few iterations at 32 px, and a table
	for method in $(METHODS); do $(BIN)/python -m experiments.fit --method $$method --preset smoke --overwrite || exit 1; done
	$(BIN)/python -m experiments.reproduce table1 --preset smoke

gpu: setup ## on a machine with a GPU: its tests, every method at 64 px, StyleGAN2's speed; one report, 12 minutes
	$(BIN)/python -m experiments.gpu --overwrite

clean: ## remove the environment and caches, not the runs
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache *.egg-info
