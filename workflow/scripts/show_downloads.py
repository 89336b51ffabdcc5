"""Print what a configuration would download, how large it is and whether the disk can hold it.

python workflow/scripts/show_downloads.py CONFIG.yaml [--no-network]
"""

import argparse
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.downloads.planned import show

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("config", help="the configuration, as given to --configfile")
parser.add_argument(
    "--no-network", action="store_true", help="do not ask the servers for sizes that are not in the table"
)  # fmt: skip
arguments = parser.parse_args()
try:
    raw = yaml.safe_load(Path(arguments.config).read_text(encoding="utf-8"))
    print(show(load_config(raw), ask=not arguments.no_network), end="")
except InputError as error:
    sys.exit(f"error: {error}")
