.RECIPEPREFIX = >
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: install demo test test-slow check

# torch first and pinned, so that a machine without a GPU gets no CUDA packages
$(VENV)/.installed: pyproject.toml
> $(PYTHON) -m venv $(VENV)
> $(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
> $(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
> touch $@

install: $(VENV)/.installed

demo: install
> $(BIN)/semiseg demo --out demo

check: install
> $(BIN)/ruff format --check .
> $(BIN)/ruff check .
> $(BIN)/mypy

test: check
> OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not realdata"

test-slow: install
> $(BIN)/pytest -m "slow or realdata"
