# Two commands matter: `make demo` and `make test`. Each sets up what it needs; run again, it starts at once.
.DELETE_ON_ERROR:
.PHONY: help demo test lint typecheck simulator bench sparsity pairs faults fuzz synth clean

PYTHON ?= python3
# Another build of torch can be asked for: make demo TORCH="torch==2.13.0 --index-url URL"
TORCH  ?= torch==2.13.0
JOBS   ?= $(shell nproc)
SEEDS  ?= 3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq

help:
	@echo 'make demo   set up, train two networks in exact FP8, write Verilog and a report'
	@echo 'make test   set up, lint, type-check, run all tests'
	@echo 'make bench  run the benchmarks (benchmarks/results/*.json)'
	@echo 'make sparsity  what zeros save in trainings, and the tables of docs/zce.md (a quarter of an hour)'
	@echo 'make pairs  10^7 pairs of operands and 1,500 products through compiled RTL (half an hour)'
	@echo 'make faults  1,000 injections of each fault of the link into each operation, and the table of docs/protocol.md (minutes)'
	@echo 'make fuzz   a million random frames into each end of the link, likewise (minutes)'
	@echo 'make synth  area and clock on an ECP5 of all designs (hours; cached; SEEDS=3, or UNITS="tiny softmax" for some)'
	@echo 'make clean  remove everything that make made'

demo: $(VENV)/.demo
	@$(BIN)/exactum demo

test: $(VENV)/.test simulator lint typecheck
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(VENV)/.test
	@$(BIN)/ruff check .

# A folder of links shows the type checker the packages under their installed names.
typecheck: $(VENV)/.test
	@mkdir -p build/typing/exactum
	@ln -sfn $(CURDIR)/hdl build/typing/exactum/hdl
	@ln -sfn $(CURDIR)/gen build/typing/exactum/gen
	@ln -sfn $(CURDIR)/host build/typing/exactum/host
	@ln -sfn $(CURDIR)/sim_tests/benches build/typing/exactum/benches
	@MYPYPATH=build/typing $(BIN)/mypy -p exactum.gen -p exactum.host

bench: $(VENV)/.test simulator
	@for script in emulator offload softmax attention generate rtl vpcu zce codec; do \
	  $(BIN)/python benchmarks/$$script.py || exit 1; done

sparsity: $(VENV)/.test
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sparsity.py
	@$(BIN)/python benchmarks/sparsity_tables.py

pairs: $(VENV)/.test simulator
	@for script in pairs products; do \
	  OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$script.py || exit 1; done

faults fuzz: $(VENV)/.test
	@$(BIN)/python benchmarks/$@.py

# Without UNITS: what benchmarks/results/synth.json records. With it: those units, as `exactum synth` takes them.
synth: $(VENV)/.synth
	@$(if $(UNITS),$(BIN)/exactum synth $(UNITS) --seeds $(SEEDS) -w build/synth,\
	  $(BIN)/python benchmarks/synth.py --seeds $(SEEDS))

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache exactum-demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Exactum needs Python 3.11 or newer: make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'python3 cannot make a virtual environment: apt-get install python3-venv, then run make again'; exit 1; }

# torch first and by exact version, so that no other requirement chooses a build of its own.
$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo 'setting up: Python packages for the demo (a few minutes the first time)'
	@$(PIP) install $(TORCH)
	@$(PIP) install -e '.[demo]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VENV)/.demo
	@echo 'setting up: Python packages for the tests'
	@$(PIP) install -e '.[test]'
	@touch $@

$(VENV)/.synth: pyproject.toml | $(BIN)/python
	@echo 'setting up: Yosys and nextpnr (their first call takes minutes, to compile them)'
	@$(PIP) install -e '.[synth]'
	@touch $@

# cocotb needs a simulator and the shared library of the Python that runs it; Verilator checks the Verilog.
simulator: $(VENV)/.test
	@mkdir -p build; missing=; \
	for tool in iverilog verilator; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	$(BIN)/python -c 'import find_libpython, sys; sys.exit(not find_libpython.find_libpython())' \
	  || missing="$$missing $$($(BIN)/python -c 'import sys; print("libpython3.%d" % sys.version_info[1])')"; \
	[ -z "$$missing" ] || { \
	  echo "setting up: $$missing"; \
	  if [ "$$(id -u)" = 0 ]; then as_root=; else as_root='sudo -n'; fi; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { $$as_root apt-get update -qq && $$as_root apt-get install -y -qq $$missing; } >build/apt.log 2>&1; \
	} || { echo "the tests need $$missing: run 'sudo apt-get install $$missing', then 'make test' again (build/apt.log says why this did not)"; exit 1; }
