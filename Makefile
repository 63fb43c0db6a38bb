# Every target sets up its own environment in .venv first: with uv where it is installed, else with venv and pip.

PYTHON ?= python3
BIN := .venv/bin
# A study of one's own; the kept one is studies/digits.
STUDY := studies/digits-mine

.DEFAULT_GOAL := help
.PHONY: help search hypotheses calibration setup docs test test-all check faults bench bench-samplers bench-scale lint audit clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Another interpreter than python3: make PYTHON=python3.12 ..."

search: setup ## Run the digits study, search to verdict, or go on where it stopped
	$(BIN)/filter-search run configs/digits.yaml --out $(STUDY) --resume

hypotheses: setup ## Run the question's own studies and put them side by side, which takes an hour
	for name in combinations-k2 combinations-k3 combinations-k4 combinations-k5 combinations-k6; do \
	  $(BIN)/filter-search run configs/$$name.yaml --out studies/combinations/$$name --resume || exit; done
	for name in classes-2 classes-5 classes-10; do \
	  $(BIN)/filter-search run configs/$$name.yaml --out studies/classes/$$name --resume || exit; done
	$(BIN)/filter-search run configs/memory.yaml --out studies/memory --resume
	$(BIN)/python -m search.hypotheses studies/combinations studies/classes studies/memory

calibration: setup ## Measure how often verdicts err, into studies/calibration
	$(BIN)/python -m search.calibration
	OMP_NUM_THREADS=1 $(BIN)/python -m search.loopcalibration

setup: .venv/.installed ## Set up the environment in .venv

test: setup ## Run the tests, fast and integration
	$(BIN)/python -m pytest -m "not slow"

test-all: setup ## Run every test, whole studies too
	$(BIN)/python -m pytest

check: lint ## Run what a change must pass: lint, then the tests with coverage
	$(BIN)/python -m pytest -m "not slow" --cov=search

docs: setup ## Build the documentation into build/docs, warnings as errors
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs build/docs
	@echo build/docs/index.html

faults: setup ## Break studies two hundred times, in SQLite and PostgreSQL, which takes half an hour
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults --write tests/faults/injections.md

bench: setup ## Measure training against other ways, and bookkeeping, in ten minutes
	PYTHONPATH=tests $(BIN)/python -m benchmarks --write tests/benchmarks/training.md
	PYTHONPATH=tests $(BIN)/python -m benchmarks.bookkeeping --write tests/benchmarks/bookkeeping.md

bench-samplers: setup ## Measure samplers and the surrogate again, which takes an hour
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.samplers --write tests/benchmarks/samplers.md

bench-scale: setup ## Measure many workers on one study in PostgreSQL, in five minutes
	PYTHONPATH=tests $(BIN)/python -m benchmarks.scale --write tests/benchmarks/scale.md

lint: setup ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: setup ## Look for known vulnerabilities in what is installed, where the service can be reached
	$(BIN)/python .ci/audit.py $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

clean: ## Remove the environment and all caches; studies stay
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find search tests -name __pycache__ -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is not Python 3.11 or newer, which this project needs; name one that is:" \
	    "make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up .venv, once; on Linux this downloads PyTorch with CUDA, some 3 GB."
	@if command -v uv >/dev/null; then \
	  { [ -x $(BIN)/python ] || { rm -rf .venv && uv venv --python "$(PYTHON)" .venv; }; } && \
	  uv pip install --python $(BIN)/python --editable '.[dev]'; \
	else \
	  { [ -x $(BIN)/pip ] || { rm -rf .venv && "$(PYTHON)" -m venv .venv; }; } && \
	  $(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]'; \
	fi
	@touch $@
