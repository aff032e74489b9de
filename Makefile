# Walkey. `make` lists what can be done.

GO        ?= go
BENCH     ?= .
BENCHTIME ?= 1s
BACKLOG_ROWS ?= 1000000
FUZZTIME  ?= 10s
MINUTES   ?= 1
SEED      ?= 0
TOPOLOGY  ?= single

# Tests to which the rights of a secure stack add nothing, or which they leave nothing to test:
#   SetupDoctorTeardown, Doctor…  begin before there is a schema, a slot or a role, or break them: a secure stack has been set up
#   Roles, Pooler, WithoutTracking  are about access, and bring roles, a pooler or a user of their own
#   Readme, Guide…, Transcripts, BesideDjango  run commands for a reader's own machine, which come as a superuser, or another application's
#   Secrets  come with passwords that are wrong
#   HeartbeatHeldUp  holds one command up on its way, which TLS hides
#   CommandsOnACluster, CommandsBehindSentinels  have the users of users.acl in every run, on servers of their own
#   OnACluster, WithSentinels  have servers of their own, in plain text
NOT_SECURE := ^Test(SetupDoctorTeardown|Doctor|Roles|Pooler|Guide|Readme|Transcripts|BesideDjango|WithoutTracking|HeartbeatHeldUp|CommandsOnACluster|CommandsBehindSentinels|OnACluster|WithSentinels|Secrets)

# What is shipped has a module of its own, so that the programs' go.mod does not know Kubernetes. git tells version and commit, where there is one.
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
SHIP = cd deploy/ship && $(GO) run . -source ../.. -out ../../dist -version '$(VERSION)' -revision '$(REVISION)'

# The tools, at the versions that the code is clean with.
GOFUMPT     := $(GO) run mvdan.cc/gofumpt@v0.12.0
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI    := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: servers bin/local ## Show that a row edited in psql is fresh in the API, and how fast
	@bin/local demo

.PHONY: up
up: servers bin/local ## Run the whole stack in the foreground, until Ctrl-C
	@bin/local up

.PHONY: build
build: ## Build the static programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -tags grpcnotrace -ldflags '-s -w' -o bin/ ./cmd/api ./cmd/invalidator

.PHONY: test
test: test-setup ## Run all tests with the race detector, on real servers (TESTFLAGS=...)
	$(GO) test -race -timeout 20m $(TESTFLAGS) ./...

.PHONY: test-secure
test-secure: test-setup ## Run the end-to-end tests with roles and ACLs of least privilege, by TLS on both sides
	E2E_SECURE=true $(GO) test -race -count 1 -timeout 20m -skip '$(NOT_SECURE)' $(TESTFLAGS) ./internal/e2e

.PHONY: test-browser
test-browser: test-setup ## Run the tests of the dashboard in headless Chromium
	@sh deploy/local/setup.sh browser
	$(GO) test -race -tags browser -count 1 -timeout 20m -run '^TestDashboard' $(TESTFLAGS) ./internal/e2e

.PHONY: screenshots
screenshots: test-setup ## Take the pictures of the dashboard in docs/images anew
	@sh deploy/local/setup.sh browser
	WALKEY_SCREENSHOTS='$(CURDIR)/docs/images' $(GO) test -tags browser -count 1 -timeout 20m -run '^TestDashboard' ./internal/e2e

.PHONY: test-versions
test-versions: test-setup ## Run the tests that depend on Postgres on 14, 17 and 18 too (by npm, where there is one)
	@GO='$(GO)' sh deploy/local/postgres-versions.sh

.PHONY: bench
bench: bench-setup bin/bench ## Measure everything beside its floor and its rival (BENCH=regexp, BENCHFLAGS=-short); table and plots also go to bin/
	@bin/bench -only '$(BENCH)' -markdown bin/bench.md -plots bin $(BENCHFLAGS)

.PHONY: gobench
gobench: servers ## Run the Go benchmarks, for benchstat (BENCH=regexp, BENCHTIME=1s, BACKLOG_ROWS=1000000)
	BACKLOG_ROWS=$(BACKLOG_ROWS) $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME) -p 1 -timeout 30m ./...

.PHONY: torture
torture: servers bin/torture ## Break everything and judge every answer (MINUTES=1, TOPOLOGY=single|sentinel|cluster, SEED= of a run to repeat, TORTUREFLAGS=-streaming)
	@bin/torture -minutes $(MINUTES) -topology $(TOPOLOGY) -seed $(SEED) $(TORTUREFLAGS)

.PHONY: torture-switches
torture-switches: servers bin/torture ## Show what each mechanism is for: with it, and without it
	@bin/torture -switches

.PHONY: model
model: ## Search the model of the protocol through, with two writers (minutes, 1.4 GiB of memory)
	$(GO) test -v -timeout 30m -run TestWithAllMechanisms ./internal/protocol -full

.PHONY: fuzz
fuzz: ## Fuzz every target for a while (FUZZTIME=10s)
	@for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' cmd deploy internal | xargs -n 1 dirname | sort -u); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$dir/*_test.go); do \
			echo "fuzz $$dir $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$dir || exit 1; \
		done; \
	done

.PHONY: image
image: ## Put the image together without Docker: dist/image (OCI), dist/image-ARCH.tar for docker load
	$(SHIP) image

.PHONY: release
release: ## Build the archives for linux/amd64 and linux/arm64 with checksums and a list of modules into dist/
	$(SHIP) archives

.PHONY: test-ship
test-ship: ## Check manifests, compose file, Dockerfile and workflow; run the image as the manifests confine it
	@sh deploy/local/setup.sh servers container
	cd deploy/ship && $(GO) test -count 1 -timeout 20m $(TESTFLAGS) ./...

.PHONY: prometheusrule
prometheusrule: ## Write the alerts anew as an object of the Prometheus operator
	cd deploy/ship && $(GO) test -run TestAlertsAreTheSame ./manifests -update

.PHONY: docs-page
docs-page: ## Write the page about the API (/docs) anew from its description
	$(GO) test -count 1 -run TestDocsAreMadeFromTheDocument ./internal/api -update

.PHONY: tidy
tidy: ## Bring go.mod and go.sum of both modules up to date
	$(GO) mod tidy
	cd deploy/ship && $(GO) mod tidy

.PHONY: lint
lint: ## Check format, code and import rules
	@unformatted=$$($(GOFUMPT) -l .) && if [ -n "$$unformatted" ]; then echo "make fmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) mod tidy -diff
	cd deploy/ship && $(GO) vet ./... && $(GO) mod tidy -diff && $(STATICCHECK) ./...
	$(STATICCHECK) ./...
	$(GO) vet -tags torture ./cmd/... ./internal/program
	$(GO) vet -tags browser ./internal/e2e
	$(GOLANGCI) run

.PHONY: alerts
alerts: ## Check and test the alerts by promtool
	@sh deploy/local/setup.sh promtool
	promtool check rules deploy/prometheus/alerts.yaml
	promtool test rules deploy/prometheus/alerts_test.yaml

.PHONY: fmt
fmt: ## Format the code
	$(GOFUMPT) -w .

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist

# What the commands above need and this machine lacks. Quick and silent when nothing is missing.
.PHONY: servers test-setup bench-setup
servers:
	@sh deploy/local/setup.sh servers
bench-setup:
	@sh deploy/local/setup.sh servers django bench
test-setup:
	@sh deploy/local/setup.sh servers compiler django
	@sh deploy/local/setup.sh pooler || echo "setup: going on without PgBouncer; its test is skipped" >&2

# Built rather than `go run`, which would not pass a SIGTERM on; without cgo, like the programs that it builds with the same cache.
.PHONY: bin/local
bin/local:
	@CGO_ENABLED=0 $(GO) build -o $@ ./deploy/local
.PHONY: bin/torture
bin/torture:
	@CGO_ENABLED=0 $(GO) build -o $@ ./internal/torture
.PHONY: bin/bench
bin/bench:
	@CGO_ENABLED=0 $(GO) build -o $@ ./internal/bench
