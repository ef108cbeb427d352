# Everything starts here: `make help`. The virtual environment sets itself up when a target needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVE := $(VENV)/.serve-ready
DEV := $(VENV)/.dev-ready
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# PORT counts where it is given to make; what the environment calls PORT is rarely meant for this.
DEMO = $(if $(and $(PORT),$(filter command,$(origin PORT))),--port=$(PORT))
SPEED := serve ingest engine overload
BENCHES = $(filter-out bench/compare.py bench/report.py,$(shell grep -lr --include='*.py' '^if __name__ == "__main__"' bench | sort))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test check lint format stubs bench bench-quick bench-all bench-all-quick release-baseline clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(SERVE)  ## Set up, serve the bundled curriculum, and tell the story on screen; on another port: make run PORT=…
	@$(BIN)/genie demo $(DEMO)

setup: $(DEV)  ## Set up everything for development

test: $(DEV)  ## Set up and run the tests
	@$(BIN)/pytest

check: lint  ## Everything: style, types, layers, stubs, the wire API, the tests
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check
	$(BIN)/buf lint
	$(BIN)/buf breaking protos --against protos/baseline.binpb
	$(BIN)/pytest

lint: $(DEV) .cache/googleapis  ## Style of the sources, Python and proto
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/buf format --diff --exit-code protos

format: $(DEV) .cache/googleapis  ## Put the sources into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/buf format --write protos

stubs: $(DEV)  ## Generate the Python stubs from the .proto files
	$(BIN)/python protos/generate.py

bench: $(DEV)  ## Speed: every bar, in under ten minutes on a quiet machine (and once the time to build the worlds)
	@failed=0; for bench in $(SPEED); do $(BIN)/python -m bench.$$bench || failed=1; done; exit $$failed

bench-quick: $(DEV)  ## Speed: the same bars at a smaller size, in two minutes
	@failed=0; for bench in $(SPEED); do $(BIN)/python -m bench.$$bench --brief || failed=1; done; exit $$failed

bench-all: $(DEV)  ## Run every bench in full: hours, on a quiet machine
	@for bench in $(BENCHES); do $(BIN)/python -m $$(echo $${bench%.py} | tr / .) || exit 1; done

bench-all-quick: $(DEV)  ## Run every bench at its smallest, to see that it works
	@for bench in $(BENCHES); do $(BIN)/python -m $$(echo $${bench%.py} | tr / .) --quick || exit 1; done

release-baseline: $(DEV) .cache/googleapis  ## Take today's wire API as the one that `buf breaking` protects
	$(BIN)/buf build protos --exclude-source-info --output protos/baseline.binpb

clean:  ## Remove everything that can be made again
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find engine store server protos tests bench examples -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Genie needs Python 3.11 or later; name it with: make PYTHON=/path/to/python3.11 …' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(SERVE): pyproject.toml | $(BIN)/python
# Modules are compiled to bytecode as they are first imported: a quarter of the wait saved.
	$(PIP) install --no-compile --editable .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $@ $(SERVE)

.cache/googleapis: $(wildcard protos/genie/v1/*.proto) | $(DEV)
	$(BIN)/python protos/generate.py --imports $@
	@touch $@
