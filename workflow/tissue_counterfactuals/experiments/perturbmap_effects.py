"""What lesions without a gene differ in from wild-type ones, in the language of `intervention_statistics`: no model.

The lesion is the unit, its spots are the members, a section is a tile: spots are matched by depth within their section,
and labels are exchanged between the lesions of a section, in all sections at once.
"""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tissue_counterfactuals.experiments import intervention_statistics as statistics
from tissue_counterfactuals.experiments.perturbmap_lesions import WILD_TYPE, lost_genes

# Spots of one label up to this far from each other are one lesion; the lattice has a pitch of 100.
_CONTACT_UM = 110.0
# Mean counts over these spots that a gene needs, and a change of log expression that would matter.
_MIN_MEAN, _RELEVANT = 0.5, 0.2


def lesion_arena(slide: AnnData) -> statistics.Arena:
    """The lesions of a slide, wild-type ones as controls."""
    lost = lost_genes(slide).to_numpy()
    spots = np.flatnonzero(lost != "")
    names = tuple(sorted(set(lost[spots]) - {WILD_TYPE}))
    number = {name: place for place, name in enumerate((WILD_TYPE, *names))}
    section = pd.factorize(slide.obs["sample"].astype(str).to_numpy()[spots], sort=True)[0]
    label = pd.factorize(slide.obs["domain"].astype(str).to_numpy()[spots])[0]
    # Sections and labels apart, so that spots in contact are one lesion.
    place = np.column_stack([slide.obsm["spatial"][spots], 1e6 * section, 1e6 * label])
    unit = connected_components(cKDTree(place).sparse_distance_matrix(cKDTree(place), _CONTACT_UM), directed=False)[1]
    counts = slide.X.tocsr()[spots]
    totals = np.asarray(counts.sum(axis=1)).ravel()
    kept = np.asarray(counts.mean(axis=0)).ravel() >= _MIN_MEAN
    kept &= ~slide.var_names.isin(names)
    first = np.unique(unit, return_index=True)[1]
    tile = np.column_stack([1000 * section, 0 * section])
    return statistics.Arena(
        members=spots,
        values=statistics.scaled(counts[:, kept], totals),
        depth=np.log1p(totals),
        tile=tile,
        unit=unit,
        start=np.arange(len(spots) + 1),
        carriers=np.ones(len(spots), int),
        labels=np.array([number[name] for name in lost[spots][first]]),
        unit_tile=tile[first],
        unit_size=np.bincount(unit),
        target_names=names,
    )


def lesion_effects(slide: AnnData, draws: int, seed: int) -> pd.DataFrame:
    """A row per lost gene: see `intervention_statistics.assess`; n counts spots, n_units lesions. And `clonality` of
    its spots: how many times as often as by chance they touch each other.

    Lesions differ in size and lie where they lie, so that p is conservative: in 25 simulations of the published layout
    without effect that of Tgfbr2 was at most 0.5 in three and never below 0.12.
    """
    arena = lesion_arena(slide)
    found = [statistics.assess(arena, target, draws, seed) for target in range(1, len(arena.target_names) + 1)]
    table = statistics.rows_of(found, _RELEVANT)
    place = slide.obsm["spatial"][(lost_genes(slide) != "").to_numpy()]
    label, section = arena.labels[arena.unit], arena.tile[:, 0] // 1000
    table["clonality"] = statistics.clonality(place, label, section, _CONTACT_UM, 1 + len(arena.target_names))[1:]
    return table
