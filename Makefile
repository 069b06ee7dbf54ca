.DEFAULT_GOAL := help
.PHONY: help demo test test-all bench bench-compare loss lint fmt tidy generate build dist release ci clean fuzz mutate picture newcomer

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## See pglock at work on a throwaway server, which it gets by itself
	bin/pglock demo

test: ## Run every test of every module, on a server that it gets by itself
	scripts/test

test-all: ## Run every test on every major of Postgres, through both drivers; takes an hour
	scripts/test-all

bench: ## Measure it beside its peers, and write docs/performance.md (Q=1 quickly, S=NAME one scenario: these only print)
	scripts/bench $(if $(Q)$(S),$(if $(Q),-quick) $(if $(S),-only $(S)))

bench-compare: ## Tell whether this is slower than another version (BASE=main)
	scripts/bench-compare

.PHONY: soak
soak: ## Break things at random for D=10m, or as SEED= broke them, and check the locks
	scripts/soak

loss: ## Measure how long a loss takes to be known, and write it into docs/reliability.md
	scripts/loss

.PHONY: bare
bare: ## Try make demo and make test on a bare Debian (needs root; takes half an hour)
	scripts/bare

.PHONY: mutate
mutate: ## Break the code in small ways and see that a test fails each time (M=NAME: one)
	scripts/mutate


fuzz: ## Fuzz every parser, each for T=30s
	T=$(T) scripts/fuzz

picture: ## Draw the README's pictures anew
	go test ./docs/internal/doctest -count=1 -run TestPicture -picture

newcomer: ## Follow the README and the quick start from top to bottom
	scripts/newcomer

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

dist: ## Build what a release consists of into dist/
	scripts/dist

release: ## Make a release: make release VERSION=v1.2.3
	scripts/release "$(VERSION)"

ci: ## Run all that must hold of a commit
	bash .ci/run

clean: ## Remove what was built
	rm -rf bin dist .cache
