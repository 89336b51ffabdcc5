"""The answer to a user's own question: genes, gene sets, a verdict and how good such answers are on this slide.

Changes are differences of log1p of mean CP10K between a method's prediction and its own twin, means over seeds.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from scipy.stats import norm, rankdata

from tissue_counterfactuals import gene_sets, pathways
from tissue_counterfactuals.experiments.settings import BUNDLED_GENE_SETS
from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.methods.hierarchical import compared_domains
from tissue_counterfactuals.metrics.populations import log_mean
from tissue_counterfactuals.models.hierarchical import MOST_OFF, QUANTILE
from tissue_counterfactuals.question.asked import intervention_of
from tissue_counterfactuals.question.predictions import KEY, read_predictions
from tissue_counterfactuals.question.question import Question, read_question
from tissue_counterfactuals.question.support import FEWEST_CELLS, Support, support_of
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures.figure_cellina_2 import arrange, name_samples
from tissue_counterfactuals.results.harmless import markdown_line
from tissue_counterfactuals.results.tables import TWIN, write_tsv
from tissue_counterfactuals.slide import log_normalize, read_slide

TRUTH = "truth"
# Above these shares an answer is called what it is.
MOST_ABSTAINED, MOST_OUTSIDE = 0.5, 0.5
LEAST_OF_SET, MOST_OF_SET = 5, 500
N_SHOWN = 20
# Values that stand for what a gene's change may be.
_QUANTILES = 32


@dataclass
class Answers:
    """What the methods predicted; arrays over seeds come first.

    Attributes:
        change: method -> (seeds, g). per_gene: name -> (seeds, g), of the method with intervals, and `base`, the log1p
            mean CP10K of its twin; without seeds that give none.
        diagnostics: name -> mean over seeds, of that method. failures: method -> reason, and with how many seeds where
            others were answered.
        effect: (m,) root mean square change of log expression of each focal cell, first seed.
        per_cell: of the method with intervals, first seed: `genes` (k,), `change` (m, k) and perhaps `half` (m, k).
        sure: the method with intervals, or one that says why it gives none, or the first that answered.
    """

    change: dict[str, list[np.ndarray]] = field(default_factory=dict)
    per_gene: dict[str, list[np.ndarray]] = field(default_factory=dict)
    diagnostics: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    effect: np.ndarray | None = None
    per_cell: dict = field(default_factory=dict)
    sure: str = ""


def write_answer(
    slide: Path,
    questions: list[Path],
    predictions: list[Path],
    asked: dict,
    names: dict,
    outputs: dict[str, Path],
) -> None:
    """Slide, questions (one per seed) and predictions to tables (TSV), a text (Markdown) and a figure.

    Args:
        asked: keys of `UserQuestion`.
        names: dataset, slide, kind, label.
        outputs: files for genes, cells, sets, pathways, text, figure.
    """
    cells, question = read_slide(slide, check=False), read_question(questions[0])
    if question.genes is not None:
        cells = cells[:, question.genes].copy()
    answers = collect(predictions, asked["methods"])
    genes = gene_table(cells, question, answers)
    errors = [v for k, v in sorted(answers.per_gene.items()) if k.startswith("error_")]
    change = np.mean(answers.change[answers.sure], axis=0) if answers.sure else np.zeros(cells.n_vars)
    off = np.mean(errors, axis=1) if errors else np.empty((0, cells.n_vars))
    sets = set_table(cells.var_names, change, off)
    active = pathway_table(cells.var_names, change, off)
    (target,) = question.fold.targets
    task = Task(cells, question)
    support = next(iter(support_of(task, target).values()), None)
    word, reason = verdict(cells, question, answers, genes, support)
    # A question that leaves its cells in their domain is not what other types were asked.
    elsewhere = None if target in compared_domains(task) else next(iter(compared_domains(task)), None)
    source = (
        f"{names['label']}: {names['kind']} data, {cells.n_obs:,} cells · slide {names['slide']} · "
        f"protocol {question.protocol} · {len(questions)} seed{'s' * (len(questions) > 1)} · commit "
        f"{provenance.commit()}"
    )
    title = f"{asked['name']}: {in_words(asked)}"
    style.save(compose(cells, question, answers, genes, title, word, source), outputs["figure"])
    write_tsv(sets, outputs["sets"], sort=False)
    write_tsv(active, outputs["pathways"], sort=False)
    write_tsv(cell_table(cells, question, answers), outputs["cells"], sort=False)
    write_tsv(genes, outputs["genes"], sort=False)
    with atomic_path(outputs["text"]) as temporary:
        text = markdown(asked, names, question, answers, genes, sets, active, word, reason, support, elsewhere)
        temporary.write_text(f"{text}\n\n{markdown_line(source)}\n")


def in_words(asked: dict) -> str:
    """The question as a sentence."""
    what = intervention_of(asked)
    shares = asked["composition"] or {}
    of = f"{asked['senders']} " if asked["senders"] else ""
    of = of if asked["share_of_senders"] == 1 else f"{asked['share_of_senders']:.0%} of the {of}"
    around = f"in {of}neighbours" if "%" in of else f"in their {of}neighbours"
    around += " and in nobody else" if asked["cells"] == "neighbors" else ""
    done = "knocked out" if asked["factor"] == 0 else f"times {asked['factor']:g}"
    alike = "" if asked["by_type"] else ", all types alike,"
    dose = "" if asked["dose"] == 1 else f" (dose {asked['dose']:g})"
    told = {
        "shift_genes": f"{', '.join(asked['shift_genes'] or [])} {done} {around}",
        "shift_towards": f"expression as in {asked['shift_towards']}{alike} {around}{dose}",
        "shift_pathway": f"{asked['shift_pathway']} stimulated {around}{dose}",
        "knock_out": f"{', '.join(asked['knock_out'] or [])} knocked out in themselves",
        "move_to": f"moved to {asked['move_to']} (donors: {asked['donor_rule']})",
        "composition": "among " + ", ".join(f"{share:g} {name}" for name, share in shares.items()),
        "remove_sender": f"without their {asked['remove_sender']} neighbours",
        "add_sender": f"with {asked['share']:.0%} of their neighbours replaced by {asked['add_sender']}",
    }
    further = {"sample": asked["sample"]} if asked["sample"] else {}
    who = "".join(f", {column} {value}" for column, value in (further | asked["where"]).items())
    return f"{asked['cell_type']} of {asked['domain']}{who}, {told[what]}"


def collect(predictions: list[Path], methods: list[str]) -> Answers:
    """Read what was predicted, method by method, against its own twin."""
    answers = Answers()
    per_method: dict[str, dict] = {}
    failed: dict[str, list[str]] = {}
    for path in predictions:
        with read_predictions(path) as made:
            for failure in made.notes["failures"]:
                failed.setdefault(failure["method"], []).append(failure["reason"])
            told = {tuple(i[k] for k in KEY): i for i in made.notes.get("intervals", [])}
            for method, target, variants in made.questions():
                variant = next((v for v in variants if v != TWIN), None)
                # What cannot be told what is asked may have a twin.
                if variant is None:
                    continue
                own = per_method.setdefault(method, {"told": [], "notes": []})
                values, twin = (made.values(method, target, v) for v in (variant, TWIN))
                base = log_mean(twin)
                change = log_mean(values) - base
                answers.change.setdefault(method, []).append(change)
                if "effect" not in own:
                    own["effect"] = np.sqrt(((log_normalize(values) - log_normalize(twin)) ** 2).mean(axis=1))
                own.setdefault("cells", [c for c in made.notes.get("cells", []) if c["method"] == method])
                own["told"] += [told[k] | {"base": base} for k in [(method, target, variant)] if k in told]
                own["notes"] += [
                    note for note in made.notes["diagnostics"] if (note["method"], note["variant"]) == (method, variant)
                ]
    for method, reasons in failed.items():
        n_told = len(answers.change.get(method, []))
        seeds = f" (with {len(reasons)} of {len(reasons) + n_told} seeds; its numbers are those of the others)"
        answers.failures[method] = "; ".join(dict.fromkeys(reasons)) + (seeds if n_told else "")
    answered = [m for m in methods if m in per_method and m != TRUTH]
    if not answered:
        return answers

    def says_more(method: str) -> tuple[bool, bool]:
        own = per_method[method]
        return bool(own["told"]), any(note["name"] == "n_types_known" for note in own["notes"])

    answers.sure = max(answered, key=says_more)
    own = per_method[answers.sure]
    answers.effect = own["effect"]
    answers.per_cell = next(iter(own["cells"]), {})
    for told in own["told"]:
        for name, values in told.items():
            if name not in KEY:
                answers.per_gene.setdefault(name, []).append(np.array(values, dtype=float))
    for note in own["notes"]:
        answers.diagnostics.setdefault(note["name"], []).append(note["value"])
    return answers


def gene_table(slide: AnnData, question: Question, answers: Answers) -> pd.DataFrame:
    """A row per gene, the largest change first.

    Returns:
        gene; `change_METHOD`; of the method with intervals `lower`, `upper`, `abstained` (share of seeds), `rank` by
        size of the change, `expected_rank` (the mean of that rank, were the changes drawn from their intervals, gene by
        gene), `own_evidence` (share of what is known of the answer that comes from the type's own cells;
        the rest is shared with other types), `detected` (share of the type's cells in training that show the gene),
        and, where the truth was asked too, `truth` and whether it lies in the interval.
    """
    table = pd.DataFrame({"gene": slide.var_names.astype(str)})
    own = (slide.obs["cell_type"] == question.fold.cell_type).to_numpy() & ~question.split.held_out
    if not answers.sure:
        return table
    for method, changes in answers.change.items():
        if method != TRUTH:
            table[f"change_{method}"] = np.mean(changes, axis=0)
    size = table[f"change_{answers.sure}"].abs()
    table.insert(1, "rank", size.rank(method="first", ascending=False).astype(int))
    table["detected"] = np.asarray((slide.X[own] > 0).mean(axis=0)).ravel()
    if answers.per_gene:
        for limit in ("lower", "upper"):
            against = np.log1p(answers.per_gene[limit]) - np.array(answers.per_gene["base"])
            table[limit] = against.mean(axis=0)
        for name in ("abstained", "own_evidence"):
            table[name] = np.mean(answers.per_gene[name], axis=0)
        half = (table["upper"] - table["lower"]).to_numpy() / 2
        table.insert(2, "expected_rank", expected_rank(table[f"change_{answers.sure}"].to_numpy(), half))
    if TRUTH in answers.change:
        table["truth"] = np.mean(answers.change[TRUTH], axis=0)
        if answers.per_gene:
            inside = table["truth"].between(table["lower"], table["upper"])
            table["truth_in_interval"] = inside.map({True: "yes", False: "no"})
    return table.sort_values("rank", ignore_index=True)


def expected_rank(change: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Mean rank (g,) by size, 1 the largest, of changes that are normal and independent of each other.

    Args:
        change: (g,). half: (g,) half the length of the 90 % interval.
    """
    quantiles = norm.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    size = np.abs(change[:, None] + half[:, None] / QUANTILE * quantiles)
    own = rankdata(size, axis=1)
    # How many of the other genes' quantiles are larger, in genes.
    above = size.size - rankdata(size).reshape(size.shape) - (_QUANTILES - own)
    return 1 + above.mean(axis=1) / _QUANTILES


def set_table(genes: pd.Index, change: np.ndarray, errors: np.ndarray) -> pd.DataFrame:
    """Gene sets whose genes change more, or less, than all others.

    The null is not that of exchanged genes, which takes genes for independent: how far the same contrast is off in
    types whose answer is known gives the standard error, and their number the degrees of freedom of a t test.

    Args:
        change: (g,) predicted. errors: (types, g) observed minus predicted change of types whose answer is known.

    Returns:
        term, n_term, change (mean over the set minus mean over all other genes), normalized_enrichment (gseapy's, for
        the order of terms; its p value takes genes for exchangeable and is not given), p_value, q_value
        (Benjamini-Hochberg), genes; smallest p value first. Or a row whose `status` says why there is none.
    """
    columns = ["term", "n_term", "change", "normalized_enrichment", "p_value", "q_value", "genes", "status"]
    every = gene_sets.collect(BUNDLED_GENE_SETS, genes)
    sets = gene_sets.within(every, genes, LEAST_OF_SET, min(MOST_OF_SET, len(genes) - 1))
    reason = None
    if not len(errors):
        reason = "not applicable: no method gave intervals, so nothing says how far off a set can be"
    elif not sets:
        reason = gene_sets.NO_SETS.format(least=LEAST_OF_SET, most=MOST_OF_SET, n=len(genes))
        if gene_sets.of_mouse(genes):
            reason += ", whose symbols are those of mouse, and the sets' are human"
    if reason:
        return pd.DataFrame([{"status": reason}]).reindex(columns=columns)
    inside = np.array([genes.isin(members) for members in sets.values()])
    # The slope on belonging to a set is the mean of its genes minus the mean of all others.
    contrast, p_values = pathways.slope_test(change, errors, inside.T.astype(float))
    table = pd.DataFrame(
        {
            "term": list(sets),
            "n_term": inside.sum(axis=1),
            "change": contrast,
            "normalized_enrichment": _enrichment(pd.Series(change, index=genes), sets),
            "p_value": p_values,
            "q_value": gene_sets.benjamini_hochberg(p_values),
            "genes": [" ".join(sorted(members)) for members in sets.values()],
            "status": "ok",
        }
    )
    return table.sort_values(["p_value", "term"], ignore_index=True)[columns]


def _enrichment(change: pd.Series, sets: dict[str, list[str]]) -> np.ndarray:
    """GSEA's normalised enrichment of each set along the genes, by their change; NaN where they have no order."""
    found = gene_sets.prerank(change, sets, LEAST_OF_SET, MOST_OF_SET, n_permutations=100)
    return found.set_index("term")["normalized_enrichment"].reindex(list(sets)).to_numpy()


def pathway_table(genes: pd.Index, change: np.ndarray, errors: np.ndarray) -> pd.DataFrame:
    """Pathways that the change looks like (see `pathways.changes`), on the weights of the species of the genes."""
    source = pathways.fitting(genes)
    if source is None:
        reason = "not applicable: PROGENy has none of the genes"
        return pd.DataFrame([{"status": reason}]).reindex(columns=pathways.CHANGES)
    return pathways.changes(change, errors, genes, pathways.read_weights(source), LEAST_OF_SET)


def cell_table(slide: AnnData, question: Question, answers: Answers) -> pd.DataFrame:
    """A row per focal cell and gene, of the genes that change most, first seed: cell, gene, change.

    The change is that of the logarithm of its expected share, `lower` to `upper` its 90 % interval where there is one.
    A method that says nothing of cells leaves a row per cell without a gene, whose `change` is the root mean square
    over genes.
    """
    names = slide.obs_names[question.focal]
    if not answers.per_cell:
        effect = np.full(len(names), np.nan) if answers.effect is None else answers.effect
        return pd.DataFrame({"cell": names, "gene": "", "change": effect})
    genes, change = (np.array(answers.per_cell[k]) for k in ("genes", "change"))
    cells, shown = np.repeat(names, len(genes)), np.tile(slide.var_names[genes], len(names))
    table = pd.DataFrame({"cell": cells, "gene": shown, "change": change.ravel()})
    if "half" in answers.per_cell:
        half = np.array(answers.per_cell["half"]).ravel()
        table = table.assign(lower=table["change"] - half, upper=table["change"] + half)
    return table


def verdict(
    slide: AnnData,
    question: Question,
    answers: Answers,
    genes: pd.DataFrame,
    support: Support | None,
) -> tuple[str, str]:
    """`supported`, `extrapolates` or `not identifiable`, and the reason in one sentence."""
    fold = question.fold
    if not answers.sure:
        reasons = "; ".join(f"{m}: {r}" for m, r in answers.failures.items())
        return "not identifiable", f"No method answered ({reasons})."
    notes = {name: float(np.mean(values)) for name, values in answers.diagnostics.items()}
    # Of altered neighbours: what is known of the rest is no answer to the question.
    if notes.get("off_axes", 0) > MOST_OFF:
        return (
            "not identifiable",
            f"{notes['off_axes']:.0%} of the change that is asked about is none by which neighbourhoods differ, so "
            "that nobody knows what it does, and no interval is given.",
        )
    if not answers.per_gene:
        n_types = notes.get("n_types_known")
        few = "No method that answered says how sure it is" if n_types is None else (
            f"Only {n_types:.0f} other types stand in both domains, too few to know how far off an answer is"
        )  # fmt: skip
        return "not identifiable", f"{few}."
    abstained = genes["abstained"].mean()
    if abstained > MOST_ABSTAINED:
        return (
            "not identifiable",
            f"For {abstained:.0%} of the genes the interval is no narrower than the changes that types show between "
            "domains anyway.",
        )
    (target,) = fold.targets
    obs = slide.obs
    there = ((obs["cell_type"] == fold.cell_type) & (obs["domain"] == target)).to_numpy()
    if not (there & ~question.split.held_out).any():
        return "extrapolates", f"No {fold.cell_type} was seen in {target} when the model learnt."
    outside = 1 - support.inside_type
    if np.isnan(outside):
        return (
            "extrapolates",
            f"Fewer than {FEWEST_CELLS} {fold.cell_type} with neighbours were seen when the model learnt, too few to "
            "say whether they were seen in such neighbourhoods.",
        )
    if outside > MOST_OUTSIDE:
        return (
            "extrapolates",
            f"{outside:.0%} of the cells would get a neighbourhood further from those in which {fold.cell_type} was "
            "seen than 95 % of these are from each other.",
        )
    return (
        "supported",
        f"{fold.cell_type} was seen in such neighbourhoods, and for {1 - abstained:.0%} of the genes the interval is "
        "narrower than the changes that types show between domains.",
    )


def agreement(answers: Answers) -> pd.DataFrame:
    """Pearson correlation of the changes that methods predict, over genes: a row per pair."""
    mean = {m: np.mean(c, axis=0) for m, c in answers.change.items()}
    names = style.method_order(mean)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    rows = [(a, b, np.corrcoef(mean[a], mean[b])[0, 1]) for a, b in pairs if np.ptp(mean[a]) and np.ptp(mean[b])]
    return pd.DataFrame(rows, columns=["method", "other", "pearson"])


def markdown(asked, names, question, answers, genes, sets, active, word, reason, support, elsewhere) -> str:
    """The answer as a text; `elsewhere` is the domain that other types were asked about in place of this question."""
    lines = [
        f"# {asked['name']}: {word}",
        "",
        markdown_line(f"{names['label']} [{names['kind']}], slide {names['slide']}: {in_words(asked)}")
        + f"; {len(question.focal)} cells.",
        "",
        f"**Verdict: {word}.** {markdown_line(reason)}",
        "",
    ]
    lines += [f"- Failed: {method}: {markdown_line(why)}" for method, why in answers.failures.items()]
    lines += [""] * bool(answers.failures)
    if support is not None and not np.isnan(support.inside):
        lines += [
            f"How far this is from what was seen: {support.inside:.0%} of the new neighbourhoods lie among those of "
            f"training cells; their distance from these is {support.distance:.1f} times what is usual between them.",
            "",
        ]
    if not answers.sure:
        return "\n".join(lines)
    shown = [c for c in genes if c not in ("rank",)]
    label = style.method_style(answers.sure).label
    interval = (
        "`lower` to `upper` is a 90 % interval, `abstained` 1 where it says nothing, `expected_rank` the mean rank by "
        "size within the intervals, `own_evidence` the share of what is known that comes from the type's own cells and "
        "not from other types; "
    )
    lines += [
        f"The {min(N_SHOWN, len(genes))} genes with the largest change, by {label}; changes are differences of log1p "
        f"of mean counts per 10,000 to the same method's cells left where they are; `detected` is the share of "
        f"the type's cells in training that show the gene; {interval if answers.per_gene else ''}all genes are in "
        "genes.tsv.",
        "",
        "| " + " | ".join(shown) + " |",
        "|" + "---|" * len(shown),
    ]
    for row in genes.head(N_SHOWN)[shown].itertuples(index=False):
        cells = (f"{v:.3g}" if isinstance(v, float) else markdown_line(v) for v in row)
        lines.append("| " + " | ".join(cells) + " |")
    if "truth_in_interval" in genes:
        share = (genes["truth_in_interval"] == "yes").mean()
        lines += [
            "",
            f"The true change lies in the interval for {share:.0%} of the {len(genes)} genes.",
        ]
    pairs = agreement(answers)
    if len(pairs):
        told = [
            f"{style.method_style(a).label} and {style.method_style(b).label} {r:.2f}"
            for a, b, r in pairs.itertuples(index=False)
        ]
        lines += ["", f"Agreement (Pearson over genes): {', '.join(told)}."]
    notes = {name: float(np.mean(values)) for name, values in answers.diagnostics.items()}
    if "rehearsal_error" in notes:
        held = notes["rehearsal_coverage"]
        held = "" if np.isnan(held) else f"intervals held for {held:.0%} of the genes, and "
        known = "How good such answers are on this slide"
        if elsewhere:
            known = (
                "Nobody knows what other types would answer to this question. How good answers to moves to "
                f"{elsewhere} are on this slide, by neighbours alone"
            )
        lines += [
            "",
            f"{known}: for the {notes['n_types_known']:.0f} other types, each told "
            f"without its own cells there, {held}the error over the most changed genes was "
            f"{notes['rehearsal_error']:.2f}, where no change at all would have been off by "
            f"{notes['rehearsal_error_of_no_change']:.2f}.",
        ]
    for title, table, column in (("Gene sets", sets, "term"), ("Pathways", active, "pathway")):
        if table["status"].iloc[0] == "ok":
            low = int((table["q_value"] <= 0.1).sum())
            first = ", ".join(table[column].head(3))
            lines += ["", f"{title}: {low} of {len(table)} with q <= 0.1; first are {first}."]
        else:
            lines += ["", f"{title}: {table['status'].iloc[0]}."]
    return "\n".join(lines)


def compose(
    slide: AnnData,
    question: Question,
    answers: Answers,
    genes: pd.DataFrame,
    title: str,
    word: str,
    source: str,
) -> Figure:
    """Change against how sure it is, the largest changes with intervals, and a map of the change."""
    with style.context():
        figure = style.new_figure(12, 4.8)
        style.suptitle(figure, f"{title} · {word}")
        bottom = style.footer(figure, source)
        if not answers.sure:
            figure.text(0.5, 0.5, "No method answered.", ha="center")
            return figure
        volcano, top, place = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
        _volcano(volcano, genes, answers)
        handles = _intervals(top, genes.head(N_SHOWN), answers)
        _map(figure, place, slide, question, answers)
        bottom = style.legend_below(figure, bottom, ncols=6, handles=handles)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom), w_pad=0.08)
        return figure


def _volcano(axes, genes, answers) -> None:
    change = genes[f"change_{answers.sure}"]
    grey = " (grey: not identifiable)" if answers.per_gene else ""
    axes.set(title=f"All genes{grey}", xlabel="predicted change, log1p CP10K")
    axes.axvline(0, color=style.MUTED_COLOR, linewidth=0.6)
    if not answers.per_gene:
        axes.scatter(change, genes["detected"], s=8, color=style.MUTED_COLOR, linewidths=0)
        axes.set_ylabel("share of cells that show the gene (no intervals)")
        return
    sure = change.abs() / np.maximum((genes["upper"] - genes["lower"]) / 2, 1e-9)
    known = genes["abstained"] < 0.5
    for chosen, color in ((~known, "#C8C8C8"), (known, style.method_style(answers.sure).color)):
        axes.scatter(change[chosen], sure[chosen], s=9, color=color, linewidths=0)
    axes.axhline(1, color=style.MUTED_COLOR, linewidth=0.6, linestyle="--")
    axes.set_ylabel("change / half its 90 % interval (above 1: not 0)")
    for row in sure[known].nlargest(6).index:
        axes.annotate(
            style.short(genes["gene"][row], 14), (change[row], sure[row]), size=6, xytext=(2, 2),
            textcoords="offset points",
        )  # fmt: skip


def _intervals(axes, genes, answers) -> list:
    rows = np.arange(len(genes))
    handles = []
    if answers.per_gene:
        axes.hlines(rows, genes["lower"], genes["upper"], color="#9A9A9A", linewidth=1.6)
    for method in style.method_order(answers.change):
        look = style.method_style(method, answers.change)
        column = genes["truth" if method == TRUTH else f"change_{method}"]
        marker = "D" if method == TRUTH else "o"
        dots = axes.scatter(column, rows, s=16, color=look.color, marker=marker, label=look.label, linewidths=0)
        handles.append(dots)
    axes.axvline(0, color=style.MUTED_COLOR, linewidth=0.6)
    axes.set_yticks(rows, [style.short(gene, 16) for gene in genes["gene"]])
    axes.invert_yaxis()
    title = "Largest changes, 90 % intervals" if answers.per_gene else "Largest changes"
    axes.set(title=title, xlabel="change, log1p CP10K")
    return handles


def _map(figure, axes, slide, question, answers) -> None:
    cells = pd.DataFrame(np.asarray(slide.obsm["spatial"]), columns=["x_um", "y_um"])
    # Sections of a pooled slide have coordinates of their own.
    layout = arrange(cells.assign(sample=slide.obs["sample"].to_numpy()))
    place = layout.xy
    axes.scatter(*place.T, s=1, color="#DCDCDC", linewidths=0, rasterized=True)
    drawn = axes.scatter(
        *place[question.focal].T,
        s=6,
        c=answers.effect,
        cmap="viridis",
        linewidths=0,
        rasterized=True,
    )
    name_samples(axes, layout)
    axes.set_aspect("equal")
    axes.set(title="Focal cells, by predicted change", xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.6, pad=0.02, label="root mean square change")
