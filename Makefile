# `make` on a fresh clone makes .venv and installs all that is needed; nothing outside this folder is touched.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test random check docs screenshots lock clean
install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/pip install --quiet uv; }
	UV_COMPILE_BYTECODE=1 $(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: install
	$(BIN)/dreamloom demo

# All tests; what the fast ones reach is counted, and must not fall below the floor in pyproject.toml. Each core
# takes files of tests in turn. hypothesis has the same examples each time, so that one commit has one verdict; `make random`
# has others. Python keeps what it compiles, wherever it is told not to, as hundreds of processes read the same files.
test: export PYTHONDONTWRITEBYTECODE =
test: install check
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" --cov
	$(BIN)/python -m pytest -n auto --dist loadfile -m "slow"

# hypothesis' tests with random examples; prints the seed that gives them again.
random: install
	$(BIN)/python -m pytest -n auto --dist loadfile -m "hypothesis"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

# Run after a change of a config.
docs: install
	$(BIN)/python -m dreamloom.flows.commands.defaults > docs/defaults.md

# Pictures of the dashboard, into screenshots/; needs Chromium.
screenshots: install
	$(BIN)/python -m bench.screenshots

# Run after a change of the dependencies in pyproject.toml.
lock: install
	$(BIN)/uv pip compile --quiet pyproject.toml --extra bitsandbytes --extra bulk --extra dev --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --generate-hashes --upgrade --output-file requirements.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
