#!/usr/bin/env bash
# Run in the finished environment, by Snakemake after conda and by methods/environments.py after pip. Without what they ask
# for: torchvision, which nothing here uses, and an older zarr and spatialdata.
set -euo pipefail
python -m pip install --disable-pip-version-check --no-deps \
  mintflow==0.3.0 torchdyn==1.0.6 torchcfm==1.0.7 torchdiffeq==0.2.5 torchsde==0.2.6 torchcde==0.2.5 trampoline==0.1.2 \
  linformer-pytorch==0.19.3 POT==0.9.7.post1
