# Two commands are enough on a machine with Python 3.11+, pip and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEMO := .demo
JOBS ?= auto
SEEDS ?= 20000

MINUTES ?= 10
ROUNDS ?= 200

.PHONY: demo test test-hdfs kube-programs test-kube cluster cluster-down demo-k8s e2e e2e-long simulate fuzz chaos soak lint bench bench-operator bench-takeover crd docs chart lock clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q operator
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

# On a real NameNode and DataNode: needs Java (17) and Maven, which fetches 90 MB once, and fails without them.
test-hdfs: $(READY)
	HDFS_REQUIRED=1 $(BIN)/python -m pytest -m hdfs -ra --timeout 600

# A real Kubernetes API server, built once into the user's cache (five minutes, with go). `make test` has the tests on it where
# it is there; `make test-kube` runs them alone, and demands it.
kube-programs: $(READY)
	PYTHONPATH=e2e $(BIN)/python -m cluster build

test-kube: kube-programs
	KUBE_REQUIRED=1 $(BIN)/python -m pytest -n $(JOBS) -m kube

# A real kind cluster of three nodes on this machine, and the project's image on it: export KUBECONFIG as it says. Where no
# image can be pulled, all is made from packages first (root, Debian and go; 15 minutes once, 1 minute from then on).
cluster: $(READY)
	PYTHONPATH=e2e $(BIN)/python -m cluster up
	PYTHONPATH=e2e $(BIN)/python -m cluster image

cluster-down: $(READY)
	PYTHONPATH=e2e $(BIN)/python -m cluster down

# The tutorial, docs/tutorial.md, line by line on that cluster: the job's leader is deleted, and its tasks run on.
demo-k8s: cluster
	PYTHONPATH=e2e:tests $(BIN)/python -m walkthrough docs/tutorial.md

# The end-to-end suite on that cluster, without and with what takes long; first what can run at once, then what breaks the
# cluster or the operator for everybody. What fails is tried once more, by itself.
# `make e2e KUBECONFIG=FILE IMAGE=NAME STORAGE_CLASS=NAME` runs it on another cluster that can pull the image and has a
# storage class with ReadWriteMany.
ifeq ($(origin KUBECONFIG),command line)
e2e e2e-long: export E2E_KUBECONFIG = $(KUBECONFIG)
e2e e2e-long: export E2E_IMAGE = $(IMAGE)
e2e e2e-long: export E2E_STORAGE_CLASS = $(STORAGE_CLASS)
e2e e2e-long: $(READY)
else
e2e e2e-long: cluster
endif
E2E := $(BIN)/python -m pytest e2e --timeout 900 --durations 0 --durations-min 10
AGAIN := $(E2E) --last-failed --last-failed-no-failures none
e2e: QUICK := and not long
e2e e2e-long:
	$(E2E) -n 4 -m "not alone $(QUICK)" || $(AGAIN) -m "not alone $(QUICK)"
	$(E2E) -m "alone $(QUICK)" || $(AGAIN) -m "alone $(QUICK)"

# The long form of the tests with real processes: so many zombie leaders in a row. Ten minutes or so.
chaos: $(READY)
	CHAOS_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -n $(JOBS) tests/chaos

# Jobs in a row with a random fault every 5 s; `make soak MINUTES=60 SOAK="--seed 7"`.
soak: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/chaos/soak.py --minutes $(MINUTES) $(SOAK)

# A cluster in virtual time, its faults made of a seed: SEEDS is how many, or FIRST-LAST. `make test` runs the first 3,000.
# With SIMULATE=--operator it is on a simulated Kubernetes, kept by the operator.
simulate: $(READY)
	cd tests && ../$(BIN)/python -m simulation.simulate $(SEEDS) $(SIMULATE)

# Changed logs, messages and manifests, guided by coverage; `make test` has a few hundred of each. Installs atheris, which has
# wheels for CPython 3.11 to 3.13 on Linux (x86-64): no part of the other locks.
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	PYTHONPATH=tests $(BIN)/python -m simulation.fuzz --minutes $(MINUTES)

lint: $(READY)
	$(BIN)/ruff check operator tests examples benchmarks e2e
	$(BIN)/ruff format --check operator tests examples benchmarks e2e
	$(BIN)/mypy operator/flinkjob tests examples benchmarks
	$(BIN)/mypy e2e
	$(BIN)/lint-imports

# Takes some minutes; `make bench PEERS=--peers` also runs Dask and Ray. Writes benchmarks/results.json and docs/benchmarks.md.
bench: $(READY)
	$(BIN)/python benchmarks/bench.py $(PEERS)

# FlinkJobs by the hundred on a real API server, whose nodes kwok plays: 200 and 1,000. Writes benchmarks/operator.json.
bench-operator: $(READY)
	PYTHONPATH=e2e $(BIN)/python -m cluster build etcd kube-apiserver kube-controller-manager kubectl kube-scheduler kwok
	PYTHONPATH=tests:e2e $(BIN)/python benchmarks/operatorbench.py

# How soon somebody leads after a leader's pod is gone, on the kind cluster. Writes benchmarks/operator.json, too.
bench-takeover: cluster
	PYTHONPATH=e2e:tests $(BIN)/python benchmarks/takeoverbench.py

# The CustomResourceDefinition, made of the typed values; the chart's copy is the same file.
crd: $(READY)
	$(BIN)/flinkjob crd > crds/flinkjobs.yaml
	cp crds/flinkjobs.yaml charts/flinkjob-operator/files/flinkjobs.yaml

# The table of values in the chart's README, made of the comments in values.yaml.
chart: $(READY)
	PYTHONPATH=tests:e2e $(BIN)/python -m chart.readme

# The pages of docs/ that are made of something else: the FlinkJob's fields, the options, the metrics, the figures.
docs: $(READY)
	PYTHONPATH=tests:benchmarks $(BIN)/python -m docs.generate

# Renews the locks: of development, of the image, of the fuzzer, and of what builds the package in the image. Needs uv.
UV_LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet
lock:
	$(UV_LOCK) pyproject.toml --extra dev --extra s3 --extra hdfs --output-file requirements.lock
	$(UV_LOCK) pyproject.toml --extra s3 --extra hdfs --constraints requirements.lock --output-file requirements-image.lock
	$(UV_LOCK) --group fuzz --only-binary :all: --output-file requirements-fuzz.lock
	$(UV_LOCK) --group build --constraints requirements.lock --output-file requirements-build.lock

clean:
	rm -rf .venv $(DEMO)
