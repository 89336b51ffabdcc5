"""Drawings of the method for the first panels of the paper's figures: no data in them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from tissue_counterfactuals.streams import stream

CELL, LOST, NEAR, FAR = "#BFD7EA", "#C2185B", "#FF47A6", "#F9C9DE"
INTER, INTRA = "#0072B2", "#D55E00"
# Cells of a small tissue: a hexagon of side three.
_PLACES = [(q + r / 2, r * np.sqrt(0.75)) for q in range(-2, 3) for r in range(-2, 3) if abs(q + r) <= 2]


def inference(axes: Axes) -> None:
    """Forces from cells with places, and, if there are any, from cells without (Fig. 2a)."""
    _canvas(axes, 15)
    _tissue(axes, 1.6, 2.2)
    axes.text(1.6, 0.55, "cells with places", ha="center", va="top", size=6.5)
    for place, (x, y) in enumerate([(5.1, 2.7), (5.6, 2.2), (5.2, 1.7), (5.9, 2.8), (6.0, 1.8)]):
        axes.add_patch(Circle((x, y), 0.17, facecolor=CELL, edgecolor="white", zorder=2 + place))
    axes.text(5.6, 0.55, "cells without\n(optional)", ha="center", va="top", size=6.5)
    _arrow(axes, 7.2, 9.8, 2.2, "CCE")
    _forces(axes, 10.6)


def generation(axes: Axes) -> None:
    """What forces make of a tissue in which something was changed (Fig. 2b)."""
    _canvas(axes, 17)
    _forces(axes, 0.3)
    axes.text(4.1, 2.2, "+", ha="center", va="center", size=13)
    _tissue(axes, 6.6, 2.2, (LOST,))
    axes.text(6.6, 0.55, "tissue with one gene taken\nfrom one cell", ha="center", va="top", size=6.5)
    _arrow(axes, 8.6, 11.4, 2.2, "SCE")
    _tissue(axes, 13.4, 2.2, (LOST, NEAR, FAR))
    axes.text(13.4, 0.55, "tissue as it would be", ha="center", va="top", size=6.5)


def knock_out(axes: Axes, gene: str) -> None:
    """From a tissue to forces to a knock-out and what it changes (Fig. 3a)."""
    _canvas(axes, 38)
    _tissue(axes, 2, 2.2)
    axes.text(2, 0.55, "tissue", ha="center", va="top", size=6.5)
    _arrow(axes, 4, 8, 2.2, "CCE")
    _forces(axes, 9.2)
    _arrow(axes, 13.4, 18.4, 2.2, f"knock-out of {gene}")
    _tissue(axes, 20.6, 2.2, (LOST,))
    axes.text(20.6, 0.55, "cells that express it lose it", ha="center", va="top", size=6.5)
    _arrow(axes, 23, 30, 2.2, "SCE, or the exact counterfactual")
    _tissue(axes, 32.4, 2.2, (LOST, NEAR, FAR))
    axes.text(32.4, 0.55, "what changes in them and around them", ha="center", va="top", size=6.5)


def _canvas(axes: Axes, width: float) -> None:
    axes.set(xlim=(0, width), ylim=(-0.4, 4), aspect="equal", anchor="W")
    axes.set_axis_off()


def _tissue(axes: Axes, x: float, y: float, colors: tuple[str, ...] = ()) -> None:
    """Cells in a hexagon; `colors` are those of the middle one, the ring around it and the next."""
    for dx, dy in _PLACES:
        ring = int(np.rint(np.hypot(dx, dy)))
        color = colors[ring] if ring < len(colors) else CELL
        axes.add_patch(Circle((x + 0.46 * dx, y + 0.46 * dy), 0.2, facecolor=color, edgecolor="white", linewidth=0.4))


def _forces(axes: Axes, x: float) -> None:
    """Two small symmetric matrices, side by side."""
    for place, (color, label) in enumerate(((INTER, "between\ncells"), (INTRA, "within\ncells"))):
        drawn = stream(place, "drawing_of_forces").random((5, 5))
        left = x + 1.9 * place
        for (row, column), value in np.ndenumerate((drawn + drawn.T) / 2):
            corner = (left + 0.26 * column, 2.75 - 0.26 * row)
            axes.add_patch(Rectangle(corner, 0.26, 0.26, facecolor=color, alpha=value**2, linewidth=0))
        axes.add_patch(Rectangle((left, 1.71), 1.3, 1.3, fill=False, edgecolor=color, linewidth=0.7))
        axes.text(left + 0.65, 0.55, label, ha="center", va="top", size=6.5)


def _arrow(axes: Axes, left: float, right: float, y: float, label: str) -> None:
    axes.annotate("", (right, y), (left, y), arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 0.9})
    axes.text((left + right) / 2, y + 0.2, label, ha="center", va="bottom", size=6.5, weight="bold")
