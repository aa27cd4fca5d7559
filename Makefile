# make demo and make test need nothing but make and Python 3.11 or later; they keep all they install in .venv.
PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=

BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

# One BLAS thread and one XLA thread per process: more of them slow each other down, and with some versions of jaxlib
# wait for each other for ever. Compiled code is kept between runs.
export OPENBLAS_NUM_THREADS ?= 1
export NPROC ?= 1
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
# At every hit of that cache, jaxlib lists the features of the processor on standard error as if they were wrong.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help install install-test dev demo figures test test-slow lint style types contracts format docs examples check clean

help:
	@echo 'make demo       install into $(VENV) and run the main job on a simulated recording; results in demo/'
	@echo 'make test       install what testing needs and run the unit tests'
	@echo 'make test-slow  the tests that take longer (PYTEST_ARGS="--time-limit 600" starts none after ten minutes)'
	@echo 'make lint       style, types and import contracts'
	@echo 'make format     mend the style'
	@echo 'make docs       the documentation, in docs/_build/html'
	@echo 'make figures    the figure of the README, from the demo'
	@echo 'make examples   every example at tiny size'
	@echo 'make check      everything that CI runs'
	@echo 'make clean      remove what these commands made'
	@echo 'PYTHON=/path/to/python3.12 chooses the Python, WORKERS=4 the number of test processes.'

demo: install
	$(BIN)/lrposterior demo --output demo

figures: install
	$(BIN)/lrposterior demo --output .cache/figures
	cp .cache/figures/demo.png docs/images/demo.png

test: install-test
	$(PYTEST) --dist loadfile $(PYTEST_ARGS)

test-slow: install-test
	$(PYTEST) --dist load -m slow $(PYTEST_ARGS)

lint: style types contracts

style: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: dev
	$(BIN)/lint-imports

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: dev
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html -d .cache/doctrees docs docs/_build/html
	@echo 'docs/_build/html/index.html'

examples: install
	@set -e; for example in examples/*.py; do \
	  echo "$$example"; LRPOSTERIOR_TINY=1 MPLBACKEND=Agg $(BIN)/python "$$example" </dev/null; \
	done

check:
	bash .ci/run

clean:
	rm -rf $(VENV) .cache demo dist docs/_build .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# What is installed, by stamp files: each is made once, and again when pyproject.toml changes.
install: $(VENV)/.has-core
install-test: $(VENV)/.has-test
dev: $(VENV)/.has-dev

$(VENV)/.has-python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "There is no '$(PYTHON)' here. Install Python 3.11 or later, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "lrposterior needs Python 3.11 or later, and '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1)." >&2; \
	  echo "Install a later one, or name one that is there: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its modules venv and ensurepip are not installed." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.has-core: $(VENV)/.has-python pyproject.toml
	@echo 'Installing lrposterior into $(VENV) (some minutes the first time) ...'
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.has-test: $(VENV)/.has-core
	@echo 'Installing what testing needs ...'
	@$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/.has-dev: $(VENV)/.has-test
	@echo 'Installing the tools for documentation and development ...'
	@$(BIN)/python -m pip install --quiet --editable '.[test,docs,dev]'
	@touch $@
