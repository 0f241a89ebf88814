# Every target does its own set-up: Python 3.11+ and make are all that it needs.
PYTHON ?= $(shell command -v python3.13 >/dev/null 2>&1 && python3.13 -c '' 2>/dev/null && echo python3.13 || echo python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup test lint format demo bench delivery latency scale hostile chaos powercut lives starts mishaps fuzz soak clean

help:                ## this list
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "dcmrouter needs Python 3.11 or newer; say make PYTHON=python3.12 or the like" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(STAMP)      ## the virtual environment, with everything in it

# Most of the tests wait for something: two at once halve the time.
test: $(STAMP)       ## all tests; the interoperability tests run where their tools are installed
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(STAMP)       ## ruff and mypy, strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)     ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(STAMP)       ## the gateway between a sender and two sinks, with real files
	$(BIN)/dcmrouter demo

bench: $(STAMP)      ## every figure, against DCMTK, Orthanc and pynetdicom
	$(BIN)/python -m perf.bench $(ARGS)

chaos: $(STAMP)      ## kill -9 at random moments under load, restart, account for every instance
	$(BIN)/python -m perf.chaos $(ARGS)

delivery: $(STAMP)   ## 10,000 instances through 1,000 faults of networks and peers, and an account of each
	$(BIN)/python -m perf.delivery $(ARGS)

latency: $(STAMP)    ## how long an answer and a delivery take, at 10, 50 and 90 % of the highest rate
	$(BIN)/python -m perf.latency $(ARGS)

scale: $(STAMP)      ## a million waiting instances: start, memory, rates beside them
	$(BIN)/python -m perf.scale $(ARGS)

hostile: $(STAMP)    ## a proper sender beside each kind of hostile peer
	$(BIN)/python -m perf.hostile $(ARGS)

powercut: $(STAMP)   ## 500 simulated power cuts under the spool
	DCMROUTER_POWER_CUTS=500 $(BIN)/python -m pytest tests/spool/test_power_cut.py -k test_power_cuts --timeout 600

lives: $(STAMP)      ## 3,000 random lives of deliveries, with orders, changing hosts and power cuts
	DCMROUTER_LIVES=3000 $(BIN)/python -m pytest -n 2 tests/spool/test_lives.py -k test_nothing_is_lost

starts: $(STAMP)     ## each call of a start fails, in 30 spools of 5 states: an index of yesterday, a segment away
	DCMROUTER_START_FAULTS=30 $(BIN)/python -m pytest -n 2 tests/spool/test_start_faults.py

mishaps: $(STAMP)    ## two mishaps in a row, each with each in both orders, 10 times: a flipped bit, a kill, a full disk
	DCMROUTER_MISHAPS=10 $(BIN)/python -m pytest -n 2 tests/spool/test_mishaps.py

fuzz: $(STAMP)       ## no cost that grows with the square; ten million mutated messages, data sets and files
	$(BIN)/python -m pytest -m timed
	$(BIN)/python -m tests.fuzz.run --cases 10000000 --jobs 2 $(ARGS)

soak: $(STAMP)       ## half an hour of mixed load: whether anything grows
	$(BIN)/python -m perf.soak $(ARGS)

clean:               ## remove what the targets made
	rm -rf $(VENV) perf/work demo-data
