# `make demo`: the main job on real text.  `make test`: everything CI runs.  `make bench`: tests/benchmarks/README.md.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export HF_HUB_OFFLINE := 1

.PHONY: demo test lint bench

demo: .venv/installed-demo
	rm -rf demo-results
	$(BIN)/python examples/pilot --out demo-results

test: lint
	$(BIN)/python -m pytest

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy bimix_tracking integrations/bimix_integrations tests
	MYPYPATH=examples/pilot $(BIN)/mypy examples

bench: .venv/installed-bench
	env -u OPENBLAS_NUM_THREADS $(BIN)/python tests/benchmarks/speed.py
	$(BIN)/python tests/benchmarks/accuracy.py --splits 20
	$(BIN)/python tests/benchmarks/regmix.py
	$(BIN)/python tests/benchmarks/decisions.py

.venv/installed-demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "Installing torch, transformers and MLflow into .venv: a minute or two"
	$(PIP) --editable '.[mlflow,transformers,report]'
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "Installing the development environment into .venv: a minute or two"
	$(PIP) --editable '.[dev]'
	touch $@

.venv/installed-bench: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "Installing LightGBM into .venv, to compare with"
	$(PIP) --editable '.[bench]'
	touch $@
