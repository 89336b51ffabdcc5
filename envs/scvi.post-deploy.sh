#!/usr/bin/env bash
# Run in the finished environment, by Snakemake after conda and by methods/environments.py after pip. These packages name
# versions of scvi-tools, torch and Python that are older than they need, so they come without what they ask for.
set -euo pipefail
python -m pip install --disable-pip-version-check --no-deps --ignore-requires-python --require-hashes -r /dev/stdin <<'PINS'
cpa-tools==0.8.8 --hash=sha256:8d913045cb3757299757a91068e0885e93db9ae17acc2185aae2ecef2ae7525d
py-pcha==0.1.3 --hash=sha256:34ba771246cdce3cb739b8d25700eec41e5c462ffc8a19096a06a20dc2853dfe
scgen==2.1.0 --hash=sha256:1cf2efc967feca0940e00e539e1e0c4115aead2110b0890d83cd42e006d9cc5e
simvi==0.1.2 --hash=sha256:557677ef68b090bf1ba5ba7db125c510f5fa93bef6e7a58db077e50b1e689048
PINS
