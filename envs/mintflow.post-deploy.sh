#!/usr/bin/env bash
# Run in the finished environment, by Snakemake after conda and by methods/environments.py after pip. Without what they ask
# for: torchvision, which nothing here uses, and an older zarr and spatialdata.
set -euo pipefail
python -m pip install --disable-pip-version-check --no-deps --require-hashes -r /dev/stdin <<'PINS'
mintflow==0.3.0 --hash=sha256:cdaf4238ca5597b25f0449af68d0209cb7a2e472211abce6b88c0a0ef2bba0fd
torchdyn==1.0.6 --hash=sha256:1699db47296b14756172cd26b814bd49ce702420f8c4b049c8ae60b4ae6ac88d
torchcfm==1.0.7 --hash=sha256:e079138d4c9d5723b2e8a220c323925df1e3367bfdfc34633d7c56970b03a375
torchdiffeq==0.2.5 --hash=sha256:aa1db4bed13bd04952f28a53cdf4336d1ab60417c1d9698d7a239fec1cf2bcf8
torchsde==0.2.6 --hash=sha256:19bf7ff02eec7e8e46ba1cdb4aa0f9db1c51d492524a16975234b467f7fc463b
torchcde==0.2.5 --hash=sha256:90ad5943d74d601400476a3cdaf6ea7aabd3967033ba6d513bc8f6a93f982ffd
trampoline==0.1.2 --hash=sha256:36cc9a4ff9811843d177fc0e0740efbd7da39eadfe6e50c9e2937cbc06d899d9
linformer-pytorch==0.19.3 --hash=sha256:2a84fe8648cf13ab62832c5014dea475a4be3bdc20f4d575807c50ca86ce541b
PINS
