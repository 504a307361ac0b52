# Two commands are enough: `make train` and `make test`. Both set everything up first.
PYTHON := .venv/bin/python
export MUJOCO_GL ?= egl

.PHONY: help setup train test test-all check format lint types pins bench clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install everything into .venv (seconds when it is there already)
	@bash setup/install.sh

train: setup ## train a small masked agent, evaluate it, show a table and a picture
	@$(PYTHON) setup/first_run.py

test: setup ## run the tests (at most 10 minutes on 2 cores)
	$(PYTHON) -m pytest -n 2 --dist loadfile -m "not slow and not gpu" tests

test-all: setup ## run every test, the slow ones too
	$(PYTHON) -m pytest -n 2 --dist loadfile tests

check: setup lint types test ## ruff, mypy and the tests

lint:
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

types:
	.venv/bin/mypy

format: ## format and mend what ruff can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

pins: ## write the installed versions into setup/constraints.txt
	@{ head -2 setup/constraints.txt; $(PYTHON) -m uv pip freeze --python $(PYTHON) | grep -v -E '^(nvidia-|cuda-|triton|uv=|setuptools|pip=|-e |samg)'; } > setup/.pins && mv setup/.pins setup/constraints.txt

bench: setup ## measure the masker's parts
	$(PYTHON) benchmarks/masker.py

clean: ## remove caches (never runs or weights)
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache
