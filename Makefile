# Every target sets up .venv by itself when it is missing or older than the pinned requirements.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := .uv/bin/uv
DEMO ?= demo
IMAGES ?=
TAG ?= test
# Two tests at a time: they wait for processes and servers a lot. Each process of pytest takes about a gigabyte.
TESTS_AT_ONCE ?= 2
CHROMIUM ?= chromium
# A Python that is on the machine; `make setup UV_PYTHON_DOWNLOADS=automatic` fetches one instead.
export UV_PYTHON_DOWNLOADS ?= never

##@ Use
.PHONY: help setup demo
help: ## Say what can be made
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nPYTHON=python3.12 names the Python, UV_TORCH_BACKEND=cpu the build of torch, DEMO=folder where the demo goes.\n'
	@printf 'IMAGES="tts mlflow" says which images, TAG=test their tag, BASE their base, IMAGE_BUILDER=podman who builds them.\n'

setup: $(READY) ## Install everything into .venv (again only when the requirements changed)

demo: $(READY) ## Make a corpus, tune, train, judge and register a voice: folder demo/, about ten minutes, resumable
	@$(BIN)/python -m pipelines.local $(DEMO)/corpus $(DEMO)/out --demo

##@ Develop
.PHONY: test test-cluster lint bench chaos compile images picture lock clean
test: $(READY) ## Run the whole suite
	@$(BIN)/pytest --numprocesses $(TESTS_AT_ONCE) --dist loadfile

# One after the other: they wait for one cluster, and some stop parts of it. IMAGES=none: the cluster has them.
test-cluster: $(READY) ## Bring the images into the cluster of KUBECONFIG and run the tests that need one
	@[ -n "$${KUBECONFIG:-}" ] || { echo "KUBECONFIG names no cluster; these tests install and delete, so they want one by name" >&2; exit 1; }
	@[ "$(IMAGES)" = none ] || $(BIN)/python images/build.py $(IMAGES) --tag $(TAG) --load
	@TTS_TEST_TAG=$(TAG) $(BIN)/pytest -m cluster

lint: $(READY) ## Check style, formatting, types and import rules
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(READY) ## Measure speed and memory against the peers: build/bench.json
	@$(BIN)/python -m tests.benchmarks

chaos: $(READY) ## Kill workers, trainings and services again and again: build/chaos.json, under 25 minutes
	@$(BIN)/python -m tests.chaos

compile: $(READY) ## Write what is made from source: the compiled pipeline, its objects for a cluster, Katib's Experiment
	@$(BIN)/python -m pipelines.compile
	@$(BIN)/python -m pipelines.objects
	@$(BIN)/tts katib-experiment > manifests/katib/experiment.yaml.new && mv manifests/katib/experiment.yaml.new manifests/katib/experiment.yaml

images: ## Build the images and say what their layers weigh (docker, podman or buildah)
	@$(PYTHON) images/build.py $(IMAGES) --tag $(TAG)

picture: ## Photograph the demo's reports for the README: docs/report.png, docs/diagnosis.png (needs Chromium)
	@profile=$$(mktemp -d) && trap 'rm -rf "$$profile"' EXIT && \
	photograph() { $(CHROMIUM) --headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run --hide-scrollbars \
	  --user-data-dir="$$profile" --window-size="$$1" --virtual-time-budget=20000 --screenshot="$$PWD/docs/$$2" "file://$(abspath $(DEMO))/out/$$3"; } && \
	photograph 1200,1500 report.png evaluation/report.html && photograph 1200,2600 diagnosis.png diagnostics/diagnostics.html

lock: $(UV) ## Resolve the requirements anew: exact versions and hashes
	@UV=$(UV) requirements/lock.sh

clean: ## Remove what was made: environments, build, demo, caches
	@rm -rf $(VENV) .uv build dist demo .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv comes from the package index by plain pip, checked by hash; its own folder lets it choose another Python for .venv.
$(UV): requirements/uv.txt
	@$(PYTHON) -m venv --clear .uv || { echo "$(PYTHON) with its venv module is needed (Debian: apt install python3-venv)" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch $@

$(BIN)/python: | $(UV)
	@request=$$($(PYTHON) -c 'import sys; print(sys.executable if (3, 11) <= sys.version_info[:2] < (3, 14) else ">=3.11,<3.14")'); \
	$(UV) venv --quiet --python "$$request" $(VENV) || \
	{ echo "Python 3.11, 3.12 or 3.13 is needed: install one and name it, as in: make PYTHON=/path/to/python3.12" >&2; exit 1; }

$(READY): requirements/dev.txt requirements/torch.txt pyproject.toml | $(BIN)/python $(UV)
	@echo "setting up $(VENV)" >&2
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python -r requirements/torch.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(UV) pip check --quiet --python $(BIN)/python
	@touch $@
