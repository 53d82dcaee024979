# Every chore of the project; `make help` lists them.
PYTHON ?= $(firstword $(foreach name,python3.12 python3.11 python3,$(if $(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo ok),$(name))))
VENV ?= .venv
BIN := $(VENV)/bin
HANDOFF := .venv-handoff
HANDOFF_BIN := $(HANDOFF)/bin
RESULTS := $(CURDIR)/build/coverage
COVERED := tests/operators tests/topologies tests/networks tests/real/test_coverage.py
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help demo test test-handoff coverage lint types fuzz clean

help:  ## list the chores
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; none was found. Received: $$(python3 --version 2>&1)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@mkdir -p .types && ln -sfn .. .types/tqt_onnx
	@touch $@

$(HANDOFF_BIN)/.installed: handoff-requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; none was found. Received: $$(python3 --version 2>&1)" >&2; exit 2; }
	$(PYTHON) -m venv $(HANDOFF)
	$(HANDOFF_BIN)/python -m pip install --quiet --requirement handoff-requirements.txt
	@touch $@

demo: $(BIN)/.installed  ## train a small network and take it the whole road, from nothing
	$(BIN)/tqt-onnx demo --force

test: $(BIN)/.installed  ## run the tests, from nothing; docs/coverage.md must say what they found
	@rm -rf $(RESULTS)
	TQT_ONNX_COVERAGE=$(RESULTS) $(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python tests/support/coverage_page.py $(RESULTS) docs/coverage.md --check

test-handoff: $(BIN)/.installed $(HANDOFF_BIN)/.installed  ## run the FPGA toolchains' own readers (qonnx, hls4ml, g++), in an environment of their own
	TQT_ONNX_HANDOFF=$(CURDIR)/$(HANDOFF_BIN)/python $(BIN)/python -m pytest tests/handoff -n 2 --dist worksteal

coverage: $(BIN)/.installed  ## write docs/coverage.md from the tests of operators, topologies, networks and files
	@rm -rf $(RESULTS)
	TQT_ONNX_COVERAGE=$(RESULTS) $(BIN)/python -m pytest -q -n 2 --dist worksteal $(COVERED)
	$(BIN)/python tests/support/coverage_page.py $(RESULTS) docs/coverage.md

lint: $(BIN)/.installed  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed  ## mypy --strict
	MYPYPATH=.types $(BIN)/mypy

N ?= 1000
SEED ?= 0
fuzz: $(BIN)/.installed  ## random networks through every engine: make fuzz N=1000 SEED=0
	TQT_ONNX_FUZZ=$(N) $(BIN)/python -m pytest tests/test_fuzz.py -q --hypothesis-seed=$(SEED)

clean:  ## remove the virtual environments, caches and outputs
	rm -rf $(VENV) $(HANDOFF) .types .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build demo-output
