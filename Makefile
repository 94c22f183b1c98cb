# `make demo`: the main job on real text.  `make test`: everything CI runs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export HF_HUB_OFFLINE := 1

.PHONY: demo test lint

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
