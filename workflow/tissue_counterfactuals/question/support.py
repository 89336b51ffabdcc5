"""How far is a question from what was seen: the neighbourhoods that are asked about, among those of training cells.

A neighbourhood is what is received there, the mean log expression of the neighbours, on its first principal components.
Its distance is that to the nearest neighbourhoods of training cells, in units of how far a training cell's own is from
those of others. Places near each other share their neighbours and so would call everything else far: training cells are
compared across the squares of a chequerboard, each with those on the other colour, and what is asked with each colour
by itself: among all of them, which lie denser, it would seem nearer than they are to each other.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from tissue_counterfactuals.question.donors import EdgePerturbation
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream

# Training cells that stand for all, components, nearest neighbourhoods, and the quantile of training cells' own
# distances within which a neighbourhood is inside.
MOST_CELLS, N_COMPONENTS, N_NEAREST, WITHIN = 2000, 10, 5, 0.95
FEWEST_CELLS = 4 * N_NEAREST
# Side of a square of the chequerboard, in bandwidths of the graph: its kernel reaches 2.15.
_SQUARE = 3.0


@dataclass(frozen=True)
class Support:
    """Where the asked neighbourhoods lie.

    Attributes:
        inside: share of the focal cells whose new neighbourhood is no further from those in training than 95 % of these
            are from each other, mean of the two colours.
        distance: median over focal cells and colours of that distance, over the median of training cells.
        inside_type, distance_type: the same among training cells of the focal cells' own type.

    NaN where fewer than 20 training cells have a neighbourhood.
    """

    inside: float
    distance: float
    inside_type: float
    distance_type: float


def support_of(task, target: str) -> dict[str, Support]:
    """Support of every perturbation of a question that can be asked (donor rules, then node perturbations), by its
    name.
    """
    # numba, which a question does not need otherwise.
    from tissue_counterfactuals.graph import neighborhood_features
    from tissue_counterfactuals.models.hierarchical import Axes

    slide, graph = task.slide, task.masked_graph
    expression = log_normalize(slide.X)
    rng = stream(task.seed, "support_cells")
    # A cell without neighbours has no neighbourhood.
    seen = np.flatnonzero(~task.split.held_out & (np.diff(graph.indptr) > 0))
    own_type = seen[(slide.obs["cell_type"] == task.fold.cell_type).to_numpy()[seen]]
    every, own_type = (_some(cells, rng) for cells in (seen, own_type))
    few = len(every) < FEWEST_CELLS
    axes = None if few else Axes.of(neighborhood_features(graph[every], expression), N_COMPONENTS)
    side = _SQUARE * task.question.graph.get("bandwidth_um", 100.0)

    def reference(cells: np.ndarray) -> "_Reference | None":
        if len(cells) < FEWEST_CELLS:
            return None
        squares = np.floor(slide.obsm["spatial"][cells] / side).astype(int).sum(axis=1) % 2
        return _Reference.of(axes.project(graph[cells], expression), squares == 0)

    references = reference(every), reference(own_type)

    def place(around, expression) -> Support:
        asked = None if few else axes.project(around, expression)
        numbers = [(np.nan, np.nan) if r is None else r.place(asked) for r in references]
        return Support(*numbers[0], *numbers[1])

    found = {
        rule: place(EdgePerturbation(task.focal, donors).graph(slide.n_obs), expression)
        for rule, donors in task.question.donors(target).items()
        if not isinstance(donors, str)
    }
    around = graph[task.focal]
    return found | {
        name: place(around, task.altered_log(node))
        for name, node in task.question.nodes(target).items()
        if not isinstance(node, str)
    }


def _some(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(cells, min(len(cells), MOST_CELLS), replace=False))


@dataclass(frozen=True)
class _Reference:
    """Neighbourhoods of training cells, and how far each is from those on the other colour."""

    trees: tuple[cKDTree, cKDTree]
    usual: float
    limit: float

    @classmethod
    def of(cls, neighbourhoods: np.ndarray, white: np.ndarray) -> "_Reference":
        if min(white.sum(), (~white).sum()) < N_NEAREST:
            white = np.arange(len(white)) % 2 == 0
        black, white = neighbourhoods[~white], neighbourhoods[white]
        trees = cKDTree(black), cKDTree(white)
        away = np.concatenate([_distance(trees[0], white), _distance(trees[1], black)])
        usual = max(float(np.median(away)), 1e-12)
        return cls(trees, usual, float(np.quantile(away, WITHIN)))

    def place(self, asked: np.ndarray) -> tuple[float, float]:
        """Share inside, and the median distance in units of what is usual."""
        away = np.concatenate([_distance(tree, asked) for tree in self.trees])
        return float(np.mean(away <= self.limit)), float(np.median(away) / self.usual)


def _distance(tree: cKDTree, points: np.ndarray) -> np.ndarray:
    """Mean distance of each point to its nearest ones of the tree."""
    return tree.query(points, N_NEAREST)[0].mean(axis=1)
