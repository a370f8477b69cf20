# Two commands: `make demo` and `make test`. Both make .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := pip install -q --disable-pip-version-check --no-compile -c constraints.txt

.PHONY: demo test lint types clean data weights benchmarks
demo: $(STAMP)
	$(BIN)/raremat-generate experiment=demo

test: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# torch first and alone: otherwise other packages may draw a CUDA build. pip would write byte code on one core, and that of
# packages' tests too. Some packages hold files that this Python cannot compile, and never imports: hence "|| true".
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m $(PIP) torch
	$(BIN)/python -m $(PIP) -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true
	touch $@

# What is embedded, made again: tables, labels (about an hour on two cores), weights.
data: $(STAMP)
	$(BIN)/python scripts/build_wyckoff_tables.py
	$(BIN)/python scripts/build_prototypes.py
	$(BIN)/python scripts/build_elemental_references.py
	$(BIN)/python scripts/build_elemental_references.py --potential sevennet
	$(BIN)/python scripts/build_hull_compounds.py  # after build_reference_compounds.py STRUCTURES, which needs structures
	# build_predicted_compounds.py FORMULAS STRUCTURES needs the known formulas too
	$(BIN)/python scripts/build_decorations.py
	$(BIN)/python scripts/build_hull_labels.py

weights: $(STAMP)
	$(BIN)/raremat-train experiment=surrogate export=generators/weights/surrogate.pt
	$(BIN)/raremat-train experiment=decorations export=generators/weights/composition.pt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache
