"""Figure 2 of Cellina on the slide itself: types, domains, held-out cells, and one cell before and after rewiring."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.figures import style

NAME = "Fig. 2 of Cellina"
COLUMNS = ("x_um", "y_um", "cell_type", "domain", "sample")
BACKGROUND = "#DCDCDC"
HELD_OUT_COLOR = "#D55E00"
CONTROL_COLOR = "#0072B2"
DONOR_COLOR = "#D55E00"
NEIGHBOR_COLOR = "#0072B2"
PANEL_WIDTH_IN = 4.3
# Width to height of the arranged samples that fills a panel well.
GOOD_ASPECT = 1.35


@dataclass(frozen=True)
class Layout:
    """Cells of all samples in one plane, no two samples overlapping."""

    xy: np.ndarray
    boxes: dict[str, tuple[float, float, float, float]]
    width: float
    height: float


def draw(
    cells: pd.DataFrame,
    held_out: np.ndarray,
    focal: int,
    old_neighbors: np.ndarray,
    new_neighbors: np.ndarray,
    title: str,
    provenance_text: str,
    path: str | Path,
) -> None:
    """Draw the map to a PNG or SVG; see `compose`."""
    figure = compose(cells, held_out, focal, old_neighbors, new_neighbors, title, provenance_text)
    style.save(figure, path)


def compose(
    cells: pd.DataFrame,
    held_out: np.ndarray,
    focal: int,
    old_neighbors: np.ndarray,
    new_neighbors: np.ndarray,
    title: str,
    provenance_text: str,
) -> Figure:
    """The figure.

    Args:
        cells: one row per cell, n in all: x_um, y_um (micrometres), cell_type, domain, sample. Samples have
            coordinates of their own and are set side by side.
        held_out: bool (n,), cells that were hidden from training.
        focal: index of the cell that is moved.
        old_neighbors, new_neighbors: indices of its neighbours in the tissue, and of its donors.
        title: what is shown; must say what kind of data it is.

    Raises:
        InputError: a column is missing, or the sizes or indices do not fit the cells.
    """
    _check(cells, held_out, focal, old_neighbors, new_neighbors)
    layout = arrange(cells)
    panel_height_in = PANEL_WIDTH_IN * layout.height / layout.width
    with style.context():
        figure = style.new_figure(3 * PANEL_WIDTH_IN + 0.4, 2 * (panel_height_in + 0.35) + 0.75)
        figure.suptitle(title, x=0.012, ha="left", weight="bold", size=10, parse_math=False)
        bottom = style.footer(figure, provenance_text)
        figure.set_layout_engine("constrained", rect=(0, bottom, 1, 1 - bottom))
        grid = figure.subplots(2, 3)
        points = _point_size(len(cells), panel_height_in)
        types = style.category_colors(cells["cell_type"])
        domains = style.category_colors(cells["domain"], style.DOMAIN_COLORS)
        for axes, name, colors in (
            (grid[0, 0], "cell_type", types),
            (grid[0, 1], "domain", domains),
        ):
            _map(axes, layout, colors_of(cells[name], colors), points)
        grid[0, 0].set_title("Cell types")
        grid[0, 1].set_title("Domains")
        held_out_entries = _held_out_panel(grid[0, 2], layout, cells, held_out, focal, points)
        _rewired_panel(grid[1, 0], layout, cells, focal, old_neighbors, new_neighbors, points)
        _zoom_panel(grid[1, 1], layout, cells, types, held_out, focal, old_neighbors)
        _legends(grid[1, 2], cells, types, domains, held_out_entries, old_neighbors, new_neighbors)
    return figure


def arrange(cells: pd.DataFrame) -> Layout:
    """Set samples side by side in rows, each in a box of the size of the largest, so that none overlap."""
    xy = cells[["x_um", "y_um"]].to_numpy(np.float64).copy()
    members = {
        str(name): rows
        for name, rows in sorted(cells.groupby("sample", observed=True).indices.items())
    }
    spans = {name: np.ptp(xy[rows], axis=0) for name, rows in members.items()}
    cell_width, cell_height = np.max(list(spans.values()), axis=0)
    gap = 0.08 * max(cell_width, cell_height, 1.0)
    step = np.array([cell_width + gap, cell_height + gap])

    def aspect(n_columns: int) -> float:
        return n_columns * step[0] / (-(-len(members) // n_columns) * step[1])

    n_columns = min(range(1, len(members) + 1), key=lambda n: abs(np.log(aspect(n) / GOOD_ASPECT)))
    n_rows = -(-len(members) // n_columns)
    boxes = {}
    for i, (name, rows) in enumerate(members.items()):
        row, column = divmod(i, n_columns)
        # The first row is on top, and each sample stands in the middle of its box.
        corner = np.array([column, n_rows - 1 - row]) * step + (step - gap - spans[name]) / 2
        xy[rows] += corner - xy[rows].min(axis=0)
        boxes[name] = (*corner, *spans[name])
    width, height = np.array([n_columns, n_rows]) * step
    return Layout(xy, boxes, float(width), float(height))


def _check(cells, held_out, focal, old_neighbors, new_neighbors) -> None:
    for column in COLUMNS:
        if column not in cells:
            raise InputError(
                f"slide map: column {column!r} is missing; needed are {', '.join(COLUMNS)}."
            )
    n = len(cells)
    if len(held_out) != n:
        raise InputError(f"slide map: held_out has {len(held_out)} values for {n} cells.")
    for name, indices in (
        ("focal", [focal]),
        ("old_neighbors", old_neighbors),
        ("new_neighbors", new_neighbors),
    ):
        indices = np.asarray(indices)
        if len(indices) and (indices.min() < 0 or indices.max() >= n):
            raise InputError(
                f"slide map: {name} holds the index {indices.max()}, and there are {n} cells."
            )


def colors_of(categories: pd.Series, colors: dict[str, str]) -> np.ndarray:
    """(n, 4) RGBA of each cell's category."""
    categories = categories.astype("category")
    table = np.array([to_rgba(colors[name]) for name in categories.cat.categories])
    return table[categories.cat.codes.to_numpy()]


def _point_size(n_cells: int, panel_height_in: float) -> float:
    """Area of a point in square points, so that cells just touch at this density."""
    area = PANEL_WIDTH_IN * panel_height_in * 72**2
    return float(np.clip(0.55 * area / n_cells, 0.12, 14))


def _map(axes: Axes, layout: Layout, rgba: np.ndarray, size: float) -> None:
    """All cells, in a random but fixed order so that no category lies on top; names of samples; scale bar."""
    order = np.random.default_rng(0).permutation(len(layout.xy))
    axes.scatter(*layout.xy[order].T, s=size, c=rgba[order], linewidths=0, rasterized=True)
    _frame(axes, (0, 0, layout.width, layout.height))
    if len(layout.boxes) > 1:
        for name, (x, y, width, height) in layout.boxes.items():
            axes.text(
                x + width / 2,
                y + height + 0.01 * layout.height,
                name,
                ha="center",
                va="bottom",
                size=6.5,
                color=style.MUTED_COLOR,
                parse_math=False,
            )


def _frame(axes: Axes, box: tuple[float, float, float, float]) -> None:
    x, y, width, height = box
    bar = scale_bar_length(width)
    below = 0.075 * height
    axes.set(xlim=(x, x + width), ylim=(y - below, y + height), aspect="equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    left = x + 0.01 * width
    axes.plot(
        [left, left + bar], [y - 0.3 * below] * 2, color="black", linewidth=2, solid_capstyle="butt"
    )
    label = f"{bar / 1000:g} mm" if bar >= 1000 else f"{bar:g} µm"
    axes.text(left + bar / 2, y - 0.45 * below, label, ha="center", va="top", size=6.5)


def scale_bar_length(width_um: float) -> float:
    """The roundest length (1, 2 or 5 times a power of ten) of at most a quarter of the width."""
    power = 10.0 ** np.floor(np.log10(width_um / 4))
    return float(max(m * power for m in (1, 2, 5) if m * power <= width_um / 4))


def _held_out_panel(axes, layout, cells, held_out, focal, size) -> list[tuple[str, str]]:
    """Held-out cells, and the cells of that type in the focal cell's domain that take their place."""
    cell_type, domain = cells["cell_type"].iloc[focal], cells["domain"].iloc[focal]
    hidden = np.asarray(held_out, bool)
    control = ((cells["cell_type"] == cell_type) & (cells["domain"] == domain)).to_numpy() & ~hidden
    axes.set_title("Held-out cells")
    _map(axes, layout, np.tile(to_rgba(BACKGROUND), (len(cells), 1)), size)
    for mask, color in ((control, CONTROL_COLOR), (hidden, HELD_OUT_COLOR)):
        axes.scatter(
            *layout.xy[mask].T, s=max(size * 1.4, 0.6), c=color, linewidths=0, rasterized=True
        )
    what = " / ".join(
        f"{', '.join(sorted(cells[name][hidden].astype(str).unique()))}"
        for name in ("cell_type", "domain")
    )
    return [
        (f"held out: {what} ({hidden.sum():,})", HELD_OUT_COLOR),
        (f"control: {cell_type} / {domain} ({control.sum():,})", CONTROL_COLOR),
    ]


def _rewired_panel(axes, layout, cells, focal, old_neighbors, new_neighbors, size) -> None:
    axes.set_title("One cell and its new neighbours (donors)")
    _map(axes, layout, np.tile(to_rgba(BACKGROUND), (len(cells), 1)), size)
    _edges(axes, layout, focal, new_neighbors, DONOR_COLOR)
    axes.scatter(*layout.xy[old_neighbors].T, s=4, c=NEIGHBOR_COLOR, linewidths=0)
    axes.scatter(
        *layout.xy[new_neighbors].T, s=13, c=DONOR_COLOR, edgecolors="white", linewidths=0.4
    )
    _focal_star(axes, layout.xy[focal])


def _zoom_panel(axes, layout, cells, types, held_out, focal, old_neighbors) -> None:
    """The focal cell's surroundings in the tissue, with the edges that are cut."""
    axes.set_title("Its old neighbours (edges that are cut)")
    center = layout.xy[focal]
    sample = cells["sample"].to_numpy()
    distances = np.linalg.norm(layout.xy[old_neighbors] - center, axis=1)
    radius = 1.15 * distances.max() if len(distances) else 100.0
    # As wide as the maps above it, so that the panels line up.
    half_width = radius * max(1.0, layout.width / layout.height)
    half_height = half_width * layout.height / layout.width
    inside = (np.abs(layout.xy - center) <= [half_width, half_height]).all(axis=1)
    inside &= sample == sample[focal]
    hidden = inside & np.asarray(held_out, bool)
    _edges(axes, layout, focal, old_neighbors, NEIGHBOR_COLOR)
    shown = inside & ~hidden
    axes.scatter(
        *layout.xy[shown].T,
        s=22,
        c=colors_of(cells["cell_type"], types)[shown],
        edgecolors="white",
        linewidths=0.3,
        rasterized=True,
    )
    # Held-out cells stand there, but the graph does not see them.
    axes.scatter(
        *layout.xy[hidden].T, s=20, facecolors="white", edgecolors=HELD_OUT_COLOR, linewidths=0.9
    )
    _focal_star(axes, center)
    _frame(axes, (*(center - [half_width, half_height]), 2 * half_width, 2 * half_height))


def _edges(axes, layout, focal, neighbors, color) -> None:
    ends = layout.xy[np.asarray(neighbors, dtype=np.int64)]
    starts = np.broadcast_to(layout.xy[focal], ends.shape)
    axes.add_collection(
        LineCollection(np.stack([starts, ends], axis=1), colors=color, linewidths=0.45, alpha=0.45)
    )


def _focal_star(axes, xy) -> None:
    axes.plot(
        *xy,
        "*",
        color="#F0E442",
        markeredgecolor="black",
        markeredgewidth=0.7,
        markersize=12,
        zorder=6,
    )


def _legends(axes, cells, types, domains, held_out_entries, old_neighbors, new_neighbors) -> None:
    axes.axis("off")

    def dot(label, color, **look):
        look = {"marker": "o", "markersize": 5, "markeredgewidth": 0} | look
        return Line2D([], [], linestyle="", color=color, label=label, **look)

    n_types, n_domains = cells["cell_type"].value_counts(), cells["domain"].value_counts()
    focal_entries = [
        dot(
            "focal cell",
            "#F0E442",
            marker="*",
            markersize=10,
            markeredgecolor="black",
            markeredgewidth=0.7,
        ),
        dot(f"old neighbours ({len(old_neighbors)})", NEIGHBOR_COLOR),
        dot(f"new neighbours: donors ({len(new_neighbors)})", DONOR_COLOR),
    ]
    columns = (
        [
            ("Cell types", [dot(f"{t} ({n_types[t]:,})", c) for t, c in types.items()]),
        ],
        [
            ("Domains", [dot(f"{d} ({n_domains[d]:,})", c) for d, c in domains.items()]),
            ("Held-out cells", [dot(*entry) for entry in held_out_entries]),
            ("Rewiring", focal_entries),
        ],
    )
    for x, blocks in zip((0.0, 0.42), columns, strict=True):
        y = 1.0
        for heading, handles in blocks:
            legend = axes.legend(
                handles=handles,
                title=heading,
                loc="upper left",
                bbox_to_anchor=(x, y),
                alignment="left",
                borderaxespad=0,
                handletextpad=0.2,
                title_fontproperties={"weight": "bold", "size": 8},
            )
            axes.add_artist(legend)
            y -= 0.1 + 0.075 * (len(handles) + 1)
