"""How everything drawn looks: names for display, colours, fonts, the provenance footer, files with fixed bytes."""

import textwrap
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.colors import hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from tissue_counterfactuals.files import atomic_path
from tissue_counterfactuals.metrics import METRICS
from tissue_counterfactuals.question.donors import DONOR_RULES
from tissue_counterfactuals.question.nodes import SHIFTS
from tissue_counterfactuals.results.tables import TWIN

DPI = 150
# Fonts for what DejaVu Sans lacks, Chinese, Japanese and Korean first; those that are installed are used.
_FURTHER_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("Arial Unicode MS", "Microsoft YaHei", "Malgun Gothic", "PingFang SC", "Hiragino Sans"),
    "Unifont",
)
_INSTALLED = {font.name for font in fontManager.ttflist}
FONTS = ["DejaVu Sans", *(name for name in _FURTHER_FONTS if name in _INSTALLED)]
RC = {
    "font.family": FONTS,
    # No text is a formula: labels come from data, and a dollar sign in one is a dollar sign.
    "text.parse_math": False,
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "hatch.linewidth": 0.7,
    "svg.hashsalt": "tissue-counterfactuals",
    "svg.fonttype": "none",
}
FAILED_COLOR = "#B2182B"
MUTED_COLOR = "#6B6B6B"
# A point that stands for a part of what the others stand for.
PARTIAL = {"linestyle": "", "marker": "o", "markerfacecolor": "white", "markersize": 4}
# Letters of a label that a figure has room for.
MOST_LETTERS = 48
# Points of one kind that stay points in an SVG.
MOST_POINTS = 500


@dataclass(frozen=True)
class MethodStyle:
    """A method on paper: its name, its colour and the group it is shown in (see `GROUPS`)."""

    label: str
    color: str
    group: str = "model"


GROUPS = {
    "control": "Controls",
    "model": "Models",
    "truth": "Bound (the simulation, asked the same question)",
    "in_domain": "Bounds (in-domain: these see the answer)",
}
# In order of display. Colours of models: Okabe and Ito, told apart by colour-blind readers; controls are grey.
METHODS = {
    "no_change": MethodStyle("No change", "#D9D9D9", "control"),
    "mean_shift": MethodStyle("Mean shift", "#B0B0B0", "control"),
    "mean_shift_by_type": MethodStyle("Mean shift by type", "#868686", "control"),
    "nearest_neighbor": MethodStyle("Nearest neighbours", "#5E5E5E", "control"),
    "ridge": MethodStyle("Ridge regression", "#A6761D"),
    "cellina_ablated": MethodStyle("Cellina (ablated)", "#56B4E9"),
    "cellina": MethodStyle("Cellina", "#0072B2"),
    "cellina_gat": MethodStyle("Cellina-GAT", "#0B2F6B"),
    "hierarchical": MethodStyle("Random effects (ours)", "#009E73"),
    "celcomen": MethodStyle("Celcomen", "#AA4499"),
    "spatialprop": MethodStyle("SpatialProp (re-impl.)", "#CC79A7"),
    "concert": MethodStyle("CONCERT (re-impl.)", "#882255"),
    "scvi": MethodStyle("scVI", "#E69F00"),
    "scanvi": MethodStyle("scANVI", "#F0E442"),
    "scviva": MethodStyle("scVIVA", "#999933"),
    "scgen": MethodStyle("scGen", "#44AA99"),
    "cpa": MethodStyle("CPA", "#332288"),
    "mintflow": MethodStyle("MintFlow", "#117733"),
    "simvi": MethodStyle("SIMVI", "#661100"),
    "truth": MethodStyle("Truth", "#D55E00", "truth"),
    "target_mean": MethodStyle("Target mean", "#4D4D4D", "in_domain"),
    "truth_in_place": MethodStyle("Truth in place", "#D55E00", "in_domain"),
    "ceiling": MethodStyle("Ceiling (split half)", "#000000", "in_domain"),
}
VARIANTS = {
    "published": "donors as published",
    "any_type": "donors of any type",
    "matched": "donors matched to target",
    "node": "altered neighbours",
    "node_global": "altered neighbours, all types alike",
    TWIN: "no intervention (twin)",
}
# Names of metrics where the registry's own are too long for a column.
SHORT_LABELS = {
    "rmse_lfc": "RMSE LFC",
    "rmse_counts": "RMSE counts",
    "pearson_split": "Pearson, split control",
    "pearson_twin": "Pearson, against twin",
}
# Cell types and domains get colours of their own; first those that stay apart for colour-blind readers.
CATEGORY_COLORS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#332288"),
    *("#882255", "#999933", "#44AA99", "#AA4499", "#661100", "#88CCEE", "#117733", "#DDCC77"),
)
DOMAIN_COLORS = (
    *("#77AADD", "#EE8866", "#BBCC33", "#FFAABB", "#EEDD88", "#99DDFF", "#44BB99", "#AAAA00"),
    *("#DDDDDD", "#CC99CC"),
)
_SPARE_COLORS = ("#E7298A", "#1B9E77", "#666600", "#5E3C99")


def method_style(method: str, methods: Iterable[str] = ()) -> MethodStyle:
    """Style of a method; one that has no row in `METHODS` is shown under its own name, in a colour of its own.

    `methods` are all methods of the picture, so that two unknown ones get different colours.
    """
    if method in METHODS:
        return METHODS[method]
    unknown = sorted({*methods, method} - set(METHODS))
    return MethodStyle(method, _SPARE_COLORS[unknown.index(method) % len(_SPARE_COLORS)])


def method_handles(
    methods: list[str], line: Callable[[str], str] = lambda _: "-", told: Callable[[str], str] = lambda _: ""
) -> list[Line2D]:
    """Entries of a legend: of each method its line with a dot, and its name with what is told of it."""
    looks = {method: method_style(method, methods) for method in methods}
    return [
        Line2D([], [], color=look.color, linestyle=line(method), marker="o", ms=4, label=look.label + told(method))
        for method, look in looks.items()
    ]


def patch_style(color: str, variant: str) -> dict:
    """Of a bar or swatch: the method's colour, hatched as published where neighbours are altered; a twin is an
    outline.
    """
    if variant == TWIN:
        return {"facecolor": "white", "edgecolor": color}
    hatch = "//////" if variant in SHIFTS else None
    return {"facecolor": color, "edgecolor": "white", "hatch": hatch}


def method_order(methods: Iterable[str]) -> list[str]:
    """Methods grouped as in `GROUPS` and ordered as in `METHODS`, those without a row last in their group."""
    known = list(METHODS)
    return sorted(
        set(methods),
        key=lambda m: (list(GROUPS).index(method_style(m).group), known.index(m) if m in METHODS else len(known), m),
    )


def variant_order(variants: Iterable[str]) -> list[str]:
    """The answer of a method without neighbours (`-`), donor rules in the order of `DONOR_RULES`, node perturbations,
    the twin, then anything else.
    """
    known = ["-", *DONOR_RULES, *SHIFTS, TWIN]
    return sorted(set(variants), key=lambda v: (known.index(v) if v in known else len(known), v))


def metric_label(metric: str) -> str:
    """Name of a metric with an arrow towards its better end, where there is one."""
    arrow = {"higher": " ↑", "lower": " ↓", "none": ""}[METRICS[metric].direction]
    return f"{SHORT_LABELS.get(metric, METRICS[metric].label)}{arrow}"


def category_colors(categories: Iterable[str], palette: tuple[str, ...] = CATEGORY_COLORS) -> dict[str, str]:
    """One colour per category in sorted order: those of the palette, then others, so that no two are the same."""
    names = sorted(set(categories))
    # The golden angle leaves no two hues alike; light and dark in turn keep neighbours apart.
    more = [to_hex(hsv_to_rgb((0.618 * i % 1, 0.7, 0.95 - 0.4 * (i % 2)))) for i in range(len(names) - len(palette))]
    return dict(zip(names, [*palette, *more], strict=False))


def experiment_title(what: str, label: str, kind: str, target: str, protocol: str) -> str:
    """The title that everything about one experiment bears; it always says what kind of data this is."""
    return f"{what} · {data_name({'label': label, 'kind': kind})} · target domain: {target} · protocol: {protocol}"


def data_name(record: dict) -> str:
    """What a data set is called, and what kind of data it is, unless its label says so.

    Args:
        record: with its `label` and `kind`, as a manifest has them.
    """
    label, kind = record["label"], record["kind"]
    return label if f"({kind})" in label else f"{label} [{kind}]"


def context() -> AbstractContextManager:
    """The project's matplotlib settings, for the time of one drawing."""
    return matplotlib.rc_context(RC)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure outside pyplot, so that no state outlives it."""
    return Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")


def wrap(text: str, width_in: float, size: float) -> list[str]:
    """Break text of a font size in points into lines that fit a width in inches; line breaks in it are kept, and stand
    in place of a dot between two parts.
    """
    # Letters of DejaVu Sans are on average a little under 0.55 em wide; a line of x takes 0.62.
    characters = int(width_in * 72 / (size * 0.62))
    lines = [line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, characters) or [""]]
    return [line.removesuffix(" ·") for line in lines]


def suptitle(figure: Figure, text: str) -> None:
    """Write the title of a figure, broken into lines that fit its width."""
    width_in, _ = figure.get_size_inches()
    # Bold letters are wider.
    lines = wrap(text, 0.97 * width_in, 11)
    figure.suptitle("\n".join(lines), x=0.012, ha="left", weight="bold", size=10)


def short(label: str, most: int = MOST_LETTERS) -> str:
    """A label of at most `most` letters: what is too much is cut from its middle."""
    head = 2 * (most - 1) // 3
    return label if len(label) <= most else f"{label[:head]}…{label[head + 1 - most :]}"


def with_short_labels(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with each label of these columns cut by `short`; those that become the same are numbered."""
    table = table.copy()
    for column in columns:
        names = {str(name): "" for name in table[column].unique()}
        if all(len(name) <= MOST_LETTERS for name in names):
            continue
        taken = set()
        for name in sorted(names):
            label, number = short(name), 1
            while label in taken:
                number += 1
                label = f"{short(name, MOST_LETTERS - 4)} ({number})"
            taken.add(label)
            names[name] = label
        table[column] = table[column].astype(str).map(names)
    return table


def log_scale(axes, which: str) -> None:
    """A logarithmic axis (`x` or `y`) whose decades are written as plain numbers."""
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"{which}axis").set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def footer(figure: Figure, provenance_text: str) -> float:
    """Write the provenance along the lower edge; return the fraction of the height to leave free for it."""
    size = 5.5
    width_in, height_in = figure.get_size_inches()
    lines = wrap(provenance_text, width_in - 0.12, size)
    margin_in = 0.06
    figure.text(
        margin_in / width_in,
        margin_in / height_in,
        "\n".join(lines),
        size=size,
        color=MUTED_COLOR,
        ha="left",
        va="bottom",
        linespacing=1.25,
    ).set_gid("provenance")
    return (2 * margin_in + len(lines) * size * 1.5 / 72) / height_in


def legend_below(figure: Figure, bottom: float, ncols: int, **legend) -> float:
    """Put a legend on the free fraction `bottom` of the height; return the fraction to leave free for both.

    It has fewer columns than `ncols` where so many are wider than the figure.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    if "title" in legend:
        width_in = figure.get_size_inches()[0] - 0.2
        legend["title"] = "\n".join(wrap(legend["title"], width_in, RC["legend.fontsize"]))
    for columns in range(ncols, 0, -1):
        drawn = figure.legend(
            loc="lower left",
            bbox_to_anchor=(0.004, bottom),
            alignment="left",
            borderaxespad=0.2,
            title_fontsize=RC["legend.fontsize"],
            ncols=columns,
            **legend,
        )
        box = drawn.get_window_extent(renderer)
        if columns == 1 or box.x1 <= figure.bbox.width:
            break
        drawn.remove()
    return bottom + box.height / figure.bbox.height + 0.01


def undrawable(figure: Figure) -> str:
    """The characters on a figure that no font at hand has; they are drawn as boxes."""
    written = {c for text in figure.findobj(Text) for c in text.get_text() if not c.isspace()}
    for name in FONTS:
        written -= {chr(code) for code in get_font(findfont(name)).get_charmap()}
    return "".join(sorted(written))


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG and as SVG, side by side; the same figure gives the same bytes, with no date or version
    inside.

    Inside the SVG what has many points is a picture, so that it stays small. Characters that no installed font has are
    named in the log and noted on the figure.

    Args:
        path: of either; the other differs from it in the suffix.
    """
    path = Path(path)
    with context(), warnings.catch_warnings():
        missing = undrawable(figure)
        if missing:
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            print(
                f"{path.name}: no installed font has {missing!r}; they are drawn as boxes. A font such as Noto Sans "
                "CJK has them: install it and draw again."
            )
            note = f"boxes: {len(missing)} character(s) that no font of this machine has"
            figure.text(0.995, 0.999, note, ha="right", va="top", size=6, color=FAILED_COLOR)
        with atomic_path(path.with_suffix(".png")) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
        # Everything stays where it is now: laying it out again would take as long as drawing it.
        figure.set_layout_engine("none")
        for artist in figure.findobj(lambda artist: _n_points(artist) > MOST_POINTS):
            artist.set_rasterized(True)
        with atomic_path(path.with_suffix(".svg")) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata={"Date": None, "Creator": None})


def _n_points(artist: Artist) -> int:
    """How many points, lines or patches an artist draws by itself."""
    if isinstance(artist, Collection):
        return max(len(artist.get_offsets()), len(artist.get_paths()))
    return len(artist.get_xdata()) if isinstance(artist, Line2D) else 0


def save_reason(reason: str, title: str, provenance_text: str, path: str | Path) -> None:
    """Write a sentence in place of a figure that there is nothing to draw for."""
    with context():
        figure = new_figure(8, 2.2)
        suptitle(figure, title)
        footer(figure, provenance_text)
        text = "\n".join(wrap(reason, 7, 8))
        figure.text(0.5, 0.5, text, ha="center", va="center", color=FAILED_COLOR)
        save(figure, path)
