# Every stage of the chain as a target; `make` alone shows them.
CFG ?= configs/demo.toml
RUN ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STAGES := data label train qat circuit hls csim rtl rtlsim search pareto reference report
RUN_OPTION = $(if $(RUN),--run $(RUN))

# Waiting threads sleep: spinning ones slow the small networks several times when another program uses the cores.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo $(STAGES) ablation test check docs clean

help: ## show this help
	@echo "BraggNN Edge: detector frames to a bit-exact FPGA firmware project"
	@echo
	@grep -hE '^[a-z$$(). A-Z]+:.*## ' $(MAKEFILE_LIST) | sed -e 's/$$(STAGES)/data label train qat circuit hls csim rtl rtlsim search pareto reference report/' \
	  | awk -F ':.*## ' '{printf "  make %-80s %s\n", $$1, $$2}'
	@echo
	@echo "  CFG=configs/NAME.toml  the scenario (now $(CFG)); RUN=name  the run's folder in runs/"

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "Python 3.11 is needed; install it or name it: make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	@touch $@

demo: $(READY) ## the whole chain on a small simulated scan, to runs/demo/report/report.html
	$(BIN)/braggnn-edge report --config configs/demo.toml $(RUN_OPTION)

$(STAGES): $(READY) ## one stage, after the ones it needs
	$(BIN)/braggnn-edge $@ --config $(CFG) $(RUN_OPTION)

ablation: CFG = configs/ablation.toml
ablation: $(READY) ## the paper's ablations, about an hour on one core, to runs/ablation/ablation
	$(BIN)/braggnn-edge ablation --config $(CFG) $(RUN_OPTION)

test: $(READY) ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

# Not with --quiet: mkdocs then neither shows nor counts warnings, and a dead link would pass.
docs: $(VENV)/.docs ## the documentation as a site, to site/index.html; fails at a dead link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: $(READY) docs ## formatting, lint, types, import layers, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove caches; the environment (.venv) and the runs stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
