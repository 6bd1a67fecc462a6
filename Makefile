# Everything one can do here, each target with all the set-up it needs: `make` lists them.
# Kept to what GNU make 3.81 knows, which is the make of macOS.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
LOWEST := .lowest
UV_VERSION := 0.13.8
SITE := _build/html/index.html

# Chapters print the same figures everywhere only if they run in the same way everywhere: on the
# digits that come with scikit-learn, in a fixed order of hashing, on one thread (two workers share
# two cores, and the order of a parallel sum is not fixed).
CHAPTER_ENV := STN_TUTORIAL_DATASET=digits PYTHONHASHSEED=0 OMP_NUM_THREADS=1

# Folders are listed too: a page that was removed changes its folder's date and nothing else.
BOOK_SOURCES := Makefile _config.yml _toc.yml pyproject.toml $(shell find book/ chapters/ \
  \( -name '.*' -o -name __pycache__ \) -prune -o -print 2>/dev/null)

.PHONY: help book pdf serve test test-lowest lint format chapters bench lock address clean

##@ Read
book: _build/.done ## Build the site; warnings are errors
	@echo "The book: file://$(CURDIR)/$(SITE)"

pdf: _build/.done ## Make one PDF of the site, beside it; this needs Chromium
	$(BIN)/python tools/make_pdf.py

serve: _build/.done ## Build the site and serve it on http://127.0.0.1:8000
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

##@ Check
# (A cell's time-out catches a hang, not a slow machine: tests/conftest.py has the rule.)
test: lint ## Run all tests, and compare every chapter's outputs with a fresh run
	$(CHAPTER_ENV) $(BIN)/python -m pytest tests chapters \
	  --nbval --nbval-sanitize-with=tests/nbval.cfg --nbval-cell-timeout=1200 \
	  -n 2 --dist loadscope

# In an environment of its own. Old releases make what newer ones of their own requirements call
# deprecated.
test-lowest: $(VENV)/.uv ## Test the package on the lowest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --group test --resolution lowest-direct \
	  --python $(BIN)/python --quiet --upgrade --output-file $(LOWEST).txt
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip sync --quiet --python $(LOWEST)/bin/python $(LOWEST).txt
	PYTHONPATH=. $(CHAPTER_ENV) $(LOWEST)/bin/python -m pytest -W ignore::DeprecationWarning \
	  $(addprefix tests/test_,$(addsuffix .py,affine compiled data grids models pooling reported \
	  sampling transformer transforms))

lint: $(VENV)/.ready ## Check style, types, JavaScript, spelling and the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/oxlint --deny-warnings
	$(BIN)/typos
	$(BIN)/zizmor --offline --quiet --config .github/zizmor.yml .github

##@ Write
format: $(VENV)/.ready ## Mend style and formatting where ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chapters: $(VENV)/.ready ## Run every chapter, on MNIST, from a fresh kernel and keep its new outputs
	PYTHONHASHSEED=0 OMP_NUM_THREADS=1 $(BIN)/python tools/run_chapters.py chapters/*.ipynb

bench: $(VENV)/.ready ## Measure samplers, grids, training and explorables, with others beside them
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.transforms
	$(BIN)/python -m benchmarks.distortion
	$(BIN)/python -m benchmarks.training_steps
	$(BIN)/python -m benchmarks.convolution
	$(BIN)/python -m benchmarks.explorable
	$(BIN)/python -m benchmarks.drawn_digits

##@ Keep
lock: $(VENV)/.uv ## Renew requirements.lock from pyproject.toml
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --group dev \
	  --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --upgrade \
	  --quiet --output-file requirements.lock

address: $(VENV)/.ready ## Write the repository's new public address everywhere: URL=https://github.com/…
	@$(BIN)/python tools/set_address.py "$(URL)"

clean: ## Remove what was built; the environment stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
	find book chapters stn_tutorial tests tools benchmarks -name __pycache__ -prune \
	  -exec rm -rf {} + 2>/dev/null || true

help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

# Below are files and not commands. Each is written last, so that a step which was interrupted is
# done again.

# From nothing each time: Sphinx repeats a page's warnings only when it reads that page again, and
# a page that left the book would stay in the site.
_build/.done: $(VENV)/.ready $(BOOK_SOURCES)
	rm -rf _build
	PYTHONDONTWRITEBYTECODE=1 $(BIN)/jupyter-book build . -W -n --keep-going
	@touch $@

$(VENV)/.ready: $(VENV)/.uv requirements.lock pyproject.toml
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --quiet --editable .
	@touch $@

# uv also stands in the lock file, so that `uv pip sync` keeps it.
$(VENV)/.uv:
	@for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "This needs Python 3.11 or newer; python3 here is: $$(python3 --version 2>&1)." >&2; \
	  echo "Install a newer one, or name it: make PYTHON=/path/to/python3.12 book" >&2; \
	  exit 1; \
	fi; \
	rm -rf $(VENV); \
	if ! $$python -m venv $(VENV); then \
	  echo "$$python has no working venv; on Debian and Ubuntu: apt install python3-venv" >&2; \
	  exit 1; \
	fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@
