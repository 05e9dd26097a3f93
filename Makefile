# Two commands do everything on a fresh machine: `make compare` and `make test`.
.PHONY: compare test lint style docs evidence-tables clean

PYTHON ?= python3
BIN = .venv/bin
# Processes of the tests, which use one thread each; a file's tests stay together. The files
# are begun in the order of tests/conftest.py, the slowest first, not by their number of tests.
WORKERS ?= 2
INSTALL = $(BIN)/pip install --quiet --constraint constraints.txt
# The tests start hundreds of processes: what one of them compiles is there for the next.
unexport PYTHONDONTWRITEBYTECODE
# A process is forked the faster the fewer pages it has: where the C library is glibc, large ones.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# What an installed environment depends on; a change installs again.
PROJECT = pyproject.toml constraints.txt

compare: .venv/installed
	$(BIN)/saln compare

# Types are checked by one of the tests, beside the others.
test: .venv/installed-dev style
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: style
	$(BIN)/mypy

style: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The site, in build/docs; any warning fails it.
docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Every figure in the README and the docs, from results/*.jsonl.
evidence-tables: .venv/installed-dev
	$(BIN)/python benchmarks/evidence.py

$(BIN)/pip:
	$(PYTHON) -m venv .venv
	-$(BIN)/pip install --quiet --upgrade pip # the newest takes half the time for what follows

.venv/installed: $(PROJECT) | $(BIN)/pip
	$(INSTALL) --editable .
	touch $@

# Not compiled: most of it is never imported, and what is stays compiled then.
.venv/installed-dev: $(PROJECT) | $(BIN)/pip
	$(INSTALL) --no-compile --editable '.[dev]'
	touch $@ .venv/installed

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
