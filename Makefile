# Everything a developer needs, from a fresh clone: `make` lists it.
# Wants only Python 3.11 or newer with its venv module; no compiler, nothing preinstalled.

PYTHON ?= python3
ARGS   ?=
# A vLLM server that already runs, for the demo: make demo UPSTREAM=http://gpu-box:8000
UPSTREAM ?=
export UPSTREAM

PY   := .venv/bin/python
VLLM := $(PYTHON) deploy/demo/vllm_install.py
# Where vLLM's CPU build exists, the tests run against the real server; elsewhere they skip those marked real_vllm.
HAS_VLLM := $(filter Linux-x86_64 Linux-aarch64,$(shell uname -s)-$(shell uname -m))

.DEFAULT_GOAL := help
.PHONY: help venv lenses vllm lint unit check test demo lock clean clean-vllm

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: .venv/.complete ## Create .venv with the locked packages and spex-proxy itself, editable

# The stamp comes last: an interrupted install starts over. The build backend is in the lock file too,
# so nothing unlocked is fetched.
.venv/.complete: requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "spex-proxy needs Python 3.11 or newer, and $(PYTHON) is %d.%d; try: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements/dev.lock
	$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Torch's CPU build is on some package indexes and not on others. When pip's own has none, this one is asked.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
LENSES = $(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-compile --only-binary=:all: \
         -r requirements/lenses.txt

lenses: .venv/.lenses ## Add torch, transformers and scikit-learn to .venv, for games over heads and training data

.venv/.lenses: requirements/lenses.txt .venv/.complete
	$(LENSES) || $(LENSES) --extra-index-url $(TORCH_CPU_INDEX)
	@touch $@

vllm: ## Install vLLM's CPU build and a small model (2.5 GB, once), for the demo and the tests
	@$(VLLM) install
	@$(VLLM) model

lint: venv ## Style, types and architecture
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

unit: venv ## The unit tests, but for the slow ones
	$(PY) -m pytest tests/unit -m "not slow" --hypothesis-profile=quick

check: lint unit ## What to run before every commit: under a minute

test: lenses $(if $(HAS_VLLM),vllm) ## Every test, those against the real vLLM too
	$(PY) -m pytest $(ARGS)

demo: venv $(if $(UPSTREAM),,vllm) ## See it work: vLLM, the proxy and a first explanation (UPSTREAM=URL: with your vLLM)
	$(PY) -m deploy.demo $(ARGS)

# Locked for every platform and for Python 3.11 and newer at once. torch is not in there: see pyproject.toml.
LOCK = .venv-lock/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
       --fork-strategy fewest --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

lock: ## Move requirements/*.lock to the newest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --disable-pip-version-check --quiet 'uv>=0.13,<0.14'
	$(LOCK) --output-file requirements/runtime.lock
	$(LOCK) --output-file requirements/dev.lock --extra dev --constraint requirements/runtime.lock

clean: ## Remove what was built or cached; keep vLLM and its model
	rm -rf .venv .venv-lock build dist var .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

clean-vllm: ## Remove vLLM and its model
	rm -rf .venv-vllm .models
