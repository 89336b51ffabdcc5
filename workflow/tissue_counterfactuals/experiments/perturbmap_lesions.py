"""Which spots of a Perturb-map slide form lesions, on which genes they are modelled, and on which scale.

A label of a spot (`domain`) names what its lesion has lost and the section: Tgfbr2_1, Tgfbr2_4-1; KP_1-2 is a lesion
without an assigned knock-out. Any other label (periphery, normal) is no lesion.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.models.celcomen_statistics import scale_cells
from tissue_counterfactuals.neighbors import knn_graph
from tissue_counterfactuals.simulate.lesions import PITCH_UM, REPORTERS
from tissue_counterfactuals.slide import log_normalize

WILD_TYPE = "KP"
_LABEL = r"^(?P<gene>.+?)_[0-9]+(?:-[0-9]+)?$"
# As run: highly variable genes of a lesion, and the share of the lesions in which a gene must be one.
_HVG_CUTOFFS = {"min_mean": 0.5, "max_mean": 7.5, "min_disp": 0.5}
_HVG_SHARE = 0.75
_NEIGHBORS = 6


@dataclass(frozen=True)
class Lesion:
    """A wild-type lesion after trimming.

    Attributes:
        section: sample.
        number: 1, 2, ... over all lesions of a slide, those of sections that are not looked at too, so that a lesion
            has the same one for every knock-out.
        label: of its spots; several, joined by +, where a box holds several.
        spots: (n,) their indices in the slide.
    """

    section: str
    number: int
    label: str
    spots: np.ndarray


@dataclass(frozen=True)
class Tissue:
    """What the model sees of one lesion.

    Attributes:
        log_expression: (n, g) float64, log(1 + CPM).
        graph: (n, n) CSR, directed, row i holding the six nearest spots of the lesion.
    """

    lesion: Lesion
    log_expression: np.ndarray
    graph: sparse.csr_array


def lost_genes(slide: AnnData) -> pd.Series:
    """What the lesion of each spot has lost: a gene, "KP" for nothing assigned, "" outside lesions."""
    return slide.obs["domain"].astype(str).str.extract(_LABEL)["gene"].fillna("")


def sections_with(slide: AnnData, knockout: str, name: str) -> list[str]:
    """Sections with a lesion that has lost the gene, and one that has lost none; sorted.

    Raises:
        InputError: there is none.
    """
    lost, sections = lost_genes(slide), slide.obs["sample"].astype(str)
    found = sorted(set(sections[lost == knockout]) & set(sections[lost == WILD_TYPE]))
    if found:
        return found
    present = sorted(set(lost) - {"", WILD_TYPE})
    if knockout not in present:
        raise InputError(
            f"slide {name}: no spot is labelled as a lesion without {knockout!r} (such as {knockout}_1); the "
            f"knock-outs labelled in `domain` are {', '.join(present) or 'none'}: name one of them under "
            "celcomen.perturbmap.knockouts."
        )
    raise InputError(
        f"slide {name}: no section with a lesion without {knockout!r} has a wild-type lesion ({WILD_TYPE}_...) to "
        "compare with; add such a section to `samples`."
    )


def find_lesions(
    slide: AnnData,
    sections: list[str],
    choice: str,
    name: str,
    boxes_um: list[list[float]],
    boxed_section: str | None,
    trim_um: float,
    min_spots: int,
) -> list[Lesion]:
    """Wild-type lesions of some sections, without the spots near a knock-out.

    Args:
        choice: `components`: what hangs together, spot by spot, under one label; `boxes`: what the boxes hold, in the
            section they were drawn in (components in the others).
        boxes_um: (x from, x to, y from, y to), borders excluded, as run.
        boxed_section: the section of the boxes.
        trim_um: a spot up to this far from any spot of a knock-out lesion belongs to no lesion; two steps of the
            lattice are 200, the next distance is 265.
        min_spots: lesions with fewer spots are left out; in a box they are refused.

    Raises:
        InputError: a section or box without a lesion.
    """
    lost = lost_genes(slide).to_numpy()
    section_of = slide.obs["sample"].astype(str).to_numpy()
    labels = slide.obs["domain"].astype(str).to_numpy()
    place = slide.obsm["spatial"]
    min_spots = max(min_spots, _NEIGHBORS + 1)
    lesions = []

    def add(section: str, label: str, spots: np.ndarray) -> None:
        lesions.append(Lesion(section, len(lesions) + 1, label, spots))

    for section in sorted({*section_of[~np.isin(lost, ["", WILD_TYPE])]} | {*sections}):
        here = section_of == section
        perturbed = here & ~np.isin(lost, ["", WILD_TYPE])
        spots = np.flatnonzero(here & (lost == WILD_TYPE))
        if perturbed.any() and len(spots):
            distance, _ = cKDTree(place[perturbed]).query(place[spots])
            spots = spots[distance > trim_um]
        if choice == "boxes" and section == boxed_section and section in sections:
            x, y = place[spots].T
            for left, right, lower, upper in boxes_um:
                inside = spots[(left < x) & (x < right) & (lower < y) & (y < upper)]
                if len(inside) < min_spots:
                    raise InputError(
                        f"slide {name}: the box {[left, right, lower, upper]} holds {len(inside)} wild-type spots of "
                        f"section {section!r} more than {trim_um:g} um from a knock-out, and {min_spots} are needed: "
                        "give the boxes of this slide under celcomen.perturbmap.boxes_um, or run the protocol "
                        "corrected alone, which needs none."
                    )
                add(section, "+".join(sorted(set(labels[inside]))), inside)
            continue
        for label in sorted(set(labels[spots])):
            own = spots[labels[spots] == label]
            for part in _components(place[own]):
                if len(part) >= min_spots:
                    add(section, label, own[part])
    lesions = [lesion for lesion in lesions if lesion.section in sections]
    if not lesions:
        raise InputError(
            f"slide {name}: no wild-type lesion ({WILD_TYPE}_...) of section {', '.join(sections)} keeps {min_spots} "
            f"spots that hang together more than {trim_um:g} um from a knock-out; lower celcomen.perturbmap.min_spots "
            "or trim_um."
        )
    return lesions


def _components(place: np.ndarray) -> list[np.ndarray]:
    """Indices of the spots that hang together by steps of one pitch; the largest component first."""
    pairs = cKDTree(place).query_pairs(1.1 * PITCH_UM, output_type="ndarray")
    n = len(place)
    adjacency = sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    number, component = connected_components(adjacency, directed=False)
    parts = [np.flatnonzero(component == c) for c in range(number)]
    return sorted(parts, key=lambda part: (-len(part), part[0]))


def remove_reporters(slide: AnnData) -> AnnData:
    """The slide without the features of the vectors."""
    return slide[:, ~slide.var_names.isin(REPORTERS)].copy()


def log_cpm(slide: AnnData) -> sparse.csr_matrix:
    """log(1 + counts per million) of all spots (n, genes), CSR float64, natural logarithm."""
    return log_normalize(slide.X, 1e6).astype(np.float64)


def choose_genes(
    slide: AnnData,
    expression: sparse.csr_matrix,
    lesions: list[Lesion],
    knockout: str,
    name: str,
    at_most: int | None,
) -> np.ndarray:
    """Indices (g,) of the modelled genes: highly variable in three quarters of the lesions, then the lost gene, last.

    Args:
        expression: (n, genes), from `log_cpm`.
        at_most: if more genes vary, so many of them, spaced evenly in the order of the slide.

    Raises:
        InputError: the slide lacks the gene, or too few genes vary.
    """
    if knockout not in slide.var_names:
        raise InputError(
            f"slide {name}: it has no gene {knockout!r}, which celcomen.perturbmap.knockouts names; set "
            "preprocess.n_top_genes to null so that no gene is dropped, or name another gene."
        )
    votes = np.zeros(slide.n_vars)
    for lesion in lesions:
        with warnings.catch_warnings():
            # Genes that no spot of a small lesion has give 0/0 in scanpy; they are no variable genes.
            warnings.simplefilter("ignore")
            table = sc.pp.highly_variable_genes(
                AnnData(expression[lesion.spots]), flavor="seurat", inplace=False, **_HVG_CUTOFFS
            )
        votes += table["highly_variable"].to_numpy()
    last = slide.var_names.get_loc(knockout)
    variable = np.flatnonzero(votes >= _HVG_SHARE * len(lesions))
    variable = variable[variable != last]
    if len(variable) < 10:
        raise InputError(
            f"slide {name}: only {len(variable)} genes are highly variable in three quarters of its {len(lesions)} "
            "lesions, and 10 are needed; give deeper counts, more genes (preprocess.n_top_genes) or larger lesions "
            "(celcomen.perturbmap.min_spots)."
        )
    if at_most is not None and len(variable) > at_most:
        variable = variable[np.linspace(0, len(variable) - 1, at_most).round().astype(int)]
    return np.append(variable, last)


def tissues(slide: AnnData, expression: sparse.csr_matrix, lesions: list[Lesion], genes: np.ndarray) -> list[Tissue]:
    """What the model sees of each lesion: of `expression` (n, genes) the modelled `genes` (g,), indices."""
    return [
        Tissue(
            lesion,
            expression[lesion.spots][:, genes].toarray(),
            knn_graph(slide.obsm["spatial"][lesion.spots], _NEIGHBORS),
        )
        for lesion in lesions
    ]


def observed_differences(
    slide: AnnData,
    expression: sparse.csr_matrix,
    lesions: list[Lesion],
    genes: np.ndarray,
    knockout: str,
    switches: dict[str, str],
) -> list[np.ndarray]:
    """What the knock-out did in the experiment, beside every lesion: mean of its spots less mean of the wild type,
    (genes,) float64.

    The spots are those of the lesion's own section; each of them is scaled to norm 1 over the modelled genes.

    Args:
        switches: `experimental_scale` and `wild_type`.
    """
    section, label = (slide.obs[key].to_numpy() for key in ("sample", "domain"))
    source = expression if switches["experimental_scale"] == "matched" else slide.X
    lost_mean = {}
    for name in {lesion.section for lesion in lesions}:
        lost = (section == name) & (lost_genes(slide) == knockout).to_numpy()
        lost_mean[name] = _mean_by_lesion(scale_cells(source[lost][:, genes], "l2"), label[lost])
    wild = [scale_cells(expression[lesion.spots][:, genes], "l2").mean(axis=0) for lesion in lesions]
    if switches["wild_type"] != "own_lesion":
        wild = [wild[-1]] * len(lesions)
    return [lost_mean[lesion.section] - mean for lesion, mean in zip(lesions, wild, strict=True)]


def means_as_lost(
    slide: AnnData, expression: sparse.csr_matrix, lesions: list[Lesion], genes: np.ndarray, switches: dict[str, str]
) -> list[np.ndarray]:
    """Mean of each wild-type lesion (genes,) on the scale of the lesions that have lost the gene.

    So a wild-type lesion can stand in the place of one of them.
    """
    source = expression if switches["experimental_scale"] == "matched" else slide.X
    return [scale_cells(source[lesion.spots][:, genes], "l2").mean(axis=0) for lesion in lesions]


def n_lost_lesions(slide: AnnData, lesions: list[Lesion], knockout: str) -> dict[str, int]:
    """How many lesions of each section of `lesions` have lost the gene, by their labels."""
    lost = lost_genes(slide) == knockout
    return {
        section: slide.obs["domain"][lost & (slide.obs["sample"] == section)].nunique()
        for section in dict.fromkeys(lesion.section for lesion in lesions)
    }


def _mean_by_lesion(values: sparse.csr_array, labels: np.ndarray) -> np.ndarray:
    """Mean over spots in each lesion, then over lesions, because the lesion is what was sampled."""
    return np.mean([values[np.flatnonzero(labels == label)].mean(axis=0) for label in sorted(set(labels))], axis=0)
