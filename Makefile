SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

UV := hack/uv
RUN := $(UV) run --frozen --quiet
CLUSTER := python3 hack/cluster
IMAGES := python3 hack/images
MKDOCS := NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs
MERMAID := build/mermaid-11.12.0.min.js
MERMAID_SHA256 := 07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b

# The instance that the targets work on; give another name to run two side by side.
NAME ?= dev
# Where a release is to be found: its page, and the folder that its archives are downloaded from.
PLUGIN_HOMEPAGE ?= https://llamamodel.dev
PLUGIN_URL ?= https://llamamodel.dev/download
# More arguments for pytest, such as PYTEST_ARGS='-k lease'
PYTEST_ARGS ?=

##@ General

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-zA-Z0-9_-]+:.*##/ {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## From nothing to an answer: cluster, operator, a real model, a streamed completion
	@python3 hack/demo --name $(NAME)

.PHONY: demo-down
demo-down: cluster-down ## Remove all that `make demo` started

.PHONY: test
test: test-unit test-servers test-api test-chart test-kind e2e ## Run every test; the clusters that they need they start and end themselves

##@ Development

.PHONY: setup
setup: ## Install the locked dependencies into .venv, and the git hooks
	@$(UV) sync --frozen --quiet
	@$(RUN) pre-commit install >/dev/null

.PHONY: generate
generate: ## Write what is generated: CRD, chart, dashboards, reference, Argo CD's settings
	@$(RUN) python -m llamamodel_operator.api.crd > crds/llamamodels.yaml.new && mv crds/llamamodels.yaml.new crds/llamamodels.yaml
	@$(RUN) python hack/chart
	@$(RUN) python hack/dashboards
	@$(RUN) python hack/reference
	@$(RUN) python hack/gitops
	@$(RUN) python hack/picture render

.PHONY: format
format: ## Format the code
	@$(RUN) ruff check --fix --quiet .
	@$(RUN) ruff format --quiet .

.PHONY: verify
verify: ## Everything that can be said without running the operator: lint, types, layers, workflows, generated files
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	@for tool in hack/*/__main__.py; do $(RUN) mypy "$$tool" --no-error-summary; done
	$(RUN) lint-imports --no-logo
	$(UV) lock --check --quiet
	$(UV) lock --check --quiet --project hack/checkov
	@$(MAKE) --no-print-directory lint-workflows
	@before=$$(git diff --binary | sha256sum); $(MAKE) --no-print-directory generate; \
		[ "$$before" = "$$(git diff --binary | sha256sum)" ] || \
		{ echo "generated files are not up to date: run 'make generate' and commit the result" >&2; git diff --stat >&2; exit 1; }
	$(MKDOCS) build
	@echo "verified"

.PHONY: docs
docs: $(MERMAID) ## Build the documentation as a site, into build/site; what `make verify` does, and with diagrams drawn
	MERMAID=$(CURDIR)/$(MERMAID) $(MKDOCS) build

$(MERMAID):
	@mkdir -p build
	@cd build && $(CURDIR)/$(UV) run --frozen --quiet npm pack --silent mermaid@11.12.0 >/dev/null
	@cd build && tar --extract --gzip --to-stdout --file mermaid-11.12.0.tgz package/dist/mermaid.min.js >mermaid.new
	@echo "$(MERMAID_SHA256)  build/mermaid.new" | sha256sum --check --quiet
	@rm build/mermaid-11.12.0.tgz && mv build/mermaid.new $@

##@ Tests

.PHONY: test-unit
test-unit: ## Pure tests, no cluster
	$(RUN) pytest tests/unit tests/hack $(PYTEST_ARGS)

.PHONY: test-servers
test-servers: servers ## What is known of llama-server, against real ones: flags, arguments, templates, grammars
	$(RUN) pytest tests/catalogue tests/server --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

.PHONY: test-api
test-api: ## The operator against a real API server
	@$(CLUSTER) build --mode api-only
	@$(CLUSTER) build --only gitops-rules
	$(RUN) pytest tests/api --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

.PHONY: test-chart
test-chart: ## The chart, rendered, and linted by helm, kube-score and checkov; what Argo CD and Flux make of a LlamaModel, by their own code
	@$(CLUSTER) build --only helm,gitops-rules,kube-score
	$(RUN) pytest tests/chart tests/gitops $(PYTEST_ARGS)

.PHONY: test-kind
test-kind: ## The configuration of kind, by the code of kind and kubeadm; no Docker needed
	@$(CLUSTER) build --only kind,kubeadm,kubectl,helm
	$(RUN) pytest tests/kind $(PYTEST_ARGS)

.PHONY: e2e
e2e: $(if $(E2E_KUBECONFIG),,images) ## The operator in a pod, the real kubelet, the real llama-server; E2E_CLUSTER names a cluster to keep, E2E_KUBECONFIG any other
	@$(CLUSTER) build $(if $(E2E_KUBECONFIG),--only "kubectl helm")
	$(RUN) pytest tests/e2e $(PYTEST_ARGS)

.PHONY: e2e-failures
e2e-failures: images ## Of these, the failures alone: each made to happen, called by its name, and mended
	@$(CLUSTER) build
	$(RUN) pytest tests/e2e/test_failures.py $(PYTEST_ARGS)

.PHONY: e2e-gateway
e2e-gateway: images servers ## Of these, the gateway alone: official clients, the table of errors, faults, keys
	@$(CLUSTER) build
	$(RUN) pytest tests/e2e/test_gateway.py tests/e2e/test_gateway_*.py tests/server/test_gateway_clients.py \
		tests/server/test_server_errors.py $(PYTEST_ARGS)

.PHONY: e2e-install
e2e-install: images ## What an installation is about, of all tests: chart, rights, GitOps, upgrade, removal, monitoring, quick start
	@$(CLUSTER) build
	@$(CLUSTER) build --only gitops-rules,kube-score
	$(RUN) pytest tests/chart tests/gitops tests/api/test_chart.py tests/api/test_rights.py tests/api/test_no_drift.py \
		tests/api/test_argocd_objects.py tests/api/test_examples.py tests/e2e/test_install.py tests/e2e/test_monitoring.py \
		tests/e2e/test_quick_start.py $(PYTEST_ARGS)

.PHONY: servers
servers: ## Fetch the llama-servers and the model that the tests and benchmarks run
	@python3 hack/servers fetch
	@python3 hack/models fetch gemma3-270m

.PHONY: fuzz
fuzz: ## Throw other input than always at parsers and checks, for FUZZ_SEC seconds (600); fails where one of them does
	@echo "seed $${SEED:=$$(date +%s)}"; status=0; \
	HYPOTHESIS_PROFILE=fuzz timeout --signal KILL $(or $(FUZZ_SEC),600) \
		$(RUN) pytest tests/unit -m hypothesis -x -q -p no:randomly --timeout 0 --hypothesis-seed=$$SEED || status=$$?; \
	[ $$status = 0 ] || [ $$status = 137 ] || exit $$status; \
	PYTHONPATH=tests $(RUN) python hack/fuzz/headers.py --seconds $(or $(FUZZ_SEC),600) --seed $$SEED; echo "nothing found"

.PHONY: bench-webhook
bench-webhook: ## Measure admission reviews against a server that reviews nothing; exits non-zero where an aim is missed
	$(RUN) python hack/bench/webhook.py $(BENCH_ARGS)

.PHONY: bench-reconcile
bench-reconcile: ## Measure reconciles against plain writes; exits non-zero where an aim is missed
	$(RUN) python hack/bench/reconcile.py $(BENCH_ARGS)

.PHONY: bench-headers
bench-headers: ## Measure the reader of GGUF headers beside a bare one, estimates, and the command; exits non-zero where an aim is missed
	$(RUN) python hack/bench/headers.py $(BENCH_ARGS)

.PHONY: bench-gateway
bench-gateway: servers ## Measure what the gateway adds to a request, beside the same sent directly and by llama-swap; exits non-zero where an aim is missed
	$(RUN) python hack/bench/gateway.py $(BENCH_ARGS)

.PHONY: bench-verbosity
bench-verbosity: ## Measure what more verbose logs cost a server per request
	$(RUN) python hack/bench/verbosity.py $(BENCH_ARGS)

.PHONY: report-estimates
report-estimates: ## Show how far estimates of memory are from llama.cpp's own figures, beside another estimator's
	@$(RUN) python hack/memory

.PHONY: bench-warmup
bench-warmup: ## Measure what warm-up and the check of tensors cost when a server starts; takes 5 GB of disk
	$(RUN) python hack/bench/warmup.py $(BENCH_ARGS)

.PHONY: soak
soak: ## Half an hour of steady requests; exits non-zero where one fails or memory grows. SOAK_ARGS='--minutes 3'
	$(RUN) python hack/bench/soak.py $(SOAK_ARGS)

##@ Supply chain

.PHONY: licences
licences: ## Write docs/licences.md: the licences of what the image holds
	@$(RUN) python hack/licences > docs/licences.md.new && mv docs/licences.md.new docs/licences.md

.PHONY: sbom
sbom: ## List the locked dependencies of the operator as CycloneDX, in build/sbom.json
	@mkdir -p build
	@$(UV) export --preview-features sbom-export --format cyclonedx1.5 --frozen --quiet --no-default-groups \
		--output-file build/sbom.json >/dev/null

.PHONY: audit
audit: ## Look for known vulnerabilities in them; asks PyPI, and fails too where one cannot be looked up
	@mkdir -p build
	@$(UV) export --frozen --quiet --no-default-groups --no-emit-project --output-file build/requirements.txt >/dev/null
	@$(UV) tool run pip-audit --strict --require-hashes --disable-pip --requirement build/requirements.txt

.PHONY: image-reproducible
image-reproducible: ## Build the operator's image twice, each step anew, and fail where the digests differ; takes minutes
	@$(IMAGES) reproduce

.PHONY: plugin
plugin: ## Make the kubectl plugin: archives and krew's manifest, in build/plugin; PLUGIN_URL is where they will be
	@$(RUN) python hack/plugin build
	@$(RUN) python hack/plugin manifest --homepage $(PLUGIN_HOMEPAGE) --url $(PLUGIN_URL)

.PHONY: plugin-check
plugin-check: ## Install each archive by krew's own code, from a server on this machine, by krew's rules for manifests
	@$(CLUSTER) build --only kubectl
	$(RUN) python hack/plugin check

.PHONY: lint-workflows
lint-workflows: ## Lint .github/workflows
	@go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.7 -color=false

##@ Cluster

.PHONY: cluster-up
cluster-up: ## Start a cluster: kind where Docker runs, else plain processes
	@$(CLUSTER) up --name $(NAME)

.PHONY: cluster-down
cluster-down: ## End it and remove all of it
	@$(CLUSTER) down --name $(NAME)

.PHONY: cluster-status
cluster-status: ## Show whether it runs, and where its files are
	@$(CLUSTER) status --name $(NAME)

.PHONY: images
images: ## Build the operator's image and the development llama-server image
	@$(IMAGES) build
