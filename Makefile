# Every task of this repository; `make help` lists them.

CARGO ?= cargo
# Where the tests put what they install; nothing outside this repository changes but Debian packages.
CACHE := tests/.cache
# Duration and size: `make torture EVENTS=10000000 FUZZ_SECS=3600`, `make soak MINUTES=600 SEED=2`.
EVENTS ?= 1000000
CRASH_POINTS ?= 10000
FUZZ_SECS ?= 60
MINUTES ?= 30
GIGABYTES ?= 10
SECONDS_EACH ?= 15
SLOW_SECS ?= 180
HUBS ?= 10
REQUESTS ?= 1000000
SUBSCRIBERS ?= 15000
CLIENTS ?= 5000
SEED ?= 1
# What `make bench` measures, and how often; empty means everything.
ROUNDS ?= 3
SCENARIOS ?=
SERVERS ?=
# Another build of `tidings` that `make bench` compares this one with.
BASELINE ?=

FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
# What the packages are built with: `make dist PROFILE=bench-quick` builds in a fraction of the time, not fully optimised.
PROFILE ?= release
SHELL_SCRIPTS = .ci/run tests/setup tests/deny tests/fuzz tests/soak tests/slow-clients tests/workflows $(wildcard tests/stories/*.sh) \
  $(wildcard tests/dist/*.sh) tools/dist/build tools/dist/archive tools/dist/deb tools/dist/crates $(wildcard deploy/deb/p*)

.DEFAULT_GOAL := help
.PHONY: help demo test test-python test-node check lint features dist dist-test bench torture contention history hubs slow soak tls chart doc site reference setup

help: ## List the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r task text; do \
	  printf '  make %-9s %s\n' "$$task" "$$text"; done

demo: ## Build Tidings and run the chat; it prints its address
	@$(CARGO) run --locked -p tidings-cli -- demo

# One command builds the programs that are started from elsewhere: each of its own would build most dependencies again, with fewer of
# their features. For `tidings` they are those with which `make demo` builds it, so that a test of that replaces nothing under others.
# The tests of the Python client mostly wait, so they run next to those in Node.
test: setup ## Install what tests need (asks before Debian packages), then run every test: Rust, browsers, clients, stories
	CARGO='$(CARGO)' TIDINGS_REQUIRE_SERVERS=1 node tests/rust.mjs
	$(CARGO) build --locked -p tidings-cli -p tidings-testkit -p tidings-adopt-axum -p tidings-example-notifications
	node clients/js/build.mjs
	$(MAKE) --no-print-directory -j2 test-python test-node

test-python: # The Python client; what pytest says is shown at its end
	TIDINGS_BIN="$${CARGO_TARGET_DIR:-target}/debug/tidings" $(CACHE)/python/bin/python -m pytest -q clients/python >$(CACHE)/pytest.log 2>&1; \
	status=$$?; cat $(CACHE)/pytest.log; exit $$status

test-node: # Everything that `node --test` runs
	cd tests && node --test --test-concurrency=2 --test-reporter=spec browser clients conformance stories adopt examples site operate ../clients/node/test/*.test.mjs ../clients/js/test/*.test.mjs

check: ## Quick checks while working: formatting, clippy and the Rust tests; needs only Rust and Node, and names the tests that it skips
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	CARGO='$(CARGO)' node tests/rust.mjs

lint: setup ## Formatting, clippy, words (tools/words.mjs), import cycles (tools/cycles.mjs), log messages (tools/log-messages.mjs), dependency rules (cargo-deny), cargo features, workflows and scripts
	$(CARGO) fmt --all --check
	node tools/words.mjs
	node --test tools/cycles.test.mjs tools/log-messages.test.mjs tools/public-api.test.mjs
	node tools/cycles.mjs
	node tools/log-messages.mjs
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings
	$(MAKE) --no-print-directory features
	tests/deny
	tests/workflows
	shellcheck -x $(SHELL_SCRIPTS)
	$(CACHE)/python/bin/ruff check --config tests/ruff.toml tests examples crates
	$(CACHE)/python/bin/ruff format --config tests/ruff.toml --check tests examples crates
	$(CACHE)/python/bin/ruff check clients/python
	$(CACHE)/python/bin/ruff format --check clients/python
	$(CACHE)/python/bin/mypy --config-file clients/python/pyproject.toml clients/python/src
	cd tests && npx --no-install eslint .
	cd clients/node && ../../tests/node_modules/.bin/eslint .
	tests/node_modules/.bin/tsc -p clients/node --noEmit --emitDeclarationOnly false
	tests/node_modules/.bin/tsc -p clients/node/test
	node clients/js/build.mjs
	tests/node_modules/.bin/tsc -p clients/js/test
	cd clients/js && ../../tests/node_modules/.bin/eslint .
	node tools/client-package.mjs
	node tools/page-script.mjs

features: # The program builds without any cargo feature, and with each half of them
	set -e; for features in '' redis,bench nats,demo,acme; do \
	  $(CARGO) clippy --locked -p tidings-cli --bins --no-default-features --features "$$features" -- -D warnings; done

dist: ## Build the packages of this machine into dist/ (PROFILE=bench-quick: quickly, not fully optimised); docs/install.md
	PROFILE=$(PROFILE) tools/dist/build

dist-test: ## As root: install, run, upgrade and uninstall what `make dist` built, on a Debian without Rust; run the image in namespaces; adopt Tidings in fresh environments
	cd tests && node --test --test-reporter=spec dist

bench: ## Compare with other servers, write docs/benchmarks.md (half an hour); or less: SCENARIOS="fanout many" SERVERS="tidings" ROUNDS=1; or with another build: BASELINE=path/to/tidings
	@tests/setup bench || echo "NOTE: nchan will be missing"
	$(CARGO) build --locked --release -p tidings-cli -p tidings-bench-axum -p tidings-bench-bare -p tidings-bench-harness
	target/release/tidings-bench-harness --rounds $(ROUNDS) $(addprefix --server ,$(SERVERS)) $(addprefix --baseline ,$(BASELINE)) $(SCENARIOS)

torture: ## The long tests: replay-to-live (EVENTS=n), the log in files (CRASH_POINTS=n, 300 kills, every byte flipped), tenants that must learn nothing of each other (REQUESTS=n), hubs on Redis and NATS, resuming at any event (EVENTS=n), fuzzing (FUZZ_SECS=n)
	TIDINGS_REPLAY_TO_LIVE_EVENTS=$(EVENTS) $(CARGO) test --locked --release -p tidings --test replay_to_live -- --nocapture
	TIDINGS_CRASH_POINTS=$(CRASH_POINTS) TIDINGS_FLIP_STEP=1 $(CARGO) test --locked --release -p tidings-log --lib segment::
	TIDINGS_TENANT_REQUESTS=$(REQUESTS) $(CARGO) test --locked --release -p tidings-server --test tenants -- --nocapture
	TIDINGS_KILLS=300 TIDINGS_KEYED=100000 $(CARGO) test --locked -p tidings-cli --test lifecycle -- --nocapture kills::
	$(CARGO) build --locked -p tidings-cli -p tidings-testkit
	TIDINGS_OUTAGES=20 $(CARGO) test --locked -p tidings-redis --test hubs -- --nocapture
	TIDINGS_REPLAY_TO_LIVE_EVENTS=$$(($(EVENTS) / 10)) $(CARGO) test --locked -p tidings-redis --test replay_to_live -- --nocapture
	TIDINGS_NATS_SERVER=$(abspath $(wildcard $(CACHE)/bin/nats-server)) TIDINGS_OUTAGES=20 $(CARGO) test --locked -p tidings-cli --test nodes --test chats -- --nocapture
	TIDINGS_REPLAY_TO_LIVE_EVENTS=100000 $(CARGO) test --locked -p tidings-nats --test replay_to_live -- --nocapture
	cd tests && TIDINGS_EVENTS=$(EVENTS) node --test --test-reporter=spec conformance/resume.test.mjs
	tests/fuzz $(FUZZ_SECS) $(FUZZ_TARGETS)

contention: ## What deletions and retention cost publishers and readers of a log in files (SECONDS_EACH=n)
	directory=$$(mktemp -d -p .) && trap 'rm -rf "$$directory"' EXIT && \
	$(CARGO) run --locked --release -p tidings-log --example contention -- "$$directory" $(SECONDS_EACH)

history: ## The cost of a large history (GIGABYTES=10): opening, the first event of a quiet topic, a million events, memory
	directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && \
	$(CARGO) run --locked --release -p tidings-log --example history -- "$$directory" $(GIGABYTES)

hubs: ## Ten hubs on one Redis with 15,000 subscribers each (HUBS=n, SUBSCRIBERS=n): latency, memory, processor time, no lost events
	$(CARGO) build --locked --release -p tidings-cli
	$(CARGO) run --locked --release -p tidings-redis --example hubs -- $(HUBS) $(SUBSCRIBERS)

slow: ## slowhttptest (apt) in its four modes at once (SLOW_SECS=n): others are served, and the hub ends all slow connections by itself
	$(CARGO) build --locked --release -p tidings-cli
	tests/slow-clients $(SLOW_SECS)

soak: ## Half an hour of subscribers that connect and disconnect (MINUTES=n, SEED=n): no event is lost, and the server does not grow
	$(CARGO) build --locked --release -p tidings-cli
	tests/soak $(MINUTES) --seed $(SEED)

tls: ## 5,000 subscribers over TLS and a new certificate (CLIENTS=n), then testssl on protocols, cipher suites and vulnerabilities
	@tests/setup tls
	$(CARGO) build --locked -p tidings-cli -p tidings-testkit
	TIDINGS_CLIENTS=$(CLIENTS) $(CARGO) test --locked -p tidings-cli --test tls -- --nocapture subscribers::
	cd tests && node --test --test-reporter=spec tls

chart: ## Check the Helm chart and the objects that it renders; builds Helm if it is not installed, which needs Go and some minutes
	@tests/setup chart
	$(CARGO) build --locked -p tidings-cli
	cd tests && PATH="$$PWD/.cache/bin:$$PATH" node --test --test-reporter=spec --test-name-pattern=chart stories/deploy.test.mjs

doc: ## Build the documentation of the crates into target/doc, and compare the public API with docs/public-api; a broken link is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --lib --all-features --no-deps
	node tools/public-api.mjs

site: ## Build the documentation site into site/; a broken link is an error
	@tests/setup site
	node tools/site/build.mjs

reference: ## Write the pages of the reference that the program itself says: configuration, commands, exit codes and metrics
	$(CARGO) build --locked -p tidings-cli
	node tools/reference.mjs "$${CARGO_TARGET_DIR:-target}/debug/tidings"

setup: # Install what `test` and `lint` need; quick if all is installed
	@tests/setup
