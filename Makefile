# make demo   trains two small networks and compares them: a few minutes on a CPU
# make test   checks the format, lints, and runs the tests
# make chaos  kills 20 trainings at random moments, and compares their results
# make lock   resolves the dependencies of setup.cfg again, into requirements.lock
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
INSTALLED := $(VENV)/.installed
# Files are in the order of tests/conftest.py, and not those with most tests first.
PARALLEL := --numprocesses=auto --dist=loadfile --no-loadscope-reorder

.PHONY: install demo test test-all chaos lint lock clean

install: $(INSTALLED)

$(INSTALLED): requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; use make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
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

lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --upgrade '.[test]'
	$(VENV)-lock/bin/pip freeze --all --exclude pip --exclude spatial-smoothing \
	  > requirements.lock
	rm -r $(VENV)-lock

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
