# What a developer of sharder needs. `just` alone lists it.

set shell := ["bash", "-euo", "pipefail", "-c"]

staticcheck := "go run honnef.co/go/tools/cmd/staticcheck@v0.8.2"

# list the recipes
default:
    @just --list --unsorted

# run sharder: three embedded shards, unless told otherwise
run *args='--conf conf/shards.toml':
    go run ./cmd/sharder {{ args }}

# stock etcdctl, of the version sharder is built with
etcdctl *args:
    @go tool etcdctl {{ args }}

# run the tests; args go to go test
test *args='./...':
    go test -timeout 30m {{ args }}

# run the tests with the race detector
race *args='./...':
    go test -race -timeout 30m {{ args }}

# run sharder and its shards as containers and break them; needs a Docker engine
docker *args:
    go test -tags docker -count=1 {{ args }} ./integration/docker

alias integration-docker := docker

# the storage tests of Kubernetes, against etcd and against sharder over three shards
kubernetes *args='-v':
    cd integration/kubernetes && go test -count=1 {{ args }} ./...

# etcd's own end-to-end tests with sharder in the place of its grpc-proxy; -few, -run PATTERN, -proxy etcd
etcdsuite *args:
    go run ./integration/etcdsuite {{ args }}

# vet and staticcheck, the docker suite and the tests of Kubernetes included
lint:
    go vet -tags docker ./...
    {{ staticcheck }} -tags docker ./...
    cd integration/kubernetes && go vet ./... && {{ staticcheck }} ./...

# format every file
fmt:
    gofmt -w .

# fuzz one target for a while, such as: just fuzz ./conf FuzzParse 5m
fuzz package name time='30s':
    go test -run '^$' -fuzz '^{{ name }}$' -fuzztime {{ time }} {{ package }}

# sharder beside etcd and etcd's grpc-proxy: throughput, latency, CPU per request, as tables
bench *args:
    go run ./integration/sidebyside {{ args }}

# the benchmarks of the packages, for benchstat
microbench *args='./pipeline ./stages/...':
    go test -run '^$' -bench . -benchmem -count 6 {{ args }}

# exactly what CI runs
ci:
    bash .ci/run
