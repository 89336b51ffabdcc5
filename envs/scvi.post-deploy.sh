#!/usr/bin/env bash
# Run in the finished environment, by Snakemake after conda and by methods/environments.py after pip. These packages name
# versions of scvi-tools, torch and Python that are older than they need, so they come without what they ask for.
set -euo pipefail
python -m pip install --disable-pip-version-check --no-deps --ignore-requires-python \
  cpa-tools==0.8.8 py-pcha==0.1.3 scgen==2.1.0 simvi==0.1.2
