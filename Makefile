# `make demo`, `make test`, `make lint`, `make bench`: an environment of its own in .venv, locked versions.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench docs clean

demo: .venv/demo
	$(BIN)/parkwatt demo $(ARGS)

test: .venv/dev
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy && $(BIN)/mypy tests
	$(BIN)/lint-imports

bench: .venv/dev
	$(BIN)/python -m benchmarks $(ARGS)

docs: .venv/dev
	$(BIN)/python -m agent.protocol.schema docs/protocol
	$(BIN)/python -m agent.guards_page docs/guards.md

.venv/%: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv
