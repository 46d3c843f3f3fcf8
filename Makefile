# make demo   from a fresh clone to a verified policy moving a simulated robot through ROS 2; about 9 minutes
# make test   lint, types, import contracts and all tests
# make lint   the first three of them
# make lock   resolve pyproject.toml's dependencies again into requirements.lock
# make clean  remove the environment and caches; runs, bundles and datasets stay

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
export UV_PYTHON_DOWNLOADS := never

BEGAN := $(shell date +%s)
DEBIAN := libegl1 libgl1 libgl1-mesa-dri
ROOT_APT = root_apt() { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$$@" >/dev/null; }
BROWSERS := chromium chromium-browser google-chrome
BIN := .venv/bin

.PHONY: demo test lint setup lock clean

demo: .venv/.ready
	@$(BIN)/vla demo --setup-seconds $$(($$(date +%s) - $(BEGAN)))

# Pages are tested in a real browser.
test: lint
	@$(ROOT_APT)
	command -v $(BROWSERS) >/dev/null || root_apt chromium ||
	  echo "no Chromium: what needs a browser is skipped. apt-get install chromium"
	echo "pytest"
	$(BIN)/pytest

lint: .venv/.ready
	@echo "ruff";         $(BIN)/ruff check --no-cache  # its cache forgets that a file appeared elsewhere
	echo "ruff format";   $(BIN)/ruff format --check
	echo "mypy";          $(BIN)/mypy
	echo "lint-imports";  $(BIN)/lint-imports

setup: .venv/.ready

# The locked packages, this project, and what only the system's package manager can give.
.venv/.ready: requirements.lock pyproject.toml
	@say() { printf '%3d s  %s\n' $$SECONDS "$$*"; }
	$(ROOT_APT)
	find_python() {
	  for python in python3.12 python3 "$$(uv python find 3.12 2>/dev/null || true)"; do
	    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null
	    then echo "$$python"; return; fi
	  done
	  return 1
	}
	python=$$(find_python) || { root_apt python3.12-venv 2>/dev/null && python=$$(find_python); } || {
	  echo "Python 3.12 with its venv module is needed and was not found. Get it with one of:" >&2
	  echo "  apt-get install python3.12-venv     (Ubuntu 24.04)" >&2
	  echo "  pyenv install 3.12                  (any Linux)" >&2
	  echo "  uv python install 3.12              (any Linux)" >&2
	  exit 1
	}
	say "environment in .venv with $$("$$python" --version)"
	"$$python" -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	say "$$(grep -c == requirements.lock) locked packages, about 3 GB to download the first time"
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python -e .
	say "checking the machine"
	findings=$$($(BIN)/vla doctor || true)
	if grep -q '^fail *rendering' <<<"$$findings" && root_apt $(DEBIAN); then say "installed $(DEBIAN)"; fi
	$(BIN)/vla doctor || { echo "Do what the arrows say, then run the same command again." >&2; exit 1; }
	say "ready"
	touch $@

lock: .venv/.ready
	@$(BIN)/uv pip compile -q --no-annotate --no-header --all-extras pyproject.toml -o requirements.lock

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
