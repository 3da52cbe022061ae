# Everything is made in .venv, from locked requirements. Nothing here but `control-plane` and `node` needs Go, nothing but
# `node` needs root; nothing needs Docker or a cluster.

VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
# More arguments for pytest or the lock: `make test ARGS="-k retire"`, `make lock ARGS=--upgrade`.
ARGS ?=
SEEDS ?= 1000
FIRST ?= 1
REPLAY ?=
CHART = charts/openai-key-rotator
CHECKERS = .venv-checkers
PYTHONS = $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)

.PHONY: help venv demo test bench simulate kill-matrix mutations kill node node-programs lint types manifests checkers control-plane chart sbom release dist lock clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

venv: $(INSTALLED) ## Make the virtual environment (PYTHON=… chooses the interpreter)

demo: $(INSTALLED) ## Watch rotations happen: the real worker, embedded APIs, nothing installed outside this folder
	@$(BIN)/python -m sandbox.demo

test: $(INSTALLED) ## Run the tests; the last lines tell whether the real API server took part
	@$(BIN)/python -m pytest --numprocesses auto --dist loadgroup $(ARGS)

ROUNDS ?= 1
kill: $(INSTALLED) ## Kill, stop and starve workers on the real API server (ROUNDS=16: 400 kills, 17 minutes)
	@REQUIRE_CLUSTER=1 PROCESS_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest --capture=no \
	  --override-ini faulthandler_timeout=0 tests/cluster/test_processes.py $(ARGS)

QUICK ?=
FULL ?=
bench: $(INSTALLED) ## Measure speed and memory against their bound, into docs/benchmarks (QUICK=1: a minute or two; FULL=1: an hour; AGAINST=commit: next to that build)
	@$(BIN)/python -m benchmarks$(if $(AGAINST),.against $(AGAINST),$(if $(QUICK), --quick,$(if $(FULL), --full) --output docs/benchmarks)) $(ARGS)

node: $(INSTALLED) ## Tests with a real kubelet and real containers: as root, with Go and buildah (FULL=1: those of minutes, too; HOUR=1: that of an hour)
	@$(BIN)/python -m tests.node $(if $(HOUR),-s -m hour -o faulthandler_timeout=0,-m $(if $(FULL),'not hour','not full and not hour')) $(ARGS)

node-programs: $(INSTALLED) ## Build what `make node` needs, images included: needs Go, takes minutes the first time
	@$(BIN)/python -m tests.node.build

lint: $(INSTALLED) ## Check style, layers, YAML and the Dockerfile
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/yamllint --strict manifests tests/data tests/manifests $(CHART)/*.yaml $(CHART)/ci
	@$(BIN)/hadolint Dockerfile

simulate: $(INSTALLED) ## Search for a violation: SEEDS=10000 histories from FIRST=1 on; REPLAY=seed shows one in full
	@$(BIN)/python -m tests.simulation $(if $(REPLAY),--replay $(REPLAY),--seeds $(SEEDS) --first $(FIRST))

kill-matrix: $(INSTALLED) ## Kill a run at each of its requests, in every situation, alone and followed by another
	@$(BIN)/python -m tests.simulation --kill-matrix

mutations: $(INSTALLED) ## Break the worker on purpose, in many small ways: does the search notice each?
	@$(BIN)/python -m tests.simulation --mutations

types: $(INSTALLED) ## Check types
	@$(BIN)/mypy

manifests: $(INSTALLED) ## Build every kustomization (components are built by those that use them)
	@find manifests -name kustomization.yaml | sort | while read -r file; do \
	  grep -q '^kind: Component' "$$file" && continue; \
	  $(BIN)/kubectl kustomize "$$(dirname "$$file")" >/dev/null || exit 1; \
	  echo "$$(dirname "$$file") builds"; \
	done

control-plane: $(INSTALLED) ## Build the real API server and a cluster around it for tests: needs Go, takes minutes the first time
	@$(BIN)/python -m tests.cluster.build

checkers: $(INSTALLED) $(CHECKERS)/.installed ## Judge all that kustomize and the chart make: schemas, checkov, kube-score, helm lint
	@$(BIN)/python -m tests.manifests.checkers $(CHECKERS)/bin

# Of their own: checkov wants a hundred packages, some at other versions than the tests do.
$(CHECKERS)/.installed: requirements/checkers.txt $(INSTALLED)
	@$(BIN)/python -m venv --clear $(CHECKERS)
	@$(CHECKERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	  --requirement requirements/checkers.txt
	@touch $@

chart: ## Copy what the chart has of manifests/ into it, after a change there
	@cd $(CHART)/files && find . -type f | while read -r file; do cp "../../../manifests/$$file" "$$file"; done

sbom: $(INSTALLED) ## List what is in the image (CycloneDX, from the lock file): into dist/
	@mkdir -p dist && $(BIN)/python -m requirements.sbom > dist/openai-key-rotator.cdx.json
	@echo dist/openai-key-rotator.cdx.json

VERSION ?=
release: $(INSTALLED) ## Release VERSION=1.2.3: version, changelog, commit, artifacts in dist/, tag; pushes nothing (docs/release.md)
	@$(BIN)/python -m release '$(VERSION)'

dist: $(INSTALLED) ## Make what a release of HEAD hands out, into dist/: to compare with what somebody else made
	@$(BIN)/python -m release --dist

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)

lock: $(INSTALLED) ## Lock the requirements again, for every Python from 3.11 on (ARGS=--upgrade: newest versions)
	$(LOCK) requirements/runtime.in --output-file requirements/runtime.txt
	$(LOCK) requirements/dev.in --output-file requirements/dev.txt
	$(LOCK) requirements/checkers.in --output-file requirements/checkers.txt

clean: ## Remove all that was made in this folder (the control plane's cache is outside)
	rm -rf .venv* build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis \
	  .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements/dev.txt
	@if [ -L $(VENV) ]; then echo '$(VENV) is a link: what it leads to would be emptied. Name a folder: make VENV=…' >&2; exit 1; fi
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    "$$python" -m venv --clear $(VENV) && \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	      --requirement requirements/dev.txt && \
	    touch $@; exit; \
	  fi; \
	done; \
	echo 'Python 3.11 or newer, with venv, is needed; none of these is: $(PYTHONS). Name one: make PYTHON=…' >&2; exit 1
