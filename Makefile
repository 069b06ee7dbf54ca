.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench bench-compare loss latest vulncheck lint fmt tidy generate build dist release ci clean fuzz mutate picture newcomer

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Run a demo of pglock on a temporary server, which it starts itself
	bin/pglock demo

test: ## Run every test of every module, on a server that it starts itself
	scripts/test

test-all: ## Run every test on every major of Postgres with both drivers; takes an hour
	scripts/test-all

bench: ## Compare pglock with its peers and write docs/performance.md (Q=1 quick run, S=NAME one scenario: these only print)
	scripts/bench $(if $(Q)$(S),$(if $(Q),-quick) $(if $(S),-only $(S)))

bench-compare: ## Check whether this version is slower than another (BASE=main)
	scripts/bench-compare

.PHONY: soak
soak: ## Cause random faults for D=10m, or those of SEED=, and check the locks
	scripts/soak

.PHONY: cluster
cluster: ## Start a Patroni cluster and print how to try it (LOAD="-n 5": take locks while it fails over)
	scripts/cluster $(if $(LOAD),-load $(LOAD))

loss: ## Measure how soon a loss is noticed, and write it into docs/reliability.md
	scripts/loss

.PHONY: bare
bare: ## Run make demo and make test on a bare Debian (needs root; takes half an hour)
	scripts/bare

.PHONY: mutate
mutate: ## Make small faults in the code and check that a test catches each (M=NAME: one)
	scripts/mutate

fuzz: ## Fuzz every parser, each for T=30s
	T=$(T) scripts/fuzz

picture: ## Redraw the pictures of the README and the guides
	go test ./examples/internal/doctest -count=1 -run 'Picture$$' -picture

newcomer: ## Run the steps of the README and the quick start from top to bottom
	scripts/newcomer

latest: ## Run every test with the latest versions of all dependencies
	scripts/latest

vulncheck: ## Look for known vulnerabilities in the code that is called
	scripts/vulncheck

lint: ## Check format, vet, staticcheck and spelling
	scripts/lint

fmt: ## Format the code
	scripts/fmt

tidy: ## Tidy every go.mod
	scripts/tidy

generate: ## Write the generated files
	scripts/generate

build: ## Build bin/pglock
	scripts/build

dist: ## Build the files of a release into dist/
	scripts/dist

release: ## Make a release: make release VERSION=v1.2.3
	scripts/release "$(VERSION)"

ci: ## Run everything that a commit must pass
	bash .ci/run

clean: ## Remove build results and caches
	rm -rf bin dist .cache
