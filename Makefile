# The two commands that do everything are `make run` and `make test`; the scripts behind them are in dev/.

.PHONY: help run demo test bench bench-full bench-parts instructions bench-sql faults backlog fuzz up down env psql clean-stack
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

run: ## starts TimescaleDB, Elasticsearch and the service on port 8080; Ctrl-C stops them
	@dev/stack.sh run

demo: ## sends a week of a shop's logs, incidents included, to what `make run` runs; what to ask: docs/SQL.md
	@cargo run --release -p log-writer-tests --bin log-demo -- --url "$$(dev/stack.sh env | sed -n 's/^LOG_WRITER_URL=//p')"

test: ## starts servers of its own, runs every check and test, stops them
	@dev/test.sh

faults: ## the fault suite, dead letters, limits, security, RUNS=100 runs with faults drawn from SEED, the backlog: PARTS="suite runs"
	@dev/test.sh faults

backlog: ## memory with PostgreSQL stalled, rates and drain with Elasticsearch away: EVENTS=200000 SLOW_SECONDS=20
	@dev/test.sh backlog

fuzz: ## looks for input that breaks a promise: FUZZ_SECONDS=300 for each target, FUZZ_TARGETS="split copy"
	@dev/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

bench: ## the rate beside raw COPY and Vector's statement, CPU, memory, instructions an event: ROUNDS=3 EVENTS=400000 VECTOR=… PROFILE=columnar ROOT=…
	@dev/bench.sh

bench-full: ## how cost grows, both stores for ten minutes, two replicas: PARTS="connections held" ROWS=10000000 MINUTES=10 ROOT=…
	@dev/bench.sh full

bench-parts: ## times decode, encode, bulk body and bulk answer alone, by criterion: ARGUMENTS=normalise for some of them
	@cargo bench --package log-writer-service --features targets --bench parts -- $(ARGUMENTS)

instructions: ## counts what one event costs the service, by valgrind: ARGUMENTS=--profile for where
	@dev/instructions.sh $(ARGUMENTS)

bench-sql: ## times the questions on ROWS=20000000 events in a server of its own: ROOT=… for another TimescaleDB
	@dev/bench-sql.sh $(ROWS)

bench-sql: ROWS ?= 20000000

fuzz: FUZZ_SECONDS ?= 300

up: ## starts the two servers alone, in the background
	@dev/stack.sh up

down: ## stops all that runs
	@dev/stack.sh down

env: ## prints DATABASE_URL, ELASTICSEARCH_URL and LOG_WRITER_URL of what runs
	@dev/stack.sh env

# Under another name: make would expand a `$` in the one from the command line.
psql: export PSQL_COMMAND := $(value SQL)
psql: ## psql on what runs; one command: make psql SQL="select 1"
	@dev/stack.sh psql

clean-stack: ## stops all that runs, removes its data and what was downloaded
	@dev/stack.sh clean
