# `make demo` shows the product; `make test` proves it. Both set up the same .venv.

PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test lint clean

demo: .venv/demo
	$(BIN)/evomerge-optuna study run studies/quickstart.yaml
	$(BIN)/evomerge-optuna study test quickstart

test: .venv/test
	$(BIN)/pytest

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/test: .venv/demo
	$(PIP) --editable '.[test]'
	touch $@

clean:
	rm -rf .venv
