"""One question of the Perturb-map experiment, and how a model answers it: what would the lesion be without the gene?

Two predictors. `generation` climbs from the tissue with and without the knock-out (SCE); `field` takes the exact
counterfactual of the Gaussian field, and so exists with its forces only.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.special import stdtr
from scipy.stats import rankdata

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import perturbmap_lesions as lesions
from tissue_counterfactuals.experiments.force_statistics import correlation
from tissue_counterfactuals.models.celcomen import fit_interactions
from tissue_counterfactuals.models.celcomen_counterfactual import Counterfactual, counterfactual
from tissue_counterfactuals.models.celcomen_gaussian import diagonalise, precision_of
from tissue_counterfactuals.models.celcomen_generation import Generation
from tissue_counterfactuals.models.celcomen_interactions import Interactions
from tissue_counterfactuals.models.celcomen_interventions import KnockOut
from tissue_counterfactuals.models.celcomen_spectrum import symmetric_part
from tissue_counterfactuals.models.celcomen_statistics import interaction_weights, scale_cells
from tissue_counterfactuals.streams import stream


@dataclass(frozen=True)
class Question:
    """A knock-out, the wild-type lesions in which it is predicted, and what it did in the experiment.

    Attributes:
        genes: (g,) modelled genes, the lost one last.
        tissues: the lesions.
        observed: for each lesion (g,), knock-out less wild type; see `observed_differences`.
        as_lost: for each lesion (g,), its mean on the scale of the lesions that have lost the gene.
        n_lost: section -> its lesions that have lost the gene.
        switches: of the steps inference, generation and celcomen_perturbmap.
        settings: section celcomen.perturbmap of the configuration.
    """

    knockout: str
    genes: pd.Index
    tissues: list[lesions.Tissue]
    observed: list[np.ndarray]
    as_lost: list[np.ndarray]
    n_lost: dict[str, int]
    switches: dict[str, str]
    settings: dict

    @cached_property
    def scaled(self) -> list[np.ndarray]:
        """(n, g) spots of each lesion at norm 1."""
        return [scale_cells(tissue.log_expression, "l2") for tissue in self.tissues]

    @property
    def predictors(self) -> tuple[str, ...]:
        """What the forces of this protocol can predict with; the first is the one to read."""
        gaussian = self.switches["log_partition"] == "gaussian"
        return ("field", "generation") if gaussian else ("generation",)

    def expressing(self, place: int, gene: int = -1) -> np.ndarray:
        """Spots (k,) of a lesion, indices within it, in which a gene was counted; -1 is the lost gene."""
        return np.flatnonzero(self.tissues[place].log_expression[:, gene] > 0)

    def chosen_spots(self, eligible: np.ndarray, seed: int) -> np.ndarray:
        """The eligible spots that are knocked out: all, or (as run) one drawn with the seed."""
        if self.switches["knockout_spots"] == "all" or len(eligible) == 0:
            return eligible
        return np.random.RandomState(seed).choice(eligible, 1)


def ask(
    slide: AnnData, expression: sparse.csr_matrix, knockout: str, switches: dict[str, str], settings: dict, name: str
) -> Question:
    """Put the question of one knock-out to a slide.

    Args:
        slide: counts, without the features of the vectors.
        expression: its `log_cpm` (n, genes).
        name: what messages call the slide.

    Raises:
        InputError: a section, lesion or gene is missing; see `perturbmap_lesions`.
    """
    sections = lesions.sections_with(slide, knockout, name)
    if switches["lesion_sections"] == "one":
        if settings["section"] not in sections:
            raise InputError(
                f"slide {name}: section {settings['section']!r}, which celcomen.perturbmap.section names, has no "
                f"lesions with and without {knockout!r}; the sections that have are {', '.join(sections)}."
            )
        sections = [settings["section"]]
    found = lesions.find_lesions(
        slide,
        sections,
        switches["lesion_outlines"],
        name,
        settings["boxes_um"],
        settings["section"],
        settings["trim_um"],
        settings["min_spots"],
    )
    genes = lesions.choose_genes(slide, expression, found, knockout, name, settings["max_genes"])
    question = Question(
        knockout,
        slide.var_names[genes],
        lesions.tissues(slide, expression, found, genes),
        lesions.observed_differences(slide, expression, found, genes, knockout, switches),
        lesions.means_as_lost(slide, expression, found, genes, switches),
        lesions.n_lost_lesions(slide, found, knockout),
        switches,
        settings,
    )
    if not any(len(question.expressing(place)) for place in range(len(found))):
        raise InputError(
            f"slide {name}: no spot of its {len(found)} wild-type lesions has a count of {knockout!r}, so there is "
            "nothing to knock out; name another gene under celcomen.perturbmap.knockouts."
        )
    return question


def fit(question: Question, seed: int, shuffle: int | None = None) -> Interactions:
    """Forces from all lesions together.

    Args:
        shuffle: first give every gene's values to the spots of a lesion at random, each gene by itself, in the order
            of this number.
    """
    switches, settings = question.switches, question.settings
    rng = None if shuffle is None else stream(seed, "shuffled_expression", shuffle)
    slides = []
    for tissue in question.tissues:
        cells = tissue.log_expression
        cells = cells if rng is None else rng.permuted(cells, axis=0)
        slides.append((cells, tissue.graph))
    return fit_interactions(
        slides,
        epochs=settings["epochs"],
        learning_rate=settings["learning_rate"],
        seed=seed,
        switches=switches,
        ridge=settings["ridge"],
        errors=False,
    )


class Model:
    """Forces and a predictor; answers for any lesion, spots and gene of a question."""

    def __init__(self, question: Question, inter: np.ndarray, intra: np.ndarray, predictor: str):
        self.question, self.predictor = question, predictor
        self.inter, self.intra = inter, intra
        self._fields: dict[int, LesionField] = {}
        self._last: tuple[tuple, Counterfactual] | None = None

    def predict(self, place: int, spots: np.ndarray, gene: int | None = None) -> np.ndarray:
        """Change of every gene (g,) where a gene is knocked out.

        The mean over the spots; as run (switch `knockout_effect` `against_start`), less the mean over the other spots.

        Args:
            place: which lesion.
            spots: (m,) its spots that lose the gene, m > 0.
            gene: index of the gene; default: the last.
        """
        gene = len(self.question.genes) - 1 if gene is None else gene
        effect = self.effect(place, spots, gene)
        change = effect[spots].mean(axis=0)
        if self.question.switches["knockout_effect"] == "against_start":
            others = np.setdiff1d(np.arange(len(effect)), spots)
            if len(others):
                change = change - effect[others].mean(axis=0)
        return change

    def collapsed(self, place: int, spots: np.ndarray) -> tuple[int, int]:
        """How many spots are without any expression after a generated knock-out in `spots` (k,): of the whole lesion,
        and of those knocked out."""
        if self.predictor == "field":
            return 0, 0
        last = len(self.question.genes) - 1
        cells = self._generated(place, spots, last).edited.expression
        empty = ~cells.any(axis=1)
        return int(empty.sum()), int(empty[spots].sum())

    def effect(self, place: int, spots: np.ndarray, gene: int) -> np.ndarray:
        """(n, g) change of every spot and gene."""
        if self.predictor == "generation":
            return self._generated(place, spots, gene).effect
        if place not in self._fields:
            weights = interaction_weights(
                self.question.tissues[place].graph, self.question.switches["interaction_weights"]
            )
            self._fields[place] = LesionField(weights, self._modes)
        # In the unit of the forces.
        cells = self.question.tissues[place].log_expression[spots]
        lost = scale_cells(cells, self.question.switches["scale"])[:, gene]
        return self._fields[place].response(spots, gene, -lost)

    @cached_property
    def _modes(self) -> tuple[np.ndarray, np.ndarray]:
        return diagonalise(*precision_of(self.inter, self.intra))

    def _generated(self, place: int, spots: np.ndarray, gene: int) -> Counterfactual:
        """What `_generate` gives; the last answer is kept, because it is asked for more than once."""
        key = (place, spots.tobytes(), gene)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._generate(place, spots, gene))
        return self._last[1]

    def _generate(self, place: int, spots: np.ndarray, gene: int) -> Counterfactual:
        """Generation with and without the knock-out; in angles the gene is put last, as run."""
        tissue, settings = self.question.tissues[place], self.question.settings
        switches = self.question.switches
        angles = switches["chart"] == "angles"
        n_genes = len(self.question.genes)
        order = np.arange(n_genes)
        if angles:
            order = np.append(np.delete(order, gene), gene)
        moved = not np.array_equal(order, np.arange(n_genes))
        shared = {
            "epochs": settings["generation_epochs"],
            "learning_rate": settings["generation_learning_rate"] if angles else None,
            "switches": switches,
        }
        forces = self.inter, self.intra
        twin = None
        if switches["knockout_effect"] == "against_start":
            twin = Generation(self.question.scaled[place], [])  # nothing subtracts it
        found = counterfactual(
            tissue.log_expression[:, order],
            tissue.graph,
            *(matrix[np.ix_(order, order)] for matrix in forces),
            [KnockOut(spots, [int(np.flatnonzero(order == gene)[0])])],
            twin=twin,
            **shared,
        )
        if moved:
            found.effect[:, order] = found.effect.copy()
        return found


class LesionField:
    """The Gaussian field of one lesion, small enough for all eigenvectors of its graph.

    Gives the counterfactual of `celcomen_field.GaussianField` for entries of one gene at the cost of a few matrix
    products, where conjugate gradients would take one step for every spot that loses it.
    """

    def __init__(self, weights: sparse.csr_array, modes: tuple[np.ndarray, np.ndarray]):
        """`weights` is J (n, n); `modes` are V (g, g) and d (g,) with V'PV = I and V'(inter)V = diag(d)."""
        values, self.vectors = np.linalg.eigh(symmetric_part(weights).toarray())
        self.combinations, strength = modes
        self.gain = 1 / (1 - 2 * np.outer(values, strength))

    def response(self, spots: np.ndarray, gene: int, change: np.ndarray) -> np.ndarray:
        """Expected change of all entries (n, g) where one gene changes by `change` (m,) in some spots.

        Cov(:, held) Cov(held, held)^-1 change; the covariance of (i, h) and (l, k) is
        sum_m U_im U_lm sum_a V_ha gain_ma V_ka over the eigenvectors U of J.
        """
        own, weights = self.vectors[spots], self.combinations[gene]
        held = (own * (self.gain @ weights**2)) @ own.T
        modes = own.T @ np.linalg.solve(held, change)
        return self.vectors @ ((modes[:, None] * self.gain * weights) @ self.combinations.T)


def correlate(
    predicted: np.ndarray, observed: np.ndarray, baseline: np.ndarray, left_out: list[int]
) -> dict[str, float]:
    """Spearman correlation over genes, its p value, and the partial one given mean expression; NaN where constant.

    The p value takes genes for independent (t distribution, two-sided), as published; they are not.

    Args:
        predicted, observed, baseline: (g,); baseline is the mean expression of the lesion.
        left_out: genes that were knocked out.
    """
    kept = np.delete(np.arange(len(predicted)), left_out)
    a, b, c = predicted[kept], observed[kept], baseline[kept]
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return {"rho": np.nan, "p_value": np.nan, "partial_rho": np.nan}
    first, second, given = rankdata([a, b, c], axis=1)
    rho, free = correlation(first, second), len(kept) - 2
    t = np.inf if abs(rho) >= 1 else abs(rho) * np.sqrt(free / (1 - rho**2))
    with_first, with_second = correlation(first, given), correlation(second, given)
    left = (1 - with_first**2) * (1 - with_second**2)
    # What is left of a side that the baseline explains fully is rounding, not signal.
    partial = (rho - with_first * with_second) / np.sqrt(left) if left > 1e-15 else np.nan
    return {"rho": rho, "p_value": float(2 * stdtr(free, -t)), "partial_rho": partial}
