"""What training costs on more and more cells of a slide (Cellina, Fig. A6): seconds and peak memory of every method.

Published is the training loop alone, on random cells. Random cells of a slide stand further apart than cells do, which
leaves them fewer neighbours within reach; a contiguous patch keeps the density of the tissue. `seconds` are those of
the method's `fit`, from the slide in memory to a trained model, its graph and features included; `pipeline_seconds`
those of the whole job, with the start of Python, reading and writing.
"""

import json
from itertools import product
from pathlib import Path

import pandas as pd

from tissue_counterfactuals.experiments import is_tried, preparation
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import read_slide

COSTS = ("seconds", "pipeline_seconds", "peak_memory_mb", "peak_gpu_memory_mb")
NOT_TRIED = "not tried"
COLUMNS = ["slide", "method", "subset", "n_cells", *COSTS, "device", "status", "reason"]


def run(
    slide: Path,
    models: list[Path],
    fits: list[Path],
    entry: dict,
    protocol: str,
    seed: str,
    settings: dict,
    outputs: dict[str, Path],
) -> None:
    """Costs (TSV) of every training on one slide, and where they come from (JSON).

    A training that did not end is a row with its reason, and with what it had cost until then; so is, without costs,
    a size that a method was not tried on.

    Args:
        models: folders that `fit` left, .../SLIDE+SUBSET+N/FOLD/METHOD/RUN.
        fits: the benchmarks that Snakemake took of these jobs, in the same order.
        settings: section cellina_experiments.scalability of the configuration.
    """
    cells, rows = read_slide(slide, check=False), []
    for folder, benchmark in zip(map(Path, models), fits, strict=True):
        name, subset, wanted = folder.parts[-4].split("+")
        status = json.loads((folder / "status.json").read_text())
        job = pd.read_csv(benchmark, sep="\t")
        # Of a training that was killed the job is the last; models of earlier versions do not say what came before.
        before = status.get("seconds_before", 0.0)
        rows.append(
            {key: status[key] for key in ("seconds", "peak_memory_mb", "peak_gpu_memory_mb", "device", "status",
            "reason")}
            | {"slide": name, "method": folder.parts[-2], "subset": subset}
            | {"n_cells": min(int(wanted), cells.n_obs), "pipeline_seconds": job["s"].iloc[-1] + before}
        )  # fmt: skip
    rows += [
        {"slide": Path(slide).stem, "method": method, "subset": subset, "n_cells": min(size, cells.n_obs)}
        | {"status": NOT_TRIED, "reason": f"not tried on more than {settings['most_cells'][method]:,} cells"}
        for method, subset, size in product(settings["methods"], settings["subsets"], settings["n_cells"])
        if not is_tried(settings, method, size)
    ]
    record = preparation.write_manifest(outputs["manifest"], entry, cells, protocol, [int(seed)], settings)
    # Sizes beyond the slide are all the same: its cells.
    table = pd.DataFrame(rows).reindex(columns=COLUMNS).drop_duplicates(["method", "subset", "n_cells"])
    write_tsv(preparation.keyed(table, record, int(seed)), outputs["scores"], sort=False)
