# The two commands a newcomer needs are `make demo` and `make test`; `make help` lists the rest.
# Every target creates or refreshes .venv by itself; nothing is done when nothing has changed.

VENV   := .venv
PY     := $(VENV)/bin/python
UV     := $(VENV)/bin/uv
UV_VERSION := 0.13.9
ARGS   ?=
JOBS   ?= 2
COMMA  := ,
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export NO_ALBUMENTATIONS_UPDATE := 1
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help demo dry-run plan test test-all lint ui submit audit real bench lock \
        credentials results backup restore docker-bases docker-bases-remove lock-images

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.ready: requirements.lock pyproject.toml
	@test -x $(PY) || test -n "$(PYTHON)" || command -v uv > /dev/null || { echo "error: Python 3.11 to 3.13 is needed and was not found; install it (or uv, which brings one), or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "installing into $(VENV) ..."
	@test -x $(PY) || if test -n "$(PYTHON)"; then $(PYTHON) -P -m venv $(VENV); else uv venv --quiet --seed --python 3.12 $(VENV); fi
	@test -x $(UV) || $(PY) -P -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@$(UV) pip sync --quiet --compile-bytecode --python $(PY) --allow-empty-requirements requirements.lock
	@$(UV) pip install --quiet --python $(PY) --no-deps --editable .
	@touch $@

demo: $(VENV)/.ready  ## run the whole workflow on real photographs, on the CPU (ARGS="key=value ..." overrides)
	@$(PY) pipelines/run_all.py $(ARGS)

dry-run: $(VENV)/.ready  ## say what the thresholds of a URL list would remove (ARGS="data.select_urls.filters.min_size=256")
	@$(PY) pipelines/dry_run.py $(ARGS)

plan: $(VENV)/.ready  ## print what `make demo` would run, and why
	@$(PY) pipelines/plan.py $(ARGS)

test: $(VENV)/.ready  ## the tests, in JOBS=2 processes (ARGS="-k name" selects; JOBS=0 for a debugger)
	@OMP_NUM_THREADS=1 $(PY) -P -m pytest -m "not slow" -n $(JOBS) --no-loadscope-reorder $(ARGS)

test-all: $(VENV)/.ready  ## the tests and the slow, exhaustive runs
	@OMP_NUM_THREADS=1 $(PY) -P -m pytest $(ARGS)

lint: $(VENV)/.ready  ## ruff and mypy
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

ui: $(VENV)/.ready  ## MLflow's pages over the runs of a store, on http://127.0.0.1:5000 (ARGS="root=runs port=5000")
	@$(PY) pipelines/ui.py $(ARGS)

submit: $(VENV)/.ready  ## run the workflow as a Ray job on a running head (address and token prepared)
	@$(PY) infra/ray/submit.py $(ARGS)

audit: $(VENV)/.ready  ## known vulnerabilities, bill of materials, secrets where none may be (ARGS="root=FOLDER")
	@$(PY) infra/audit.py $(ARGS)

real: $(VENV)/.ready  ## with a hub and a GPU, the first thing to run: real weights beside their publishers' values
	@$(PY) -P -m pipelines real $(ARGS)

bench: $(VENV)/.ready  ## measure our own parts against the libraries that others use (ARGS="decoder_step" selects)
	@$(PY) -P -m benchmarks $(ARGS)

credentials:  ## print the logins of the compose cluster, to a terminal only
	@docker compose run --rm --no-deps init credentials

results:  ## copy the compose cluster's newest model and report to runs/model
	@docker/results.sh

backup:  ## save the compose cluster's MLflow (TO=folder)
	@docker/backup.sh save "$(TO)"

restore:  ## give the compose cluster a saved MLflow (FROM=folder)
	@docker/backup.sh restore "$(FROM)"

docker-bases:  ## stand-ins for official images where no image registry answers (PROFILES=s3,monitoring)
	@docker/bases/make.sh make $(subst $(COMMA), ,$(PROFILES))

docker-bases-remove:  ## remove them
	@docker/bases/make.sh remove

lock-images:  ## write the digests of all foreign images to docker/images.lock, where a registry answers
	@docker/lock-images.sh

lock: $(VENV)/.ready  ## resolve pyproject.toml again into requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra pipelines --extra metrics --extra app --extra dev pyproject.toml -o requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra pipelines --extra metrics pyproject.toml -c requirements.lock -o docker/requirements.lock
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes -c requirements.lock docker/mlflow/requirements.in -o docker/mlflow/requirements.lock
