# The two commands: `make demo` and `make test`. Each makes its virtual environment on first use;
# a stamp file inside it that is newer than pyproject.toml means there is nothing to install.

PYTHON ?= python3
WORKERS ?= 2
NOTEBOOKS ?= notebooks
JAX ?= 0.8.3
N ?= 1000
SEED ?= 0

BIN := .venv/bin
OLDEST := .venv-oldest/bin
BENCH := .venv-bench/bin

.PHONY: demo test test-oldest test-jax fuzz notebooks bench lint clean

demo: .venv/.demo
	$(BIN)/python -m node_jax demo

test: lint
	$(BIN)/python -m pytest -n $(WORKERS)

# XLA_FLAGS: jaxlib 0.6.2 compiles a comparison wrongly at the optimization level that tests/conftest.py asks for
test-oldest: .venv-oldest/.test
	XLA_FLAGS= $(OLDEST)/python -m pytest -n $(WORKERS)

# the newest of everything but JAX: make test-jax, or with another JAX=0.7.2
test-jax: .venv-jax-$(JAX)/.test
	XLA_FLAGS= .venv-jax-$(JAX)/bin/python -m pytest -n $(WORKERS)

# random solves against what is known of them, kept in build/fuzz and continued there: make fuzz N=10000 SEED=0
fuzz: .venv/.dev
	$(BIN)/python -m tests.fuzz --draws $(N) --seed $(SEED) --workers $(WORKERS)

# where executed notebooks go: make NOTEBOOKS=build/notebooks notebooks leaves the stored ones alone
notebooks: .venv/.notebooks
	$(BIN)/python notebooks/execute.py $(NOTEBOOKS)

# all rows, stored and written into the docs; with ROW=word the rows whose names contain it, printed only
bench: .venv-bench/.bench
ifdef ROW
	$(BENCH)/python -m benchmarks.run --row "$(ROW)"
else
	$(BENCH)/python -m benchmarks.run
	$(BENCH)/python -m benchmarks.table
	$(BENCH)/python -m benchmarks.adjoints
	$(BENCH)/python -m benchmarks.guide
endif

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf .venv .venv-oldest .venv-jax-* .venv-bench build dist .pytest_cache .ruff_cache .import_linter_cache
	find node_jax tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.demo: pyproject.toml | .venv/.made
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

.venv/.dev: pyproject.toml | .venv/.made
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch .venv/.demo $@

.venv/.notebooks: pyproject.toml | .venv/.made
	$(BIN)/python -m pip install --quiet --editable ".[notebooks]"
	touch .venv/.demo $@

.venv-oldest/.test: pyproject.toml tests/oldest.txt | .venv-oldest/.made
	$(OLDEST)/python -m pip install --quiet --constraint tests/oldest.txt --editable ".[test]"
	touch $@

.venv-jax-%/.test: pyproject.toml | .venv-jax-%/.made
	.venv-jax-$*/bin/python -m pip install --quiet jax==$* jaxlib==$* --editable ".[test]"
	touch $@

.venv-bench/.bench: pyproject.toml | .venv-bench/.made
	$(BENCH)/python -m pip install --quiet --editable ".[bench]"
	touch $@

%/.made:
	@echo "Making $* and installing into it: once, a minute or two."
	$(PYTHON) -m venv $* || { rm -rf $*; exit 1; }
	touch $@
.PRECIOUS: %/.made
