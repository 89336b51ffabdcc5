"""The last step: from tidy tables and slides to the files of tables and figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.question.question import read_question
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import (
    figure_cellina_2,
    figure_cellina_a2,
    learning_curves,
    table_cellina_1,
)
from tissue_counterfactuals.results.tables import read_scores, write_tsv
from tissue_counterfactuals.slide import read_slide


def table_1(
    scores: Path, manifest: Path, target: str, protocol: str, tsv: Path, markdown: Path, png: Path
) -> None:
    """Table 1 of the Cellina paper, as numbers, as text and as a picture.

    Args:
        target: path form of the target domain.
    """
    record, name = _manifest(manifest), _target_name(manifest, target)
    table = table_cellina_1.build(read_scores([scores]), record["dataset"], name, protocol)
    footer = provenance.footer(record, protocol)
    write_tsv(table, tsv, sort=False)
    with atomic_path(markdown) as temporary:
        temporary.write_text(table_cellina_1.to_markdown(table, footer))
    table_cellina_1.draw(table, footer, png)


def cell_types(scores: Path, manifest: Path, target: str, protocol: str, png: Path) -> None:
    """Scores by held-out type (Figs A2-A4 of the Cellina paper)."""
    record, name = _manifest(manifest), _target_name(manifest, target)
    footer = provenance.footer(record, protocol)
    figure_cellina_a2.draw(read_scores([scores]), record["dataset"], name, protocol, footer, png)


def slide_map(slide: Path, graph: Path, question: Path, manifest: Path, png: Path) -> None:
    """The slide, a question about it, and one focal cell before the edge perturbation and with the donors it is given.

    Args:
        question: whose held-out cells are shown, and whose donors for its first target under the first rule that
            found any.
    """
    record = _manifest(manifest)
    cells, asked = read_slide(slide, check=False), read_question(question)
    asked.check(cells, str(question))
    neighbors = sparse.csr_array(sparse.load_npz(graph))
    focal = _central(cells, asked.focal)
    given = (d for d in asked.donors(asked.fold.targets[0]).values() if not isinstance(d, str))
    donors = next(given, np.empty((len(asked.focal), 0), dtype=int))
    table = cells.obs[["cell_type", "domain", "sample"]].reset_index(drop=True)
    table.insert(0, "y_um", cells.obsm["spatial"][:, 1])
    table.insert(0, "x_um", cells.obsm["spatial"][:, 0])
    title = (
        f"{record['label']} ({record['kind']}), slide {Path(slide).stem}: {asked.fold.cell_type} held out in "
        f"{', '.join(asked.fold.targets)}"
    )
    figure_cellina_2.draw(
        table,
        asked.split.held_out,
        focal,
        neighbors[[focal]].indices,
        donors[int(np.flatnonzero(asked.focal == focal)[0])],
        title,
        provenance.footer(record, asked.protocol),
        png,
    )


def _central(cells, candidates: np.ndarray) -> int:
    """The candidate nearest to the middle of those in its section: a cell well inside its domain."""
    sample = cells.obs["sample"].to_numpy()[candidates]
    labels, counts = np.unique(sample.astype(str), return_counts=True)
    candidates = candidates[sample == labels[counts.argmax()]]
    spatial = cells.obsm["spatial"][candidates]
    distance = np.linalg.norm(spatial - np.median(spatial, axis=0), axis=1)
    return int(candidates[distance.argmin()])


def curves(models: list[Path], manifest: Path, protocol: str, png: Path) -> None:
    """Learning curves of every fit under a protocol; a fit that failed before its first epoch has none.

    Args:
        models: folders .../{slide}/{fold}/{method}/{protocol}.seed{seed} that `fit` left.
    """
    record, histories = _manifest(manifest), []
    for folder in map(Path, models):
        history = folder / "history.tsv"
        if not history.exists():
            continue
        slide, _, method, run = folder.parts[-4:]
        cell_type = json.loads((folder / "status.json").read_text())["cell_type"]
        keys = {"slide": slide, "cell_type": cell_type, "method": method, "protocol": protocol}
        keys["seed"] = int(run.rsplit("seed", 1)[1])
        histories.append(pd.read_csv(history, sep="\t").assign(**keys))
    columns = ["slide", "cell_type", "method", "protocol", "seed", "epoch"]
    table = pd.concat(histories) if histories else pd.DataFrame(columns=columns)
    title = f"Learning curves, {record['label']} ({record['kind']} data), protocol {protocol}"
    learning_curves.draw(table, title, provenance.footer(record, protocol), png)


def _manifest(path: Path) -> dict:
    return json.loads(Path(path).read_text())


def _target_name(manifest: Path, path_form: str) -> str:
    """The target domain that a path form stands for."""
    from tissue_counterfactuals.config import slugs

    record = _manifest(manifest)
    targets = record["config"]["datasets"][record["dataset"]]["target_domains"]
    return slugs(targets, "target_domains")[path_form]
