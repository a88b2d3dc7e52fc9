# `make demo` trains a family on rendered scenes, `make demo-lm` language models on stories, `make demo-graft` grafts an
# encoder; `make test` runs every test. All of them set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# Without an NVIDIA GPU torch comes from PyTorch's own index, whose build has no CUDA in it. Where that cannot be reached
# it comes from PyPI, whose build for Linux has gigabytes of it.
CONSTRAINTS := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo -c constraints/cpu.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu
# Python compiles what is imported when it first is; most of the 250 MB of sources never are.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# DeepSpeed builds its operators with a C++ compiler; without one its tests are skipped.
DEEPSPEED := $(shell command -v g++ >/dev/null 2>&1 && echo deepspeed)

# Every core for one process, whatever accelerate is configured to do elsewhere.
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	--num_cpu_threads_per_process $$(nproc 2>/dev/null || sysctl -n hw.ncpu)

# A worker a core, with one thread. Tests of one file stay together, as they share what takes long to make, and
# the files stay in the order that tests/conftest.py gives them: slow ones first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder

.PHONY: help demo demo-lm demo-graft test quick-test snippets quality style docs clean

help:
	@echo "make demo        set up .venv and train two members on rendered scenes, and their control (minutes)"
	@echo "make demo-lm     set up .venv and train three language models on stories that are written here (minutes)"
	@echo "make demo-graft  set up .venv and graft an encoder that was trained on a surrogate (minutes)"
	@echo "make test        set up .venv and run all tests"
	@echo "make quick-test  the tests that take seconds"
	@echo "make snippets    run every snippet of README and docs in full (hours)"
	@echo "make quality     check style and types"
	@echo "make style       mend style"
	@echo "make docs        build the documentation strictly into docs/_build"

demo: .venv/installed
	$(LAUNCH) examples/chain_pretrain.py --control
	@echo "Open runs/scenes/report/index.html; the table is runs/scenes/report/family.md"

demo-lm: .venv/installed
	$(LAUNCH) examples/chain_pretrain.py --config examples/recipes/stories.yaml
	@echo "Open runs/stories/report/index.html; the table is runs/stories/report/family.md"

demo-graft: .venv/installed
	$(LAUNCH) examples/graft_vlm.py
	@echo "Open runs/graft-scenes/report/index.html"

test: .venv/tested
	$(PYTEST)

quick-test: .venv/tested
	$(PYTEST) -m "not slow"

snippets: .venv/tested
	$(BIN)/python tests/docs/run_snippets.py

quality: .venv/developed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

style: .venv/developed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: .venv/developed
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build

clean:
	rm -rf .venv docs/_build .pytest_cache .ruff_cache .mypy_cache

.venv/installed: setup.py constraints/cpu.txt
	$(PYTHON) -m venv .venv
	$(if $(CONSTRAINTS),$(PIP) --no-deps --retries 0 --index-url $(CPU_INDEX) \
		-r constraints/cpu.txt || echo "no CPU build of torch there; taking PyPI's")
	$(PIP) $(CONSTRAINTS) -e .
	@touch $@

.venv/tested: .venv/installed
	$(PIP) $(CONSTRAINTS) -e '.[test]'
	@# DeepSpeed's setup imports the torch that is installed already.
	$(if $(DEEPSPEED),$(PIP) $(CONSTRAINTS) --no-build-isolation -e '.[deepspeed]')
	@touch $@

.venv/developed: .venv/tested
	$(PIP) $(CONSTRAINTS) --no-build-isolation -e '.[dev]'
	@touch $@
