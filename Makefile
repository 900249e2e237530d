# `make` says what there is. Every target works from a fresh clone.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
# Nothing from outside may stand in for the installed wheel, and compiled files make the second run quick.
unexport PYTHONPATH PYTHONDONTWRITEBYTECODE

VENV := .venv
BENCH := .venv-bench
DOCS := .venv-docs
PINS := .venv-pins
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WHEEL := dist/holdfast_rabbitmq-$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)-py3-none-any.whl
COMPILED := build/compiled
# Processes that run tests at once. Many tests wait, so there are more than cores.
SIDE_BY_SIDE ?= 6
# What goes into the wheel: the package folders, with the templates and styles of the page.
SOURCES := $(wildcard *.py) py.typed $(shell find broker cli config consumer contracts dashboard dead_letters events idempotency journal outbox publisher sagas sql telemetry testing -type f ! -name '*.pyc' 2>/dev/null)

.PHONY: help
help: ## Say what there is
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: venv
venv: $(VENV)/.holdfast ## Make .venv: Holdfast as users get it (the built wheel) and everything the checks need

.PHONY: demo
demo: venv ## Run a small order system on RabbitMQ, found or started, and account for every event: make demo [POSTGRES=1]
	@$(BIN)/holdfast demo $(if $(POSTGRES),--postgres)

.PHONY: demo-memory
demo-memory: venv ## The same on the embedded broker, with no server at all
	@$(BIN)/holdfast demo --memory

.PHONY: test
test: venv ## What CI runs: the checks, then all tests against the built wheel, on servers found or started
	$(MAKE) --no-print-directory --jobs 2 --output-sync static docs collected
	$(BIN)/pytest -n $(SIDE_BY_SIDE)

.PHONY: compiled
compiled: $(COMPILED)/.wheel ## Build the compiled wheel into dist/compiled, from the same source (needs a C compiler)

.PHONY: compiled-source
compiled-source: $(COMPILED)/.source ## What the compiled wheel is built from, in build/compiled, for cibuildwheel

.PHONY: release-check
release-check: $(COMPILED)/.wheel venv ## What a release publishes, in dist/release, built and tried: make release-check [TAG=v0.1.0]
	$(BIN)/python scripts/release.py $(TAG)

.PHONY: test-compiled
test-compiled: .venv-compiled/.holdfast ## All tests against the compiled wheel, but for those that count Python calls
	.venv-compiled/bin/pytest -n $(SIDE_BY_SIDE) -m "not pure"

.PHONY: test-fast
test-fast: venv ## The tests that need no server: what to run after each change
	$(BIN)/pytest -n $(SIDE_BY_SIDE) -q -m "not server" tests/unit tests/architecture tests/fuzz tests/contract

.PHONY: check
check: static test-fast ## Format, lint, types, the floors of the design, and the tests that need no server

.PHONY: static style types floors collected
static: types style floors

# pytest compiles the tests, and Holdfast, with its own asserts: once here, or else in each process that runs tests.
collected: venv
	@$(BIN)/pytest --collect-only -qq > $(VENV)/collected.log 2>&1 || { cat $(VENV)/collected.log; exit 1; }

style: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: venv
	$(BIN)/mypy -p holdfast
	$(BIN)/mypy tests/apps

floors: venv
	$(BIN)/lint-imports

.PHONY: format
format: venv ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: test-brokers
test-brokers: venv ## Contract, integration and fault tests against RabbitMQ 3.10, 4.0 and 4.3 (root on Debian or Ubuntu)
	$(BIN)/python scripts/brokers.py

.PHONY: test-databases
test-databases: venv ## The suites of databases on every kind, with MariaDB and PgBouncer (found, or root on Debian or Ubuntu)
	HOLDFAST_TEST_DATABASES=1 $(BIN)/pytest -n $(SIDE_BY_SIDE) $$(grep -l "banks(" tests/contract/*.py) tests/contract/test_django.py tests/databases

.PHONY: test-containers
test-containers: venv ## Build the image and run compose.yaml, through podman where there is no Docker (root on Debian or Ubuntu)
	$(BIN)/python scripts/containers.py

# Where `make test-brokers` keeps the other releases of RabbitMQ.
BROKERS_DIR ?= $(or $(HOLDFAST_BROKERS_DIR),$(HOME)/.cache/holdfast/brokers)
FAULTS = $(BIN)/python tests/faults/run.py --folder $(BROKERS_DIR) --brokers $(or $(BROKERS),3.10) \
	$(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)") $(if $(CLUSTER),--cluster)

.PHONY: faults
faults: venv ## Every fault once, and the account: make faults [SEED=7] [ONLY="redis is"] [BROKERS=3.10,4.0,4.3] [CLUSTER=1]
	$(FAULTS)

.PHONY: soak
soak: venv ## Every fault 20 times, or at random: make soak [RUNS=20] | make soak MINUTES=30 [RATE=150]
	$(FAULTS) $(if $(MINUTES),--minutes $(MINUTES) --rate $(or $(RATE),150),--runs $(or $(RUNS),20))

.PHONY: soak-order
soak-order: venv ## Order per key while owners are killed, stopped, frozen and cut off, and the broker restarts: make soak-order [COUNT=100] [SEED=7]
	ORDER_FAULTS=$(or $(COUNT),100) TEST_SEED=$(SEED) $(BIN)/python -m pytest -q -s tests/integration/test_ordering_processes.py

.PHONY: fuzz
fuzz: venv ## What reads bytes from outside, fuzzed for so long each: make fuzz [MINUTES=5] [TARGET=headers] (Linux, Python 3.11 to 3.13)
	@$(PIP) install -c constraints.txt "$(WHEEL)[fuzz]"
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(or $(MINUTES),5) $(if $(TARGET),--target $(TARGET))

.PHONY: audit
audit: venv ## Look up every pinned package in the OSV database: fails where one is vulnerable, or cannot be looked up
	@$(BIN)/python scripts/audit.py

.PHONY: pins
pins: $(PINS)/.tools ## Write requirements-dev.txt and requirements-docs.txt anew, after a change of pyproject.toml or constraints.txt
	$(PINS)/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --constraint constraints.txt \
		--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make pins" --upgrade --quiet --output-file requirements-dev.txt
	$(PINS)/bin/uv pip compile --group docs --universal --python-version 3.11 --constraint constraints.txt \
		--generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make pins" --upgrade --quiet --output-file requirements-docs.txt

.PHONY: soak-relays
soak-relays: venv ## Relays killed and frozen, servers restarted, a long transaction, for minutes: make soak-relays [EACH=20000]
	RELAYS_EACH=$(or $(EACH),20000) $(BIN)/pytest -s tests/integration/test_relays.py --timeout 3600

.PHONY: prove
prove: venv ## Seven mutations that lose or repeat messages, or their order: the checker must catch each
	$(BIN)/python tests/faults/prove.py

.PHONY: mutations
mutations: venv ## Each promise broken once in a copy: a test must fail for it: make mutations [ONLY="attempt"]
	$(BIN)/python tests/mutations.py $(if $(ONLY),--only "$(ONLY)")

.PHONY: test-browser
test-browser: venv ## The dead-letter page in Chromium, which is installed where it is missing; pictures go to pictures/
	@$(PIP) install -c constraints.txt "$(WHEEL)[browser]"
	$(BIN)/python scripts/browser.py

.PHONY: pictures
pictures: venv ## The pictures of the documentation, taken anew in Chromium
	@$(PIP) install -c constraints.txt "$(WHEEL)[browser]"
	$(BIN)/python scripts/browser.py -k test_pictures
	cp pictures/docs/*.png docs/pictures/

.PHONY: reference
reference: venv ## The pages of settings and commands, written anew from the code
	$(BIN)/python scripts/reference.py docs

.PHONY: docs
docs: $(DOCS)/.tools $(WHEEL) ## The site of the documentation, in build/site; a link or an anchor that leads nowhere fails
	@$(DOCS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --force-reinstall $(WHEEL)
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build

.PHONY: hops
hops: venv ## Each function of Holdfast that a message passes through, in order, and how many there are
	@$(BIN)/python benchmarks/hops.py

.PHONY: instructions
instructions: venv ## How many instructions a message costs, whatever else the machine does (needs valgrind)
	$(BIN)/python benchmarks/instructions.py --uvloop

.PHONY: bench-scraping
bench-scraping: venv ## What metrics cost, and 200 scrapes a second: make bench-scraping RABBITMQ=amqp://guest:guest@localhost/
	$(BIN)/python benchmarks/scraping.py $(RABBITMQ)

.PHONY: bench-claims
bench-claims: venv ## What claims cost, batched and one by one: make bench-claims REDIS=redis://localhost:6379/0
	$(BIN)/python benchmarks/claims.py $(REDIS)

.PHONY: bench-sagas
bench-sagas: venv ## A step of a saga beside a handler in a transaction: make bench-sagas POSTGRES=postgresql://user@localhost/db
	$(BIN)/python benchmarks/sagas.py $(POSTGRES)

.PHONY: bench-outbox
bench-outbox: $(BENCH)/.holdfast ## The relay, web transactions and handlers `within=`, beside doing it by hand: make bench-outbox [JSON=FILE]
	$(BENCH)/bin/python benchmarks/outbox.py $(if $(JSON),--json $(JSON))

.PHONY: bench-journal
bench-journal: $(BENCH)/.holdfast ## Appending beside eventsourcing, and how fast a projection catches up: make bench-journal [JSON=FILE]
	$(BENCH)/bin/python benchmarks/journal.py $(if $(JSON),--json $(JSON))

.PHONY: bench-order
bench-order: $(BENCH)/.holdfast ## Order per key beside the same without it and beside locks, and changes of owner: make bench-order [ROUNDS=5]
	$(BENCH)/bin/python benchmarks/order.py --rounds $(or $(ROUNDS),5)

.PHONY: bench-following
bench-following: $(BENCH)/.holdfast ## Followed requests next to the same unfollowed: make bench-following [ROUNDS=5]
	$(BENCH)/bin/python benchmarks/following.py --rounds $(or $(ROUNDS),5)

.PHONY: bench-ladder
bench-ladder: venv ## What a delayed message costs the broker, with the ladder of before and of now, on a private node
	$(BIN)/python benchmarks/ladder.py

.PHONY: bench
bench: $(BENCH)/.holdfast ## Holdfast beside its peers, every scenario, some 20 minutes on a machine that does nothing else; figures to benchmarks/results.json
	$(BENCH)/bin/python benchmarks/run.py --json benchmarks/results.json

.PHONY: bench-quick
bench-quick: $(BENCH)/.holdfast ## The same, consuming and publishing alone, a tenth of the messages, once
	$(BENCH)/bin/python benchmarks/run.py consume-classic consume-quorum consume-headers consume-idempotent publish-1 publish-100 --quick

.PHONY: bench-dead
bench-dead: venv ## 100,000 dead letters listed and filtered, and unchanged: make bench-dead RABBITMQ=amqp://guest:guest@localhost/
	$(BIN)/python benchmarks/dead_letters.py $(RABBITMQ) 100000

.PHONY: clean
clean: ## Remove everything these targets made in this folder
	rm -rf $(VENV) $(BENCH) $(DOCS) $(PINS) .venv-compiled build dist pictures .faults *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The steps below leave a mark each, so that what is up to date is not done again.

$(VENV)/.python: scripts/make-venv
	@echo "Making $(VENV)"
	@scripts/make-venv $(VENV)
	@touch $@

$(VENV)/.dependencies: $(VENV)/.python requirements-dev.txt
	@echo "Installing what the checks need into $(VENV)"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

$(WHEEL): $(VENV)/.dependencies $(SOURCES) pyproject.toml README.md LICENSE
	@echo "Building $(WHEEL)"
	@rm -rf build dist *.egg-info
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@rm -rf build *.egg-info

# The compiled wheel is built from the pure one, unpacked, in a folder that has the package's name.
$(COMPILED)/.source: $(WHEEL) scripts/compiled_setup.py
	@rm -rf $(COMPILED) dist/compiled
	@mkdir -p $(COMPILED)
	@$(BIN)/python -m zipfile -e $(WHEEL) $(COMPILED)
	@rm -r $(COMPILED)/*.dist-info
	@cp README.md LICENSE $(COMPILED)
	@cp scripts/compiled_setup.py $(COMPILED)/setup.py
	@sed 's|^package-dir = .*|package-dir = { holdfast = "holdfast" }|; s|^mypy_path = .*||' pyproject.toml > $(COMPILED)/pyproject.toml
	@touch $@

$(COMPILED)/.wheel: $(COMPILED)/.source
	@echo "Compiling $(WHEEL)"
	@$(BIN)/python -m build --wheel --no-isolation --skip-dependency-check --outdir dist/compiled $(COMPILED) > $(VENV)/compiled.log 2>&1 || { cat $(VENV)/compiled.log; exit 1; }
	@touch $@

.venv-compiled/.holdfast: $(COMPILED)/.wheel
	@echo "Making .venv-compiled"
	@scripts/make-venv .venv-compiled
	@.venv-compiled/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements-dev.txt
	@.venv-compiled/bin/python -m pip --disable-pip-version-check --quiet install --no-deps dist/compiled/*.whl
	@touch $@

$(VENV)/.holdfast: $(WHEEL)
	@$(PIP) install --no-deps --force-reinstall $(WHEEL)
	@touch $@

$(BENCH)/.holdfast: $(COMPILED)/.wheel benchmarks/constraints.txt
	@echo "Installing the peers into $(BENCH)"
	@scripts/make-venv $(BENCH)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt -c benchmarks/constraints.txt "$(WHEEL)[bench]"
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --force-reinstall dist/compiled/*.whl
	@touch $@

$(DOCS)/.tools: scripts/make-venv requirements-docs.txt
	@echo "Installing what builds the documentation into $(DOCS)"
	@scripts/make-venv $(DOCS)
	@$(DOCS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements-docs.txt
	@touch $@

$(PINS)/.tools: scripts/make-venv
	@echo "Making $(PINS)"
	@scripts/make-venv $(PINS)
	@$(PINS)/bin/python -m pip --disable-pip-version-check --quiet install uv==0.13.9
	@touch $@
