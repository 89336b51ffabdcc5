# Two commands: `make demo` runs the benchmark on a simulated tissue, `make test` runs the tests.
# The first interpreter that the pins are for.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
REPORT := results/report.html

.PHONY: demo run test peers guests recorded kills mutation check format docs clean

demo: $(VENV)/installed
	@$(BIN)/python workflow/scripts/unlock.py
	$(BIN)/snakemake --cores $(CORES) --quiet rules -- demo
	$(BIN)/snakemake --cores $(CORES) demo --report $(REPORT) --report-stylesheet workflow/report/style.css
	@$(BIN)/python workflow/scripts/show_results.py results $(REPORT)

# make run CONFIG=my.yaml TARGETS=figures: the file is looked at first, its encoding too, of which Snakemake tells in a
# traceback only; and what a kill left locked is opened.
run: $(VENV)/installed
	@PYTHONPATH=workflow $(BIN)/python -m tissue_counterfactuals.config.yaml_files $(CONFIG)
	@$(BIN)/python workflow/scripts/unlock.py
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG) --quiet rules -- $(TARGETS)

# One thread each, of numba too: where it starts more, PyTorch takes as many, and they wait for each other.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile --no-loadscope-reorder

# Environments of published packages that tests compare with; without them those tests say that they are skipped.
peers: $(VENV)/celcomen/installed $(VENV)/spatialdata/installed $(VENV)/rocrate/installed $(VENV)/conda/installed $(VENV)/scperteval/installed $(VENV)/scib/installed

# What celcomen's data reader needs is left out: it is not used.
$(VENV)/celcomen/installed: ALONE := celcomen==0.0.1

$(VENV)/%/installed: tests/peers/%-requirements.txt | $(VENV)/installed
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
	$(if $(ALONE),$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps $(ALONE))
	touch $@

# The environments that methods of other groups run in, as the workflow builds them; without them their tests are skipped.
guests: $(VENV)/guests/scvi.json $(VENV)/guests/mintflow.json

.SECONDEXPANSION:
$(VENV)/guests/%.json: envs/%.yaml $$(wildcard envs/$$*.post-deploy.sh) | $(VENV)/installed
	PYTHONPATH=workflow $(BIN)/python -m tissue_counterfactuals.methods.environments $* $@

# Change the code in one place at a time and see whether a test fails: make mutation MODULES='metrics/*' SAMPLE=30
mutation: $(VENV)/mutation-installed
	$(BIN)/python tests/mutation/run.py $(if $(MODULES),--modules $(foreach m,$(MODULES),'$(m)')) $(if $(SAMPLE),--sample $(SAMPLE))
	$(BIN)/python tests/mutation/run.py $(if $(MODULES),--modules $(foreach m,$(MODULES),'$(m)')) --report

$(VENV)/mutation-installed: tests/mutation/requirements.txt | $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -r $< -c requirements.txt
	touch $@

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile workflow/rules

# The tables in config/README.md, from the classes that say what each key means.
docs: $(VENV)/installed
	PYTHONPATH=workflow $(BIN)/python -m tissue_counterfactuals.config config/README.md

# What the README says of the demo: its scores with 20 seeds, half an hour on two idle cores; goes on where it was.
recorded: $(VENV)/installed
	$(BIN)/python tests/recorded/demo_seeds.py --seeds 20 --jobs $(CORES)

# `make demo` killed at twenty-one moments and called again: the same results? A quarter of an hour; the table is kills.tsv.
kills: $(VENV)/installed
	$(BIN)/python tests/recorded/kills.py

$(VENV)/installed: requirements.txt
	@test -n "$(PYTHON)" || { echo "The pinned packages are for Python 3.11, 3.12 and 3.13, and none was found: install one, or"; \
	  echo "run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	rm -rf .snakemake
