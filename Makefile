# `make demo` shows the product, `make demo-full` all three stages; `make test` proves it, and
# `make test-slow` runs what takes longest, every benchmark among it.
# `make docs` builds the documentation into site/, `make dist` what is published into dist/.
# All set up the same .venv, but `make test-vllm`: vLLM has a .venv-vllm of its own.

PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt

VLLM_BIN = .venv-vllm/bin
VLLM_PIP = $(VLLM_BIN)/pip --disable-pip-version-check install --quiet --no-deps

.PHONY: demo demo-full test test-slow test-vllm lint docs dist clean

demo: .venv/demo
	$(BIN)/evomerge-optuna study run studies/quickstart.yaml
	$(BIN)/evomerge-optuna study test quickstart

demo-full: demo
	$(BIN)/evomerge-optuna study run studies/quickstart_dfs.yaml
	$(BIN)/evomerge-optuna study test quickstart-dfs
	$(BIN)/evomerge-optuna study run studies/quickstart_ps_dfs.yaml
	$(BIN)/evomerge-optuna study test quickstart-ps-dfs
	$(BIN)/evomerge-optuna study compare quickstart quickstart-dfs quickstart-ps-dfs

test: .venv/test
	$(BIN)/pytest --numprocesses 2 --dist worksteal

test-slow: .venv/test .venv/transformers4
	$(BIN)/pytest -m slow

test-vllm: .venv-vllm/test
	$(VLLM_BIN)/pytest -m vllm tests/vllm

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dist: .venv/test
	$(BIN)/python -m build --no-isolation

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/test: .venv/demo
	$(PIP) --editable '.[test]'
	touch $@

# The last of the older transformers, which a test has read exports.
.venv/transformers4: .venv/test
	$(BIN)/pip --disable-pip-version-check install --quiet --no-deps --target $@ \
		transformers==4.57.6 tokenizers==0.22.2 huggingface-hub==0.36.2

# vLLM wants an older transformers; the file names every package, so that none is resolved.
.venv-vllm/test: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_PIP) --requirement constraints-vllm.txt
	$(VLLM_PIP) --editable .
	touch $@

clean:
	rm -rf .venv .venv-vllm dist site
