# The developer's commands; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread for the tests: the same sums in the same order everywhere.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
# Files in the order of folders, the long end-to-end ones first: by their number of tests, a file of one long test ran last.
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo demo-compare test test-all test-again browser servers check fix ui bench bench-gpu clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(VENV)/installed  ## .venv with everything, at the versions in constraints.txt

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is required, this is " + sys.version.split()[0] + "; run make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[demo,deepspeed,s3,server,dev]'
	@# A Ray cluster asks for a token (2.60 and newer), and its commands look for one only when told: agree once, here.
	@grep -q RAY_AUTH_MODE $(BIN)/activate || printf '\nexport RAY_AUTH_MODE="$${RAY_AUTH_MODE:-token}"\n' >> $(BIN)/activate
	@RAY_AUTH_MODE=token $(BIN)/ray get-auth-token --generate > /dev/null 2>&1
	@touch $@

demo: setup  ## the whole pipeline on real photos, about ten minutes on two cores
	$(BIN)/python jobs/demo.py

demo-compare: setup  ## SeD against the plain discriminator on the demo's photos, three seeds (after make demo)
	$(BIN)/python jobs/compare.py demo --output demo/compare

test: setup  ## every test that needs no GPU, without the slow ones
	$(PYTEST) -m "not slow"

test-all: setup  ## the slow ones too, as CI runs them
	$(PYTEST)

test-again: setup  ## the tests that have just failed, one at a time, where three or fewer have
	@$(BIN)/python -c 'import json, sys; num = len(json.load(open(".pytest_cache/v/cache/lastfailed"))); sys.exit(f"{num} tests failed: too many for races" if num > 3 else 0)'
	$(TEST_ENV) $(BIN)/python -m pytest --last-failed --last-failed-no-failures none --verbose

browser:  ## Chromium for the tests of the HTML report (Debian, Ubuntu; as root); without it they are skipped
	command -v chromium && command -v chromedriver || { apt-get update && apt-get install -y chromium chromium-driver; }

servers:  ## PostgreSQL for the tests of MLflow on real servers (Debian, Ubuntu; as root); without it they are skipped
	ls /usr/lib/postgresql/*/bin/postgres 2> /dev/null || command -v postgres || { apt-get update && apt-get install -y postgresql; }

check: setup  ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

fix: setup  ## apply the fixes that lint and format can make
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: setup  ## the MLflow UI on http://127.0.0.1:5000 (make ui PORT=5001 for another port)
	$(BIN)/python jobs/ui.py $(if $(PORT),--port $(PORT))

bench: setup  ## the benchmarks on a CPU and the tables of docs (make bench PEERS=/tmp/peers PHOTOS=DIR); python -m benchmarks lists them
	$(BIN)/python -m benchmarks --run $(if $(PEERS),--peers $(PEERS)) $(if $(PHOTOS),--photos $(PHOTOS))

bench-gpu: setup  ## GPU tests and benchmarks in one call (make bench-gpu REFERENCE=/tmp/SeD)
	$(BIN)/python -m benchmarks --gpu $(if $(REFERENCE),--reference $(REFERENCE))

clean:  ## remove what the demo made
	rm -rf demo mlflow.db* mlruns mlartifacts
