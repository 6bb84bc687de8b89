# The few commands. `make run` and `make test` do all the set-up they need on a machine with Python >= 3.11.
PYTHON ?= python3
PORT ?= 5000
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup run test check export soak lab docs bench screenshots clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

.venv/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smartcloudops needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -e .venv/.dev || $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "smartcloudops needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.core

setup: .venv/.dev  ## make .venv with everything for development (once)

run: .venv/.core  ## watch this host and serve the dashboard (PORT=5000)
	$(BIN)/smartcloudops run --port $(PORT)

test: setup check  ## lint and types, notebooks in step and running, then the tests (about 15 minutes on 2 cores)
	tests/system_packages.sh
	$(BIN)/python tests/notebooks.py
	$(BIN)/python -m pytest -n 4

check: setup  ## ruff, mypy, and the limits of the house
	$(BIN)/ruff check smartcloudops tests benchmarks docs infra
	$(BIN)/mypy
	$(BIN)/python -m tests.house_limits

export: setup  ## write all that is generated: modules, prometheus_config.py, front doors, policy schema, README
	$(BIN)/python infra/scripts/export.py

soak: setup  ## the tests with the full counts of their long campaigns
	tests/system_packages.sh
	SOAK=1 $(BIN)/python -m pytest --timeout 7200

lab: setup  ## JupyterLab, beginning with nbs/start.ipynb
	$(BIN)/jupyter lab --ServerApp.root_dir=. nbs/start.ipynb $(LAB)

docs: setup  ## the documentation site, in site/
	$(BIN)/python docs/build.py

bench: setup  ## benchmarks, as ratios against a peer or the machine's limit
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	for b in benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b || exit 1; done

screenshots: setup  ## take the pictures of the docs again
	$(BIN)/python -m tests.screenshots

clean:  ## remove what can be made again (not data/)
	rm -rf .venv _proc site dist build *.egg-info
