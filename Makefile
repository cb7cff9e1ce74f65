# Two commands are enough: `make study` (environment, then the miniature study, ending with a report) and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
STUDY ?= configs/studies/$(if $(DATA),real_small,mini).yaml
# A folder of local wheels is offered to uv as well as to pip.
export UV_FIND_LINKS := $(PIP_FIND_LINKS)

.PHONY: study test test-slow faults lint clean help
help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

study: $(VENV)/.ready  ## Run the miniature study, real_small on the documents in the folder DATA, or the study STUDY
	@$(BIN)/python study.py run $(STUDY) $(if $(DATA),--documents $(DATA))

test: $(VENV)/.ready-dev  ## Fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(VENV)/.ready-dev  ## Tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not gpu"

faults: $(VENV)/.ready-dev  ## N studies (default: 50) under random faults, their outcomes as a table
	$(BIN)/python tests/faults/faults.py --runs $(or $(N),50) --seed $(or $(SEED),0)

lint: $(VENV)/.ready-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## Remove the environment and caches (runs and data stay; of a study: study.py clean)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "Python 3.11 or 3.12 is needed, $$($(PYTHON) --version) was found; choose one with: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt install python3-venv"; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet -c constraints.txt uv || echo "uv is not available, pip will install everything (slower)"

# uv is fast; where it is missing or fails, pip does the same from the same constraints.
define install
	@echo "installing $(1) into $(VENV) (once)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '$(1)' || \
	  $(BIN)/pip install --quiet -c constraints.txt -e '$(1)'
	@touch $@
endef

$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev])
	@touch $(VENV)/.ready
