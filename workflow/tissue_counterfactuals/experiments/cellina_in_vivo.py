"""A real intervention (Perturb-FISH): is what a method says of a lost gene's neighbours what their neighbours show?

The question is put to every method as data: T cells in the domain `perturbed` are held out, and the lost genes are
rules by which donors are given. `as_run` inserts all carriers of a target around recipients far from any guide, against
the same with random tumour cells; `corrected` keeps the real edges of recipients near control guides and exchanges
their control carriers for those of the target, so that the change is against the same cells near a control guide. What
is observed, its null, its ceiling and the verdicts are those of `intervention_statistics`; they ask no method.

As run, SpatialProp is asked as the authors ask it (`ask_altered`). Cellina-GAT gets the carriers themselves as
neighbours, where the authors give cells the carriers' mean profile at a depth of their own.

Celcomen is asked twice: as every method that knows neighbours, and by a knock-out as its authors do it, the lost gene
held at 0 in the control carriers while the whole field answers.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial import cKDTree
from scipy.stats import t as student

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import intervention_statistics as statistics
from tissue_counterfactuals.experiments import preparation
from tissue_counterfactuals.experiments import screen_question as question_of
from tissue_counterfactuals.experiments.screen_question import Screen
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.methods import CORE, METHODS
from tissue_counterfactuals.methods.run import reason_of
from tissue_counterfactuals.metrics import Comparison, Reference
from tissue_counterfactuals.metrics.populations import log_mean
from tissue_counterfactuals.question.folds import Fold, split_cells
from tissue_counterfactuals.question.nodes import NodePerturbation
from tissue_counterfactuals.question.question import DONORS, NODE, Question, fingerprint
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.simulate.screen import RECIPIENT, TUMOUR
from tissue_counterfactuals.slide import log_normalize, read_slide
from tissue_counterfactuals.sources import RESOURCES, published_as
from tissue_counterfactuals.streams import stream

CONTROL_DOMAIN, TARGET_DOMAIN = "control", "perturbed"
# How a called gene stands in obs, by who called it.
CALLINGS = ("target_raw", "target_published")
PUBLISHED = RESOURCES / "published" / "cellina_in_vivo.tsv"
# Model of the published table -> method here; its random donors are rows of their own.
MODELS = {
    "Cellina": "cellina",
    "Cellina-GAT": "cellina_gat",
    "SpatialProp": "spatialprop",
    "Mean shift": "mean_shift_near",
}
# The data set that the published numbers hold for, and the lost genes that the authors chose on it.
PUBLISHED_ON = "perturb_fish"
CHOSEN = ("MAP2K2", "IRAK1", "IRF7", "PELI1", "IRF3", "IRF5", "NFKBIA", "LBP", "MAP2K3")
KNOCK_OUT = "celcomen_knock_out"
# Methods that the authors ask by altering tumour cells where they are (as run).
ALTERED = ("spatialprop",)
# Shares of a recipient's neighbours that are exchanged for carriers, beside those that are carriers (K8).
OCCUPANCIES = (0.25, 0.5, 1.0)
_N_NEIGHBOURS, _RANDOM_DONORS, _RANDOM_DRAWS, _MOST_FOCAL = 30, 300, 5, 6000
# Resamples of focal cells behind their part in the variance, and at most so many sets of control units to spike.
_RESAMPLES, _MOST_SPIKED = 50, 200
# Counts per 10,000 of a float32.
_ROUNDING = 1e-5


def run(
    slide: Path,
    entry: dict,
    protocol: str,
    seeds: list[int],
    methods: dict[str, dict],
    device: str,
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """Observed effects, and the scores of the methods against them.

    Args:
        methods: method -> its section of the configuration.
        settings: section cellina_experiments.in_vivo of the configuration.
        outputs: `effects`, a row per calling and target (`observe`); `scores`, a row per calling, seed, method (as run:
            truth, donors and target too), and one for each method that is not asked, with the reason; `components`, see
            `components`; `compared`, ours beside the published numbers (as run); `manifest` (JSON).

    Raises:
        InputError: there is no screen on the slide, or no target that can be asked about.
    """
    cells = read_slide(slide, check=False)
    record = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, seeds, settings | {"switches": switches, "methods": methods}
    )  # fmt: skip
    effects, scores, made_of = [], [], []
    callings = [c for c in CALLINGS if c in cells.obs] or CALLINGS[:1]
    for calling in callings:
        screen = question_of.read_screen(
            cells, calling, settings["radius_um"], settings["far_um"], settings["min_mean_counts"]
        )
        kept = cells[:, screen.genes].copy()
        kept.obs["domain"] = domains(kept, screen)
        tested, table = observe(screen, settings, seeds[0])
        table.insert(0, "calling", calling)
        effects.append(preparation.keyed(table, record, seeds[0]))
        if protocol == "as_run":
            screen = replace(screen, nearest=settings["graph"]["max_neighbors"])
        codes = chosen_targets(screen, table, settings, protocol)
        single = []
        for seed in seeds:
            if protocol == "as_run":
                rows, parts = _as_run(kept, screen, codes, seed, methods, device, switches, settings)
            else:
                rows, parts = _corrected(kept, screen, tested, codes, seed, methods, device, switches, settings)
            rows = pd.DataFrame(rows)
            rows.insert(0, "calling", calling)
            scores.append(preparation.keyed(rows, record, seed))
            single += [part | {"seed": seed} for part in parts]
        # Named, for where no method has answered there are none.
        names = ["method", "truth", "target", "seed", "pearson", "tiles", "focal"]
        table = components(pd.DataFrame(single, columns=names))
        table.insert(0, "calling", calling)
        made_of.append(preparation.keyed(table, record, seeds[0]))
    absent = pd.DataFrame(not_asked(methods))
    absent.insert(0, "calling", callings[0])
    scores.append(preparation.keyed(absent, record, seeds[0]))
    scores = pd.concat(scores, ignore_index=True)
    write_tsv(pd.concat(effects, ignore_index=True), outputs["effects"])
    write_tsv(scores, outputs["scores"])
    write_tsv(pd.concat(made_of, ignore_index=True), outputs["components"])
    write_tsv(compare(scores, entry, protocol), outputs["compared"])


def not_asked(methods: dict[str, dict]) -> list[dict]:
    """A row for each method of the table that this run does not ask, with the reason in a sentence."""
    reasons = {
        "truth": "it reads the mechanism of a simulated tissue",
        "in_domain": "it sees the cells that are asked about",
        "latent_only": "it gives latent variables and no expression",
    }
    rows = []
    for name, row in METHODS.items():
        if name in methods:
            continue
        why = next((reason for need, reason in reasons.items() if need in row.needs), "")
        if not why and row.environment != CORE:
            told = "" if "edge" in row.needs else ", and it is told a domain but no donors"
            why = f"it runs in an environment of its own, and methods are trained within this experiment{told}"
        rows.append({"method": name, "status": f"not asked: {why or 'not named in the settings'}"})
    return rows


def observe(screen: Screen, settings: dict, seed: int) -> tuple[dict[int, statistics.Tested], pd.DataFrame]:
    """Effect of every target on recipients, its nulls and verdict; and on the carriers themselves (positive control,
    K10).

    Returns:
        target -> what was found; a row per target: what `assess` says and, where tested, p_shift and p_dose, the effect
        by dose, `spiked` (K7: median over genes), `far_correlation` with the change against far recipients (K1);
        `n_near` recipients, `clonality` of the carriers, and `own_size`, `p_own` of their own effect.
    """
    codes = range(1, len(screen.names) + 1)
    draws = settings["draws"]
    tested = {k: statistics.assess(screen.arena, k, draws, seed, settings["splits"]) for k in codes}
    table = statistics.rows_of(list(tested.values()), settings["relevant_effect"])
    carriers = screen.arena_of(screen.carriers)
    table["clonality"] = screen.clonality[1:]
    shifts = screen.shifted_sizes(settings["shifts"], seed)
    for place, k in enumerate(codes):
        own = statistics.assess(carriers, k, draws, seed, 2, "carriers").row
        table.loc[place, ["own_size", "p_own"]] = own.get("size", np.nan), own.get("p_clones", np.nan)
        table.loc[place, "n_near"] = len(screen.near(k))
        if table["status"][place] != "tested":
            continue
        table.loc[place, "p_shift"] = statistics.empirical_p(table["size"][place], shifts[:, place])
        more = statistics.dose_slope(screen.arena, k, draws, seed)
        more |= statistics.by_dose(screen.arena, k, seed)
        spiked = statistics.spiked(screen.arena, k, min(draws, _MOST_SPIKED), seed)
        more["spiked"] = float(np.median(spiked))
        if len(screen.far):
            far = question_of.against_far(screen, screen.near(k), screen.far)
            more["far_correlation"] = statistics.row_correlations(far[None], tested[k].change[None])[0]
        table.loc[place, list(more)] = list(more.values())
    return tested, table


def chosen_targets(screen: Screen, table: pd.DataFrame, settings: dict, protocol: str) -> list[int]:
    """The targets that are asked about, of those that can be tested and have recipients enough: those named; else, as
    run on a screen that has them all, the authors' nine, over which they take the shared effect; else all.

    Args:
        screen: whose recipients near each target are scored.
        table: from `observe`.
    Returns:
        Labels of the targets, from 1 up, as in `Screen.code`.
    Raises:
        InputError: fewer than four, over which no score can be compared.
    """
    n_near = np.array([len(screen.near(1 + screen.names.index(target))) for target in table["target"]])
    usable = table["status"].eq("tested") & (n_near >= settings["min_recipients"])
    names = table.loc[usable, "target"]
    wanted = settings["targets"]
    if wanted is None and protocol == "as_run" and {*CHOSEN} <= {*screen.names}:
        wanted = CHOSEN
    if wanted is not None:
        names = [name for name in wanted if name in set(names)]
    if len(names) < 4:
        raise InputError(
            f"slide: {len(names)} targets ({', '.join(names) or 'none'}) can be tested with "
            f"{settings['min_recipients']} recipients of their own, and 4 are needed to compare predictions over "
            "targets; lower cellina_experiments.in_vivo.min_recipients, or take a larger section."
        )
    return [1 + screen.names.index(name) for name in names]


def domains(slide: AnnData, screen: Screen) -> pd.Categorical:
    """The domain of each cell by the calling of the screen: perturbed are carriers, and other cells than tumour cells
    within `far_um` of one, so that no recipient that is near a carrier is trained on.

    What the slide calls perturbed stays so: its reader knows who stood beside a cell of several guides, now left out.
    """
    beside = cKDTree(screen.place[screen.carriers]).query(screen.place)[0] <= screen.far_um
    perturbed = np.where(screen.tumour, screen.code >= 0, beside) | (slide.obs["domain"] == TARGET_DOMAIN)
    return pd.Categorical(np.where(perturbed, TARGET_DOMAIN, CONTROL_DOMAIN))


# --- the question ----------------------------------------------------------------------------------------------------


def _question(slide: AnnData, focal, donors: dict, seed: int, protocol: str, switches, settings) -> Question:
    fold = Fold(RECIPIENT, CONTROL_DOMAIN, (TARGET_DOMAIN,))
    return Question(
        fold,
        split_cells(slide, fold, seed),
        focal,
        {(DONORS, TARGET_DOMAIN, rule): d for rule, d in donors.items()},
        protocol,
        seed,
        switches,
        settings["graph"],
        fingerprint(slide),
    )


def ask_as_run(slide: AnnData, screen: Screen, codes: list[int], seed: int, switches: dict, settings: dict) -> Question:
    """All carriers of a target around far recipients (redrawn with the seed), and five draws of random tumour cells.

    Raises:
        InputError: no recipient is far.
    """
    rng = stream(seed, "in_vivo_focal")
    far = screen.far[(slide.obs["domain"] == CONTROL_DOMAIN).to_numpy()[screen.far]]
    if not len(far):
        raise InputError(
            f"slide: no recipient with a tumour cell within {screen.far_um:g} um is that far from all carriers, and as "
            "run such recipients are asked about; lower cellina_experiments.in_vivo.far_um."
        )
    focal = np.sort(rng.permutation(far)[:_MOST_FOCAL])
    tumour = np.flatnonzero(screen.tumour)
    pools = {screen.names[k - 1]: screen.carriers[screen.code[screen.carriers] == k] for k in codes}
    pools |= {
        f"random_{draw}": rng.choice(tumour, min(_RANDOM_DONORS, len(tumour)), replace=False)
        for draw in range(_RANDOM_DRAWS)
    }
    donors = {name: np.tile(pool, (len(focal), 1)) for name, pool in pools.items()}
    return _question(slide, focal, donors, seed, "as_run", switches, settings)


def ask_altered(slide: AnnData, screen: Screen, asked: Question) -> Question:
    """What the authors ask SpatialProp: no cell moves, and to every tumour cell's log expression is added by what the
    mean of a rule's donors differs from that of the carriers of control guides."""
    log, code = log_normalize(slide.X), screen.code[screen.carriers]
    control = log[screen.carriers[code == statistics.CONTROL]].mean(axis=0)
    types, nodes = slide.obs["cell_type"].cat.categories, {}
    for rule, donors in asked.donors(TARGET_DOMAIN).items():
        shift = np.zeros((len(types), slide.n_vars), np.float32)
        # All focal cells have the same donors.
        shift[types.get_loc(TUMOUR)] = np.ravel(log[donors[0]].mean(axis=0) - control)
        nodes[NODE, TARGET_DOMAIN, rule] = NodePerturbation(shift, scale="log")
    return replace(asked, perturbations=nodes)


def ask_corrected(
    slide: AnnData, screen: Screen, codes: list[int], seed: int, switches: dict, settings: dict
) -> Question:
    """Recipients near control guides, the same for all seeds, in their own neighbourhoods.

    Rules: `own`, the neighbours that they have (K4); `control`, control carriers among them exchanged for other control
    carriers; each target, for its carriers; `control_for_TARGET DRAW`, for as few control carriers as the target has
    (K3b); `unguided`, for tumour cells without a guide of their own or of a neighbour, of which none can be a sibling
    of a carrier (K11); and `control at SHARE` and `TARGET at SHARE`, where carriers fill a share of all places (K8).
    All share the draw of neighbours.

    Every draw of K3b is a rule that each method answers for all focal cells. What is reported is a mean over targets,
    so that a few draws for each, apart by their spread within targets, say how far a single one would be off.

    Raises:
        InputError: no recipient near control guides has a neighbour.
    """
    near, graph = screen.near(statistics.CONTROL), slide_graph(slide, **settings["graph"])
    alone = np.diff(graph.indptr)[near] == 0
    if alone.all():
        raise InputError(
            f"slide: none of the {len(near)} recipients near control guides has a neighbour in the graph, who could be "
            "exchanged; raise cellina_experiments.in_vivo.graph.bandwidth_um."
        )
    if alone.any():
        print(f"{alone.sum()} of {len(near)} recipients near control guides have no neighbour, and are not asked about")
    near = near[~alone]
    # Evenly among all, for rows may go along the tissue.
    focal = near[np.linspace(0, len(near) - 1, min(len(near), settings["max_focal"])).astype(int)]
    around = graph[focal]
    rng = stream(seed, "in_vivo_neighbours")
    own = np.stack([
        rng.choice(around.indices[a:b], _N_NEIGHBOURS, p=around.data[a:b] / around.data[a:b].sum())
        for a, b in zip(around.indptr[:-1], around.indptr[1:], strict=True)
    ])  # fmt: skip
    code = np.where(screen.tumour, screen.code, statistics.NONE)
    place = code[own] == statistics.CONTROL
    # The same draw at every place for all rules; places fill in one order.
    draw, rank = rng.random(own.shape), rng.random(own.shape)

    def exchanged(pool: np.ndarray, where: np.ndarray = place) -> np.ndarray:
        donors = own.copy()
        donors[where] = pool[(draw[where] * len(pool)).astype(int)]
        return donors

    control = np.flatnonzero(code == statistics.CONTROL)
    free = np.flatnonzero(screen.tumour & (code < 0) & ~screen.near_any)
    donors = {"own": own, "control": exchanged(control)}
    if len(free):
        donors["unguided"] = exchanged(free)
    for k in codes:
        carriers, name = np.flatnonzero(code == k), screen.names[k - 1]
        donors[name] = exchanged(carriers)
        # The same draws whatever else is asked about.
        rng = stream(seed, "in_vivo_control_donors", name)
        for again in range(settings["control_draws"]):
            few = rng.choice(control, min(len(carriers), len(control)), replace=False)
            donors[_few(name, again)] = exchanged(few)
    for share in OCCUPANCIES:
        filled = place | (rank < share)
        donors[f"control at {share:g}"] = exchanged(control, filled)
        for k in codes:
            pool = np.flatnonzero(code == k)
            donors[f"{screen.names[k - 1]} at {share:g}"] = exchanged(pool, filled)
    return _question(slide, focal, donors, seed, "corrected", switches, settings)


@dataclass(frozen=True)
class Said:
    """What a method says of the focal cells by one rule: log mean (g,), that of resampled focal cells (b, g), and the
    E-distance to the recipients near each target."""

    mean: np.ndarray
    resampled: np.ndarray
    distances: dict[int, float] = field(default_factory=dict)


def answers(
    asked: Question,
    slide: AnnData,
    methods: dict,
    device: str,
    summarise: Callable[[str, np.ndarray], Said],
    knock_out: Callable[[Task, Path], dict] | None = None,
) -> dict[str, dict[str, Said] | str]:
    """Method -> rule -> what it predicts for the focal cells, or why it failed.

    What a method predicts without being told donors is rule "-".

    Args:
        summarise: from a rule and predicted counts (m, g).
        knock_out: asks a fitted Celcomen what clamped genes do, which is a method by itself.

    Raises:
        InputError: the machine is at fault and not the method.
    """
    made = {}
    for name, own in methods.items():
        task = Task(slide, asked, own, device)
        adapter, step = METHODS[name].adapter, "fit"
        try:
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                if METHODS[name].learned:
                    task.checkpoint = folder / "checkpoint.pt"
                    adapter.fit(task, folder)
                step = "predict"
                found = {name: adapter.predict(task, folder, TARGET_DOMAIN)}
                if knock_out and hasattr(adapter, "knock_out_around"):
                    try:
                        found[KNOCK_OUT] = knock_out(task, folder)
                    except InputError as error:
                        found[KNOCK_OUT] = f"InputError: {error}"
        except Exception as error:  # a method that fails is a row that says so
            made[name] = reason_of(error, name, step, Path(tempfile.gettempdir()))
            continue
        for method, said in found.items():
            made[method] = said if isinstance(said, str) else {
                rule: summarise(rule, one.values) for rule, one in said.items() if not isinstance(one, str)
            }  # fmt: skip
    return made


def _changes(found: dict[str, Said], rules: list[str], reference: np.ndarray) -> np.ndarray:
    """(rules, g) change against a reference; what a method says that is told no donors is the same for all.

    Rounding is no change: a correlation with it would look like a result.
    """
    return _beyond_rounding(np.stack([_of(found, rule).mean for rule in rules]) - reference)


def _of(found: dict[str, Said], rule: str) -> Said:
    return found[rule] if rule in found else found["-"]


def _beyond_rounding(change: np.ndarray) -> np.ndarray:
    return np.where(np.abs(change) < _ROUNDING, 0, change)


def _told(found: dict) -> str:
    """What a method that answers was told of a target."""
    return "the domain alone" if "-" in found else "the carriers of each target"


# --- scores -----------------------------------------------------------------------------------------------------------


def _as_run(slide, screen, codes, seed, methods, device, switches, settings) -> tuple[list, list]:
    """A row per method, truth, donors and target, as the authors score; and each single score."""
    asked = ask_as_run(slide, screen, codes, seed, switches, settings)
    focal, names = asked.focal, [screen.names[k - 1] for k in codes]
    x, train = slide.X, slide.X[asked.split.train]
    references = [Reference(x[focal], x[screen.near(k)], train, seed=seed, protocol="as_run") for k in codes]

    def summarise(rule: str, values: np.ndarray) -> Said:
        near = [names.index(rule)] if rule in names else range(len(names))
        near = () if rule == "no_intervention" else near
        distances = {i: float(Comparison(references[i], values).energy_distances[0].mean()) for i in near}
        return Said(log_mean(values), np.empty((0, len(screen.genes))), distances)

    made = answers(asked, slide, {m: own for m, own in methods.items() if m not in ALTERED}, device, summarise)
    altered = {m: own for m, own in methods.items() if m in ALTERED}
    made |= answers(ask_altered(slide, screen, asked), slide, altered, device, summarise) if altered else {}
    reference = log_mean(screen.counts[focal])
    observed = np.stack([question_of.against_far(screen, screen.near(k), focal) for k in codes])
    near_any = np.flatnonzero((asked.split.held_out) & screen.recipient)
    shift = log_mean(screen.counts[near_any]) - reference
    # The authors' mean shift: all held-out recipients against far ones; it has seen the answers.
    moved = (statistics.scaled(screen.counts[focal], screen.totals[focal]) + 1) * np.exp(shift) - 1
    found = {"-": summarise("-", np.maximum(moved, 0))}
    predicted = {"mean_shift_near": (found, np.tile(shift, (len(codes), 1)), shift[None])}
    rows, parts = [], []
    draws = [f"random_{draw}" for draw in range(_RANDOM_DRAWS)]
    for method, found in made.items():
        if isinstance(found, str):
            rows.append({"method": method, "status": found})
            continue
        predicted[method] = found, _changes(found, names, reference), _changes(found, draws, reference)
    for method, (found, own, at_random) in predicted.items():
        for row in question_of.score_as_run(observed, own, at_random):
            target = row["target"]
            rules = draws if row["donors"] == "random" else [names[target]]
            row["e_distance"] = float(np.mean([_of(found, rule).distances[target] for rule in rules]))
            n = len(screen.near(codes[target]))
            rows.append(
                {"method": method, "status": "ok", "told": _told(found)} | row | {"target": names[target], "n": n}
            )
            if row["donors"] == "target":
                parts.append(
                    {"method": method, "truth": row["truth"], "target": names[target], "pearson": row["pearson"]}
                )
    return rows, parts


def _corrected(slide, screen, tested, codes, seed, methods, device, switches, settings) -> tuple[list, list]:
    """A row per method with all controls and the verdict, in all genes and without those that spill shows in (K12); and
    each single score with its variance over tiles and focal cells."""
    asked = ask_corrected(slide, screen, codes, seed, switches, settings)
    n_focal, names = len(asked.focal), [screen.names[k - 1] for k in codes]
    # The same for all rules and seeds.
    weights = (
        stream(0, "in_vivo_focal_resamples").multinomial(n_focal, np.full(n_focal, 1 / n_focal), _RESAMPLES) / n_focal
    )

    def summarise(rule: str, values: np.ndarray) -> Said:
        # Dose and controls are not resampled.
        again = rule in (*names, "control", "-")
        resampled = log_mean(values, weights) if again else np.empty((0, values.shape[1]))
        return Said(log_mean(values), resampled)

    def knock_out(task: Task, folder: Path) -> dict | str:
        genes = {name: slide.var_names.get_loc(name) for name in names if name in slide.var_names}
        carriers = np.flatnonzero(screen.tumour & (screen.code == statistics.CONTROL))
        graph = slide_graph(slide, **asked.graph)
        return METHODS["celcomen"].adapter.knock_out_around(task, folder, graph, carriers, genes)

    made = answers(asked, slide, methods, device, summarise, knock_out)
    observed = np.stack([tested[k].change for k in codes])
    null = statistics.joint_null(screen.arena, codes, settings["draws"], seed)
    tiles = statistics.without_each_tile(screen.arena, codes)
    spilled = screen.spilled_genes()
    untold = summarise("-", slide.X[asked.focal].toarray())
    rows, parts = [], []
    for method, found in made.items():
        if isinstance(found, str):
            rows.append({"method": method, "status": found})
            continue
        # A gene that is not measured cannot be clamped.
        at = [i for i, name in enumerate(names) if name in found or "-" in found]
        if len(at) < 4:
            rows.append(
                {
                    "method": method,
                    "status": f"cannot answer: {len(at)} of {len(names)} lost genes are measured, and 4 are needed",
                }
            )
            continue
        own_names, own_codes = ([every[i] for i in at] for every in (names, codes))
        base = found.get("control", untold)
        own = _changes(found, own_names, base.mean)
        # The cells where they are: a held-out cell has no neighbours in the graph that methods see, so that its own
        # ones are given as donors. What clamps a gene leaves the observed cells.
        stay = next((found[r] for r in ("own", "no_intervention", "-") if r in found), base)
        twin = np.tile(_beyond_rounding(stay.mean - base.mean), (len(at), 1))
        again = _beyond_rounding(
            np.stack([_of(found, name).resampled for name in own_names], axis=1) - base.resampled[:, None]
        )
        more = {name: [tested[k].row[name] for k in own_codes] for name in ("ceiling", "split_half_top")}
        ceiling = float(np.median(more["ceiling"]))
        for genes, kept in (("all", ~np.zeros_like(spilled)), ("not_spilled", ~spilled)):
            truth = observed[at][:, kept]

            def agree(change: np.ndarray, truth=truth, kept=kept) -> np.ndarray:
                return np.nan_to_num(statistics.row_correlations(change[..., kept], truth))

            scored = question_of.score_corrected(truth, own[:, kept], twin[:, kept], null[:, at][..., kept], seed)
            over_tiles = np.array([agree(own, one[at][:, kept]) for one in tiles])
            over_tiles[np.isnan(tiles[:, at]).any(axis=2)] = np.nan
            reach = student.ppf(0.975, max(len(tiles) - 1, 1))
            reach *= np.sqrt(statistics.jackknife_variance(over_tiles.mean(axis=1)))
            halves = [tested[k].halves[..., kept] for k in own_codes]
            scored |= {
                "pearson_from_twin": float(agree(own - twin).mean()),
                "pearson_top": float(
                    np.mean(
                        [question_of.score_top_genes(a, b)["pearson"] for a, b in zip(own[:, kept], truth, strict=True)]
                    )
                ),
                "pearson_split": float(
                    np.nanmean([statistics.by_halves(a, b) for a, b in zip(own[:, kept], halves, strict=True)])
                ),
                "split_half_top": float(np.median(more["split_half_top"])),
                "ceiling": ceiling,
                "tiles_low": scored["pearson"] - reach,
                "tiles_high": scored["pearson"] + reach,
            } | _controls(found, own_names, base, agree, settings["control_draws"])
            rows.append(
                {"method": method, "status": "ok", "told": _told(found), "genes": genes, "n_targets": len(at),
                "n_focal": n_focal}
                | scored | {"verdict": statistics.prediction_verdict(scored, ceiling)}
            )  # fmt: skip
            if genes == "all":
                focal = [np.var(agree(row, one)) for row, one in zip(again.swapaxes(0, 1), truth, strict=True)]
                of_tiles = statistics.jackknife_variance(over_tiles)
                single = zip(own_names, agree(own), of_tiles, focal, strict=True)
                parts += [
                    dict(zip(("target", "pearson", "tiles", "focal"), one, strict=True))
                    | {"method": method, "truth": "effect"}
                    for one in single
                ]
    return rows, parts


def _few(name: str, draw: int) -> str:
    """The rule of a draw of control carriers, as many as a target has."""
    return f"control_for_{name} {draw}"


def _controls(found: dict[str, Said], names: list[str], base: Said, agree: Callable, draws: int) -> dict:
    """Agreement where there is nothing to agree with (K3b, K11), and by the share of places that carriers fill (K8).

    `control_donors_sd` is that of one draw of control carriers for each target, by the spread of `draws` draws within
    targets; NaN for a single one.
    """
    made = {}
    if _few(names[0], 0) in found or "-" in found:
        few = np.stack(
            [agree(_changes(found, [_few(name, draw) for name in names], base.mean)) for draw in range(draws)]
        )
        made["control_donors"] = float(few.mean())
        within = few.var(axis=0, ddof=1).sum() if draws > 1 else np.nan
        made["control_donors_sd"] = float(np.sqrt(within) / len(names))
    if "unguided" in found:
        free = _changes(found, ["unguided"] * len(names), base.mean)
        made["unguided_donors"] = float(agree(free).mean())
    for share in OCCUPANCIES:
        if (at := f"control at {share:g}") in found:
            change = _changes(found, [f"{name} at {share:g}" for name in names], found[at].mean)
            made[f"pearson_at_{share:g}"] = float(agree(change).mean())
            made[f"change_at_{share:g}"] = float(np.sqrt(np.mean(change**2)))
    return made


def components(parts: pd.DataFrame) -> pd.DataFrame:
    """K9: what makes a method's score of one lost gene vary.

    Args:
        parts: a row per method, truth, target and seed: `pearson`; its variance over `tiles` and resampled `focal`
            cells, with everything else as it is, NaN where not known.

    Returns:
        A row per method, truth and component, with variance, standard deviation, and share of all components that are
        known. The lost genes' own variance is what is left of that between them after tiles and focal cells. As run,
        focal cells and truth are drawn with the seed, so that they are in its part.
    """
    rows = []
    for (method, truth), own in parts.groupby(["method", "truth"], sort=False):
        table = own.pivot_table(index="target", columns="seed", values="pearson")
        found = statistics.variance_components(table.to_numpy())
        tiles, focal = own["tiles"].mean(), own["focal"].mean()
        variances = {
            "lost gene": max(found["gene"] - np.nan_to_num(tiles) - np.nan_to_num(focal), 0.0),
            "seed": found["seed"],
            "gene x seed": found["interplay"],
            "tiles": tiles,
            "focal cells": focal,
        }
        total = np.nansum(list(variances.values()))
        for name, variance in variances.items():
            share = variance / total if total > 0 else np.nan
            rows.append(
                {
                    "method": method,
                    "truth": truth,
                    "component": name,
                    "n_targets": len(table),
                    "n_seeds": table.shape[1],
                    "variance": variance,
                    "sd": np.sqrt(variance),
                    "share": share,
                }
            )
    columns = ["method", "truth", "component", "n_targets", "n_seeds", "variance", "sd", "share"]
    return pd.DataFrame(rows, columns=columns)


def compare(scores: pd.DataFrame, entry: dict, protocol: str) -> pd.DataFrame:
    """The published numbers of the authors' models, per lost gene and in the mean, beside ours.

    `tolerance` is half a 95 % interval of the difference of two means over seeds, from the spread over theirs; numbers
    of other data are not compared, nor is a mean over other lost genes than theirs, nor what such a mean is taken from
    (KO-specific). `scores` are those of `run`.
    """
    table = pd.read_csv(PUBLISHED, sep="\t")
    donors = table["model"].str.endswith(" random donors")
    table["method"] = table["model"].str.removesuffix(" random donors").map(MODELS)
    table["donors"] = np.where(donors, "random", "target")
    ours = pd.DataFrame(columns=["method", "donors", "truth", "knockout", "metric", "ours", "n_seeds"])
    if protocol == "as_run" and "truth" in scores:
        first = scores[scores["calling"] == scores["calling"].iloc[0]].dropna(subset=["truth"])
        metrics = ["pearson", "sign_agreement", "rmse", "e_distance"]
        keys = ["method", "donors", "truth"]
        every = first.melt([*keys, "target", "seed"], metrics, "metric", "ours").rename(columns={"target": "knockout"})
        theirs = every["knockout"].isin(CHOSEN)
        parts = pd.concat([every, every[theirs | ~theirs.any()].assign(knockout="mean")])
        grouped = parts.groupby([*keys, "knockout", "metric"])
        ours = grouped.agg(ours=("ours", "mean"), n_seeds=("seed", "nunique")).reset_index()
        ours["metric"] = ours["metric"].replace("rmse", "rmse_lfc")
    joined = table.merge(ours, how="left")
    spread = np.sqrt(1 / joined["seeds"] + 1 / joined["n_seeds"].astype(float))
    joined["tolerance"] = student.ppf(0.975, joined["seeds"] - 1) * joined["spread"] * spread
    near = (joined["ours"] - joined["published"]).abs() <= joined["tolerance"]
    joined["verdict"], joined["reason"] = np.where(near, "met", "not met"), ""
    if published_as(entry) != PUBLISHED_ON:
        kind = f"{entry['kind']} data" if entry["kind"] != "real" else "data of another source"
        joined["verdict"], joined["reason"] = "not comparable", kind
    else:
        asked = {*ours["knockout"]} - {"mean"}
        found = {*CHOSEN} & asked
        for own, used, why in (
            (joined["knockout"] == "mean", found, f"over {len(found)} of {len(CHOSEN)} lost genes"),
            (joined["truth"] == "ko_specific", asked, "less the mean of other lost genes than their nine"),
        ):
            if used != {*CHOSEN}:
                joined.loc[own, ["verdict", "reason"]] = "not comparable", why
    joined.loc[joined["ours"].isna(), ["verdict", "reason"]] = "not run", "not part of this run"
    return joined
