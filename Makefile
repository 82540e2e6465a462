.RECIPEPREFIX = >
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

LOWEST = .venv-lowest
# a file of each wing, those that use the libraries most
LOWEST_TESTS = $(addprefix tests/,bench/test_statistics.py cli/test_cli.py data/test_bias.py data/test_images.py \
  data/test_prepare.py data/test_quicknat_layout.py evaluation/test_metrics.py experiments/test_experiment.py \
  jobs/test_launchers.py methods/test_traces.py models/test_model.py networks/test_monai_network.py \
  prediction/test_segment.py rank/test_correlation.py report/test_report.py runs/test_folder.py \
  simulate/test_simulate.py training/test_fit.py transforms/test_warp.py test_files.py test_ranges.py)

.PHONY: install demo test test-slow test-lowest campaign check constraints dist sbom build connect

# torch is pinned, too, so that a machine without a GPU gets no CUDA packages
$(VENV)/.installed: pyproject.toml constraints.txt
> $(PYTHON) -m venv $(VENV)
> $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
> touch $@

install: $(VENV)/.installed

# the newest versions that go together with the torch in the file; then `make test test-slow`
constraints:
> $(PYTHON) -m venv --clear .venv-newest
> .venv-newest/bin/pip install --quiet --disable-pip-version-check "$$(grep ^torch== constraints.txt)"
> .venv-newest/bin/pip install --quiet --disable-pip-version-check -e ".[dev]"
> .venv-newest/bin/pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//' > .venv-newest/versions
> { echo "# The versions that are tested together, made by \`make constraints\`: pip install -c constraints.txt ."; cat .venv-newest/versions; } > constraints.txt

demo: install
> $(BIN)/semiseg demo --out demo

check: install
> $(BIN)/ruff format --check .
> $(BIN)/ruff check .
> $(BIN)/mypy

test: check
> OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow and not realdata"

$(LOWEST)/.installed: $(VENV)/.installed tools/distributions.py
> $(PYTHON) -m venv --clear $(LOWEST)
> $(BIN)/python tools/distributions.py lowest $(LOWEST)
> $(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -r $(LOWEST)/requirements.txt -e .
> touch $@

# with the lowest versions that pyproject.toml admits; old libraries warn of newer ones
test-lowest: $(LOWEST)/.installed
> OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest -n 2 -W default -m "not slow and not realdata" $(LOWEST_TESTS)

test-slow: install test-lowest
> $(BIN)/pytest -m "slow or realdata"

# a part of it: every damaged and hostile input, and every kill; it prints its count
campaign: install
> $(BIN)/pytest -rP -m slow tests/campaign

# what is committed, and nothing of this machine: the same commit gives the same bytes
dist: install
> rm -rf dist/source && mkdir -p dist/source
> git archive HEAD | tar -x -C dist/source
> SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist dist/source
> rm -rf dist/source

sbom: install
> $(BIN)/python tools/distributions.py sbom dist/sbom.json

# containers: docker or podman, whichever is there; GPU=0, GPU=0,1 or GPU=all, without it the processor
ENGINE ?= $(firstword $(foreach one,docker podman,$(if $(shell command -v $(one) 2>/dev/null),$(one))))
IMAGE ?= semiseg
DATA ?= .
RUNS ?= runs
CACHE ?= $(HOME)/.cache/semiseg
comma = ,
ifneq ($(filter podman,$(notdir $(ENGINE))),)
GPU_FLAGS = $(foreach one,$(subst $(comma), ,$(GPU)),--device nvidia.com/gpu=$(one))
USER_FLAGS = --userns=keep-id
else
GPU_FLAGS = --gpus $(if $(filter all,$(GPU)),all,'"device=$(GPU)"')
USER_FLAGS = --user "$$(id -u):$$(id -g)"
endif

.PHONY: engine
engine:
> @test -n "$(ENGINE)" || { echo "make: got neither docker nor podman on PATH, expected one of them; install one, or name it as ENGINE=..." >&2; exit 1; }

# with a GPU: PyPI's wheels of torch, which hold CUDA
build: engine
> $(ENGINE) build --tag=$(IMAGE) $(if $(GPU),--build-arg=TORCH_INDEX=https://pypi.org/simple) .

# a shell in the image, as oneself: DATA is there as /data, to be read only, RUNS as /runs
connect: engine
> @test -d "$(DATA)" || { echo "make: got no folder $(DATA), expected one with scans; name it as DATA=..." >&2; exit 1; }
> mkdir -p "$(RUNS)" "$(CACHE)"
> $(ENGINE) run --pull never --rm --interactive --tty $(USER_FLAGS) $(if $(GPU),$(GPU_FLAGS) --ipc host) \
>   -v "$$(realpath "$(DATA)"):/data:ro" -v "$$(realpath "$(RUNS)"):/runs" -v "$$(realpath "$(CACHE)"):/cache" \
>   --entrypoint bash $(IMAGE)
