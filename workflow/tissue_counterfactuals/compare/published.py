"""What the papers print and what their authors' newer runs gave: resources/published/, which says where each is
from; and with which settings.
"""

from functools import cache

import pandas as pd
import yaml

from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.sources import RESOURCES

FOLDER = RESOURCES / "published"
SETTINGS = RESOURCES.parent / "config" / "paper.yaml"


@cache
def configuration() -> dict:
    """The settings of the published runs, which are those of config/paper.yaml, with every default."""
    return load_config(yaml.safe_load(SETTINGS.read_text(encoding="utf-8")))


@cache
def numbers() -> pd.DataFrame:
    """The table numbers.tsv, all of it text: a row per published number, see resources/published/README.md."""
    return _read("numbers.tsv")


@cache
def new_folds() -> pd.DataFrame:
    """Scores of the authors' newer runs, a row per slide and held-out type; scores are numbers, NaN where none is."""
    table = _read("cellina_new_folds.tsv")
    metrics = list(table.columns[table.columns.get_loc("cell_type") + 1 :])
    return table.assign(**{m: pd.to_numeric(table[m], errors="coerce") for m in metrics})


@cache
def in_vivo() -> pd.DataFrame:
    """The authors' scores on Perturb-FISH, all of it text: a row per model, lost gene or `mean`, metric and truth."""
    return _read("cellina_in_vivo.tsv")


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / name, sep="\t", dtype=str, keep_default_na=False)


@cache
def references() -> dict[str, str]:
    """Method, or collection of gene sets -> whom to cite for it."""
    table = _read("references.tsv")
    return dict(zip(table["name"], table["citation"], strict=True))
