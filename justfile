# What to run and when. `just` alone lists it.

set shell := ["bash", "-euo", "pipefail", "-c"]

golangci := env("GOLANGCI_LINT", "golangci-lint")

_default:
    @just --list

# Everything that CI checks.
check:
    .ci/run

# The tests: nothing but Go is needed.
test *args:
    go test {{ args }} ./...

# The tests under the race detector (needs a C compiler).
race *args:
    CGO_ENABLED=1 go test -race {{ args }} ./...

# Every fuzz target for a while.
fuzz time="30s":
    #!/usr/bin/env bash
    set -euo pipefail
    for pkg in $(go list ./...); do
        for target in $(go test -list '^Fuzz' "$pkg" | grep ^Fuzz || true); do
            echo "== $pkg $target"
            go test -run '^$' -fuzz "^$target\$" -fuzztime {{ time }} "$pkg"
        done
    done

# The benchmarks of docs/performance.md; .ci/bench says which tools they compare with.
bench:
    .ci/bench

# Generated code and documents, made again.
generate:
    go generate ./...

lint:
    {{ golangci }} run ./...

fmt:
    {{ golangci }} fmt ./...

# Static binaries in bin/.
build:
    CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/ ./cmd/...

# The end-to-end tests of agent and collector in their long form: `just e2e 50`.
e2e n="50":
    PROCMOND_E2E_ROUNDS={{ n }} go test -count=1 -timeout 120m -run 'TestStreamIsTheStore|TestFullStream|TestBegins|TestAgentStarts' -v ./cmd/daemoneye-agent

# Storms of processes in their long form: 20,000 programs, 100,000 forks.
storms:
    PROCMOND_KERNEL_STORM=1 go test -count=1 -timeout 30m -run "Storm|EveryProgram" -v ./collect/kernel ./cmd/procmond ./cmd/daemoneye-agent

# The kill test in its long form: `just kills 200`.
kills n="200":
    PROCMOND_KILLS={{ n }} go test -count=1 -timeout 60m -run TestKill -v ./cmd/procmond
