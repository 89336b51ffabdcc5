"""What a report opens with: the answer of a run, written from its numbers.

What was asked and on which data, the verdicts in ten lines, the best method and whether it beats control and twin, what
could not be resolved, Table 1. If Cellina does worse than a control anywhere, the first line says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import pandas as pd

from tissue_counterfactuals.compare import Tables, kind_of, label_of
from tissue_counterfactuals.compare import numbers as of_numbers
from tissue_counterfactuals.compare import statements as of_statements
from tissue_counterfactuals.compare.numbers import failures
from tissue_counterfactuals.compare.statements import _answers, gain
from tissue_counterfactuals.files import slugs
from tissue_counterfactuals.methods import seeing_answers
from tissue_counterfactuals.protocols import resolve
from tissue_counterfactuals.results.answer import in_words
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures import table_cellina_1 as table_1
from tissue_counterfactuals.results.harmless import markdown_line
from tissue_counterfactuals.results.tables import CONTROLS, FOLD, TWIN

JUDGED = "rmse_lfc"
_VERDICTS = "What the papers say, by the rules of the protocol {}"
_HEAD = ["Statement", "Verdict", "On", "Found"]
_EXPERIMENTS = {
    "cellina": "new neighbours for a held-out cell type",
    "celcomen_spleen": "whether forces agree between samples",
    "celcomen_glioblastoma": "where forces act, and how far a knock-out reaches",
    "celcomen_perturbmap": "whether knock-outs agree with lesions",
    "cellina_gene_range": "in how many genes neighbours must change",
    "cellina_in_vivo": "what cells around a lost gene show, and which method said so",
    "celcomen_simulation": "whether forces of a simulated tissue are found again",
    "celcomen_recovery": "whether forces within and between cells are told apart",
}
_KINDS = {
    "simulated": "simulated: nothing in them was measured",
    "stand-in": "stand-in: real, but not those of the papers",
    "real": "real: those of the papers",
    "real, other data": "real: of no paper reproduced here",
}


@dataclass(frozen=True)
class Answer:
    """The answer as text: sentences, the table of verdicts, and Table 1 for each data set, target and protocol."""

    first: str
    protocol: str
    asked: list[str]
    verdicts: pd.DataFrame
    best: list[str]
    numbers: list[str]
    unresolved: list[str]
    tables: list[tuple[str, list[list[str]]]]


def build(tables: Tables, numbers: pd.DataFrame, statements: pd.DataFrame) -> Answer:
    """The answer of a run, from its tables and those of this room, `numbers.build` and `statements.build`."""
    benchmarks = list(_benchmarks(tables))
    protocol = tables.config["protocols"][0]
    # Of own questions alone no paper says anything.
    ran = [table[table["verdict"] != of_numbers.NOT_RUN] for table in (statements, numbers)]
    if ran[0].empty and ran[1].empty:
        numbers, statements = ran[1], ran[0]
    main = statements[statements["protocol"].isin(["", protocol])]
    return Answer(
        first=_first(benchmarks) or _first_of_questions(tables),
        protocol=protocol,
        asked=list(_asked(tables)),
        verdicts=verdicts(main),
        best=[
            sentence
            for where, protocol, scores in benchmarks
            for sentence in _best(where, scores, resolve(protocol, tables.config["switches"]))
        ],
        numbers=list(_numbers(numbers)),
        unresolved=list(_unresolved(statements)),
        tables=list(_tables(tables)),
    )


# ---- The benchmark, data set by data set


def _benchmarks(tables: Tables) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(where, protocol, scores) for each data set, target and protocol."""
    for name, entry in tables.datasets("cellina"):
        scores = tables.of("cellina", "scores", dataset=name)
        targets = scores["target"].unique()
        for protocol in tables.config["protocols"]:
            for target in targets:
                chosen = scores[(scores["protocol"] == protocol) & (scores["target"] == target)]
                to = f", to {target}" if len(targets) > 1 else ""
                where = f"{label_of(name, entry)}{to} ({kind_of(entry)} data), {protocol}"
                yield where, protocol, chosen


def _against(scores: pd.DataFrame, first: tuple[str, str], second: tuple[str, str]) -> pd.Series:
    """Gain in error, fold by fold."""
    return gain(_answers(scores, *first), _answers(scores, *second), JUDGED)


def _strongest_control(scores: pd.DataFrame, answer: tuple[str, str] = ("cellina", "edge")) -> tuple[str, pd.Series]:
    """The control that leaves an answer, (method, `edge` or `node`), the smallest mean gain, and that gain by fold."""
    found = {c: _against(scores, answer, (c, "edge")) for c in CONTROLS}
    found = {control: gains for control, gains in found.items() if len(gains)}
    if not found:
        return "", pd.Series(dtype=float)
    control = min(found, key=lambda c: found[c].mean())
    return control, found[control]


def _first(benchmarks: list) -> str:
    lost, won, absent = [], [], []
    for where, _, scores in benchmarks:
        control, gains = _strongest_control(scores)
        if gains.empty:
            absent.append(where)
            continue
        better = int((gains > 0).sum())
        what = f"{_name(control).lower()} on {where}"
        if gains.mean() < 0:
            lost.append(f"{what} (the control errs less in {len(gains) - better} of {len(gains)} folds)")
        else:
            won.append(f"{what} ({better} of {len(gains)} folds better)")
    parts = []
    if lost:
        parts.append(f"Cellina does worse than a control: {'; '.join(lost)}.")
    if won:
        less = "Elsewhere it errs" if lost else "Cellina errs"
        parts.append(f"{less} less than every control; the strongest: {'; '.join(won)}.")
    if not parts and absent:
        parts.append(f"No prediction of Cellina was scored on {'; '.join(absent)}.")
    if failed := [text for where, _, scores in benchmarks for text in _failed(where, scores)]:
        parts.append(f"Cellina failed in {'; '.join(failed)}.")
    return " ".join(parts)


def _first_of_questions(tables: Tables) -> str:
    """The user's own questions with their verdicts, where nothing else was asked."""
    told = [f"{asked['name']} on {slide}: {word}" for _, _, slide, asked, word in tables.answers()]
    return f"Own questions: {'; '.join(told)}." if told else "Cellina's benchmark is not part of this run."


def _failed(where: str, scores: pd.DataFrame) -> Iterator[str]:
    """The folds of a benchmark in which Cellina has no answer for some seed, and its own reason there."""
    lost = failures(scores[scores["method"] == "cellina"])
    folds = lost.drop_duplicates(FOLD)
    if len(folds):
        named = ", ".join(f"{row.cell_type} on {row.slide}" for row in folds.head(3).itertuples())
        more = f" and {len(folds) - 3} more" if len(folds) > 3 else ""
        n_folds = len(scores[FOLD].drop_duplicates())
        reasons = table_1.shortened("; ".join(lost["reason"].unique()))
        yield f"{len(folds)} of {n_folds} folds of {where}: {named}{more} ({reasons})"


def _best(where: str, scores: pd.DataFrame, switches: dict[str, str]) -> Iterator[str]:
    """The best of what could be used in earnest, and whether it beats control and twin."""
    errors = {}
    for method in sorted(set(scores["method"]) - seeing_answers(switches)):
        for form in ("edge", "node"):
            own = _answers(scores, method, form)
            own = own[own["metric"] == JUDGED].dropna(subset="value")
            if len(own):
                errors[method, form] = own.groupby(FOLD)["value"].mean()
    # A method that failed in a fold is compared with the others in those that all have.
    shared = pd.DataFrame(errors).dropna() if errors else pd.DataFrame()
    errors = {key: (shared[key] if len(shared) else own).mean() for key, own in errors.items()}
    if not errors:
        yield f"{where}: nothing was scored."
        return
    best = min(errors, key=errors.get)
    parts = [
        f"{where}: {_name(best[0])}{' (altered neighbours)' * (best[1] == 'node')} errs least (RMSE of log-fold "
        f"changes {errors[best]:.3g})"
    ]
    if best[0] in CONTROLS:
        parts.append("a control that knows nothing of neighbours")
    else:
        control, gains = _strongest_control(scores, best)
        for name, values in (("its twin", _against(scores, best, (best[0], TWIN))), (_name(control).lower(), gains)):
            if len(values):
                parts.append(f"{values.mean():+.3g} against {name} ({(values > 0).sum()} of {len(values)} folds)")
    yield "; ".join(parts) + "."


def _name(method: str) -> str:
    return style.method_style(method).label


# ---- What was asked, and what came of it


def _asked(tables: Tables) -> Iterator[str]:
    for name, entry in tables.config["datasets"].items():
        for experiment in entry["experiments"]:
            if name not in dict(tables.datasets(experiment)):
                continue
            text = f"{label_of(name, entry)} ({_KINDS[kind_of(entry)]}): {_EXPERIMENTS.get(experiment, experiment)}"
            if experiment == "cellina":
                scores = tables.of("cellina", "scores", dataset=name)
                folds = scores[["slide", "cell_type"]].drop_duplicates()
                text += (
                    f", {entry['control_domain']} to {', '.join(map(str, entry['target_domains']))}; "
                    f"{_size(folds['slide'].nunique(), 'slide')}, {_size(len(folds), 'fold')}, "
                    f"{_size(scores['seed'].nunique(), 'seed')}"
                )
            yield text + "."
    for name, entry, slide, question, word in tables.answers():
        yield f"{label_of(name, entry)}, slide {slide}, {question['name']}: {in_words(question)}: {word}."
    for experiment in ("celcomen_simulation", "celcomen_recovery"):
        if tables.ran(experiment):
            yield f"Tissue of its own (simulated): {_EXPERIMENTS[experiment]}."


def _size(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def verdicts(statements: pd.DataFrame) -> pd.DataFrame:
    """The table of verdicts: a row for each line of the table of statements.

    Where several statements or data sets share a line, one that does not hold decides, then one that cannot be
    resolved; the row says what was found there.
    """
    worst_first = [of_statements.DOES_NOT_HOLD, of_statements.NOT_RESOLVABLE, of_statements.HOLDS]
    rows = []
    for line, own in statements.groupby("line", sort=False):
        run = own[own["verdict"] != of_statements.NOT_RUN]
        if run.empty:
            rows.append((line, of_statements.NOT_RUN, "", "; ".join(own["reason"].unique())))
            continue
        found = next(v for v in worst_first if (run["verdict"] == v).any())
        chosen = run[run["verdict"] == found].iloc[0]
        on = chosen["dataset"] or "simulated tissue of its own"
        on += f" ({chosen['kind']})" if chosen["dataset"] else ""
        why = f" ({chosen['reason']})" if chosen["reason"] else ""
        others = len(run) - (run["verdict"] == found).sum()
        more = f"; {others} of {len(run)} tests came out better" if others else ""
        rows.append((line, found, on, f"{chosen['result']}{why}{more}"))
    return pd.DataFrame(rows, columns=["statement", "verdict", "on", "found"])


def _numbers(numbers: pd.DataFrame) -> Iterator[str]:
    for paper, own in numbers.groupby("paper", sort=False):
        counts = own["verdict"].value_counts()
        said = ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in of_numbers.VERDICTS)
        yield f"Published numbers of {paper}: {said}."
    missed = numbers[numbers["verdict"] == of_numbers.NOT_MET]
    for row in missed.head(5).itertuples():
        what = " ".join(filter(None, [row.place, row.method, row.quantity]))
        yield f"Not met: {what}: published {row.published or row.newer}, ours {row.ours}."
    if len(missed) > 5:
        yield f"Not met: {len(missed) - 5} more in the table."


def _unresolved(statements: pd.DataFrame) -> Iterator[str]:
    own = statements[statements["verdict"] == of_statements.NOT_RESOLVABLE]
    for (line, reason), rows in own.groupby(["line", "reason"], sort=False):
        where = sorted({f"{r.dataset or 'simulated tissue'}, {r.protocol}" for r in rows.itertuples()})
        yield f"{line}: {reason} ({'; '.join(where)})."


def _tables(tables: Tables) -> Iterator[tuple[str, list[list[str]]]]:
    for name, entry in tables.datasets("cellina"):
        for protocol in tables.config["protocols"]:
            for target in slugs(entry["target_domains"], "target_domains"):
                keys = {"dataset": name, "target": target, "protocol": protocol}
                table = tables.of("cellina", "table_1", **keys)
                if table is not None:
                    table = table.fillna({"reason": ""})
                    rows = [table_1.cells(table, index) for index in table.index]
                    yield table_1.title(table), [table_1.header(table), *rows]


# ---- As text and as HTML


def to_markdown(answer: Answer) -> str:
    """The answer without Table 1, for the screen."""
    blocks = [f"# Answer\n\n{markdown_line(answer.first)}", _list("Asked", answer.asked)]
    rows = [_HEAD, *answer.verdicts.to_numpy().tolist()]
    rows = [[markdown_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [" | ".join(["", *(row[i].ljust(widths[i]) for i in range(3)), row[3], ""]).strip() for row in rows]
    rule = "| " + " | ".join("-" * w for w in widths) + " | ----- |"
    if len(answer.verdicts):
        blocks.append(f"{_VERDICTS.format(answer.protocol)}:")
        blocks.append("\n".join([lines[0], rule, *lines[1:]]))
    blocks += [
        _list("Best", answer.best),
        _list("Published numbers", answer.numbers),
        _list("Not resolved", answer.unresolved),
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _list(title: str, lines: list[str]) -> str:
    return f"{title}:\n\n" + "\n".join(f"- {markdown_line(line)}" for line in lines) if lines else ""


def to_html(answer: Answer) -> str:
    """The answer and Table 1 as a piece of HTML; whatever comes from data is escaped."""
    parts = [f"<p><strong>{escape(answer.first)}</strong></p>"]
    parts.append(_html_list("What was asked", answer.asked))
    if len(answer.verdicts):
        parts.append(f"<h3>{_VERDICTS.format(escape(answer.protocol))}</h3>")
        parts.append(html_table([_HEAD, *answer.verdicts.to_numpy().tolist()]))
    parts += [
        _html_list("Best method", answer.best),
        _html_list("Published numbers", answer.numbers),
        _html_list("What could not be resolved", answer.unresolved),
    ]
    for title, rows in answer.tables:
        parts.append(f"<h3>{escape(title)}</h3>{html_table(rows)}")
    return "\n".join(filter(None, parts)) + "\n"


def _html_list(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h3>{title}</h3><ul>{items}</ul>" if lines else ""


def html_table(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    head, *body = [[escape(str(cell)) for cell in row] for row in rows]
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in body]
    return (
        '<div class="overflow-auto"><table class="answer"><thead><tr>'
        + "".join(f"<th>{cell}</th>" for cell in head)
        + "</tr></thead><tbody>"
        + "".join(f"<tr>{line}</tr>" for line in lines)
        + "</tbody></table></div>"
    )
