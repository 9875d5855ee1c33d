# Everything a user does from a fresh clone. Every target makes the virtual environment in .venv first.
MODEL ?= wav2vec
DATA ?= demo
SUBJECT ?=
REGIME ?= brain
SIZE ?=
PRESET ?=
SEED ?=
ARGS ?=
RUN ?=
WEIGHTS ?=
SEEDS ?=
JOBS ?=
QUICK ?=
PERMUTATIONS ?=
KEY ?=
VALUES ?=
FRACTIONS ?=
PYTHON ?= python3
# Two workers, each a whole file at a time: what the tests of a file share is made once.
PYTEST_ARGS ?= -n 2 --dist loadfile

# Values reach the recipes through the environment, as they are given: neither make nor the shell runs anything of them.
# ARGS, SEEDS, VALUES, FRACTIONS, PERMUTATIONS and PYTEST_ARGS are words with blanks between; the others are one word each.
GIVEN := MODEL DATA SUBJECT REGIME SIZE PRESET SEED ARGS RUN WEIGHTS SEEDS JOBS QUICK PERMUTATIONS KEY VALUES FRACTIONS PYTHON PYTEST_ARGS
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
# set -f: [UTS03] is a list of subjects, not a pattern of file names.
SAFELY := set -f;
# The command as it is run, and not the shell that makes it; it can be copied where no value has a blank in it.
SAID := said() { echo "$$@"; "$$@"; }; said
# Published weights take minutes a story on a processor: on the demo they get few stories and only upper layers train.
TINY := demo/|demo/tiny|demo/tiny-large|demo/random:tiny*
FEW := $$(case "$$DATA/$$SIZE" in ($(TINY)) ;; (demo/*) echo -c experiments/published_demo.yaml;; esac)
CONFIGS := -c "experiments/data/$$DATA.yaml" -c "experiments/model/$$MODEL.yaml" $(FEW)
CONFIGS := -c experiments/brain_tune.yaml $(CONFIGS) -c "experiments/regime/$$REGIME.yaml"
CONFIGS := $(CONFIGS) $${PRESET:+-c "experiments/paper/$$PRESET.yaml"}
WHICH := $${SIZE:+--model.backbone.weights "$$SIZE"} $${SUBJECT:+--data.subjects "[$$SUBJECT]"}
CHOICES := $${SEED:+--seed_everything "$$SEED"} $(WHICH)
MANY := $${SEEDS:+--seeds $$SEEDS} $${JOBS:+--jobs "$$JOBS"}
# Runs of other data, sizes or presets have a folder of their own: runs/fractions-lebel2023-UTS03, say.
nothing :=
CURVES := fractions$(subst $(nothing) ,,$(addprefix -,$(filter-out demo,$(DATA)) $(SUBJECT) $(notdir $(SIZE)) $(PRESET)))
export CURVES

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train plan test test-fast slow-list lint docs data report probe doctor reproduce sweep fractions reference bench bench-step bench-full clean

help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables:"
	@echo "    MODEL=$$MODEL       of `cd experiments/model && echo *.yaml | sed 's/\.yaml//g'`"
	@echo "    SIZE=...            published weights by name (base, large, ...), hub id or folder; the tiny model otherwise"
	@echo "    DATA=$$DATA           of `cd experiments/data && echo *.yaml | sed 's/\.yaml//g'`"
	@echo "    REGIME=$$REGIME        of `cd experiments/regime && echo *.yaml | sed 's/\.yaml//g'`"
	@echo "    PRESET=...          of `cd experiments/paper && echo *.yaml | sed 's/\.yaml//g'`"
	@echo "    SUBJECT=... SEED=... ARGS=\"--trainer.max_epochs 3\""

$(READY): pyproject.toml constraints.txt
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "brainlit needs Python 3.11 or newer; '$$PYTHON' is `"$$PYTHON" --version 2>&1`. Say make PYTHON=python3.11"; exit 1; }
	"$$PYTHON" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev,docs,slurm,dashboard]'
	$(BIN)/python -m brainlit.doctor --fix
	@touch $@

train: $(READY) ## tune MODEL on DATA, probe before and after, write the report
	@$(SAFELY) $(SAID) $(BIN)/brainlit fit $(CONFIGS) $(CHOICES) $$ARGS

plan: $(READY) ## memory, time and batch sizes of MODEL (SIZE=base) before it is trained (ARGS="--targets 50000 --tr 2" without a store)
	@$(SAFELY) $(SAID) $(BIN)/brainlit plan $(CONFIGS) $(CHOICES) $$ARGS

data: $(READY) ## download what is missing and published, then prepare, check and describe the story store of DATA
	$(SAFELY) $(BIN)/brainlit data prepare --download $(CONFIGS) $(CHOICES) $$ARGS
	$(SAFELY) $(BIN)/brainlit data check $(CONFIGS) $(CHOICES) $$ARGS
	$(SAFELY) $(BIN)/brainlit data info $(CONFIGS) $(CHOICES) $$ARGS

report: $(READY) ## write the report of RUN (a run directory; the latest run by default) again
	$(BIN)/brainlit report $${RUN:+"$$RUN"}

probe: $(READY) ## the whole probe of RUN's best checkpoint: every layer, every band (ARGS="--checkpoint last")
	@[ -n "$$RUN" ] || { echo "say which run: make probe RUN=runs/brain_tune/ID"; exit 1; }
	$(SAFELY) $(BIN)/brainlit probe "$$RUN" $$ARGS

reproduce: $(READY) ## regimes of MODEL on SEEDS="11 12 13 14 15", JOBS at a time (finished runs are kept), and their report; QUICK=1: some twenty minutes
	$(SAFELY) $(BIN)/brainlit reproduce --model "$$MODEL" $${QUICK:+--quick} $(MANY) \
		$${PERMUTATIONS:+--permutations $$PERMUTATIONS} $$ARGS

sweep: $(READY) ## MODEL with KEY=model.backbone_lr at each of VALUES="1e-3 2e-3" for SEEDS="0 1", compared on stories that choose
	@[ -n "$$KEY" ] && [ -n "$$VALUES" ] || { echo 'say what to vary: make sweep KEY=model.backbone_lr VALUES="1e-3 2e-3"'; exit 1; }
	$(SAFELY) $(BIN)/brainlit sweep --key "$$KEY" --values $$VALUES --model "$$MODEL" --regime "$$REGIME" $(MANY) $$ARGS

fractions: $(READY) ## REGIME on each of FRACTIONS="0.1 0.25 0.5 1" of the data and SEEDS="11 12 13" (finished runs are kept), and the curve
	$(SAFELY) $(BIN)/brainlit fractions --model "$$MODEL" --regime "$$REGIME" --data "$$DATA" $${PRESET:+--preset "$$PRESET"} \
		--experiment "$$CURVES" $${FRACTIONS:+--fractions $$FRACTIONS} $(MANY) $(WHICH) $$ARGS

reference: $(READY) ## docs/reference.md: real weights (WEIGHTS=folder) on real and simulated listeners; what is finished is kept (ARGS="--rows word-rate")
	$(SAFELY) $(BIN)/python -m tests.benchmarks.reference $${WEIGHTS:+--weights "$$WEIGHTS"} $$ARGS

bench: $(READY) ## what brainlit costs beside plain references (fifteen minutes; ARGS="--quick", "--compare earlier.json")
	$(SAFELY) $(BIN)/python -m tests.benchmarks.suite $$ARGS

bench-step: $(READY) ## what a training step costs beside a plain loop (ten minutes; ARGS="--device cuda" on a GPU)
	$(SAFELY) $(BIN)/python -m tests.benchmarks.train_step $$ARGS

bench-full: $(READY) ## one step and an export of five published sizes, with peak memory (ARGS="--precision fp32 --window-s 10")
	$(SAFELY) $(BIN)/python -m tests.benchmarks.full_size $$ARGS

doctor: $(READY) ## look at this machine and say what is missing
	$(BIN)/brainlit doctor

lint: $(READY) ## ruff, mypy, import contracts, spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell src tests docs experiments data README.md CONTRIBUTING.md CHANGELOG.md

test: lint ## lint and all tests
	$(SAFELY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $$PYTEST_ARGS

test-fast: $(READY) ## what to run at every change: ruff, and all tests but the slow ones
	$(BIN)/ruff check
	$(SAFELY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $$PYTEST_ARGS -m "not slow"

slow-list: $(READY) ## write tests/slow.txt: the tests that test-fast leaves out (on a quiet machine)
	$(SAFELY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $$PYTEST_ARGS --write-slow

docs: $(READY) ## build the site of the docs into site/, without a warning
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Open site/index.html, or read it while you write: $(BIN)/mkdocs serve"

clean: ## remove the virtual environment and caches, never runs or data
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
