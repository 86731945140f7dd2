# Every stage of the chain as a target; `make` alone shows them.
CFG ?= configs/demo.toml
RUN ?=
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN_OPTION = $(if $(RUN),--run $(RUN))

# stages: written by `python -m braggnn_edge.listing`
STAGES := data label train universal tune evaluate grains qat hls rtl csim reference report search pareto ablation
define_data = simulate the simulated scans; check and describe the measured ones
define_label = find peaks, fit pseudo-Voigts, cut patches, split
define_train = train the full float BraggNN, and the compact network where it goes to the firmware
define_universal = train the float network that travels, on a wide family of simulated patches
define_tune = fit the float network that ships to the labelled peaks of a scan, and keep the result where it helps
define_evaluate = errors of any networks beside the trivial estimators, on the test peaks of a labelled scan
define_grains = grains from the positions of the fit, of networks and of the centroid, against the truth and each other
define_qat = the firmware's network in integers: what ships, or trained with rounding, in layers or as a circuit
define_hls = hls4ml projects with exact types, test bench and golden vectors
define_rtl = RTL project of a circuit: pipelined core, stream interface, constraints, scripts, test bench; front end
define_csim = compare all forms code for code: quantized network, QONNX, C simulation; RTL and netlist of a circuit
define_reference = firmware against float networks, labels and truth; every form of inference against float64
define_report = report.json and report.html
define_search = trials of circuits in a storage that many processes and machines may share
define_pareto = the Pareto front of a search: picture, configuration and circuit of every point
define_ablation = the full network with and without attention and random shifts, over several seeds
# end of stages

# The newest Python that the pinned packages have wheels for. The first that runs is taken; PYTHON=... names another.
PYTHONS := python3.14 python3.13 python3.12 python3.11 python3 python
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(firstword $(foreach one,$(PYTHONS),$(if $(shell $(one) -c '$(SUPPORTED)' 2>/dev/null && echo yes),$(one))))

# Waiting threads sleep: spinning ones slow the small networks several times when another program uses the cores.
export OMP_WAIT_POLICY ?= PASSIVE

ifeq ($(origin CONFIG),command line)
$(error CONFIG=$(CONFIG) has no effect; the scenario is CFG=$(CONFIG))
endif

.DEFAULT_GOAL := help
.PHONY: help demo $(STAGES) test quick check docs clean

help: ## show this help
	@echo "BraggNN Edge: detector frames to a bit-exact FPGA firmware project"
	@echo
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo "One stage of a scenario, after those that it needs:"
	@$(foreach one,$(STAGES),printf '  make %-10s %s\n' '$(one)' "$(define_$(one))";)
	@echo
	@echo "  CFG=configs/NAME.toml  the scenario (now $(CFG)); RUN=name  the run's folder in runs/"

$(READY): pyproject.toml
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' 2>/dev/null || { echo "Python 3.11 to 3.14 is needed; found" \
	  "$(or $(PYTHON),none of $(PYTHONS)). Install one, or name it: make PYTHON=/path/to/python3.13"; exit 2; }
	@echo "environment: $$($(PYTHON) --version), in $(VENV)"
	@cmp -s <($(BIN)/python --version 2>&1) <($(PYTHON) --version 2>&1) || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[test,dev]'
# What pip would do in one process, for a minute.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

demo: $(READY) ## the whole chain on a small simulated scan, to runs/demo/report/report.html
	$(BIN)/braggnn-edge report --config configs/demo.toml $(RUN_OPTION)

$(STAGES): $(READY)
	$(BIN)/braggnn-edge $@ --config $(CFG) $(RUN_OPTION)

ablation: CFG = configs/ablation.toml
grains: CFG = configs/grains.toml

test: $(READY) ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q

quick: $(READY) ## the test suite without the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q -m 'not slow'

$(VENV)/.docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

# Not with --quiet: mkdocs then neither shows nor counts warnings, and a dead link would pass.
docs: $(VENV)/.docs ## the documentation as a site, to site/index.html; fails at a dead link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What mypy does not ask of scripts: of these it is to say which names and arguments are not there.
SCRIPTS_MAY := arg-type call-overload func-returns-value import-not-found import-untyped misc unused-ignore

check: $(READY) docs ## formatting, lint, types, import layers, documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --cache-dir .mypy_cache/scripts $(addprefix --disable-error-code ,$(SCRIPTS_MAY)) \
	  benchmarks/*.py examples/*.py & scripts=$$!; $(BIN)/mypy; packages=$$?; wait $$scripts && exit $$packages
	$(BIN)/lint-imports

clean: ## remove caches; the environment (.venv) and the runs stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
