# `make demo`, `make test`, `make lint`, `make bench`: an environment of its own in .venv, locked versions.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-tflite lint asyncapi bench docs clean

demo: .venv/demo
	$(BIN)/parkwatt demo $(ARGS)

# two at a time: much of a test is waiting for another process; a file's tests stay together
test: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# tflite-runtime needs numpy<2: an environment of its own, next to ai-edge-litert in .venv
test-tflite: .venv-tflite/ready
	.venv-tflite/bin/python -m backends.contract tflite
	.venv-tflite/bin/python -m pytest tests/test_backends_tflite.py $(ARGS)

lint: .venv/dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy && $(BIN)/mypy tests
	$(BIN)/lint-imports

# what AsyncAPI's own parser says of the published document
ifeq ($(shell command -v npm),)
asyncapi:
	@echo "docs/protocol/asyncapi.json is not checked: no npm on the PATH (apt-get install nodejs npm)"
else
asyncapi: .ci/asyncapi/node_modules
	node .ci/asyncapi/validate.mjs docs/protocol/asyncapi.json
endif

.ci/asyncapi/node_modules: .ci/asyncapi/package-lock.json
	npm ci --prefix .ci/asyncapi --ignore-scripts --no-audit --no-fund
	touch $@

bench: .venv/dev
	$(BIN)/python -m benchmarks $(or $(ARGS),micro)

docs: .venv/dev
	$(BIN)/python -m agent.protocol.schema docs/protocol
	$(BIN)/python -m agent.guards_page docs/guards.md
	$(BIN)/python -m benchmarks.throughput.schema docs/benchmarks

.venv/%: pyproject.toml constraints.txt
	@echo "installing parkwatt[$*] into .venv, once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

.venv-tflite/ready: pyproject.toml constraints.txt
	python3.11 -m venv .venv-tflite
	grep -v '^numpy==' constraints.txt > .venv-tflite/constraints.txt
	.venv-tflite/bin/python -m pip install --quiet --constraint .venv-tflite/constraints.txt --editable . \
	  numpy==1.26.4 tflite-runtime==2.14.0 cryptography hypothesis pytest pytest-asyncio pytest-timeout
	touch $@

clean:
	rm -rf .venv .venv-tflite .ci/asyncapi/node_modules
