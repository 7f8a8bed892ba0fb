# make demo    trains two small networks and compares them: a few minutes on a CPU
# make test    checks the format, lints, and runs the tests
# make chaos   kills 20 trainings at random moments, and compares their results
# make gpu     checks and times a GPU, then reproduces the paper's figures; it continues
# make wheels  downloads what a machine with JAX and without a network lacks
# make docs    builds the documentation site, and runs its notebooks: docs/_build/html
# make release builds the wheel and the sdist, and tries them outside of the checkout
# make lock    resolves the dependencies of setup.cfg again, into requirements*.lock
# GPU=1 installs CUDA's libraries too, as in make GPU=1 install
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
GPU ?= $(filter gpu,$(MAKECMDGOALS))
LOCK := requirements$(if $(GPU),-gpu).lock
INSTALLED := $(VENV)/.installed$(if $(GPU),-gpu)
# Files are in the order of tests/conftest.py, and not those with most tests first.
PARALLEL := --numprocesses=auto --dist=loadfile --no-loadscope-reorder

.PHONY: install demo test test-all chaos docs gpu lint lock release wheels clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock $(LOCK) setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; use make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement $(LOCK)
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

demo: $(INSTALLED)
	@echo "[#....] demo, step 1 of 5: train a network without smoothing"
	@$(BIN)/python train.py --config=shapes --workdir=$(DEMO)/plain \
	  --config.model=resnet_mcdo_18
	@echo "[##...] demo, step 2 of 5: train the same network with smoothing"
	@$(BIN)/python train.py --config=shapes --workdir=$(DEMO)/smoothing \
	  --config.model=resnet_mcdo_smoothing_18
	@echo "[###..] demo, step 3 of 5: evaluate the network without smoothing"
	@$(BIN)/python evaluate.py --workdir=$(DEMO)/plain
	@echo "[####.] demo, step 4 of 5: evaluate the network with smoothing"
	@$(BIN)/python evaluate.py --workdir=$(DEMO)/smoothing
	@echo "[#####] demo, step 5 of 5: compare both"
	@$(BIN)/python evaluate.py --compare=$(DEMO)/plain,$(DEMO)/smoothing \
	  --output=$(DEMO)/report

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

test: lint
	$(BIN)/pytest $(PARALLEL)

# Runs the slow tests too, such as those of the largest networks, and compiles programs as
# those of users are compiled (see tests/helpers/compiler_flags.py).
test-all: lint
	OPTIMIZED=1 $(BIN)/pytest $(PARALLEL) -m "slow or not slow"

chaos: $(INSTALLED)
	$(BIN)/python tests/chaos.py --trials=20

# Warnings are errors. Notebooks are run again when their cells have changed; a quick look
# without any of them is make docs DOCS_EXECUTE=off
$(VENV)/.installed-docs: $(INSTALLED) requirements-docs.lock
	$(BIN)/pip install --quiet --requirement requirements-docs.lock
	@touch $@

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet \
	  -d docs/_build/trees docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Takes minutes: it makes an environment of its own, and installs what the package needs.
release: $(INSTALLED)
	$(BIN)/pip install --quiet build==1.3.0
	rm -rf dist
	$(BIN)/python -m build --outdir=dist
	$(BIN)/python tests/release.py dist $(ARGS)

# With a Python that has the package: make gpu GPU_PYTHON=python3
GPU_PYTHON ?= $(BIN)/python
gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(INSTALLED))
	$(GPU_PYTHON) -m benchmarks.gpu $(ARGS)

# The other locks have what the first one does not: pip resolves the extra where the
# first one is installed, and downloads nothing.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --upgrade '.[test]'
	$(VENV)-lock/bin/pip freeze --all --exclude pip --exclude spatial-smoothing \
	  > requirements.lock
	$(VENV)-lock/bin/pip install --quiet --dry-run --report $(VENV)-lock/gpu.json '.[gpu]'
	$(VENV)-lock/bin/pip install --quiet --dry-run --report $(VENV)-lock/docs.json '.[docs]'
	for extra in gpu docs; do \
	  echo '--requirement requirements.lock' > requirements-$$extra.lock; \
	  $(VENV)-lock/bin/python -c "$$PINS" < $(VENV)-lock/$$extra.json | sort \
	    >> requirements-$$extra.lock; \
	done
	rm -r $(VENV)-lock

define PINS
import json, sys
for each in json.load(sys.stdin)["install"]:
    if each["metadata"]["name"] != "spatial-smoothing":
        print("{name}=={version}".format(**each["metadata"]))
endef
export PINS

# This package, and what images with JAX, Flax and PyTorch do not have, in the versions
# of the lock. docs/gpu.md says what to do with them.
WHEELS ?= array_record docstring_parser dm-tree googleapis-common-protos grain \
  immutabledict importlib_resources ml_collections portpicker promise simple-parsing \
  tensorboardX tensorflow-datasets tensorflow-metadata termcolor toml
WHEELS_PYTHON ?= 3.12
wheels:
	mkdir -p wheels
	grep -iE "^($$(echo $(WHEELS) | tr ' ' '|'))==" requirements.lock > wheels/all.txt
	test $$(wc -l < wheels/all.txt) = $(words $(WHEELS))  # all of them are in the lock
	grep -v ^promise wheels/all.txt > wheels/binary.txt
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: \
	  --implementation cp --python-version $(WHEELS_PYTHON) \
	  $(foreach n,17 24 27 28 31 34 35,--platform manylinux_2_$(n)_x86_64) \
	  --platform manylinux2014_x86_64 --dest wheels --requirement wheels/binary.txt
	# These have no wheels on the index; they are Python alone.
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir wheels \
	  . $$(grep ^promise wheels/all.txt)
	du -sh wheels

clean:
	rm -rf $(VENV) $(DEMO) build dist docs/_build *.egg-info
