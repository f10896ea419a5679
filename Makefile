# `make quickstart` and `make test` do all the set-up they need: a private .venv with the versions of constraints.txt.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test check site docs bench setup format assets vllm-check clean

# The first Python >= 3.11 that runs; `make PYTHON=/path/to/python3.12 test` chooses another.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Named after what was asked for, so that a change of either file installs again and nothing else does.
STAMP := $(VENV)/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --prefer-binary --no-compile --constraint constraints.txt
ARGS ?=
TRACK ?=
# Compiled modules are kept: without, every process that a test starts compiles torch and transformers again (20 s).
unexport PYTHONDONTWRITEBYTECODE

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' Makefile | expand -t 14

quickstart: $(STAMP)  ## the whole way on real models (230 MB, once); TRACK=micro: offline; ARGS="--json" for machines
	@$(BIN)/rba-bench quickstart $(if $(TRACK),--track $(TRACK)) $(ARGS)

test: $(STAMP)  ## the tests, two at a time; ARGS="-k name -x -n0" goes to pytest
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(STAMP)  ## speed, memory and statistics, about 45 minutes; the tables of benchmarks/RESULTS.md on stdout
	@for name in harness_speed memory bootstrap statistics length_control small_things streaming trainer_speed; do \
	echo; echo "## $$name"; echo; PYTHONPATH=. $(BIN)/python benchmarks/$$name.py; done

check: $(STAMP)  ## format, lint, types, import directions
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/ruff check --preview --select PLW1514 rba_bench  # text files name their encoding: not every system has UTF-8
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_imports.py

site: $(STAMP)  ## leaderboards/ again from its records, tables and pages: the same bytes
	@for track in micro small; do $(BIN)/rba-bench leaderboard build leaderboards/$$track --out leaderboards/$$track; done
	@$(BIN)/rba-bench leaderboard build --reported leaderboards/paper
	@for study in leaderboards/micro/study leaderboards/small/study; do $(BIN)/rba-bench study report $$study; done
	@$(BIN)/rba-bench leaderboard index leaderboards

docs: $(STAMP)  ## the documentation site, in site/; a broken link is an error
	@$(BIN)/python dev/make_cli_docs.py
	@$(BIN)/python dev/make_site.py
	@echo "open site/index.html" >&2

format: $(STAMP)  ## rewrite the sources in house style
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

setup: $(STAMP)  ## install into .venv without running anything

# every-eval-ever is here for its schemas, which tests validate exports by: they need pydantic alone and run on Python 3.11,
# while the package asks for 3.12, an older huggingface_hub, and a database.
# All output goes to stderr: stdout belongs to the results of the targets above. torch goes first and alone, so that
# the pinned version comes from a CPU build where pip knows one.
$(STAMP):
	@[ -n "$(PYTHON)" ] || { echo "error: no Python >= 3.11 found; name one: make PYTHON=/path/to/python" >&2; exit 3; }
	@{ [ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV); \
	rm -f $(VENV)/installed-*; \
	echo "installing into $(VENV), once: [1/2] torch"; \
	$(PIP) pip; \
	$(PIP) torch; \
	echo "installing into $(VENV), once: [2/2] rba-bench and what else it needs"; \
	$(PIP) --editable '.[tts,synth,train,ja,consistency,codecs,ray]' --group dev --group docs; \
	$(PIP) --no-deps --ignore-requires-python every-eval-ever; \
	touch $@; } >&2

assets: $(STAMP)  ## fetch real weights (240 MB) for the tests that need them; without, these are skipped
	@for name in smollm2-135m-instruct whisper-tiny.en piper-en_US-joe-medium; do $(BIN)/rba-bench assets fetch $$name; done

vllm-check: $(STAMP)  ## rollouts through a real vLLM on the CPU; fetches it (1.5 GB) into .vllm/, 20 minutes
	@PYTHONPATH=. $(BIN)/python dev/vllm_check.py $(ARGS)

clean:  ## remove .venv and caches; runs/ stays
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist build site
