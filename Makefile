PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# One thread in each of two test processes: the networks are small, and more threads only wait for each other.
WORKERS ?= 2
# What is compiled is kept, whatever the user's setting: rewriting the tests' asserts takes each process four seconds.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=

.PHONY: help venv quickstart test test-slow lint format bench docs clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)

venv: $(STAMP) ## the environment, with the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt peers.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --no-deps -r peers.txt
	# The wheel of torchattacks writes an old copy of robustbench over the real one.
	$(BIN)/python -m pip install --no-deps --force-reinstall -c constraints.txt robustbench
	touch $@

# Passive waiting: with OpenMP's default, threads that wait for each other take the cores from everybody else.
quickstart: venv ## a real comparative robustness study of handwritten digits, with a report
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m recipes.quickstart

test: venv ## all tests but the slow ones
	$(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: venv ## the tests that take minutes
	$(TEST_ENV) $(BIN)/python -m pytest -m slow

lint: venv ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: venv ## measure the hot paths
	for script in tests/benchmarks/bench_*.py; do $(TEST_ENV) $(BIN)/python $$script || exit 1; done

docs: venv ## check that the links and the code in the docs hold
	$(BIN)/python -m pytest tests/test_docs.py

clean: ## remove what was built, but neither .venv nor runs/
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
