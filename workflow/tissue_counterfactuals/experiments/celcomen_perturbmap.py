"""Experiment 4 of the Celcomen paper (Fig. 4): do predicted knock-outs agree with lesions that have lost the gene?

Forces are fitted to wild-type lesions, the gene is knocked out in their spots, and the predicted change of every other
gene is correlated with the change observed between knock-out and wild-type lesions. Beside it stand controls that know
nothing of the knock-out; a correlation says something only where it leaves them behind.
"""

from collections.abc import Collection, Iterator
from itertools import product
from math import comb, prod
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from tissue_counterfactuals.experiments import preparation
from tissue_counterfactuals.experiments.force_statistics import empirical_p, rank_test
from tissue_counterfactuals.experiments.perturbmap_effects import lesion_effects
from tissue_counterfactuals.experiments.perturbmap_lesions import log_cpm, remove_reporters
from tissue_counterfactuals.experiments.perturbmap_question import Model, Question, ask, correlate, fit
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import read_slide
from tissue_counterfactuals.streams import stream

# What a control takes away, in the order of display. `minus_baseline` has no model at all.
CONTROLS = {
    "wild_type_lesion": "wild-type lesions in the place of those that have lost the gene",
    "minus_baseline": "minus the lesion's mean expression, no model",
    "permuted": "predicted values given to other genes",
    "random_gene": "another gene knocked out",
    "spots_without_gene": "the gene knocked out where there is none of it",
    "shuffled_forces": "forces given to other genes",
    "shuffled_data": "forces fitted to shuffled expression",
}
# Controls of the second predictor, which needs a generation for every draw.
OF_SECOND_PREDICTOR = ("wild_type_lesion", "minus_baseline", "permuted", "random_gene")
# Control -> predictors with which its share of draws at or above the observed median is a p value: where nothing but
# the lost gene changes it is at most 0.05 in about 5 of 100 simulations. It is 6.5 to 9 of 100 for wild-type lesions in
# the place of the others, of which there are few (tests/bench/README.md has the rates): they are given as a range. The
# other controls take genes, which go up and down together, for exchangeable: theirs is below 0.05 in about a quarter.
CALIBRATED = {"random_gene": ("field",)}
OBSERVED = "observed"
# Permutations of lesions; there are fewer ways to place them.
_EFFECT_DRAWS = 999
NOTHING_TO_LOSE = "the field predicts no change where there is nothing to lose"
_ROW = ("knockout", "section", "lesion", "label", "predictor", "control", "draw")
_CORRELATION = ("rho", "p_value", "partial_rho")


def run(
    slide: Path,
    entry: dict,
    protocol: str,
    seeds: list[int],
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """Ask all questions of a slide and write what came out.

    Args:
        entry: name, kind and label of the data set.
        settings: section celcomen.perturbmap of the configuration.
        switches: of the steps inference, generation and celcomen_perturbmap.
        outputs: `correlations` (a row per lesion, predictor, control and draw), `genes` (predicted and observed change
            of each gene, first seed), `spots` (where they lie and which lesion they belong to), `summary` (see
            `summarize`), `diagnostics` (of the fits), `effects` (of the lesions, without any model; first seed; see
            `lesion_effects`) as TSV; `manifest` as JSON.
    """
    cells = remove_reporters(read_slide(slide, check=False))
    expression = log_cpm(cells)
    manifest = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, seeds, settings | {"switches": switches}
    )
    tables = {"correlations": [], "genes": [], "spots": [], "diagnostics": []}
    for knockout in settings["knockouts"]:
        question = ask(cells, expression, knockout, switches, settings, entry["name"])
        for seed in seeds:
            forces = fit(question, seed)
            rows = pd.DataFrame(answer(question, forces.inter, forces.intra, seed))
            tables["correlations"].append(preparation.keyed(rows, manifest, seed))
            notes = pd.DataFrame(forces.diagnostics.items(), columns=["name", "value"])
            notes.insert(0, "knockout", knockout)
            tables["diagnostics"].append(preparation.keyed(notes, manifest, seed))
            if seed == seeds[0]:
                spots = spot_table(cells, question, forces.inter, forces.intra, seed)
                tables["spots"].append(preparation.keyed(spots, manifest, seed))
                genes = gene_table(question, forces.inter, forces.intra, seed)
                tables["genes"].append(preparation.keyed(genes, manifest, seed))
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    for name, table in tables.items():
        write_tsv(table, outputs[name])
    write_tsv(summarize(tables["correlations"]), outputs["summary"])
    effects = lesion_effects(cells, _EFFECT_DRAWS, seeds[0])
    write_tsv(preparation.keyed(effects, manifest, seeds[0]), outputs["effects"])


def answer(
    question: Question,
    inter: np.ndarray,
    intra: np.ndarray,
    seed: int,
    controls: Collection[str] = tuple(CONTROLS),
    predictors: Collection[str] | None = None,
) -> list[dict]:
    """Correlations of the prediction and of controls, a row each; see `run`.

    Args:
        inter, intra: (g, g) forces among the question's genes.
        predictors: default: all that the question has.
    """
    rows = []
    for predictor in predictors or question.predictors:
        if predictor != question.predictors[0]:
            controls = [control for control in controls if control in OF_SECOND_PREDICTOR]
        model, predicted_in = Model(question, inter, intra, predictor), {}
        for place in range(len(question.tissues)):
            eligible = question.expressing(place)
            spots = question.chosen_spots(eligible, seed)
            if len(spots) == 0:
                rows.append(_row(question, place, predictor, OBSERVED, 0))
                rows[-1] |= {"reason": f"no spot has a count of {question.knockout}"}
                continue
            predicted = predicted_in[place] = model.predict(place, spots)
            collapsed, own = model.collapsed(place, spots)
            rows.append(_row(question, place, predictor, OBSERVED, 0, predicted))
            rows[-1] |= {"n_knocked_out": len(spots), "n_collapsed": collapsed, "n_knocked_out_collapsed": own}
            # The same order of genes in all lesions: they share the lesions that have lost the gene.
            rng = stream(seed, "permuted_genes")
            for draw in range(question.settings["draws"] if "permuted" in controls else 0):
                mixed = np.append(rng.permutation(predicted[:-1]), predicted[-1])
                rows.append(_row(question, place, predictor, "permuted", draw, mixed))
            if "minus_baseline" in controls:
                baseline = -question.scaled[place].mean(axis=0)
                rows.append(_row(question, place, predictor, "minus_baseline", 0, baseline))
        if "wild_type_lesion" in controls:
            for draw, place, observed in _wild_type_lesions(question, seed):
                if place in predicted_in:
                    own = place, predictor, "wild_type_lesion", draw, predicted_in[place]
                    rows.append(_row(question, *own, observed=observed))
        for control in _WITH_MODEL:
            if control in controls and (control, predictor) != ("spots_without_gene", "field"):
                for draw, place, predicted, gene in _WITH_MODEL[control](question, model, seed):
                    rows.append(_row(question, place, predictor, control, draw, predicted, gene))
    return rows


# --- controls: each yields draw, lesion, prediction (g,) and the gene that was taken --------------------------------

Drawn = Iterator[tuple[int, int, np.ndarray, int]]


def _wild_type_lesions(question: Question, seed: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Draw, lesion and the change (g,) that is observed there when wild-type lesions stand for those without the gene.

    In each section as many lesions as have lost the gene, which leave the wild type meanwhile: every choice of them
    once, or `draws` choices where there are more. A section without a lesion to spare takes no part.
    """
    by_section: dict[str, list[int]] = {}
    for place, tissue in enumerate(question.tissues):
        by_section.setdefault(tissue.lesion.section, []).append(place)
    reference = len(question.tissues) - 1
    choices = [(own, n) for section, own in by_section.items() if 0 < (n := question.n_lost[section]) < len(own)]
    if not choices:
        return
    sizes, most = [comb(len(own), n) for own, n in choices], question.settings["draws"]
    if prod(sizes) <= most:
        chosen = product(*map(range, sizes))
    else:
        # Of a dozen lesions a section there are more choices than fit into memory, so that they are not listed.
        rng, drawn = stream(seed, "wild_type_lesion"), set()
        while len(drawn) < most:
            drawn.add(tuple(rng.integers(sizes).tolist()))
        chosen = sorted(drawn)
    shared = question.switches["wild_type"] == "last_lesion"
    for draw, ranks in enumerate(chosen):
        for (own, n), rank in zip(choices, ranks, strict=True):
            lost = _combination(own, n, rank)
            instead = np.mean([question.as_lost[place] for place in lost], axis=0)
            section = question.tissues[lost[0]].lesion.section
            for place in by_section[section]:
                if place not in lost:
                    wild = question.scaled[reference if shared else place].mean(axis=0)
                    yield draw, place, instead - wild


def _combination(items: list[int], n: int, rank: int) -> list[int]:
    """The one of a rank among the choices of `n` items, in the order of `itertools.combinations`."""
    chosen = []
    for left, item in zip(range(len(items) - 1, -1, -1), items, strict=True):
        if len(chosen) < n:
            with_it = comb(left, n - len(chosen) - 1)
            if rank < with_it:
                chosen.append(item)
            else:
                rank -= with_it
    return chosen


def _random_gene(question: Question, model: Model, seed: int) -> Drawn:
    """The same gene in all lesions of a draw, as the true one is; each gene once at most, or few genes would make a p
    value as small as many draws do.
    """
    genes = stream(seed, "random_gene").permutation(len(question.genes) - 1)
    for draw, gene in enumerate(genes[: question.settings["draws"]].tolist()):
        for place in range(len(question.tissues)):
            spots = question.chosen_spots(question.expressing(place, gene), seed)
            if len(spots):
                yield draw, place, model.predict(place, spots, gene), gene


def _spots_without_gene(question: Question, model: Model, seed: int) -> Drawn:
    """As many spots as are knocked out, but such as have nothing to lose."""
    rng = stream(seed, "spots_without_gene")
    for draw in range(question.settings["draws"]):
        for place in range(len(question.tissues)):
            eligible = question.expressing(place)
            empty = np.setdiff1d(np.arange(len(question.scaled[place])), eligible)
            size = min(len(question.chosen_spots(eligible, seed)), len(empty))
            if size:
                spots = rng.choice(empty, size, replace=False)
                yield draw, place, model.predict(place, spots), len(question.genes) - 1


def _shuffled_forces(question: Question, model: Model, seed: int) -> Drawn:
    rng = stream(seed, "shuffled_forces")
    for draw in range(question.settings["draws"]):
        order = rng.permutation(len(question.genes))
        mixed = [matrix[np.ix_(order, order)] for matrix in (model.inter, model.intra)]
        yield from _with_forces(question, Model(question, *mixed, model.predictor), draw, seed)


def _shuffled_data(question: Question, model: Model, seed: int) -> Drawn:
    for draw in range(question.settings["shuffled_fits"]):
        mixed = fit(question, seed, shuffle=draw)
        other = Model(question, mixed.inter, mixed.intra, model.predictor)
        yield from _with_forces(question, other, draw, seed)


def _with_forces(question: Question, model: Model, draw: int, seed: int) -> Drawn:
    for place in range(len(question.tissues)):
        spots = question.chosen_spots(question.expressing(place), seed)
        if len(spots):
            yield draw, place, model.predict(place, spots), len(question.genes) - 1


_WITH_MODEL = {
    "random_gene": _random_gene,
    "spots_without_gene": _spots_without_gene,
    "shuffled_forces": _shuffled_forces,
    "shuffled_data": _shuffled_data,
}


# --- tables -------------------------------------------------------------------------------------------------------


def _row(
    question: Question,
    place: int,
    predictor: str,
    control: str,
    draw: int,
    predicted: np.ndarray | None = None,
    gene: int | None = None,
    observed: np.ndarray | None = None,
) -> dict:
    lesion = question.tissues[place].lesion
    values = (question.knockout, lesion.section, lesion.number, lesion.label, predictor, control, draw)
    row = dict(zip(_ROW, values, strict=True))
    if predicted is None:
        return row | dict.fromkeys(_CORRELATION, np.nan)
    last = len(question.genes) - 1
    left_out = [last] if gene in (None, last) else [gene, last]
    baseline = question.scaled[place].mean(axis=0)
    observed = question.observed[place] if observed is None else observed
    row |= correlate(predicted, observed, baseline, left_out)
    return row | {
        "knocked_out_gene": question.genes[last if gene is None else gene],
        "n_genes": len(predicted) - len(left_out),
        "n_spots": len(lesion.spots),
        "reason": "" if np.isfinite(row["rho"]) else "the prediction changes no gene",
    }


def filled(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table of correlations, with 0 in place of a correlation that is not defined, observed or drawn: nothing
    was predicted. Where no spot has the gene there is nothing to compare, and NaN stays.
    """
    compared = rows["n_genes"].notna()
    return rows.assign(**{c: rows[c].mask(rows[c].isna() & compared, 0.0) for c in ("rho", "partial_rho")})


def summarize(correlations: pd.DataFrame) -> pd.DataFrame:
    """Does the median correlation over lesions leave each control behind?

    Returns:
        A row per seed, knock-out, predictor and control: `median`, `lowest` and `highest` observed rho over the
        lesions; `null_median`, `null_low` and `null_high` (2.5 and 97.5 %) of the control's own medians, draw by draw,
        and `n_draws`; `p_value`, the share of them at or above the observed one (it is counted in), and the same for
        the partial correlation given mean expression: for CALIBRATED controls only. `smallest_p` is what it can reach
        with so many draws. A prediction without a rho counts as 0, observed or drawn (see `filled`); `n_undefined` says
        how many there are among the draws. `status` is `tested`, or why the control says nothing. `rank_test_p` is the
        test as published, lesions against one draw, which takes lesions for independent and counts those with a rho.
    """
    rows = []
    key = ["dataset", "kind", "protocol", "seed", "knockout", "predictor"]
    for names, group in correlations.groupby(key, sort=False):
        own = group[group["control"] == OBSERVED]
        found = filled(own)
        for control in CONTROLS:
            null = group[group["control"] == control]
            row = dict(zip(key, names, strict=True)) | {
                "control": control,
                "n_lesions": int(found["rho"].notna().sum()),
                "n_sections": found.loc[found["rho"].notna(), "section"].nunique(),
                "median": found["rho"].median(),
                "lowest": found["rho"].min(),
                "highest": found["rho"].max(),
                "partial_median": found["partial_rho"].median(),
                "n_draws": null["draw"].nunique(),
                "n_undefined": int(null["rho"].isna().sum()),
            }
            rows.append(row | _against(own, null, names[-1] in CALIBRATED.get(control, ())))
            rows[-1]["status"] = "tested" if len(null) else "not tested: no draw"
            if (control, names[-1]) == ("spots_without_gene", "field"):
                rows[-1]["status"] = f"not tested: {NOTHING_TO_LOSE}"
    return pd.DataFrame(rows)


def reach(summary: pd.DataFrame) -> pd.Series:
    """How far each control of a table of `summarize` reaches: its 97.5 %, or the one value of a single draw; (n,)."""
    high, middle = (pd.to_numeric(summary[column]) for column in ("null_high", "null_median"))
    return high.fillna(middle)


def _against(found: pd.DataFrame, null: pd.DataFrame, calibrated: bool) -> dict:
    values, observed = {}, filled(found)
    for column, prefix in (("rho", ""), ("partial_rho", "partial_")):
        medians = filled(null).groupby("draw")[column].median().to_numpy()
        several = len(medians) > 1
        low, middle, high = np.quantile(medians, [0.025, 0.5, 0.975]) if len(medians) else [np.nan] * 3
        values |= {
            f"{prefix}null_median": middle,
            f"{prefix}null_low": low if several else np.nan,
            f"{prefix}null_high": high if several else np.nan,
            f"{prefix}p_value": empirical_p(observed[column].median(), medians) if several and calibrated else np.nan,
        }
    values["smallest_p"] = 1 / (1 + null["draw"].nunique()) if calibrated and len(null) else np.nan
    first = null[null["draw"] == 0]
    values["rank_test_p"] = rank_test(found["rho"].to_numpy(), first["rho"].to_numpy())
    return values


def gene_table(question: Question, inter: np.ndarray, intra: np.ndarray, seed: int) -> pd.DataFrame:
    """Predicted and observed change of each gene but the lost one, for each lesion and predictor.

    `predicted_scaled` runs from 0 to 1 over the genes of a lesion, as the paper draws it. `inter` and `intra` are
    forces (g, g).
    """
    parts = []
    for predictor in question.predictors:
        model = Model(question, inter, intra, predictor)
        for place, tissue in enumerate(question.tissues):
            spots = question.chosen_spots(question.expressing(place), seed)
            if len(spots) == 0:
                continue
            predicted = model.predict(place, spots)[:-1]
            span = np.ptp(predicted)
            parts.append(
                pd.DataFrame(
                    {
                        "knockout": question.knockout,
                        "section": tissue.lesion.section,
                        "lesion": tissue.lesion.number,
                        "predictor": predictor,
                        "gene": question.genes[:-1],
                        "predicted": predicted,
                        "predicted_scaled": (predicted - predicted.min()) / (span or 1.0),
                        "observed": question.observed[place][:-1],
                        "mean_expression": question.scaled[place].mean(axis=0)[:-1],
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def spot_table(slide: AnnData, question: Question, inter: np.ndarray, intra: np.ndarray, seed: int) -> pd.DataFrame:
    """All spots of the question's sections: place, label, and the number of the lesion they belong to (0: none).

    In lesions, `knocked_out` spots, and the `response`: root mean square of what the first predictor changes in the
    other genes of a spot, as run with what generation changes anywhere. Places are in micrometres; `inter` and `intra`
    are forces (g, g).
    """
    lesion, lost = np.zeros(slide.n_obs, int), np.zeros(slide.n_obs, bool)
    response = np.full(slide.n_obs, np.nan)
    model = Model(question, inter, intra, question.predictors[0])
    for place, tissue in enumerate(question.tissues):
        members = tissue.lesion.spots
        lesion[members] = tissue.lesion.number
        spots = question.chosen_spots(question.expressing(place), seed)
        if len(spots):
            lost[members[spots]] = True
            effect = model.effect(place, spots, len(question.genes) - 1)[:, :-1]
            response[members] = np.sqrt(np.mean(effect**2, axis=1))
    sections = {tissue.lesion.section for tissue in question.tissues}
    table = pd.DataFrame(
        {
            "knockout": question.knockout,
            "section": slide.obs["sample"].astype(str).to_numpy(),
            "spot": slide.obs_names,
            "label": slide.obs["domain"].astype(str).to_numpy(),
            "lesion": lesion,
            "knocked_out": lost,
            "response": response,
            "x_um": slide.obsm["spatial"][:, 0],
            "y_um": slide.obsm["spatial"][:, 1],
        }
    )
    return table[table["section"].isin(sections)].reset_index(drop=True)
