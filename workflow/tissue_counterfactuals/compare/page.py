"""One page of a run: tables to sort and filter (DataTables, by itables, inside the page), and a gallery of its
figures.
"""

import base64
import re
from collections.abc import Iterable
from html import escape
from io import BytesIO
from pathlib import Path

import pandas as pd
from itables import options, to_html_datatable
from itables.javascript import generate_init_offline_itables_html
from PIL import Image

from tissue_counterfactuals.compare import Tables, label_of
from tissue_counterfactuals.compare.numbers import donors_scale
from tissue_counterfactuals.files import slugs
from tissue_counterfactuals.results.figures import FIGURES

_WIDTH = 460
_LONG = {"statement", "result", "reason", "would_be_true", "test"}
# What a reader looks for; the other columns follow.
_FIRST = [
    *("line", "statement", "paper", "place", "quantity", "method", "intervention", "published", "ours"),
    *("tolerance", "verdict", "result", "dataset", "kind", "target", "protocol", "reason", "newer"),
]  # fmt: skip
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff; }
h2 { margin-top: 2rem; } nav a { margin-right: 1rem; }
table.dataTable td { white-space: normal; max-width: 24rem; vertical-align: top; }
table.dataTable thead input { width: 100%; min-width: 5rem; box-sizing: border-box; }
table.dataTable td.long { min-width: 14rem; }
.gallery { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { width: 460px; box-sizing: border-box; margin: 0; padding: .5rem; border: 1px solid #ddd; }
figure img { max-width: 100%; }
figcaption b { display: block; }
"""


def build(tables: Tables, found: dict[str, pd.DataFrame], figures: Iterable[str]) -> str:
    """The page; whatever comes from data is escaped.

    Args:
        found: tables `numbers` and `statements`.
        figures: paths of the run's figures, PNG.
    """
    parts = [
        ("Statements", "statements", found["statements"]),
        ("Published numbers", "numbers", found["numbers"]),
        ("The donors' scale", "donors", donors_scale(found["numbers"])),
    ]
    for name, entry in tables.datasets("cellina"):
        for title, table in (("All metrics", "summary"), ("Gains", "gains")):
            own = tables.of("cellina", table, dataset=name)
            parts.append((f"{title}: {label_of(name, entry)}", f"{table}-{name}", own))
    links = "".join(f'<a href="#{anchor}">{escape(title)}</a>' for title, anchor, _ in parts)
    body = "".join(f'<h2 id="{anchor}">{escape(title)}</h2>{_table(table, anchor)}' for title, anchor, table in parts)
    gallery = "".join(_figure(Path(path), tables, found) for path in figures)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Published and ours</title>'
        f"<style>{_STYLE}</style>{generate_init_offline_itables_html(options.dt_bundle)}</head><body>"
        f'<h1>Published and ours</h1><nav>{links}<a href="#figures">Figures</a></nav>{body}'
        f'<h2 id="figures">Figures</h2><div class="gallery">{gallery}</div></body></html>'
    )


def _table(table: pd.DataFrame, anchor: str) -> str:
    first = [c for c in _FIRST if c in table]
    table = table[[*first, *(c for c in table if c not in first)]]
    # Columns without anything in them only take room.
    table = table.loc[:, [not (table[c].isna() | (table[c].astype(str) == "")).all() for c in table]]
    numbers = table.select_dtypes("float").columns
    table = table.assign(**{c: table[c].map(lambda x: float(f"{x:.4g}")) for c in numbers})
    return to_html_datatable(
        table.rename(columns=lambda name: name.replace("_", " ")),
        connected=False,
        table_id=f"table-{anchor}",
        showIndex=False,
        maxBytes=0,
        column_filters="header",
        columnDefs=[{"className": "long", "targets": [i for i, c in enumerate(table) if c in _LONG]}],
        classes="display compact",
        layout={"topStart": "pageLength", "topEnd": "search"},
        lengthMenu=[10, 25, 100, -1],
    )


def place_of(name: str) -> tuple[str, str]:
    """Paper and place of a figure by the name of its row: figure_celcomen_6 is Celcomen's Fig. 6; what has no such name
    is ours.
    """
    known = re.fullmatch(r"(figure|table)_(celcomen|cellina)_([a-z]?\d+[a-z]?|per_target)", name)
    if not known:
        return "ours", ""
    kind, paper, number = known.groups()
    kind = {"figure": "Fig.", "table": "Table"}[kind]
    return paper.capitalize(), f"{kind} {number.upper() if number[0] == 'a' else number}"


def _figure(path: Path, tables: Tables, found: dict[str, pd.DataFrame]) -> str:
    row, keys = _row_of(path)
    paper, place = place_of(row.name) if row else ("ours", "")
    dataset = keys.get("dataset", "")
    entry = tables.config["datasets"].get(dataset)
    targets = slugs(entry["target_domains"], "target_domains") if entry else {}
    # A number published for a target that these data do not have stands beside all of theirs.
    others = {name for pair in targets.items() if pair[0] != keys.get("target", pair[0]) for name in pair}
    where = f"{label_of(dataset, entry)} ({entry['kind']} data)" if entry else "simulated data"
    more = ", ".join(f"{key} {value}" for key, value in keys.items() if key != "dataset")
    lines = [
        f"{paper}, {place}" if place else "no figure of a paper",
        f"{where}{', ' + more if more else ''}",
        _verdict(place, paper, keys.get("protocol", ""), label_of(dataset, entry) if entry else "", others, found),
    ]
    title = row.title if row else path.stem
    text = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return (
        f'<figure><img src="{_picture(path)}" '
        f'alt="{escape(title)}"><figcaption><b>{escape(title)}</b>{text}</figcaption></figure>'
    )


def _row_of(path: Path):
    """The row of the table of figures that a PNG belongs to, and its wildcards."""
    for row in FIGURES:
        pattern = re.escape(str(Path(row.outputs[-1]).with_suffix(".png")))
        pattern = re.sub(r"\\\{(\w+)\\\}", lambda m: f"(?P<{m[1]}>[^/]+?)", pattern)
        if known := re.fullmatch(pattern, str(path)):
            return row, known.groupdict()
    return None, {}


def _verdict(place: str, paper: str, protocol: str, dataset: str, others: set[str], found: dict) -> str:
    """How the numbers and statements of the same place stand, for the figure's own data and protocol, without those of
    the data's other targets.
    """
    said = []
    for name, table in found.items():
        own = table[(table["place"].str.startswith(place)) & (table["paper"] == paper)]
        own = own[own["protocol"].isin(["", protocol]) & own["dataset"].isin(["", dataset])]
        own = own[~own["target"].isin(others)]
        if place and len(own):
            counts = own["verdict"].value_counts()
            said.append(f"{name}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    return "; ".join(said) or "no published number or statement to compare"


def _picture(path: Path) -> str:
    """The figure, small, inside the page."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
        picture.thumbnail((_WIDTH * 3 // 2,) * 2)
        stream = BytesIO()
        picture.quantize(64).save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
