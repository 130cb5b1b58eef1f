# Everything a fresh machine needs is Python >= 3.11 (with venv) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The tests start many processes; each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint types contracts unit faults bench screenshots clean
.DELETE_ON_ERROR:

demo: $(VENV)/.app
	@$(BIN)/wbtui demo

test: lint types contracts unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache
	@$(BIN)/python tools/check_lock.py

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n 4 --dist loadscope

faults: $(VENV)/.dev
	$(BIN)/python -m pytest -m "faults" tests

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

screenshots: $(VENV)/.dev
	$(BIN)/python tools/screenshots.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "wbtui: $$($(PYTHON) --version 2>&1) found; expected Python 3.11 or later; run: make PYTHON=python3.11 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "wbtui: $(PYTHON) cannot make a virtual environment; install its venv package (Debian: python3-venv)" >&2; exit 2; }

$(VENV)/.app: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "wbtui: installing into $(VENV) (once; a minute or two)" >&2
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.app
	@$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
