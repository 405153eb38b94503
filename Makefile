# `make demo` and `make test` need Python >= 3.10 and a package index; each sets up what it needs.
#
#   PYTHON=python3.12      the interpreter that makes VENV      JOBS=4      processes of the tests
#   VENV=.venv             where everything is installed        ARGS=...    passed on to pytest, demo, benchmarks
#   TORCH_ARGS=...         passed to pip for torch, e.g. --index-url https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
PARITY_VENV ?= .venv-parity
JOBS ?= auto
TORCH_ARGS ?=
ARGS ?=

PIP_INSTALL = -m pip --disable-pip-version-check --quiet install
PYTEST = -m pytest -n $(JOBS) --maxprocesses=8

.PHONY: help demo test lint parity witnesses dask docs browser tutorials bench benchmarks clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.core ## quantize the embedded model and show what INT4, INT3 and INT2 cost (about a minute)
	@$(VENV)/bin/awq-ref demo $(ARGS)

test: $(VENV)/.test ## every test that needs neither torch nor a network
	$(VENV)/bin/python $(PYTEST) --ignore=tests/parity --ignore=tests/dask --ignore=tests/browser $(ARGS)

lint: $(VENV)/.lint ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

parity: $(PARITY_VENV)/.parity ## the same numbers as transformers and torch (installs them)
	$(PARITY_VENV)/bin/python -m pytest tests/parity $(ARGS)

witnesses: $(PARITY_VENV)/.parity ## hold other projects' code to the golden vectors (installs it)
	@$(PARITY_VENV)/bin/python $(PIP_INSTALL) --group witness
	@$(PARITY_VENV)/bin/python -m pip --disable-pip-version-check --quiet download --no-deps --dest $(PARITY_VENV)/src \
	  --no-binary :all: --no-build-isolation autoawq==0.2.9 gptqmodel==7.7.0
	@for sdist in autoawq-0.2.9 gptqmodel-7.7.0; do \
	  tar -xzf $(PARITY_VENV)/src/$$sdist.tar.gz -C $(PARITY_VENV)/src; done
	PYTHONPATH=tests:$(PARITY_VENV)/src/autoawq-0.2.9:$(PARITY_VENV)/src/gptqmodel-7.7.0 \
	  $(PARITY_VENV)/bin/python tools/write_witnesses.py

dask: $(VENV)/.test $(VENV)/.dask ## quantize on the workers of a Dask cluster on this machine (installs it)
	$(VENV)/bin/python -m pytest tests/dask $(ARGS)

docs: $(VENV)/.test $(VENV)/.docs ## build the site into _site/html, tutorials executed; run every snippet of README.md and docs/
	$(VENV)/bin/python tools/build_site.py
	$(VENV)/bin/python tools/run_docs.py $(ARGS)

browser: $(VENV)/.docs $(VENV)/.browser ## look at the built site with Chromium, where there is one
	@test -e _site/html/index.html || $(VENV)/bin/python tools/build_site.py
	$(VENV)/bin/python -m pytest tests/browser $(ARGS)

tutorials: $(VENV)/.tutorial ## run every chapter of the course as a notebook
	$(VENV)/bin/python tools/run_tutorials.py $(ARGS)

bench: $(VENV)/.core ## a model and a linear beside their rivals: Markdown tables, and build/bench.json
	@$(VENV)/bin/python benchmarks/load_and_generate.py --json build/bench.json $(ARGS)

benchmarks: $(VENV)/.core ## every benchmark, as Markdown tables
	@for script in benchmarks/*.py; do $(VENV)/bin/python "$$script" $(ARGS) || exit 1; done

clean: ## remove environments and caches
	rm -rf .venv .venv-* _site build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up: one stamp file per set of packages; a new pyproject.toml makes them stale ----

$(VENV)/.core: pyproject.toml
	@$(call make_venv,$(VENV))
	@echo "Installing awq_ref into $(VENV) ..."
	@$(VENV)/bin/python $(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.tutorial $(VENV)/.docs $(VENV)/.browser $(VENV)/.dask: $(VENV)/.%: $(VENV)/.core
	@echo "Installing the packages of '$*' into $(VENV) ..."
	@$(VENV)/bin/python $(PIP_INSTALL) --group $*
	@touch $@

# An environment of its own: nothing of the package may come to need torch unnoticed. Torch comes before what depends
# on it, so that its exact build is settled first.
$(PARITY_VENV)/.parity: pyproject.toml
	@$(call make_venv,$(PARITY_VENV))
	@echo "Installing torch and transformers into $(PARITY_VENV) (about 1 GB) ..."
	@torch=$$(sed -n 's/^train = \["\(torch==[^"]*\)"\]/\1/p' pyproject.toml) && \
	  $(PARITY_VENV)/bin/python $(PIP_INSTALL) $(TORCH_ARGS) "$$torch"
	@$(PARITY_VENV)/bin/python $(PIP_INSTALL) --group parity --editable .
	@touch $@

# pip reads dependency groups from 25.1 on; the pip that a venv is born with is often older.
define make_venv
	set -e; \
	if ! "$(1)/bin/python" -m pip --version >/dev/null 2>&1; then \
	  command -v "$(PYTHON)" >/dev/null || { \
	    echo "No '$(PYTHON)' on the PATH. Install Python 3.10 or later, or name one: make PYTHON=/path/to/python3 ..." >&2; exit 2; }; \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "awq_ref needs Python 3.10 or later; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name another: make PYTHON=python3.12 ..." >&2; exit 2; }; \
	  "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments (module ensurepip is missing)." >&2; \
	    echo "On Debian and Ubuntu: sudo apt install python3-venv. Or name another Python: make PYTHON=... " >&2; exit 2; }; \
	  echo "Making $(1) with $$("$(PYTHON)" --version) ..."; \
	  "$(PYTHON)" -m venv "$(1)"; \
	fi; \
	"$(1)/bin/python" $(PIP_INSTALL) --upgrade 'pip>=25.1'
endef
