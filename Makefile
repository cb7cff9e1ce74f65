# Two commands are enough: `make study` (environment, then the miniature study, ending with a report) and `make test`.
SHELL := /bin/bash
PYTHON ?= python3 python3.13 python3.12 python3.11
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=
STUDY ?= configs/studies/$(if $(DATA),real_small,mini).yaml
# A folder of local wheels is offered to uv as well as to pip.
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
# Compiled once here, not again in each process where PYTHONDONTWRITEBYTECODE is set.
export UV_COMPILE_BYTECODE := 1

# Python 3.11 keeps the oldest pair that is tested, with megatron-core 0.16.1; newer Pythons have the newest.
TORCH_ON_3_11 := torch==2.13.0; python_version < '3.12'

.PHONY: study test test-slow experiments faults lint constraints clean help
help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

study: $(VENV)/.ready  ## Run the miniature study, real_small on the documents in the folder DATA, or the study STUDY
	@$(BIN)/python study.py run $(STUDY) $(if $(DATA),--documents $(DATA))

test: $(VENV)/.ready-dev  ## Fast tests
	$(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

test-slow: $(VENV)/.ready-dev  ## Tests that take minutes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not gpu"

experiments: $(VENV)/.ready-dev  ## List the measurements that take long, or run those of NAME at full size
	@$(BIN)/python tests/perf/experiments.py $(NAME)

faults: $(VENV)/.ready-dev  ## N studies (default: 50) under random faults, their outcomes as a table
	$(BIN)/python tests/faults/faults.py --runs $(or $(N),50) --seed $(or $(SEED),0)

lint: $(VENV)/.ready-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

constraints:  ## Resolve constraints.txt anew: the newest versions, for every supported Python at once
	env -u UV_FIND_LINKS $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	  --no-annotate --custom-compile-command "make constraints" --constraint <(echo "$(TORCH_ON_3_11)") \
	  --output-file constraints.txt pyproject.toml

clean:  ## Remove the environment and caches (runs and data stay; of a study: study.py clean)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info

# The first of PYTHON that suits. uv needs no venv module; it fetches an interpreter where none suits and none was named.
FETCH := $(if $(filter file,$(origin PYTHON)),uv,false)
define find_python
suits='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; \
for python in $(PYTHON); do \
  $$python -c "$$suits" 2>/dev/null || continue; \
  path=$$(command -v $$python); using="using $$($$python --version), $$path"; \
  if command -v uv >/dev/null; then uv venv --quiet --seed --python "$$path" $(VENV) && echo "$$using" && exit; fi; \
  $$python -c 'import ensurepip' 2>/dev/null && $$python -m venv $(VENV) && echo "$$using" && exit; \
  bare="$$bare $$python"; \
done; \
[ -z "$$bare" ] || { echo "without the venv module:$$bare; on Debian and Ubuntu: apt install python3-venv"; exit 2; }; \
if command -v $(FETCH) >/dev/null && $(FETCH) venv --quiet --seed --python 3.13 $(VENV); then \
  echo "using uv's Python 3.13"; exit; \
fi; \
echo "Python 3.11, 3.12 or 3.13 is needed; none of these is one: $(PYTHON)"; \
echo "On Debian and Ubuntu: apt install python3 python3-venv; elsewhere: install uv, which fetches one"; exit 2
endef

$(BIN)/python:
	@$(find_python)
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
