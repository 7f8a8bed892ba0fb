# make demo   trains two small networks and compares them: a few minutes on a CPU
# make test   format, lint, tests
# make chaos  kills 20 trainings at random moments, and compares what comes of them
# make lock   resolves the dependencies of setup.cfg anew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
INSTALLED := $(VENV)/.installed

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
	$(BIN)/python train.py --config=configs/shapes.py --workdir=$(DEMO)/plain \
	  --config.model=resnet_mcdo_18
	$(BIN)/python train.py --config=configs/shapes.py --workdir=$(DEMO)/smoothing \
	  --config.model=resnet_mcdo_smoothing_18
	$(BIN)/python evaluate.py --workdir=$(DEMO)/plain
	$(BIN)/python evaluate.py --workdir=$(DEMO)/smoothing
	$(BIN)/python evaluate.py --compare=$(DEMO)/plain,$(DEMO)/smoothing \
	  --output=$(DEMO)/report

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

test: lint
	$(BIN)/pytest --numprocesses=auto --dist=loadfile

# Also what takes minutes: the largest networks.
test-all: lint
	$(BIN)/pytest --numprocesses=auto --dist=loadfile -m "slow or not slow"

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
