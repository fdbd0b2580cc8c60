# Two commands are enough on a machine with Python 3.11+, pip and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := .demo
JOBS ?= auto
SEEDS ?= 20000

MINUTES ?= 10
ROUNDS ?= 200

.PHONY: demo test test-hdfs simulate chaos soak lint bench lock clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The main job: the leader is killed at 40 % and its successor at 70 %; then the same without an operation log.
demo: $(READY)
	@mkdir -p $(DEMO)
	@echo '== With the operation log: kill -9 of the leader at 40 %, of its successor at 70 %'
	@$(BIN)/flinkjob run examples/wordcount/wordcount.yaml --output json \
		--kill-leader-at 40% --kill-leader-at 70% > $(DEMO)/with-log.json
	@echo
	@echo '== The same without it (jobmanager.failover.operation-log-store: none), as Flink does'
	@$(BIN)/flinkjob run examples/wordcount/wordcount.yaml --output json \
		--set jobmanager.failover.operation-log-store=none \
		--kill-leader-at 40% --kill-leader-at 70% > $(DEMO)/without-log.json
	@echo
	@echo '== Both results beside a direct count in one process'
	@$(BIN)/python examples/wordcount/wordcount.py $(DEMO)/with-log.json $(DEMO)/without-log.json

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS)

# On a real NameNode and DataNode: needs Java and Maven, which fetches 90 MB once; without them all are skipped.
test-hdfs: $(READY)
	$(BIN)/python -m pytest -m hdfs -ra --timeout 600

# The long form of the tests with real processes: so many zombie leaders in a row. Ten minutes or so.
chaos: $(READY)
	CHAOS_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -n $(JOBS) tests/chaos

# Jobs in a row with a random fault every 5 s; `make soak MINUTES=60 SOAK="--seed 7"`.
soak: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/chaos/soak.py --minutes $(MINUTES) $(SOAK)

# A cluster in virtual time, its faults made of a seed: SEEDS is how many, or FIRST-LAST. `make test` runs the first 3,000.
simulate: $(READY)
	cd tests && ../$(BIN)/python -m simulation.simulate $(SEEDS)

lint: $(READY)
	$(BIN)/ruff check operator tests examples benchmarks
	$(BIN)/ruff format --check operator tests examples benchmarks
	$(BIN)/mypy operator/flinkjob tests examples benchmarks
	$(BIN)/lint-imports

# Takes some minutes; `make bench PEERS=--peers` also runs Dask and Ray. Writes benchmarks/results.json and docs/benchmarks.md.
bench: $(READY)
	$(BIN)/python benchmarks/bench.py $(PEERS)

# Renews the lock; needs uv.
lock:
	uv pip compile pyproject.toml --extra dev --extra s3 --extra hdfs --universal --python-version 3.11 \
		--generate-hashes --no-header --no-emit-index-url --quiet --output-file requirements.lock

clean:
	rm -rf .venv $(DEMO)
