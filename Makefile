# Two commands do everything on a Debian machine that has Go, make and root:
#
#   make demo     a live service is upgraded on a throwaway systemd, under load
#   make test     linters, unit tests, integration tests on systemd 252, 257, 262
#
# Also: make build, package, lint, unit, integration, bench, soak, trees. What is
# missing is installed first. Base trees and tools are kept in $(UPGRADERD_CACHE).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

export UPGRADERD_CACHE ?= /var/cache/upgraderd-lab
# Which systemds to test on; one of them is enough while writing code.
export UPGRADERD_SUITES ?= bookworm trixie forky

# Which of them the demo shows.
UPGRADERD_DEMO_SUITE ?= trixie

# What the lab and the linters need from the distribution: mmdebstrap makes the
# base trees, systemd-container boots them, a C compiler serves -race alone.
# minisign(1), gpg(1) and ssh-keygen(1) sign what we have to accept. Power is cut
# under file systems that were made by e2fsprogs, xfsprogs and btrfs-progs, and
# strace kills at system calls. nginx and docker-registry serve releases, and
# tinyproxy stands before them; s3cmd publishes. bsdiff, bzip2 and zstd make the
# patches that we apply. mandoc and man read man pages, lintian and rpm packages,
# and bash-completion loads what bash completes by.
PACKAGES := mmdebstrap systemd-container shellcheck gcc libc6-dev ca-certificates minisign gpg gpg-agent openssh-client docker-registry rustc e2fsprogs xfsprogs btrfs-progs strace nginx-light tinyproxy bsdiff bzip2 zstd s3cmd mandoc man-db groff-base lintian rpm bash-completion zsh fish

# How long the random life of make soak goes on, and the kills at system calls;
# and how many crash states of each of five file systems are looked at.
export UPGRADERD_SOAK ?= 5m
export UPGRADERD_SWEEP ?= 8m
UPGRADERD_SOAK_CUTS ?= 2600

# Linters are installed by version, once for each version of Go: they cannot
# read code for a newer Go than the one that built them.
STATICCHECK_VERSION := v0.8.2
GOLANGCI_LINT_VERSION := v2.15.0
TOOLS := $(UPGRADERD_CACHE)/tools/$(shell go env GOVERSION)
STATICCHECK := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)/staticcheck
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)/golangci-lint

# So is what writes packages.
NFPM_VERSION := v2.45.0
NFPM := $(TOOLS)/nfpm-$(NFPM_VERSION)/nfpm

# So are the servers that tests follow releases from, and what publishes there,
# where Debian has none.
VERSITYGW_VERSION := v1.8.0
METADATA_MOCK_VERSION := v1.13.0
ORAS_VERSION := v1.3.0
VERSITYGW := $(TOOLS)/versitygw-$(VERSITYGW_VERSION)/versitygw
METADATA_MOCK := $(TOOLS)/ec2-metadata-mock-$(METADATA_MOCK_VERSION)/ec2-metadata-mock
ORAS := $(TOOLS)/oras-$(ORAS_VERSION)/oras

# upgraderd version tells the commit, where git can say which that is.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)

.PHONY: build
build:
	CGO_ENABLED=0 go build -trimpath -buildvcs=$(VCS) -o bin/upgraderd ./cmd/upgraderd

# dist/upgraderd_VERSION-1_amd64.deb and dist/upgraderd-VERSION-1.x86_64.rpm; of two
# builds of one commit each is equal bit by bit.
.PHONY: package
package: $(NFPM)
	go run ./packaging -nfpm $(NFPM) -out dist

.PHONY: test
test: lint unit integration

.PHONY: lint
lint: packages $(STATICCHECK) $(GOLANGCI_LINT)
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these:" $$unformatted; exit 1; fi
	go vet -tags integration,soak ./...
	$(STATICCHECK) -tags integration,soak ./...
	$(GOLANGCI_LINT) run ./...
	shellcheck .ci/run test/lab/tree test/lab/keeper.sh packaging/deb/p* packaging/rpm/*

.PHONY: unit
unit: packages servers
	CGO_ENABLED=1 go test -race -timeout 40m ./...
	CGO_ENABLED=0 go test -run EveryCall -timeout 20m ./upgrader # each call, of which -race breaks a few

# One package after the other: they measure what clients see. A test boots its three
# systemds at once: it waits for most of its time.
.PHONY: integration
integration: packages trees $(NFPM)
	CGO_ENABLED=0 go test -tags integration -count=1 -p 1 -parallel 3 -timeout 1h ./test/integration/...

# The long runs, and their figures as one table: power cuts by the thousand, the
# daemon killed at each of its system calls, the whole of a host's life at random,
# the supervisor killed two hundred times, a person at each step of an upgrade, and a
# million connections.
.PHONY: soak
soak: packages trees
	export CGO_ENABLED=0 UPGRADERD_FIGURES=$$(mktemp); trap 'rm -f $$UPGRADERD_FIGURES' EXIT; failed=0; \
	UPGRADERD_CUTS=$(UPGRADERD_SOAK_CUTS) go test -tags integration -count=1 -timeout 1h -v ./test/integration/powercut/ || failed=1; \
	go test -tags integration,soak -count=1 -timeout 24h -v ./test/integration/soak/ || failed=1; \
	for suite in $(UPGRADERD_SUITES); do \
		UPGRADERD_SUITES=$$suite go test -tags integration -count=1 -timeout 1h -run TestOperator ./test/integration/upgrade/ || failed=1; \
	done; \
	go run ./test/bench -soak || failed=1; \
	exit $$failed

# The one base tree it needs is built at its first boot.
.PHONY: demo
demo: packages
	@CGO_ENABLED=0 go run ./test/demo -suite $(UPGRADERD_DEMO_SUITE)

# The figures, each beside its limit; some ten minutes.
.PHONY: bench
bench: packages
	CGO_ENABLED=0 go run ./test/bench

.PHONY: trees
trees: packages
	for suite in $(UPGRADERD_SUITES); do test/lab/tree "$$suite" >/dev/null; done

# apt runs only where something is missing. What it installs is for tests to start, so
# Debian's policy has none of it started as a service meanwhile.
.PHONY: packages
packages:
	@missing=(); \
	for p in $(PACKAGES); do \
		[[ $$(dpkg-query -W -f='$${db:Status-Abbrev}' "$$p" 2>/dev/null) == ii* ]] || missing+=("$$p"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "installing: $${missing[*]}"; \
		policy=/usr/sbin/policy-rc.d; \
		[ -e "$$policy" ] || { trap 'rm -f "$$policy"' EXIT; printf '#!/bin/sh\nexit 101\n' >"$$policy"; chmod +x "$$policy"; }; \
		apt-get -qq update; \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$${missing[@]}"; \
	fi

.PHONY: servers
servers: $(VERSITYGW) $(METADATA_MOCK) $(ORAS)

$(STATICCHECK):
	GOBIN=$(@D) go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

$(GOLANGCI_LINT):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)

$(NFPM):
	GOBIN=$(@D) go install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)

$(VERSITYGW):
	GOBIN=$(@D) go install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)

$(METADATA_MOCK):
	GOBIN=$(@D) go install github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock@$(METADATA_MOCK_VERSION)

$(ORAS):
	GOBIN=$(@D) go install oras.land/oras/cmd/oras@$(ORAS_VERSION)
