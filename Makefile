# Two commands: `make demo` runs the benchmark on a simulated tissue, `make test` runs the tests.
PYTHON ?= python3
CORES ?= 2
VENV := .venv
BIN := $(VENV)/bin
REPORT := results/report.html

.PHONY: demo test check format clean

demo: $(VENV)/installed
	$(BIN)/snakemake --cores $(CORES) demo
	$(BIN)/snakemake --cores $(CORES) demo --report $(REPORT) --report-stylesheet workflow/report/style.css
	@$(BIN)/python workflow/scripts/show_results.py results $(REPORT)

test: $(VENV)/installed
	$(BIN)/python -m pytest

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt Snakefile workflow/rules

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "The pinned packages are for Python 3.11: run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

clean:
	find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	rm -rf .snakemake
