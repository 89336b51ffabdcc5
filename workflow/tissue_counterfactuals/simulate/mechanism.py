"""The causal mechanism of the simulated tissue: what every cell of every slide shares. `tissue.py` explains it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.simulate.settings import LIGAND_GENES_PER_SIGNAL, TissueSettings
from tissue_counterfactuals.streams import stream

_SILENT_LEVEL = 0.05
_SECOND_SENDER_LEVEL = 0.5


@dataclass(frozen=True)
class Mechanism:
    """Parameters for T types, D domains, L signals and G genes (those still in the slide)."""

    types: np.ndarray  # (T,) names
    domains: np.ndarray  # (D,) names
    composition: np.ndarray  # (D, T) shares of the types, rows sum to 1
    levels: np.ndarray  # (T, D, L) mean secretion
    half_saturation: np.ndarray  # (L,) received signal that occupies half of the receptors
    resting: np.ndarray  # (L,) occupancy at which a cell shows its base programme
    receptors: np.ndarray  # (T, L) change of log rate per unit of occupancy and programme
    base: np.ndarray  # (G, T) log rate
    ligands: np.ndarray  # (G, L) 1 where the gene shows the secretion of the signal
    programmes: np.ndarray  # (G, L) response to each signal
    direct: np.ndarray  # (G, D) direct effect of the domain
    overdispersion: np.ndarray  # (G,)

    def proportions(
        self, types: np.ndarray, domains: np.ndarray, secretion: np.ndarray, received: np.ndarray
    ) -> np.ndarray:
        """Expected share of each gene in each cell's library, over the genes at hand.

        Args:
            types, domains: (m,) codes.
            secretion, received: (m, L) signals sent and received.

        Returns:
            (m, G) float64, rows sum to 1.
        """
        occupancy = received / (received + self.half_saturation)
        drive = self.receptors[types] * (occupancy - self.resting)
        log_secretion = np.log(secretion)
        rate = self.base.T[types]
        rate += self.direct.T[domains]
        # Sums over the signals are written out: a BLAS product may round differently with other numbers of threads.
        for signal in range(drive.shape[1]):
            rate += drive[:, signal, None] * self.programmes[:, signal]
            genes = np.flatnonzero(self.ligands[:, signal])
            rate[:, genes] += log_secretion[:, signal, None]
        np.exp(rate, out=rate)
        rate /= rate.sum(axis=1, keepdims=True)
        return rate


_PER_TISSUE = (
    "types", "domains", "composition", "levels", "half_saturation", "resting", "receptors",
)  # fmt: skip
_PER_GENE = ("base", "ligands", "programmes", "direct")


def store_mechanism(mechanism: Mechanism, slide: AnnData) -> None:
    """Write the mechanism into uns["simulation"], var and varm, as plain arrays that h5ad can hold."""
    slide.uns["simulation"] = {key: getattr(mechanism, key) for key in _PER_TISSUE}
    for key in _PER_GENE:
        slide.varm[f"simulation_{key}"] = getattr(mechanism, key)
    slide.var["simulation_overdispersion"] = mechanism.overdispersion


def stored_mechanism(slide: AnnData) -> Mechanism:
    """Read the mechanism back, for the genes that the slide still has.

    Raises:
        InputError: the slide holds none.
    """
    stored = slide.uns.get("simulation")
    if stored is None:
        raise InputError(
            "this slide has no uns['simulation'], so the truth is unknown: take the truth off its list of methods."
        )
    return Mechanism(
        **{key: np.asarray(stored[key]) for key in _PER_TISSUE},
        **{key: np.asarray(slide.varm[f"simulation_{key}"]) for key in _PER_GENE},
        overdispersion=slide.var["simulation_overdispersion"].to_numpy(),
    )


def signal_weights(slide: AnnData) -> pd.DataFrame:
    """The signals of a simulated slide as pathways, in the form of `pathways.read_weights`.

    Returns:
        source (signal_0, ...), target (gene), weight: change of the gene's log rate per unit of the signal that a cell
        answers to; 1 for its ligand genes, which stand for what is sent.

    Raises:
        InputError: the slide is not simulated.
    """
    mechanism = stored_mechanism(slide)
    weight = mechanism.programmes + mechanism.ligands
    gene, signal = np.nonzero(weight)
    names = np.array([f"signal_{i}" for i in range(weight.shape[1])])
    table = {"source": names[signal], "target": slide.var_names[gene].astype(str), "weight": weight[gene, signal]}
    return pd.DataFrame(table).sort_values(["source", "target"], ignore_index=True)


def draw_mechanism(told: TissueSettings) -> Mechanism:
    """Draw all that cells share."""
    rng = stream(told.seed, "mechanism")
    composition, levels = _draw_senders(rng, told.n_domains, told.n_types, told.n_signals)
    if told.confounding:
        composition = composition ** (1 / (1 - told.confounding))
        composition /= composition.sum(axis=1, keepdims=True)
    received = np.einsum("dt,tdl->dl", composition, levels)
    half_saturation = received.mean(axis=0)
    occupancy = received / (received + half_saturation)

    order = rng.permutation(told.n_genes)
    n_ligand_genes = LIGAND_GENES_PER_SIGNAL * told.n_signals
    ligand_genes, other_genes = order[:n_ligand_genes], order[n_ligand_genes:]
    ligands = np.zeros((told.n_genes, told.n_signals))
    ligands[ligand_genes, np.arange(n_ligand_genes) % told.n_signals] = 1

    responding = other_genes[: round(told.responding_fraction * told.n_genes)]
    programmes = np.zeros((told.n_genes, told.n_signals))
    programmes[responding] = _draw_programmes(rng, len(responding), told.n_signals)
    receptors = _draw_receptors(
        rng, told.n_types, occupancy, programmes[responding], told.effect_size if len(responding) else 0
    )

    base = rng.normal(0, 1.2, (told.n_genes, 1)) + rng.normal(0, 0.3, (told.n_genes, told.n_types))
    markers = other_genes[rng.random(len(other_genes)) < 0.5]
    base[markers, rng.integers(told.n_types, size=len(markers))] += rng.normal(1.5, 0.5, len(markers))
    # Ligand genes follow the secretion alone, whatever the type, and are abundant where it is high.
    base[ligand_genes] = 1.5
    return Mechanism(
        types=np.array([f"type_{i}" for i in range(told.n_types)]),
        domains=np.array([f"domain_{i}" for i in range(told.n_domains)]),
        composition=composition,
        levels=levels,
        half_saturation=half_saturation,
        resting=occupancy.mean(axis=0),
        receptors=receptors,
        base=base,
        ligands=ligands,
        programmes=programmes,
        direct=told.domain_effect * rng.normal(size=(told.n_genes, told.n_domains)),
        overdispersion=told.overdispersion * rng.lognormal(0, 0.5, told.n_genes),
    )


def _draw_senders(
    rng: np.random.Generator, n_domains: int, n_types: int, n_signals: int
) -> tuple[np.ndarray, np.ndarray]:
    """Composition (D, T) and mean secretion (T, D, L)."""
    # Every type is rare in one domain and common in another, and secretes most where it is common. Types take turns
    # with the domains, so that each domain differs from each other one in most signals.
    favour = rng.permutation(np.linspace(-1, 1, n_domains))
    preference = np.stack([np.roll(favour, turn) for turn in rng.permutation(n_types)])
    abundance = np.exp(preference.T)
    # The even half keeps every type present in every domain, where it can be held out.
    composition = 0.5 / n_types + 0.5 * abundance / abundance.sum(axis=1, keepdims=True)

    levels = np.full((n_types, n_domains, n_signals), _SILENT_LEVEL)
    # The first senders take turns, so that no type sends most signals.
    first_senders = np.resize(rng.permutation(n_types), n_signals)
    for signal, first in enumerate(first_senders):
        second = (first + rng.integers(1, n_types)) % n_types
        levels[first, :, signal] = np.exp(0.6 * preference[first])
        levels[second, :, signal] = _SECOND_SENDER_LEVEL
    return composition, levels


def _draw_programmes(rng: np.random.Generator, n_responding: int, n_signals: int) -> np.ndarray:
    """Responses (n_responding, L): each gene answers to one signal for certain and to each other one by chance."""
    answers = rng.random((n_responding, n_signals)) < 0.4
    answers[np.arange(n_responding), rng.integers(n_signals, size=n_responding)] = True
    return answers * rng.normal(size=answers.shape)


def _draw_receptors(
    rng: np.random.Generator, n_types: int, occupancy: np.ndarray, programmes: np.ndarray, effect_size: float
) -> np.ndarray:
    """Strengths (T, L): the same ladder from strong to weak for every type, in an order of its own."""
    n_domains, n_signals = occupancy.shape
    ladder = np.geomspace(1, 0.05, n_signals)
    receptors = rng.permuted(np.tile(ladder, (n_types, 1)), axis=1)
    if effect_size == 0:
        return 0 * receptors
    one, other = np.triu_indices(n_domains, 1)
    change = np.einsum("tl,pl,gl->tpg", receptors, occupancy[one] - occupancy[other], programmes)
    return receptors * (effect_size / np.sqrt((change**2).mean(axis=(1, 2))))[:, None]
