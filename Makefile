# make serve    an OpenAI-compatible server with the demo LLM on http://127.0.0.1:8000 (HOST=..., PORT=... override)
# make test     the test suite: under ten minutes on two cores
# make test-all the slow, Docker and browser tests as well
# make vllm     an environment of its own with vLLM's CPU build in .venv-vllm; make test-vllm runs the tests over it
# make check    what CI runs: formatting, lint, types, import rules, tests
# make demo     retrain a small proxy from the shipped data, live
# make clean    remove the environment and every cache

VENV ?= .venv
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PYTEST_ARGS ?= -n 2 --dist loadfile

BIN := $(VENV)/bin
VLLM_VENV ?= .venv-vllm
# The front door's tests that say nothing of an engine in this process.
VLLM_FRONT_DOOR := $(addprefix tests/front_door/test_,openai_sdk.py curl.py openai_errors.py sigterm_drain.py \
	kill_and_restart.py reload_under_load.py)
# Two test processes on two cores: one thread each, and none that spins while it waits.
TEST_ENV := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false PYTHONNOUSERSITE=1
KERNELS := $(wildcard proxy_model/native/*.[ch])
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: serve test test-all test-vllm vllm check static demo clean env env-serve
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# make /make /p' Makefile

serve: $(VENV)/.installed-serve
	exec $(BIN)/proxy-rlhf serve --host $(HOST) --port $(PORT)

test: $(VENV)/.installed-test
	$(TEST_ENV) $(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: $(VENV)/.installed-test
	$(TEST_ENV) $(BIN)/python -m pytest -m ""

test-vllm: $(VLLM_VENV)/.installed
	$(TEST_ENV) $(VLLM_VENV)/bin/python -m pytest -m vllm tests/front_door/vllm
	$(TEST_ENV) TEST_ENGINE=vllm $(VLLM_VENV)/bin/python -m pytest $(VLLM_FRONT_DOOR)

check: static test

static: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(KERNELS)
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: $(VENV)/.installed-train
	$(BIN)/proxy-rlhf demo

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed, by use: `serve` is the package alone, the others are extras of pyproject.toml.
env: $(VENV)/.installed-dev
env-serve: $(VENV)/.installed-serve

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed-serve: $(VENV)/.created pyproject.toml constraints.txt $(KERNELS)
	$(INSTALL) .
	touch $@

$(VENV)/.installed-%: $(VENV)/.created pyproject.toml constraints.txt $(KERNELS)
	$(INSTALL) ".[$*]"
	touch $@

vllm: $(VLLM_VENV)/.installed

$(VLLM_VENV)/.installed: requirements-vllm.txt pyproject.toml $(KERNELS)
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-vllm.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
