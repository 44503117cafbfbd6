# Every target sets up what it needs; nothing outside .venv is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

TWINS := .venv-twins
PEERS := .venv-peers

.PHONY: setup demo test test-all twins lint bench bench-time bench-feeding bench-augment bench-labels bench-steps docs clean

setup: $(READY)

# The lock pins the CPU build of torch by its local version (+cpu), so a machine that
# could only get the CUDA build stops here instead of downloading gigabytes. The lock is
# complete, so nothing is resolved: --no-deps.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY)
	$(BIN)/striate train digits

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow" -n 2 -q --cov --cov-report=
	$(BIN)/coverage report --fail-under=95
	$(BIN)/coverage report --fail-under=100 --include="*/core/*,*/audit/*,*/engine/weights_io.py"

test-all: lint twins
	$(BIN)/pytest

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
	@touch $@

twins: $(TWINS)/.ready
	OMP_NUM_THREADS=1 $(TWINS)/bin/python -m pytest tests/models/test_twins.py \
		tests/models/test_blurred.py tests/models/test_timm.py \
		tests/models/test_weights.py tests/engine/test_tensorboard.py

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

docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf $(VENV) $(TWINS) $(PEERS) $(KERAS) docs/_build .coverage* .mypy_cache .ruff_cache .pytest_cache
