# Two commands are enough: `make train` and `make test`. Both set everything up first.
# Not PYTHON: that names the interpreter from which setup/install.sh makes .venv.
VENV := .venv/bin/python
export MUJOCO_GL ?= egl

.PHONY: help setup setup-ray train test test-all test-cluster check format lint types pins bench clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install everything into .venv (seconds when it is there already)
	@bash setup/install.sh

setup-ray: setup ## install what +launcher=ray needs into .venv-ray: Ray's launcher wants older packages than .venv has
	$(VENV) -m venv --without-pip .venv-ray
	grep -v -E '^(cloudpickle|python-dateutil)==' setup/constraints.txt > .venv-ray/constraints.txt
	$(VENV) -m uv pip install --quiet --python .venv-ray/bin/python --editable '.[ray]' --constraints .venv-ray/constraints.txt

# A folder of its own for every call: nothing is resumed, nothing is overwritten.
FIRST_RUN := runs/first_run_$(shell date +%Y%m%d_%H%M%S)

train: setup ## train a small masked agent, evaluate it, show a table and a picture
	$(VENV) train.py masker=tiny batch_size=32 num_train_frames=3000 num_seed_frames=1000 \
	  agent.num_expl_steps=500 hydra.run.dir=$(FIRST_RUN)
	$(VENV) locoeval.py --model_dir $(FIRST_RUN) --mode train color_hard video_hard \
	  --background-source procedural --episodes 2 --random-baseline
	@echo "This run checks the installation. Learning to walk takes about 500,000 decisions, not 1,500:"
	@echo "  $(VENV) train.py task=walker_walk masker=tiny"

# One thread each for two workers: with more, each waits for cores that the other one has.
TESTS := OMP_NUM_THREADS=1 LP_NUM_THREADS=0 $(VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: setup ## run the tests (at most 10 minutes on 2 cores)
	$(TESTS) -m "not slow and not crash and not gpu and not cluster" tests

test-all: setup ## run every test: also those that kill processes, take long or learn
	$(TESTS) -m "not cluster" tests

test-cluster: setup ## sweeps with real launchers: joblib, Ray (after setup-ray), a SLURM of one node (root and apt); else skipped
	$(VENV) -m pytest -n 0 -rs -m cluster --timeout 1800 tests/cluster

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
	@{ head -2 setup/constraints.txt; $(VENV) -m uv pip freeze --python $(VENV) | grep -v -E '^(nvidia-|cuda-|triton|uv=|setuptools|pip=|-e |samg)'; } > setup/.pins && mv setup/.pins setup/constraints.txt

bench: setup ## measure everything on this machine, into runs/benchmarks
	$(VENV) -m benchmarks.all --out runs/benchmarks

clean: ## remove caches (never runs or weights)
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache
