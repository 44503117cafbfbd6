# Every target sets up what it needs; nothing outside .venv is touched.
#   make setup                              CPU PyTorch
#   make setup TORCH=cuda                   PyTorch with CUDA (Linux)
#   make setup PYTHON=python3.12            another Python
#   make setup TORCH_INDEX=URL              another index with PyTorch's CPU build
ifeq ($(OS),Windows_NT)
PYTHON ?= python
BIN_FOLDER := Scripts
else
PYTHON ?= python3
BIN_FOLDER := bin
endif
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
VENV := .venv
BIN := $(VENV)/$(BIN_FOLDER)
READY := $(VENV)/.ready
LOCKS := requirements

TWINS := .venv-twins
PEERS := .venv-peers

.PHONY: setup demo test unit-tests coverage test-one test-all quick format twins lint lock dist \
	bench bench-time bench-feeding bench-augment bench-labels bench-steps docs clean

# scripts/environment.py does the work: first what pip is configured for, then PyTorch's
# own index. Without TORCH= the choice of the last set-up stays.
define SETUP
@command -v "$(PYTHON)" > /dev/null || { echo "There is no command '$(PYTHON)': install \
	Python 3.11 to 3.14 (https://www.python.org/downloads/), or name it with \
	make setup PYTHON=/path/to/python3" >&2; exit 2; }
@"$(PYTHON)" scripts/setup_env.py --torch "$(TORCH)" --torch-index "$(TORCH_INDEX)"
@touch $(READY)
endef

setup:
	$(SETUP)

$(READY): $(LOCKS)/dev.lock $(LOCKS)/torch-cpu.lock $(LOCKS)/torch.lock pyproject.toml
	$(SETUP)

demo: $(READY)
	$(BIN)/striate train digits

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The type checker needs one core for most of a minute, so both run at once.
test: $(READY)
	$(MAKE) --no-print-directory -j2 lint unit-tests

# Compiled files are kept, also where a shell forbids it: the tests start many processes.
unit-tests: $(READY)
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 -q

define COVERAGE_LIMITS
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --fail-under=100 --include="*/core/*,*/audit/*,*/engine/weights_io.py"
endef

# The same tests, with the executed lines counted, which takes half as long again.
coverage: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 -q --cov --cov-report=
	$(COVERAGE_LIMITS)

# The tests that take under a minute together.
QUICK := $(wildcard tests/core tests/layers tests/metrics tests/report tests/test_conventions.py \
	tests/test_setup.py tests/test_end_to_end.py)

quick: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 -q $(QUICK)

# The wheel and the source archive, and the demo from the wheel in an empty environment;
# make dist T="tests/core …" runs tests there too.
dist: $(READY)
	$(BIN)/python scripts/check_dist.py --tests $(T)

# make test-one T=tests/core, or T="tests/core -k seeds"
test-one: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q $(T)

test-all: lint twins
	ALL_EXAMPLES=1 $(BIN)/pytest --cov --cov-report=
	$(COVERAGE_LIMITS)

# Pins and hashes for every platform and Python; make lock UP=--upgrade takes the newest.
LOCKER := .venv-lock
COMPILE := $(LOCKER)/$(BIN_FOLDER)/uv pip compile --quiet --no-config --universal \
	--python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command "make lock" $(UP)
TORCH_NEEDS := filelock fsspec jinja2 markupsafe mpmath networkx setuptools sympy \
	typing-extensions

$(LOCKER)/.ready: $(LOCKS)/lock.lock
	$(PYTHON) -m venv $(LOCKER)
	$(LOCKER)/$(BIN_FOLDER)/python -m pip install --quiet --no-deps --require-hashes \
		--requirement $(LOCKS)/lock.lock
	@touch $@

lock: $(LOCKER)/.ready
	$(COMPILE) pyproject.toml --group dev --extra export --extra heic --extra remote \
		--extra sign --extra tensorboard \
		--overrides $(LOCKS)/overrides.txt --no-emit-package torch \
		--no-emit-package future --output-file $(LOCKS)/dev.lock
	$(COMPILE) --group docs --constraints $(LOCKS)/dev.lock \
		--output-file $(LOCKS)/docs.lock
	$(COMPILE) $(LOCKS)/torch.in --constraints $(LOCKS)/dev.lock \
		$(TORCH_NEEDS:%=--no-emit-package %) --output-file $(LOCKS)/torch.lock
	$(COMPILE) --group lock --output-file $(LOCKS)/lock.lock

# torchvision wants a torch of its own choosing, so it gets an environment beside ours
# that sees our packages; its compiled operators are not needed and not loaded.
SITE := -c "import sysconfig; print(sysconfig.get_path('purelib'))"

$(TWINS)/.ready: $(READY)
	$(PYTHON) -m venv $(TWINS)
	$(BIN)/python $(SITE) > $$($(TWINS)/bin/python $(SITE))/outer.pth
	echo "$(CURDIR)/src" >> $$($(TWINS)/bin/python $(SITE))/outer.pth
	$(TWINS)/bin/python -m pip install --quiet --no-deps torchvision==0.28.0 timm==1.0.31
	$(TWINS)/bin/python -m pip install --quiet scikit-image==0.26.0
	$(TWINS)/bin/python -m pip install --quiet --no-deps tensorboard==2.21.0 absl-py==2.5.1
	$(TWINS)/bin/python -m pip install --quiet ray==2.60.0
	@touch $@

twins: $(TWINS)/.ready
	OMP_NUM_THREADS=1 $(TWINS)/bin/python -m pytest -n 2 -q \
		tests/models/test_twins.py \
		tests/models/test_blurred.py tests/models/test_timm.py \
		tests/models/test_weights.py tests/engine/test_tensorboard.py \
		tests/audit/test_many_networks.py tests/interpret/test_public_networks.py \
		tests/workflows/lab/test_ray.py

bench: $(READY)
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/fashion.py
	$(BIN)/python benchmarks/elpv.py
	$(BIN)/python benchmarks/transfer.py
	$(BIN)/python benchmarks/elpv_transfer.py
	$(BIN)/python benchmarks/lrn.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/capture.py
	$(BIN)/python benchmarks/evidence.py
	$(BIN)/python benchmarks/summary.py
	$(BIN)/python benchmarks/data_check.py
	$(BIN)/python benchmarks/ranks.py

# Cold start to an accuracy (P1) against Keras, in an environment of its own: 1-2 hours.
KERAS := .venv-keras

$(KERAS)/.ready:
	$(PYTHON) -m venv $(KERAS)
	$(KERAS)/bin/python -m pip install --quiet tensorflow-cpu==2.21.0 keras==3.15.1
	@touch $@

bench-time: $(READY) $(KERAS)/.ready
	cd benchmarks && ../$(BIN)/python time_to_accuracy.py --keras ../$(KERAS)/bin/python

# Feeding is raced against torchvision's data sets and transforms (P3, P5); P16 alone.
bench-feeding: $(TWINS)/.ready
	cd benchmarks && ../$(TWINS)/bin/python feeding.py
	cd benchmarks && ../$(TWINS)/bin/python jpeg.py --large
	cd benchmarks && ../$(BIN)/python scale.py

# The libraries that augmentation is raced against, in an environment like the twins'.
$(PEERS)/.ready: $(READY) benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(BIN)/python $(SITE) > $$($(PEERS)/bin/python $(SITE))/outer.pth
	echo "$(CURDIR)/src" >> $$($(PEERS)/bin/python $(SITE))/outer.pth
	$(PEERS)/bin/python -m pip install --quiet --no-deps --requirement \
		benchmarks/peers.txt
	@touch $@

bench-augment: $(PEERS)/.ready
	$(PEERS)/bin/python benchmarks/augment.py

bench-labels: $(PEERS)/.ready
	cd benchmarks && ../$(PEERS)/bin/python labels.py

# Training steps against PyTorch's own loop and Keras' (P2), and as networks grow (P16).
bench-steps: $(READY) $(KERAS)/.ready
	cd benchmarks && ../$(BIN)/python steps.py --keras ../$(KERAS)/bin/python
	cd benchmarks && ../$(BIN)/python growth.py

$(VENV)/.docs: $(READY) $(LOCKS)/docs.lock
	@"$(PYTHON)" scripts/setup_env.py --torch-index "$(TORCH_INDEX)" --with docs
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf $(VENV) $(TWINS) $(PEERS) $(KERAS) $(LOCKER) dist build docs/_build .coverage* .mypy_cache .ruff_cache .pytest_cache
