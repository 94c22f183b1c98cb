# `make demo`: the main job on real text.  `make check`: the loop of a minute.  `make --jobs 3 test`: everything CI runs.
# `make bench`: tests/benchmarks/README.md.
PYTHON ?= python3
BIN := .venv/bin
# Not compiled while it is installed: pip does that on one processor, with nothing beside it, and a demo needs a tenth of it.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
HUGGING_FACE_TESTS := $(addprefix tests/adapters/trainers/test_,transformers.py forward.py collate.py trl.py)
# A file at a time on each process, in the order of tests/conftest.py. Trainings of one thread each don't slow one another
# down. More processes than processors: a fifth of the time is spent waiting, for servers, browsers and what is killed.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
export HF_HUB_OFFLINE := 1

.PHONY: demo check test test-core test-all test-transformers-4 lint docs bench

demo: .venv/installed-demo
	rm -rf demo-results
	$(BIN)/python examples/pilot --out demo-results

# Side by side: mypy takes one processor for a minute, and more where it hasn't run before.
check: .venv/installed-dev
	$(MAKE) --no-print-directory --jobs 2 lint test-core

test-core: .venv/installed-dev
	$(PYTEST) --numprocesses 2 -m 'not statistical' tests/core

test: lint test-all test-transformers-4

test-all: .venv/compiled .venv/installed-mlflow-2.13
	$(PYTEST) --numprocesses 4 --durations 30

test-transformers-4: .venv/compiled .venv/installed-transformers-4
	PYTHONPATH=.venv/transformers-4 $(PYTEST) --numprocesses 2 $(HUGGING_FACE_TESTS)

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy bimix_tracking integrations/bimix_integrations tests docs/_hooks docs/make_sweep.py docs/pictures/make.py
	MYPYPATH=examples:examples/pilot $(BIN)/mypy examples --exclude 'examples/(benchmarks|scale)/'
	MYPYPATH=examples/benchmarks:examples/pilot $(BIN)/mypy examples/benchmarks
	MYPYPATH=examples/scale:examples/benchmarks:examples/pilot $(BIN)/mypy examples/scale

# The site, into ./site; `$(BIN)/mkdocs serve` shows it while you write.
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/installed-dev .venv/installed-bench
	env -u OPENBLAS_NUM_THREADS $(BIN)/python tests/benchmarks/speed.py
	env -u OPENBLAS_NUM_THREADS -u OMP_NUM_THREADS $(BIN)/python tests/benchmarks/engine.py
	$(BIN)/python tests/benchmarks/accuracy.py --splits 20
	$(BIN)/python tests/benchmarks/regmix.py
	$(BIN)/python tests/benchmarks/decisions.py
	$(BIN)/python tests/benchmarks/calibration.py
	$(BIN)/python tests/benchmarks/scale.py
	$(BIN)/python tests/benchmarks/anchor_worth.py
	$(BIN)/python tests/benchmarks/designs.py --only pool
	$(BIN)/python tests/benchmarks/overhead.py
	$(BIN)/python tests/benchmarks/reading.py
	$(BIN)/python tests/benchmarks/offline.py
	$(BIN)/python tests/benchmarks/log_call.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/entropy.py
	$(BIN)/python tests/benchmarks/ray_entropy.py
	$(BIN)/python tests/benchmarks/report_page.py
	$(BIN)/python tests/benchmarks/startup.py

.venv/made:
	$(PYTHON) -m venv .venv
	touch $@

.venv/installed-demo: .venv/made pyproject.toml constraints.txt
	@echo "Installing torch, transformers and MLflow into .venv: a minute or two"
	$(PIP) --editable '.[mlflow,transformers,report]'
	touch $@

.venv/installed-dev: .venv/made pyproject.toml constraints.txt
	@echo "Installing the development environment into .venv: a minute or two"
	$(PIP) --editable '.[dev]'
	touch $@

# Before the tests, to which a warning of the compiler would be an error. Not what they never import, a third of it all;
# templates among the packages are no Python.
UNUSED := /(tests?|_inductor|_dynamo|transformers/models|rllib|serve|databricks|lexers|networkx|fontTools|physics|_vendor)/
MODELS := $(addprefix .venv/lib/python3*/site-packages/transformers/models/,auto bert gpt2 llama roberta t5)
.venv/compiled: .venv/installed-dev
	-$(BIN)/python -m compileall -q -j 2 -x '$(UNUSED)' .venv/lib > /dev/null
	$(BIN)/python -m compileall -q $(MODELS)
	touch $@

# The last 4.x and what it pins, in a folder of its own that goes before the environment's 5.x.
.venv/installed-transformers-4: .venv/made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/transformers-4 \
		transformers==4.57.6 huggingface_hub==0.36.2 tokenizers==0.22.2 datasets==4.8.5
	touch $@

# An older MLflow, in an environment of its own: it makes stores that are read, and must be able to open them after.
.venv/installed-mlflow-2.13: .venv/made
	$(PYTHON) -m venv .venv/mlflow-2.13
	.venv/mlflow-2.13/bin/python -m pip install --quiet --disable-pip-version-check \
		mlflow-skinny==2.13.2 sqlalchemy==2.0.58 alembic==1.20.1 psycopg2-binary==2.9.13 'setuptools<80'
	touch $@

.venv/installed-bench: .venv/made pyproject.toml constraints.txt
	@echo "Installing LightGBM into .venv, to compare with"
	$(PIP) --editable '.[bench]'
	touch $@
