# Two commands: `make demo` trains, evaluates, exports and draws; `make test` runs the tests.
# Both need Python 3.11 or 3.12 and make, nothing else: they make .venv and install what is pinned.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3,$(if $(shell $(p) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo ok),$(p))))
VENV := .venv
BIN = $(VENV)/bin

.PHONY: demo test lint slow-test beam-test bench docs wheel pins clean

demo: $(VENV)/trained
	$(BIN)/python -m mrcnn_tf.demo

test: $(VENV)/tested
	$(BIN)/python -m pytest -n 2 --dist=loadfile

slow-test: $(VENV)/tested $(VENV)/documented
	$(BIN)/python -m pytest -m slow

# What takes Apache Beam, quick and slow, in an environment of its own: Beam takes no protobuf 7.
beam-test: VENV := .venv-beam
beam-test: .venv-beam/tested
	$(BIN)/python -m pytest -m "not gpu" tests/data_prep/test_beam_convert.py \
	  tests/data_prep/test_tfds_beam.py tests/serving/test_predict_beam.py

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Measures what is compared with peers or between releases (docs/performance.md); BENCH holds flags of benchmarks/run.py, and
# TORCHVISION_PYTHON names the Python of an environment with torchvision, to be measured beside ours.
bench: $(VENV)/trained
	$(BIN)/python benchmarks/run.py $(BENCH)

# The site in runs/site: pictures of tensors, then all pages. What leads nowhere stops it.
docs: $(VENV)/documented
	$(BIN)/python docs/site/follow_an_image.py
	$(BIN)/mkdocs build --strict

# A source archive and a wheel in dist/. Left-overs of an earlier build would get into the wheel.
wheel: $(VENV)/tested
	rm -rf build dist
	$(BIN)/python -m build

# Derives requirements*.txt from pyproject.toml; only pip is needed.
pins:
	$(call need_venv)
	$(BIN)/python .ci/pins.py

# What is installed is remembered by empty files, so that a second run starts at once.
$(VENV)/trained: requirements.txt
	$(call install,requirements.txt)
	touch $@

$(VENV)/tested: requirements.txt requirements-dev.txt
	$(call install,requirements-dev.txt)
	touch $(VENV)/trained $@

$(VENV)/documented: requirements.txt requirements-docs.txt
	$(call install,requirements-docs.txt)
	touch $(VENV)/trained $@

# The tests' other packages, as they are pinned elsewhere; what these take is pip's choice.
.venv-beam/tested: VENV := .venv-beam
.venv-beam/tested: requirements-beam.txt requirements.txt requirements-dev.txt
	$(call install,requirements-beam.txt $(shell grep -hE '^(pytest|tensorflow-datasets)==' requirements.txt requirements-dev.txt))
	touch $@

define need_venv
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV) with $(PYTHON)"; "$(PYTHON)" -m venv $(VENV); }
endef

define install
	$(call need_venv)
	@echo "installing $(1) (about 3 GB, some minutes)"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r $(1)
endef

clean:
	rm -rf runs datasets
