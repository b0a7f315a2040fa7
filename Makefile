# Every variable given on the command line becomes the flag of the same name in lower case:
#   make features VIDEOS=clips STORE=clips.zarr MAX_FAILED=0.1
# ARGS="…" passes anything else through. `make help` prints the table below.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The GPU build of TensorFlow where an NVIDIA driver answers, else the CPU build and its engine.
# EXTRA=gpu-jax is JAX instead of TensorFlow, and every command then runs on it.
EXTRA := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)

# A test process that dies ends the run: with loadfile, pytest-xdist 3.8 may wait for ever for its
# successor (pytest-xdist 1378).
XDIST := --dist loadfile --max-worker-restart 0

ifeq ($(EXTRA),gpu-jax)
export KERAS_BACKEND ?= jax
endif

given = $(foreach v,$(filter-out ARGS PYTHON EXTRA MAKEFLAGS MAKEOVERRIDES,$(.VARIABLES)),$(if $(findstring command line,$(origin $(v))),$(if $(filter-out -%,$(v)),$(v))))
lower = $(subst _,-,$(shell echo '$(1)' | tr A-Z a-z))
quote = '$(subst ','\'',$(1))'
flags = $(foreach v,$(given),--$(call lower,$(v))=$(call quote,$($(v)))) $(ARGS)
run = $(BIN)/python -m flows $(1) $(flags)

##@ use it
features: $(VENV)/.ready ## clips → store; resumes    VIDEOS= STORE= WEIGHTS= FRAMES=40 SAMPLING=uniform FIT=crop SHARD=3/16 BACKBONE=one, or a,b with STORE="features/{backbone}.zarr"
	$(call run,features)
train: $(VENV)/.ready ## store → RUNS/NAME/         STORE= HEAD=lstm (or auto) UNITS= EPOCHS= SEED= SEEDS=3 NAME= RUNS=runs ANNOTATIONS=
	$(call run,train)
sweep: $(VENV)/.ready ## many heads from a store     STORE= HEADS="lstm gru" GRID="units=128,512 seed=0,1"
	$(call run,sweep)
search: $(VENV)/.ready ## the best head and settings by inner folds   STORE= HEADS="gru pyramid" TRIALS=60   (extra search)
	$(call run,search)
compare: $(VENV)/.ready ## runs side by side           RUNS=runs
	$(call run,compare)
predict: $(VENV)/.ready ## a new clip → top-k labels  RUN=runs/NAME VIDEO=file, folder, manifest or URL   TIMELINE=1
	$(call run,predict)
export: $(VENV)/.ready ## a head for serving, or a store's features   RUN=runs/NAME FORMAT=onnx, or STORE= FORMAT=npz OUT=
	$(call run,export)
heads: $(VENV)/.ready ## all heads                   HEAD=one of them, with its options
	$(call run,heads)
backbones: $(VENV)/.ready ## all first stages; or try one   BACKBONE=model.onnx VIDEO=clip.mp4
	$(call run,backbones)
show: $(VENV)/.ready ## what is in a store         STORE=
	$(call run,show)
leaks: $(VENV)/.ready ## what tells the classes without the action: one frame's border, the file   STORE= or RUN=runs/NAME FOLDS=3 REPEATS=3
	$(call run,leaks)
report: $(VENV)/.ready ## a store and its runs as one HTML page   STORE= RUNS=runs OUT=report.html
	$(call run,report)
similar: $(VENV)/.ready ## the clips nearest to one   STORE= VIDEO=a file, an id or a row
	$(call run,similar)
doctor: $(VENV)/.ready ## check this host; a remedy for each problem   WEIGHTS=
	$(call run,doctor)
scan: $(VENV)/.ready ## examine clips without extracting   VIDEOS=
	$(call run,scan)
dataset: $(VENV)/.ready ## fetch a public data set    NAME=ucf101-top5|ucf50|ucf101 DIR=
	$(call run,dataset)
verify: $(VENV)/.ready ## read every row back        STORE= REPAIR=1 SAMPLE=20
	$(call run,verify)
forget: $(VENV)/.ready ## remove features permanently  STORE= CLIPS=ID,… GONE=1 DRY_RUN=1
	$(call run,forget)
freeze: $(VENV)/.ready ## reserve clips as a test set   STORE= NAME=   then TEST_SET=NAME for train, sweep
	$(call run,freeze)
relabel: $(VENV)/.ready ## change labels, splits, groups, without videos   STORE= LABELS=manifest.csv DRY_RUN=1
	$(call run,relabel)
import: $(VENV)/.ready ## features computed elsewhere → store   FROM=folder STORE= LABELS= LONG=cut|split TRANSPOSE=1
	$(call run,import)
pack: $(VENV)/.ready ## a store as one file with a datasheet   STORE= OUT=clips.zarr.zip LICENSE= SOURCE=
	$(call run,pack)
unpack: $(VENV)/.ready ## a packed store as a folder again   STORE=clips.zarr.zip OUT=
	$(call run,unpack)
ui: $(VENV)/.ready ## the Prefect server with its UI; runs started meanwhile report to it   PORT=4200 HOST= DATABASE=
	$(call run,ui)
serve: $(VENV)/.ready ## features (or FLOW=refresh) on a schedule   VIDEOS= STORE= CRON="0 2 * * *" or INTERVAL=3600
	$(call run,serve)
refresh: $(VENV)/.ready ## extract what is new, retrain, accept if not worse   CONFIG=refresh.toml
	$(call run,refresh)
demo: $(VENV)/.ready ## features, train and predict on the built-in clips
	$(call run,demo)

##@ work on it
test: $(VENV)/.ready-dev ## lint, types, and the tests but for those that take minutes
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "$(BIN)/mypy, and beside it the tests"; $(BIN)/mypy & types=$$!; \
	  $(BIN)/python -m pytest $(XDIST) -n 4 --no-loadscope-reorder $(ARGS); tests=$$?; \
	  wait $$types && exit $$tests
test-all: $(VENV)/.ready-dev ## every test, those that take minutes too
	$(BIN)/python -m pytest $(XDIST) -n 2 -m "" $(ARGS)
test-fresh: ## a fresh Debian: the README's commands, then the newest of every dependency (as root, half an hour)
	tests/fresh/run.sh $(ARGS)
zoo-test: $(VENV)/.ready-dev ## the tests that every head must pass
	$(BIN)/python -m pytest -m "" tests/heads/test_zoo.py $(ARGS)
results: $(VENV)/.ready ## streams × heads on real clips → docs/results.md   CLIPS=folder of fight/ and tennis/ WEIGHTS= POSE_WEIGHTS= MINUTES=
	$(BIN)/python -m benchmarks.results_page $(flags)
faults: $(VENV)/.ready-dev ## inject faults into real runs: kills, full disks, damage (a quarter of an hour)
	$(BIN)/python -m pytest -n 2 -m "" tests/faults $(ARGS)
bench: $(VENV)/.ready-dev ## all benchmarks, with ratios; run it on a quiet machine   ARGS="--only engine,endtoend"
	$(BIN)/python -m benchmarks $(ARGS)
bench-gpu: $(VENV)/.ready ## a GPU machine's figures → benchmarks/results/gpu.json   VIDEOS= ARGS="--only cnn,run"
	$(BIN)/python -m benchmarks.gpu $(flags)
fuzz: $(VENV)/.ready-dev ## 300 mutated clips of five containers
	$(BIN)/python -m benchmarks.fuzz $(ARGS)
frames: $(VENV)/.ready-dev ## compare every clip of the corpus with ffmpeg's own frames → docs/frames.md
	$(BIN)/python -m tests.frames.table
format: $(VENV)/.ready-dev ## format the code
	$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format .
docs: $(VENV)/.ready-dev ## build the documentation into site/
	$(BIN)/mkdocs build --strict
venv: $(VENV)/.ready ## the environment in .venv (every target makes it when it is missing or stale)
help: ## this table
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@printf '\nEach variable is the flag of the same name: make features VIDEOS=clips is\n  pixels-once features --videos clips\n'

$(VENV)/.ready: pyproject.toml constraints.txt
	@case "$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" in \
	  3.11 | 3.12 | 3.13) ;; \
	  3.1[4-9] | 3.[2-9]*) echo "make: $(PYTHON) is newer than TensorFlow's last release, which ends at Python 3.13:" \
	    "pass PYTHON=python3.13, say" >&2; exit 1 ;; \
	  *) echo "make: $(PYTHON) is not Python 3.11 to 3.13: pass PYTHON=python3.12, say" >&2; exit 1 ;; \
	esac
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[$(EXTRA),s3]"
	@touch $@
$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[$(EXTRA),s3,dev]"
	@touch $@

# Every target of the table, so that a folder of such a name never stands in its way.
.PHONY: $(shell awk -F: '/^[a-z-]+:.*\#\# / {print $$1}' $(firstword $(MAKEFILE_LIST)))
