# Conviction's front door. `make demo` and `make test` work on a fresh clone.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
SETUP := $(VENV)/.setup-done
DATA := $(wildcard ../shared/data)
export CONVICTION_DATA ?= $(abspath $(DATA))
# With it, every process that a test starts would compile torch's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format lock bench bench-peers bench-recipes bench-ablations docs clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(SETUP) ## Make the virtual environment; does nothing when nothing changed

$(SETUP): requirements.lock pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" UV_VERSION="$(UV_VERSION)" sh scripts/setup.sh
	@touch $@

demo: setup ## Train a small CNN on scanned digits and look at what came of it
	@$(BIN)/conviction train digits
	@$(BIN)/conviction evaluate latest

test: setup ## Run the whole test suite
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: setup ## Run what takes seconds
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

check: setup ## Format, lint, types, layers
	@$(BIN)/ruff format --check src tests benchmarks scripts
	@$(BIN)/ruff check src tests benchmarks scripts
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## Write the code as `make check` wants it
	@$(BIN)/ruff format src tests benchmarks scripts
	@$(BIN)/ruff check --fix src tests benchmarks scripts

bench: setup ## Measure speed and memory on this machine
	@$(BIN)/python benchmarks/augmentation.py
	@$(BIN)/python benchmarks/start_and_epoch.py
	@$(BIN)/python benchmarks/large_pictures.py
	@$(BIN)/python benchmarks/frozen_head.py
	@$(BIN)/python benchmarks/share_of_ceiling.py
	@$(BIN)/python benchmarks/step_profile.py
	@$(MAKE) --no-print-directory bench-peers
	@$(MAKE) --no-print-directory bench-recipes

bench-peers: setup ## Measure training beside PyTorch, Lightning, fastai and Keras (20 minutes; part of bench)
	@sh benchmarks/peers/setup.sh
	@cd benchmarks && ../$(BIN)/python -m peers.compare $(PEERS_OPTIONS)

bench-recipes: setup ## Train the speed recipes with five seeds and test them (hours without bfloat16; part of bench)
	@$(BIN)/python benchmarks/speed_recipes.py $(RECIPES_OPTIONS)

bench-ablations: setup ## Train the quick speed recipe without each ingredient in turn (hours; not part of bench)
	@$(BIN)/python benchmarks/ablations.py $(ABLATIONS_OPTIONS)

docs: setup ## Write the generated pages of docs/reference anew
	@UPDATE_DOCS=1 $(BIN)/python -m pytest -q tests/docs tests/end_to_end/test_bad_input.py

lock: setup ## Choose the newest versions and write requirements.lock
	@$(BIN)/uv pip compile -q --upgrade pyproject.toml --extra parquet --extra postgresql --group dev --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links -o requirements.lock
	@$(BIN)/uv pip compile -q --upgrade benchmarks/peers/requirements.in -c requirements.lock --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links -o benchmarks/peers/requirements.lock

clean: ## Remove what can be made again
	@rm -rf $(VENV) .bench-venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
