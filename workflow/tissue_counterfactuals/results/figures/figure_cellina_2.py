"""Figure 2 of Cellina on the slide itself: types, domains, held-out cells, and one cell before and after rewiring."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.question.folds import read_folds
from tissue_counterfactuals.question.question import read_question
from tissue_counterfactuals.question.task import Task
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.slide import read_slide
from tissue_counterfactuals.streams import stream

NAME = "Fig. 2 of Cellina"
COLUMNS = ("x_um", "y_um", "cell_type", "domain", "sample")
ROLES = ("held_out", "focal", "old_neighbor", "donor")
BACKGROUND = "#DCDCDC"
HELD_OUT_COLOR = "#D55E00"
CONTROL_COLOR = "#0072B2"
DONOR_COLOR = "#D55E00"
NEIGHBOR_COLOR = "#0072B2"
FOCAL_COLOR = "#F0E442"
STAR = {"marker": "*", "markersize": 13, "markeredgecolor": "black", "markeredgewidth": 0.7}
STAR |= {"clip_on": False, "zorder": 6}
HOLLOW = {"color": "#444444", "markerfacecolor": "none", "markeredgewidth": 1}
PANELS = (
    *("Cell types", "Domains", "Held-out cells"),
    *("New neighbours: donors", "Old neighbours: edges that are cut", "Who the neighbours are"),
)
PANEL_WIDTH_IN = 4.0
MAX_PANEL_HEIGHT_IN = 6.0
# Height under a map that its scale bar takes, as a share of the map's.
SCALE_BAR_SHARE = 0.07
MIN_ZOOM_UM = 25.0
# Width to height of the arranged samples that fills a panel well.
GOOD_ASPECT = 1.35
N_SHARES = 6


@dataclass(frozen=True)
class Layout:
    """Cells of all samples in one plane, no two samples overlapping."""

    xy: np.ndarray
    boxes: dict[str, tuple[float, float, float, float]]
    width: float
    height: float


def draw_files(inputs: dict[str, Path], output: dict[str, Path]) -> None:
    """The slide, a question about it, and one focal cell before the edge perturbation and with the donors it is given.

    A row of `tsv` is a cell: whether it is held out, and whether it is the focal cell, its old neighbour or its donor.

    Args:
        inputs: `slide`, the table of its `folds`, the `manifest` of the data set (JSON), and under `question` a list
            with the file of the question whose held-out cells are shown, and whose donors for its first target under
            the first rule that found any. The list is empty where nothing is asked about this slide: then the figure
            says why.
    """
    record = provenance.read(inputs["manifest"])
    of_slide = f"{style.data_name(record)}, slide {Path(inputs['slide']).stem}"
    if not inputs["question"]:
        reasons = "\n".join(read_folds(inputs["folds"])["left_out"])
        write_tsv(pd.DataFrame(columns=[*COLUMNS, *ROLES]), output["tsv"])
        style.save_reason(reasons, f"{of_slide}: nothing is held out", provenance.footer(record), output["png"])
        return
    (file,) = inputs["question"]
    cells, asked = read_slide(inputs["slide"], check=False), read_question(file)
    asked.check(cells, str(file))
    task = Task(cells, asked)
    given = (d for d in asked.donors(asked.fold.targets[0]).values() if not isinstance(d, str))
    donors = next(given, np.empty((len(asked.focal), 0), dtype=int))
    table = cells.obs[["cell_type", "domain", "sample"]].reset_index(drop=True)
    table.insert(0, "y_um", cells.obsm["spatial"][:, 1])
    table.insert(0, "x_um", cells.obsm["spatial"][:, 0])
    place = central(table, asked.focal)
    focal = int(asked.focal[place])
    title = f"{of_slide}: {asked.fold.cell_type} held out in {', '.join(asked.fold.targets)}"
    if asked.fold.patient:
        title += f", all of {asked.fold.patient} left out"
    held_out = task.answers
    # In the graph that methods see, where the answers are nobody's neighbours.
    shown = focal, task.masked_graph[[focal]].indices, donors[place]
    roles = {"held_out": np.flatnonzero(held_out)} | dict(zip(ROLES[1:], shown, strict=True))
    told = table.assign(**{role: np.isin(np.arange(len(table)), members) for role, members in roles.items()})
    write_tsv(told, output["tsv"], sort=False)
    style.save(compose(table, held_out, *shown, title, provenance.footer(record, asked.protocol)), output["png"])


def central(cells: pd.DataFrame, candidates: np.ndarray) -> int:
    """Which candidate is nearest to the middle of those in the sample that holds most of them: a cell well inside its
    domain. Samples have coordinates of their own, so that the middle of all would be a place in none.

    Args:
        cells: one row per cell, by position: sample, x_um, y_um.
        candidates: positions of cells.
    """
    sample = cells["sample"].to_numpy()[candidates]
    labels, counts = np.unique(sample.astype(str), return_counts=True)
    there = np.flatnonzero(sample == labels[counts.argmax()])
    spatial = cells[["x_um", "y_um"]].to_numpy()[candidates[there]]
    distance = np.linalg.norm(spatial - np.median(spatial, axis=0), axis=1)
    return int(there[distance.argmin()])


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
        InputError: the sizes or indices do not fit the cells.
    """
    _check(cells, held_out, focal, old_neighbors, new_neighbors)
    held_out = np.asarray(held_out, bool)
    cells = style.with_short_labels(cells, "cell_type", "domain", "sample")
    layout = arrange(cells)
    types = style.category_colors(cells["cell_type"])
    domains = style.category_colors(cells["domain"], style.DOMAIN_COLORS)
    control = (cells["cell_type"] == cells["cell_type"].iloc[focal]).to_numpy()
    control &= (cells["domain"] == cells["domain"].iloc[focal]).to_numpy() & ~held_out
    legends = (
        _counted(cells["cell_type"], types),
        _counted(cells["domain"], domains),
        _roles(cells, held_out, control),
        _rewiring(old_neighbors, new_neighbors),
        [*_counted(cells["cell_type"], types, counts=False), _dot("held out (unseen)", **HOLLOW)],
        [],
    )
    with style.context():
        figure, panels = _grid(layout, legends, title, provenance_text)
        draw_map = partial(_map, layout=layout)
        draw_map(panels[0], groups=_by_category(cells["cell_type"], types))
        draw_map(panels[1], groups=_by_category(cells["domain"], domains))
        everyone = [(np.ones(len(cells), bool), BACKGROUND)]
        draw_map(panels[2], groups=everyone)
        draw_map(panels[2], groups=[(control, CONTROL_COLOR), (held_out, HELD_OUT_COLOR)], enlarged=1.4)
        draw_map(panels[3], groups=everyone)
        _rewired(panels[3], layout, focal, old_neighbors, new_neighbors)
        _zoom(panels[4], layout, cells, types, held_out, focal, old_neighbors)
        _composition(panels[5], cells["cell_type"], types, old_neighbors, new_neighbors)
        for axes in panels[:4]:
            _frame(axes, (0, 0, layout.width, layout.height))
            name_samples(axes, layout)
    return figure


def arrange(cells: pd.DataFrame) -> Layout:
    """Set samples side by side in rows, each in a box of the size of the largest, so that none overlap."""
    xy = cells[["x_um", "y_um"]].to_numpy(np.float64).copy()
    members = {str(name): rows for name, rows in sorted(cells.groupby("sample", observed=True).indices.items())}
    spans = {name: np.ptp(xy[rows], axis=0) for name, rows in members.items()}
    cell_width, cell_height = np.max(list(spans.values()), axis=0)
    # The gap holds the samples' names.
    gap = 0.13 * max(cell_width, cell_height, 1.0)
    step = np.array([cell_width + gap, cell_height + gap])

    def badness(n_columns: int) -> float:
        """Of a shape far from a panel's, and of places left empty."""
        n_rows = -(-len(members) // n_columns)
        aspect = n_columns * step[0] / (n_rows * step[1])
        return abs(np.log(aspect / GOOD_ASPECT)) + np.log(n_columns * n_rows / len(members))

    n_columns = min(range(1, len(members) + 1), key=badness)
    n_rows = -(-len(members) // n_columns)
    boxes = {}
    for i, (name, rows) in enumerate(members.items()):
        row, column = divmod(i, n_columns)
        # The first row is on top, and each sample stands in the middle of its box.
        corner = np.array([column, n_rows - 1 - row]) * step + (step - gap - spans[name]) / 2
        xy[rows] += corner - xy[rows].min(axis=0)
        boxes[name] = (*corner, *spans[name])
    width, height = np.array([n_columns, n_rows]) * step - gap
    return Layout(xy, boxes, float(width), float(height))


def _check(cells, held_out, focal, old_neighbors, new_neighbors) -> None:
    n = len(cells)
    if len(held_out) != n:
        raise InputError(f"slide map: held_out has {len(held_out)} values for {n} cells.")
    for name, indices in (("focal", [focal]), ("old_neighbors", old_neighbors), ("new_neighbors", new_neighbors)):
        indices = np.asarray(indices)
        if len(indices) and (indices.min() < 0 or indices.max() >= n):
            raise InputError(f"slide map: {name} holds the index {indices.max()}, and there are {n} cells.")


def _grid(layout, legends, title, provenance_text) -> tuple[Figure, list[Axes]]:
    """Six panels of one size, each with room for its legend below; all lengths in inches."""
    map_in = PANEL_WIDTH_IN * layout.height / layout.width * (1 + SCALE_BAR_SHARE)
    map_in = min(map_in, MAX_PANEL_HEIGHT_IN)
    columns = [_legend_columns(handles) for handles in legends]
    rows_in = [
        max(
            0.165 * -(-len(handles) // n) + 0.15
            for handles, n in zip(legends[i : i + 3], columns[i : i + 3], strict=True)
        )
        for i in (0, 3)
    ]
    gap, heading, bottom = 0.25, 0.42, 0.3
    width = 3 * PANEL_WIDTH_IN + 4 * gap
    lines = style.wrap(title, width - 2 * gap, 11)
    top = 0.13 + 0.17 * len(lines)
    height = top + bottom + 2 * (heading + map_in) + sum(rows_in)
    figure = style.new_figure(width, height)
    figure.text(gap / width, 1 - 0.1 / height, "\n".join(lines), weight="bold", size=10, va="top")
    style.footer(figure, provenance_text)
    panels = []
    for i, (name, handles, n_columns) in enumerate(zip(PANELS, legends, columns, strict=True)):
        row, column = divmod(i, 3)
        x = gap + column * (PANEL_WIDTH_IN + gap)
        y = height - top - (row + 1) * (heading + map_in) - row * rows_in[0]
        axes = figure.add_axes((x / width, y / height, PANEL_WIDTH_IN / width, map_in / height), label=name)
        axes.set_title(name, pad=14)
        axes.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(-0.01, -0.01),
            ncols=n_columns,
            borderaxespad=0,
            handletextpad=0.1,
            columnspacing=0.8,
        )
        panels.append(axes)
    return figure, panels


def _legend_columns(handles) -> int:
    longest = max((len(handle.get_label()) for handle in handles), default=1)
    return max(1, int(PANEL_WIDTH_IN / (0.062 * longest + 0.35)))


def _dot(label: str, color: str, **look) -> Line2D:
    look = {"marker": "o", "markersize": 5, "markeredgewidth": 0} | look
    return Line2D([], [], linestyle="", color=color, label=label, **look)


def _counted(categories: pd.Series, colors: dict[str, str], counts: bool = True) -> list[Line2D]:
    sizes = categories.value_counts()
    return [_dot(f"{c} ({sizes[c]:,})" if counts else c, colors[c]) for c in colors]


def _roles(cells, held_out, control) -> list[Line2D]:
    """Who was held out, and who stands in the control domain in their place; counted."""

    def entry(role, mask, color):
        names = [", ".join(sorted(cells[column][mask].astype(str).unique())) for column in ("cell_type", "domain")]
        label = style.short(f"{role}: {' in '.join(names)}", 60)
        return _dot(f"{label} ({mask.sum():,})", color)

    return [entry("held out", held_out, HELD_OUT_COLOR), entry("control", control, CONTROL_COLOR)]


def _rewiring(old_neighbors, new_neighbors) -> list[Line2D]:
    return [
        _dot("focal cell", FOCAL_COLOR, **STAR | {"markersize": 9}),
        _dot(f"old neighbours ({len(old_neighbors)})", NEIGHBOR_COLOR),
        _dot(f"donors ({len(new_neighbors)})", DONOR_COLOR),
    ]


def _by_category(categories: pd.Series, colors: dict[str, str]) -> list[tuple[np.ndarray, str]]:
    values = categories.to_numpy()
    return [(values == name, color) for name, color in colors.items()]


def _map(axes: Axes, layout: Layout, groups: list[tuple[np.ndarray, str]], enlarged: float = 1.0) -> None:
    """Cells of each group in its colour, mixed so that no group lies on top.

    Markers of one look are drawn far faster by `plot` than by `scatter`; a few passes over random shares of the
    cells mix them well enough.
    """
    n_cells = len(layout.xy)
    # Cells just touch at this density, and never get smaller than a pixel.
    diameter = PANEL_WIDTH_IN * 72 * np.sqrt(0.6 * layout.height / layout.width / n_cells)
    diameter = enlarged * float(np.clip(diameter, 72 / style.DPI, 4))
    share = stream(0, "drawing_order").integers(0, N_SHARES, n_cells)
    marker = "o" if diameter > 1 else "s"
    look = {"markersize": diameter, "markeredgewidth": 0, "rasterized": True, "zorder": 1}
    for i in range(N_SHARES):
        for members, color in groups:
            axes.plot(*layout.xy[members & (share == i)].T, marker, color=color, **look)


def name_samples(axes: Axes, layout: Layout) -> None:
    """The name of each sample above it, where there are several."""
    if len(layout.boxes) == 1:
        return
    for name, (x, y, width, height) in layout.boxes.items():
        above = (x + width / 2, y + height + 0.01 * layout.height)
        axes.text(*above, name, ha="center", va="bottom", size=6.5, color=style.MUTED_COLOR)


def _frame(axes: Axes, box: tuple[float, float, float, float]) -> None:
    """Limits, and below the box a scale bar instead of axes."""
    x, y, width, height = box
    bar = scale_bar_length(width)
    below = SCALE_BAR_SHARE * height
    axes.set(xlim=(x, x + width), ylim=(y - below, y + height), aspect="equal", anchor="NW")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.plot([x, x + bar], [y - 0.4 * below] * 2, color="black", linewidth=2, solid_capstyle="butt")
    label = f"{bar / 1000:g} mm" if bar >= 1000 else f"{bar:g} µm"
    axes.text(x + bar + 0.01 * width, y - 0.4 * below, label, va="center", size=6.5)


def scale_bar_length(width_um: float) -> float:
    """The roundest length (1, 2 or 5 times a power of ten) of at most a quarter of the width."""
    power = 10.0 ** np.floor(np.log10(width_um / 4))
    return float(max(m * power for m in (1, 2, 5) if m * power <= width_um / 4))


def _rewired(axes, layout, focal, old_neighbors, new_neighbors) -> None:
    _edges(axes, layout, focal, new_neighbors, DONOR_COLOR)
    axes.scatter(*layout.xy[old_neighbors].T, s=3, c=NEIGHBOR_COLOR, linewidths=0, zorder=3)
    donors = layout.xy[new_neighbors].T
    axes.scatter(*donors, s=14, c=DONOR_COLOR, edgecolors="white", linewidths=0.4, zorder=4)
    axes.plot(*layout.xy[focal], color=FOCAL_COLOR, **STAR)


def _zoom(axes, layout, cells, types, held_out, focal, old_neighbors) -> None:
    """The focal cell among its old neighbours; others pale, held-out cells hollow: the graph does not see them."""
    near = layout.xy[np.append(old_neighbors, focal).astype(np.int64)]
    middle = (near.min(axis=0) + near.max(axis=0)) / 2
    reach = max(np.abs(near - middle).max() * 1.12, MIN_ZOOM_UM)
    # As wide as the maps, so that the panels line up.
    aspect = layout.width / layout.height
    half = reach * np.array([max(aspect, 1), max(1, 1 / aspect)])
    inside = (np.abs(layout.xy - middle) <= half).all(axis=1)
    inside &= (cells["sample"] == cells["sample"].iloc[focal]).to_numpy()
    inside[focal] = False
    is_neighbor = np.zeros(len(cells), bool)
    is_neighbor[old_neighbors] = True
    _edges(axes, layout, focal, old_neighbors, NEIGHBOR_COLOR)
    for name, color in types.items():
        of_type = inside & (cells["cell_type"] == name).to_numpy()
        for chosen, alpha in ((of_type & is_neighbor, 1.0), (of_type & ~is_neighbor, 0.3)):
            hollow = chosen & held_out
            axes.scatter(*layout.xy[chosen & ~held_out].T, s=20, c=color, alpha=alpha, linewidths=0)
            axes.scatter(*layout.xy[hollow].T, s=16, facecolors="none", edgecolors=color, alpha=0.7)
    axes.plot(*layout.xy[focal], color=FOCAL_COLOR, **STAR)
    _frame(axes, (*(middle - half), *(2 * half)))


def _edges(axes, layout, focal, neighbors, color) -> None:
    ends = layout.xy[np.asarray(neighbors, dtype=np.int64)]
    starts = np.broadcast_to(layout.xy[focal], ends.shape)
    lines = np.stack([starts, ends], axis=1)
    axes.add_collection(LineCollection(lines, colors=color, linewidths=0.45, alpha=0.45, zorder=1.5))


def _composition(axes, cell_type, types, old_neighbors, new_neighbors) -> None:
    """Share of each type among old neighbours and donors: what the rewiring changes."""
    rows = (("donors", new_neighbors), ("old neighbours", old_neighbors))
    for y, (_, members) in enumerate(rows):
        share = cell_type.iloc[np.asarray(members, dtype=np.int64)].value_counts(normalize=True)
        left = 0.0
        for name, color in types.items():
            width = float(share.get(name, 0.0))
            axes.barh(y, width, 0.55, left=left, color=color, edgecolor="white", linewidth=0.5, gid=name)
            left += width
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], size=8)
    axes.set(xlim=(0, 1), ylim=(-0.6, 1.6), xlabel="share of cells")
    axes.tick_params(axis="y", length=0)
    # The labels stand left of the axes, where the panel has no room of its own; two bars need no tall axes.
    box = axes.get_position()
    height = min(0.72 * box.height, 1.5 / axes.figure.get_figheight())
    left = box.x0 + 0.25 * box.width
    axes.set_position((left, box.y1 - height, 0.73 * box.width, height))
