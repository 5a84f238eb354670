# Everything runs in .venv, made from requirements.lock; a second call does no set-up work.
PYTHON ?= python3
UV_VERSION = 0.13.8
BIN = .venv/bin
READY = .venv/.ready

.PHONY: search test test-extended check format bench bench-policy chaos fuzz audit lock clean

search: $(READY)  ## a small search on real images: 8x8 digits, no network, no GPU
	$(BIN)/tunekit search digits --space resnet --samples 20 --epochs 18
	@echo "To open it in the MLflow UI:  $(BIN)/tunekit ui"

test: $(READY)  ## all tests; the ones on CIFAR-10 and MNIST need TUNEKIT_TEST_DATA
	@# Tests with a Ray wait much: two files of them run side by side, and the others take what they leave (Ray's
	@# workers are nice to others, and would starve).
	@log=$$(mktemp); files=$$(grep -rl --include='test_*.py' 'mark\.ray' tests); \
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "ray and not extended" $$files > $$log 2>&1 & ray=$$!; \
	nice -n 17 $(BIN)/python -m pytest -n 2 -m "not ray"; others=$$?; \
	wait $$ray; with_ray=$$?; cat $$log; rm -f $$log; exit $$((others || with_ray))

test-extended: $(READY)  ## several nodes in network namespaces, jobs, live control; about 20 minutes, some as root
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group jobs
	$(BIN)/python -m pytest -m extended
	$(BIN)/python -m pytest tests/tuning/test_remote_job.py -m "not extended"

check: $(READY)  ## format, lint, types, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -m "not slow"

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## speed beside a search written by hand and beside the limit of the machine; an hour, else idle
	$(BIN)/python -m tests.benchmarks.speed

bench-policy: $(READY)  ## how soon each policy finds a good recipe, in recorded learning curves; goes on where it was
	$(BIN)/python -m tests.benchmarks.policy
	$(BIN)/python -m tests.benchmarks.policy --smooth

chaos: $(READY)  ## faults of every kind in the middle of a search, on real images (TUNEKIT_TEST_DATA)
	$(BIN)/python -m tests.chaos

fuzz: $(READY)  ## damaged files for every reader of foreign bytes; not on macOS
	$(BIN)/uv pip install --quiet --python $(BIN)/python --group fuzz
	$(BIN)/python -m tests.fuzz --seconds 20

audit: $(READY)  ## known weaknesses of the pinned packages; needs a network
	$(BIN)/uvx pip-audit --strict --disable-pip --no-deps -r requirements.lock

lock: $(READY)  ## pinned with hashes, for Linux and macOS and Python 3.11 to 3.13, without addresses
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 --group dev --upgrade pyproject.toml -o requirements.lock
	@# What a cluster needs on top of that.
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 -c requirements.lock cluster/requirements.in -o cluster/.full.lock
	awk 'NR == FNR { if (/^[a-z]/) have[$$1]; next } /^[a-z]/ { keep = !($$1 in have) } keep' \
	  requirements.lock cluster/.full.lock > cluster/requirements.lock && rm cluster/.full.lock

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "tunekit needs Python 3.11, 3.12 or 3.13"'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@# Compiled now, once: else every process that may write no bytecode (PYTHONDONTWRITEBYTECODE) compiles Ray anew.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(READY)

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
