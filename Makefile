# The two commands: `make demo` and `make test`. Each makes its virtual environment on first use, one for each Python:
# .venv for python3, .venv-3.13 with PYTHON=python3.13, a name or a path.
# A stamp file inside it that is newer than pyproject.toml means there is nothing to install.

PYTHON ?= python3
WORKERS ?= 2
NOTEBOOKS ?= notebooks
NAMES ?=
JAX ?= 0.11.2
N ?= 1000
SEED ?= 0

VENV := .venv$(patsubst python%,-%,$(filter-out python python3,$(notdir $(PYTHON))))
BIN := $(VENV)/bin
OLDEST := $(VENV)-oldest/bin
NEXT := $(VENV)-next/bin
DOCS := $(VENV)-docs/bin
BENCH := $(VENV)-bench/bin
READER := $(VENV)-notebooks

.PHONY: demo test suite test-oldest test-jax test-next fuzz notebooks docs bench lint dist clean

demo: $(VENV)/.demo
	$(BIN)/python -m node_jax demo

test: lint suite

suite: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS)

test-oldest: $(VENV)-oldest/.test
	$(OLDEST)/python -m pytest -n $(WORKERS)

# the newest of everything but JAX: make test-jax, or with another JAX=0.10.1; from 0.11 on it needs PYTHON=python3.12
test-jax: $(VENV)-jax-$(JAX)/.test
	$(VENV)-jax-$(JAX)/bin/python -m pytest -n $(WORKERS)

# a few solves with the JAX that comes next, if this Python has it: make PYTHON=python3.13 test-next
test-next: $(VENV)-next/.made
	$(NEXT)/python -m pip install --quiet --upgrade --pre jax jaxlib
	$(NEXT)/python -m pip install --quiet --upgrade --editable .
	$(NEXT)/python tests/next.py

# random solves against what is known of them, kept in build/fuzz and continued there: make fuzz N=10000 SEED=0
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --draws $(N) --seed $(SEED) --workers $(WORKERS)

# where executed notebooks go: make NOTEBOOKS=build/notebooks notebooks leaves the stored ones alone; they run with the
# wheel that is built here, as for a reader who installed it
notebooks: $(READER)/.notebooks
	rm -rf build/wheel
	$(READER)/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(READER)/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel/node_jax-*.whl
	$(READER)/bin/python notebooks/execute.py $(NOTEBOOKS) $(NAMES)

# the documentation site in build/site; a broken link or a missing page is an error
docs: $(VENV)-docs/.docs
	NO_MKDOCS_2_WARNING=1 $(DOCS)/python -m mkdocs build --clean

# all rows, stored and written into the docs; with ROW=word the rows whose names contain it, printed only
bench: $(VENV)-bench/.bench
ifdef ROW
	$(BENCH)/python -m benchmarks.run --row "$(ROW)"
else
	$(BENCH)/python -m benchmarks.run
	$(BENCH)/python -m benchmarks.table
	$(BENCH)/python -m benchmarks.adjoints
	$(BENCH)/python -m benchmarks.guide
endif

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# wheel and source archive in dist/, with their metadata checked
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist . >/dev/null
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache .import_linter_cache
	find node_jax tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.demo: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(VENV)/.demo $@

$(READER)/.notebooks: pyproject.toml | $(READER)/.made
	$(READER)/bin/python -m pip install --quiet ".[notebooks]"
	touch $@

$(VENV)-oldest/.test: pyproject.toml tests/oldest.txt | $(VENV)-oldest/.made
	$(OLDEST)/python -m pip install --quiet --constraint tests/oldest.txt --editable ".[test]"
	touch $@

$(VENV)-jax-%/.test: pyproject.toml | $(VENV)-jax-%/.made
	$(VENV)-jax-$*/bin/python -m pip install --quiet jax==$* jaxlib==$* --editable ".[test]"
	touch $@

$(VENV)-docs/.docs: pyproject.toml | $(VENV)-docs/.made
	$(DOCS)/python -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)-bench/.bench: pyproject.toml | $(VENV)-bench/.made
	$(BENCH)/python -m pip install --quiet --editable ".[bench]"
	touch $@

%/.made:
	@echo "Making $* and installing into it: once, a minute or two."
	$(PYTHON) -m venv $* || { rm -rf $*; exit 1; }
	touch $@
.PRECIOUS: %/.made
