# Plain GNU make, for Linux and macOS. `make` alone prints what there is.
PYTHON ?= python3
VENV   ?= .venv
LOCK   ?= tests/locks/cpu.txt
PORT   ?= 8888
JOBS   ?= 2
ARGS   ?=
RUN    ?=

PY := $(VENV)/bin/python
# The environment belongs to this lock, this pyproject.toml and this folder; when one changes, it is brought up to date.
KEY := { pwd; cat pyproject.toml $(LOCK); } | cksum
OFFLINE := $(if $(filter 1,$(KANCOURSE_DOWNLOAD)),,HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1)
# Two processes of one thread each get more done on two cores than one process of two threads.
PARALLEL := --numprocesses=$(JOBS) --dist=worksteal
AS_ROOT := $(shell [ "$$(id -u)" -ne 0 ] || echo --allow-root)

.PHONY: help lab test test-colab run bench env

help: ## Print this list
	@echo 'make WHAT, where WHAT is one of'
	@sed -n 's/^\([a-z-]*\):.*## /  \1	/p' Makefile | expand -t 15
	@echo 'The environment lies in $(VENV); PYTHON=python3.12 picks another interpreter (3.11 or newer).'

lab: env ## Open the course in JupyterLab           PORT=8888  ARGS=--no-browser
	JUPYTER_PREFER_ENV_PATH=1 $(PY) -m jupyterlab --port=$(PORT) $(AS_ROOT) \
	  --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	  --LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate $(ARGS)

test: env ## Check everything, offline: style, tests, then every notebook   JOBS=2  ARGS=
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(OFFLINE) $(PY) -m pytest $(PARALLEL) --durations=10 $(ARGS)
	$(OFFLINE) OMP_NUM_THREADS=1 JUPYTER_PREFER_ENV_PATH=1 $(PY) -m pytest --nbmake notebooks $(PARALLEL) --durations=0 \
	  --timeout=1200

test-colab: ## The same under the versions that Colab has
	$(MAKE) test VENV=.venv-colab LOCK=tests/locks/colab.txt

run: env ## Run a recorded experiment               RUN=notebooks/runs/NAME.yaml
	@[ -n '$(RUN)' ] || { echo 'make run needs RUN=; there are:' notebooks/runs/*.yaml; exit 2; }
	$(PY) -m kancourse run '$(RUN)' $(ARGS)

bench: env ## Measure the fast paths on this machine   ARGS=
	$(PY) -m kancourse bench $(ARGS)

env: ## Only bring the environment up to date
	@if [ "$$($(KEY))" != "$$(cat $(VENV)/kancourse.key 2>/dev/null)" ]; then \
	  $(PY) -m pip --version >/dev/null 2>&1 || { \
	    $(PYTHON) -c 'import sys; sys.exit("kancourse needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)' && \
	    $(PYTHON) -m venv --clear $(VENV); } && \
	  $(PY) -m pip install --requirement $(LOCK) && \
	  $(PY) -m pip install --no-deps --no-build-isolation --editable . && \
	  $(PY) -m ipykernel install --sys-prefix --name python3 --display-name 'Python 3 (kancourse)' && \
	  $(KEY) > $(VENV)/kancourse.key; \
	fi
