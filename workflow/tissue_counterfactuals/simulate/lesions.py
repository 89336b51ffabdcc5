"""Visium sections with tumour lesions, some of which have lost a gene, in the composition of GSE193460 (Perturb-map).

Spots lie on the hexagonal lattice of a Visium array, 100 micrometres apart. Numbers of spots per label, and which gene
is knocked out in which section, are those of the four published sections; where lesions lie is ours, but those of
KP_1 lie in the five boxes that the authors drew. How a spot comes to its counts (i: spot, g: gene, k: knocked-out
gene):

1. Activity. a_ik = exp(0.6 f_ik - 0.18), f smooth in space with noise, so that its mean is 1; in a lesion that has lost
   k it is `_RESIDUAL`, what the other cells of a spot leave. The expected count of k itself is `target_counts` a_ik.
2. Response. log rate_ig = base_g + tissue[label, g] + lesion[i, g] + sum_p loadings[p, g] programme_ip
                         + knockout_effect * sum_k (own_kg (a_ik - 1) + spread * received_kg (mean over the six
                           neighbours j of a_jk - 1)).
   So the same mechanism makes genes vary with k in wild-type lesions and change where k is lost, at the spot and
   around it. `own` and `received` have mean square 1 over the responding genes. With knockout_effect 0 no other gene
   knows of the knock-out: the null.
3. Counts. x_ig ~ negative binomial with mean library_i * share of rate_ig, variance m + overdispersion m^2.

The truth stays with the slide: var columns simulation_own_K and simulation_received_K, obs columns
simulation_activity_K for each knocked-out gene K, and the knobs in uns["simulation"].
"""

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree

from tissue_counterfactuals.simulate.settings import KNOCKOUTS, LesionSettings
from tissue_counterfactuals.slide import make_slide
from tissue_counterfactuals.streams import stream

PITCH_UM = 100.0
NORMAL, PERIPHERY = "normal", "periphery"
# What the lentiviral vectors bring along; no gene of the mouse.
REPORTERS = ("WPRE", "mCherry_Nter", "linker", "Procode")

# Section: median counts, spots at the periphery, normal spots, and lesions as (label, spots, x, y, width / height) with
# centres in micrometres.
_SECTIONS = {
    "KP_1": (
        *(8005, 149, 1425),
        (
            ("KP_1-1", 84, 1939, 4143, 1.0),
            ("KP_1-1", 26, 5816, 5612, 1.0),
            ("KP_1-2", 75, 5102, 3469, 1.7),
            ("KP_1-3", 36, 3776, 3469, 1.0),
            ("KP_1-3", 12, 1888, 3010, 1.7),
            ("Tgfbr2_1", 75, 5102, 4340, 1.0),
            ("Jak2_1", 21, 2714, 4143, 1.0),
        ),
    ),
    "KP_2": (
        *(8805, 194, 1295),
        (
            ("KP_2-1", 148, 1800, 1800, 1.0),
            ("KP_2-2", 97, 4300, 1900, 1.0),
            ("KP_2-3", 35, 3000, 3600, 1.0),
            ("Tgfbr2_2", 62, 1800, 2882, 1.0),
            ("Ifngr2_2", 41, 4300, 2783, 1.0),
        ),
    ),
    "KP_3": (
        *(10469, 148, 735),
        (
            ("KP_3-1", 133, 1800, 1800, 1.0),
            ("KP_3-2", 98, 4000, 1700, 1.0),
            ("KP_3-3", 55, 3600, 3300, 1.0),
            ("Ifngr2_3", 64, 1800, 2856, 1.0),
        ),
    ),
    "KP_4": (
        *(10375, 104, 902),
        (
            ("KP_4-1", 115, 1700, 1700, 1.0),
            ("KP_4-2", 74, 3900, 1700, 1.0),
            ("KP_4-3", 38, 3900, 3200, 1.0),
            ("KP_4-4", 35, 1700, 3700, 1.0),
            ("Tgfbr2_4-1", 50, 2664, 1700, 1.0),
            ("Tgfbr2_4-2", 37, 3900, 2501, 1.0),
        ),
    ),
}
_REFERENCE_COUNTS = 8005
_ARRAY_ROWS, _SPOTS_PER_ROW = 78, 64

_RESIDUAL = 0.15
_ACTIVITY_SPREAD = 0.6
_RESPONDING_FRACTION = 0.3
_N_PROGRAMMES, _LOADED_FRACTION, _LOADING = 6, 0.3, 0.35
# So wide that, with 20,000 genes, a spot of 8,000 counts has about 3,500 of them, as in the published sections.
_BASE_SPREAD = 1.8
_TISSUE_SPREAD, _LIBRARY_NOISE = 0.5, 0.3
_REPORTER_COUNTS = 5.0
# Spots whose counts are drawn together; part of the result, so not a knob.
_SPOTS_PER_BLOCK = 256


def simulate_lesions(**knobs: float) -> AnnData:
    """Simulate sections KP_1, KP_2, ...; the text of this module says how.

    Args:
        knobs: the keys of `LesionSettings`, which says what they mean. Genes follow from the seed alone, the spots of a
            section from it and the section's number. The genes include those of KNOCKOUTS; REPORTERS come on top.

    Returns:
        A slide: `sample` is the section, `domain` the label of the spot (`periphery` and `normal` outside lesions),
        `cell_type` one of tumour, periphery and normal; further obs columns array_row and array_col.

    Raises:
        InputError: unknown knobs, or knobs out of their range.
    """
    told = LesionSettings.read(knobs, "lesions")
    knobs, seed = told.model_dump(), told.seed
    genes = _draw_genes(stream(seed, "lesion_genes"), told.n_genes)
    counts, tables = [], []
    for number, name in enumerate(list(_SECTIONS)[: told.n_sections]):
        rng = stream(seed, "lesion_spots", number)
        spots = _place_spots(name, told.normal_tissue)
        depth = _SECTIONS[name][0] / _REFERENCE_COUNTS
        counts.append(_draw_counts(rng, genes, spots, depth, knobs))
        tables.append(spots)
    spots = pd.concat(tables)
    slide = make_slide(
        sparse.vstack(counts, format="csr"),
        spots.drop(columns=["x_um", "y_um", "lesion"]),
        genes["names"],
        spots[["x_um", "y_um"]].to_numpy(),
        {"source": "simulated lesions", "simulation": knobs, "filters": "[]"},
    )
    slide.uns["simulation"] = knobs
    for place, knockout in enumerate(KNOCKOUTS):
        for part in ("own", "received"):
            slide.var[f"simulation_{part}_{knockout}"] = genes[part][place]
    return slide


def array_spots() -> pd.DataFrame:
    """Every spot of a Visium array: array_row, array_col, x_um, y_um; index: its barcode, the same on each array."""
    row, place = np.divmod(np.arange(_ARRAY_ROWS * _SPOTS_PER_ROW), _SPOTS_PER_ROW)
    column = 2 * place + row % 2
    # Four letters, so a number in base four is a barcode; a fixed odd factor scatters neighbours over the alphabet.
    codes = (np.arange(len(row), dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(4**16)
    digits = (codes[:, None] >> np.arange(0, 32, 2, dtype=np.uint64)) & np.uint64(3)
    barcodes = ["".join("ACGT"[d] for d in word) + "-1" for word in digits]
    return pd.DataFrame(
        {"array_row": row, "array_col": column, "x_um": column * PITCH_UM / 2, "y_um": row * PITCH_UM * np.sqrt(3) / 2},
        index=pd.Index(barcodes, name="barcode"),
    )


def _draw_genes(rng: np.random.Generator, n_genes: int) -> dict[str, np.ndarray]:
    """What genes are like, the same in all sections; lost genes and reporters stand last, in this order."""
    special = len(KNOCKOUTS) + len(REPORTERS)
    n_ordinary = n_genes - len(KNOCKOUTS)
    width = len(str(n_ordinary - 1))
    names = [f"gene_{gene:0{width}d}" for gene in range(n_ordinary)] + [*KNOCKOUTS, *REPORTERS]

    def ordinary(values: np.ndarray) -> np.ndarray:
        # Neither the lost genes nor the reporters take part.
        return np.concatenate([values, np.zeros((*values.shape[:-1], special))], axis=-1)

    responses = []
    for _ in range(2):
        drawn = rng.standard_normal((len(KNOCKOUTS), n_ordinary))
        drawn *= rng.random(drawn.shape) < _RESPONDING_FRACTION
        responses.append(ordinary(drawn))
    loaded = rng.random((_N_PROGRAMMES, n_ordinary)) < _LOADED_FRACTION
    return {
        "names": pd.Index(names),
        "base": ordinary(_BASE_SPREAD * rng.standard_normal(n_ordinary)),
        "normal": ordinary(_TISSUE_SPREAD * rng.standard_normal(n_ordinary)),
        "loadings": ordinary(_LOADING * rng.standard_normal(loaded.shape) * loaded),
        "own": responses[0],
        "received": responses[1],
    }


def _place_spots(section: str, normal_tissue: float) -> pd.DataFrame:
    """The spots of a section on its array: lesions where the table says, periphery around them, then normal tissue."""
    _, n_periphery, n_normal, lesions = _SECTIONS[section]
    n_normal = round(n_normal * normal_tissue)
    spots = array_spots()
    place = spots[["x_um", "y_um"]].to_numpy()
    label = np.full(len(spots), "", dtype=object)
    lesion = np.full(len(spots), -1)
    for number, (name, size, x, y, aspect) in enumerate(lesions):
        stretched = (place - (x, y)) * (aspect**-0.5, aspect**0.5)
        distance = np.linalg.norm(stretched, axis=1)
        distance[label != ""] = np.inf
        chosen = np.argsort(distance, kind="stable")[:size]
        label[chosen], lesion[chosen] = name, number
    tumour = label != ""
    distance, _ = cKDTree(place[tumour]).query(place)
    # Rounded, so that equal distances are equal on any machine.
    outwards = np.argsort(np.round(distance, 3), kind="stable")[tumour.sum() :]
    label[outwards[:n_periphery]] = PERIPHERY
    label[outwards[n_periphery : n_periphery + n_normal]] = NORMAL
    tissue = label != ""
    spots = spots[tissue].assign(
        sample=section,
        domain=label[tissue],
        cell_type=np.where(tumour, "tumour", np.where(label == PERIPHERY, PERIPHERY, NORMAL))[tissue],
        lesion=lesion[tissue],
    )
    spots.index = section + "_" + spots.index
    return spots


def _draw_counts(
    rng: np.random.Generator, genes: dict, spots: pd.DataFrame, depth: float, knobs: dict
) -> sparse.csr_matrix:
    """Counts (spots, genes) of one section; the activities are written into `spots`."""
    neighbors = _lattice_weights(spots[["x_um", "y_um"]].to_numpy())
    tumour = (spots["cell_type"] == "tumour").to_numpy()
    # What acts on a spot, and what each of it does to the genes: log rate = base + causes @ effects.
    away = spots["cell_type"].map({"tumour": 0.0, PERIPHERY: 0.5, NORMAL: 1.0}).to_numpy(float)
    causes, effects = [away], [genes["normal"]]
    for lesion in range(spots["lesion"].max() + 1):
        causes.append((spots["lesion"] == lesion).to_numpy(float))
        effects.append(knobs["lesion_effect"] * rng.standard_normal(len(genes["base"])))
    for loadings in genes["loadings"]:
        causes.append(_field(rng, neighbors))
        effects.append(loadings)
    special = []
    for place, knockout in enumerate(KNOCKOUTS):
        activity = np.exp(_ACTIVITY_SPREAD * _field(rng, neighbors) - _ACTIVITY_SPREAD**2 / 2)
        activity[spots["domain"].str.startswith(f"{knockout}_").to_numpy()] = _RESIDUAL
        spots[f"simulation_activity_{knockout}"] = activity
        causes += [activity - 1, neighbors @ activity - 1]
        effects.append(knobs["knockout_effect"] * genes["own"][place])
        effects.append(knobs["knockout_effect"] * knobs["spread"] * genes["received"][place])
        special.append(knobs["target_counts"] / knobs["library_size"] * activity)
    special += [_REPORTER_COUNTS / knobs["library_size"] * tumour] * len(REPORTERS)
    causes, effects = np.stack(causes, axis=1), np.stack(effects)
    special = np.stack(special, axis=1)
    library = knobs["library_size"] * depth
    library = library * np.exp(_LIBRARY_NOISE * rng.standard_normal(len(spots)))

    blocks = []
    for start in range(0, len(spots), _SPOTS_PER_BLOCK):
        part = slice(start, start + _SPOTS_PER_BLOCK)
        rate = genes["base"] + causes[part] @ effects
        np.exp(rate, out=rate)
        ordinary, lost = np.split(rate, [-special.shape[1]], axis=1)
        ordinary *= ((1 - special[part].sum(axis=1)) / ordinary.sum(axis=1))[:, None]
        lost[:] = special[part]
        rate *= library[part, None]
        if knobs["overdispersion"] > 0:
            # Negative binomial = Poisson whose mean varies as a gamma of mean 1.
            rate *= rng.standard_gamma(1 / knobs["overdispersion"], rate.shape)
            rate *= knobs["overdispersion"]
        blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    return sparse.vstack(blocks, format="csr")


def _lattice_weights(place: np.ndarray) -> sparse.csr_array:
    """Mean over the up to six neighbours on the lattice; a spot without any is its own neighbour."""
    pairs = cKDTree(place).query_pairs(1.1 * PITCH_UM, output_type="ndarray")
    n = len(place)
    adjacency = sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    adjacency = (adjacency + adjacency.T).tocsr()
    alone = (adjacency.sum(axis=1) == 0).astype(float)
    adjacency = (adjacency + sparse.diags_array(alone)).tocsr()
    return sparse.csr_array(sparse.diags_array(1 / adjacency.sum(axis=1)) @ adjacency)


def _field(rng: np.random.Generator, neighbors: sparse.csr_array) -> np.ndarray:
    """A field of mean 0 and variance 1 over the spots: half smooth over a few spots, half noise."""
    smooth = rng.standard_normal(neighbors.shape[0])
    for _ in range(3):
        smooth = (smooth + neighbors @ smooth) / 2
    smooth = (smooth - smooth.mean()) / smooth.std()
    return np.sqrt(0.5) * (smooth + rng.standard_normal(len(smooth)))
