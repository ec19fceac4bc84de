# Two commands matter: `make demo` and `make test`. Each does all set-up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
KERNELS := $(wildcard csrc/*) $(wildcard bindings/*) setup.py pyproject.toml
SYSTEM := g++ pkg-config libsimdjson-dev libxxhash-dev
SANITIZERS := address,undefined
FUZZ_MINUTES ?= 3
EVENTS ?= 1000000
WORKERS ?= 3

.PHONY: demo test check kafka redis s3 faults bench soak sanitize build system-packages fuzz-packages clean
.DEFAULT_GOAL := help

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

demo: build ## Run everything on this machine and prove the ledger
	$(BIN)/eventmill demo

test: build $(VENV)/.test ## Run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

check: build $(VENV)/.check ## Lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror csrc/*.c csrc/*.cpp csrc/*.h tests/fuzz/*.cpp tests/fuzz/*.h

kafka: build $(VENV)/.test ## Three brokers of Apache Kafka until Ctrl-C; prints bootstrap.servers
	$(BIN)/python -m testbed kafka

redis: build $(VENV)/.test ## A Redis until Ctrl-C; prints its URL
	$(BIN)/python -m testbed redis

s3: build $(VENV)/.test ## An S3 server (versitygw) until Ctrl-C; prints the lake's settings for it
	$(BIN)/python -m testbed s3

faults: build $(VENV)/.test ## The whole fault matrix, and the negative controls, into docs/faults.md (three hours)
	$(BIN)/python -m faults

bench: build $(VENV)/.bench ## Measure, beside the peers
	$(BIN)/python -m bench

soak: build fuzz-packages $(VENV)/.test $(VENV)/.spark sanitize ## Long runs: fuzzing, kill -9 twenty times, Spark, Trino (FUZZ_MINUTES=3 a target, the decoder 30)
	FUZZ_MINUTES=$(FUZZ_MINUTES) $(BIN)/python -m pytest tests -m soak -o addopts= -q -rP

sanitize: build $(VENV)/.test ## The kernels' tests under the address and undefined behaviour sanitizers
	EVENTMILL_SANITIZE=$(SANITIZERS) $(BIN)/python setup.py -q build --build-lib build/sanitized
	PYTHONPATH=build/sanitized PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
	    $(BIN)/python -m pytest tests/kernels tests/fuzz -q --capture=sys

build: $(VENV)/.build ## Compile the kernels into .venv

system-packages: ## Install what the kernels need, where that is allowed
	@if dpkg -s $(SYSTEM) >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(SYSTEM) python3-venv >/dev/null; \
	elif pkg-config --exists simdjson libxxhash 2>/dev/null; then :; \
	else echo "please install first: $(SYSTEM)   (Debian, Ubuntu: sudo apt-get install -y $(SYSTEM) python3-venv)"; exit 1; fi

fuzz-packages: ## Install what fuzzing needs, where that is allowed
	@if [ -n "$$(ls $$(clang --print-runtime-dir 2>/dev/null)/libclang_rt.fuzzer-* 2>/dev/null)" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq clang >/dev/null && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libclang-rt-$$(clang -dumpversion | cut -d. -f1)-dev >/dev/null; \
	else echo "please install first: clang and its libclang-rt-*-dev"; exit 1; fi

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "eventmill needs Python 3.11 or newer; name one by make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.build: $(KERNELS) | system-packages $(VENV)/bin/python
	$(BIN)/python -m pip install -q --editable .
	@touch $@

$(VENV)/.test $(VENV)/.check $(VENV)/.bench $(VENV)/.spark: $(VENV)/.%: pyproject.toml $(VENV)/.build
	$(BIN)/python -m pip install -q --editable .[$*]
	@touch $@

clean: ## Remove what was built
	rm -rf $(VENV) build engine/*.egg-info engine/eventmill/_native/*.so
