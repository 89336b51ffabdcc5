"""What a latent space says of labels: a linear probe, mutual information from nearest neighbours, and scIB's scores."""

import warnings

import numpy as np
from scipy.special import digamma

from tissue_counterfactuals.metrics.populations import distances
from tissue_counterfactuals.streams import stream, stream_seed

# Neighbours of the estimate of mutual information (Ross 2014 takes 3).
_NEIGHBORS = 3
# Neighbours of scIB's local label diversity, the cell itself among them.
_LISI_NEIGHBORS = 90
# Permutations of labels for what a probe reads in nothing.
_PERMUTATIONS = 3
PROBED = ("f1", "guess_f1", "permuted_f1")
CONSERVATION = ("isolated_labels", "nmi_kmeans", "ari_kmeans", "silhouette", "clisi")


def probe_f1(
    latent: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int
) -> dict[str, float]:
    """Macro-F1 on tested cells of a multinomial logistic regression fitted on others, and what it is by chance.

    Each dimension is standardised on the cells that train, or a latent with small values would seem to say nothing.

    Args:
        latent: (n, d); labels: (n,) text; train, test: indices.

    Returns:
        PROBED: `f1`; `guess_f1`, where every cell is said to have the most frequent label of training; `permuted_f1`,
        of the same regression on permuted labels of training, mean of three permutations. Chance is the last: a
        regression on nothing names other labels too, and gets more than guessing the more even labels are.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score

    mean, deviation = latent[train].mean(axis=0), latent[train].std(axis=0)
    scaled = (latent - mean) / np.where(deviation > 0, deviation, 1)
    names, counts = np.unique(labels[train], return_counts=True)
    guess = np.full(len(test), names[counts.argmax()])

    def score(found: np.ndarray) -> float:
        return float(f1_score(labels[test], found, average="macro", zero_division=0))

    def probe(learnt: np.ndarray) -> float:
        if len(names) == 1:
            return score(guess)
        with warnings.catch_warnings():
            # 500 iterations, as run; a probe that still moves then is hardly better later.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return score(LogisticRegression(max_iter=500).fit(scaled[train], learnt).predict(scaled[test]))

    rng = stream(seed, "permuted_labels_of_probe")
    permuted = np.mean([probe(rng.permutation(labels[train])) for _ in range(_PERMUTATIONS)])
    return dict(zip(PROBED, (probe(labels[train]), score(guess), float(permuted)), strict=True))


def mutual_information(latent: np.ndarray, labels: np.ndarray) -> float:
    """Mutual information in nats between a continuous latent (n, d) and labels (n,), by nearest neighbours.

    The estimate of Ross (PLoS ONE 2014): how many cells of any label are nearer to a cell than its third neighbour of
    its own label. Where that neighbour has the very latent of the cell, all cells with it count, and those of the label
    among them (Gao et al., NeurIPS 2017), or cells that share a latent would seem to tell labels apart. Labels with one
    cell are left out; it may fall a little below 0. With many dimensions it is biased towards 0, for distances are then
    much alike. Time grows with the square of the number of cells: give some of them.
    """
    names, code, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    kept = sizes[code] > 1
    latent, code = np.asarray(latent[kept], dtype=np.float64), code[kept]
    n_own = np.bincount(code, minlength=1)[code]
    wanted = np.minimum(_NEIGHBORS, n_own - 1)
    nearer = np.empty(len(code))
    for start in range(0, len(code), 1000):
        rows = np.arange(start, min(start + 1000, len(code)))
        apart = distances(latent[rows], latent)
        apart[rows - start, rows] = 0
        own = np.sort(np.where(code[rows, None] == code, apart, np.inf), axis=1)
        # The first is the cell itself, which counts as one that is nearer.
        radius = own[rows - start, wanted[rows]]
        nearer[rows] = (apart < radius[:, None]).sum(axis=1)
        shared = radius == 0
        nearer[rows[shared]] = (apart[shared] == 0).sum(axis=1)
        wanted[rows[shared]] = (own[shared] == 0).sum(axis=1)
    terms = digamma(len(code)) + digamma(wanted) - digamma(n_own) - digamma(nearer)
    return float(terms.mean()) if len(code) else 0.0


def conservation(latent: np.ndarray, labels: np.ndarray, batch: np.ndarray, seed: int) -> dict[str, float]:
    """How well a latent keeps labels together: the bio-conservation scores of scIB (Luecken et al. 2022), each 0 to 1.

    As scib-metrics computes them, but for the first centres of k-means, of which ten sets are tried: `nmi_kmeans` and
    `ari_kmeans`, of as many clusters as there are labels; `silhouette` of the labels, (1 + s) / 2, mean over cells;
    `isolated_labels`, the same over cells of the labels that the fewest batches have, mean over these labels; `clisi`,
    of how few labels the 90 nearest neighbours are, weighted by distance, median over cells. `bio_conservation` is
    their mean, with nothing scaled to the methods at hand.

    Args:
        latent: (n, d); labels, batch: (n,) text.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_samples

    names, code = np.unique(labels, return_inverse=True)
    if len(names) < 2 or len(names) == len(labels):
        return dict.fromkeys((*CONSERVATION, "bio_conservation"), np.nan)
    clusters = KMeans(len(names), n_init=10, random_state=stream_seed(seed, "clusters_of_latent"))
    found = clusters.fit_predict(latent)
    silhouette = (silhouette_samples(latent, code) + 1) / 2
    in_batches = np.array([len(np.unique(batch[code == i])) for i in range(len(names))])
    isolated = np.flatnonzero(in_batches == in_batches.min())
    scores = {
        "isolated_labels": np.mean([silhouette[code == i].mean() for i in isolated]),
        "nmi_kmeans": normalized_mutual_info_score(code, found),
        "ari_kmeans": adjusted_rand_score(code, found),
        "silhouette": silhouette.mean(),
        "clisi": _clisi(latent, code),
    }
    scores["bio_conservation"] = np.mean(list(scores.values()))
    return {name: float(value) for name, value in scores.items()}


def _clisi(latent: np.ndarray, code: np.ndarray) -> float:
    """Label diversity of neighbourhoods (Korsunsky et al. 2019), 1 where all neighbours bear one label, 0 where all
    labels are alike; neighbours are weighted so that the weights' perplexity is a third of their number."""
    from sklearn.neighbors import NearestNeighbors

    k = min(_LISI_NEIGHBORS, len(code)) - 1
    distance, near = NearestNeighbors(n_neighbors=k).fit(latent).kneighbors()
    weight = _of_perplexity(distance, np.floor((k + 1) / 3))
    n_labels = code.max() + 1
    share = np.stack([(weight * (code[near] == i)).sum(axis=1) for i in range(n_labels)])
    diversity = 1 / (share**2).sum(axis=0)
    return (n_labels - np.median(diversity)) / (n_labels - 1)


def _of_perplexity(distance: np.ndarray, perplexity: float) -> np.ndarray:
    """Weights exp(-beta d) of each row that sum to 1 and whose entropy is log(perplexity), by bisection of log beta."""
    low, high = np.full((len(distance), 1), -60.0), np.full((len(distance), 1), 60.0)
    scale = np.maximum(distance.mean(axis=1, keepdims=True), 1e-30)
    for _ in range(80):
        middle = (low + high) / 2
        weight = np.exp(-np.exp(middle) * (distance - distance[:, :1]) / scale)
        weight /= weight.sum(axis=1, keepdims=True)
        entropy = -(weight * np.log(np.maximum(weight, 1e-300))).sum(axis=1, keepdims=True)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return weight
