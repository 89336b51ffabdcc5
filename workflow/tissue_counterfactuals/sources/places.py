"""Where cells can stand, for every layout: as far apart as cells and spots are, and not on top of each other."""

import re

import numpy as np
from scipy.spatial import cKDTree

from tissue_counterfactuals.errors import InputError

# Neighbouring cells of a tissue lie about 10 um apart, in sparse ones 15. Above 25 um it may be pixels that are taken
# for micrometres, and who has such a tissue is asked for one word; the area of the cells, where it is known, tells
# more.
_SPACING_UM, _MAX_SPACING_WITH_AREA_UM = (2.5, 25.0), 40.0
# Spots and bins stand on a lattice: about 100 um apart in Visium, 2 to 16 in Visium HD.
_SPOTS_UM, _BINS_UM = (90.0, 110.0), (1.9, 17.0)
# Widths of a cell between the centres of neighbours: 1 to 2 in tissue, 4 and more where pixels are taken for
# micrometres.
_MAX_SPACING_IN_CELLS = 3.5
_MIN_CELLS = 50
# Cells to a square millimetre around a cell, by its tenth neighbour. Eight real slides have 1,600 (mouse brain) to
# 12,900 (human lung cancer); the fewest are those that lie as far apart as is possible, at random.
_MAX_DENSITY_PER_MM2, _DENSITY_NEIGHBOUR, _DENSITY_CELLS = 60_000.0, 10, 10_000
# Share of cells that may stand exactly where another one does, as by rounding.
_MAX_COINCIDENT = 0.05
# Share of nearest neighbours from another section, relative to sections that are mixed at random: 0 where they lie
# apart, 1 where they lie on top of each other.
_MAX_MIXED = 0.5
_PUBLISHED = "use the file as it was published"
# More values than this tell something else, such as a coordinate on the slide.
MAX_SECTIONS = 100
_SECTION_WORDS = frozenset(
    ("sample", "section", "slice", "slide", "library", "puck", "bregma", "animal", "mouse", "donor")
    + ("patient", "subject", "replicate", "batch", "core", "sid", "specimen", "block")
)


def check_places(
    places: np.ndarray,
    where: str,
    unit_given: bool = False,
    cell_area_um2: float | None = None,
    sections: dict[str, np.ndarray] | None = None,
    published: bool = False,
) -> None:
    """Refuse places that the cells of one section cannot have.

    Spots on a lattice may lie as close as the bins of Visium HD, and as far apart as the spots of Visium. Fewer than 50
    cells prove nothing.

    Args:
        places: (n, 2), taken for micrometres; rows that are not finite are left out of account.
        unit_given: the unit is measured, or the user's word, so that distances need no proof.
        cell_area_um2: median area of the cells, if known: neighbours then lie at most a few cells apart.
        sections: columns by name, codes (n,), that may tell sections apart though the user names none.
        published: the file is somebody's publication, whose keys are fixed: all that a user can do is to fetch it.
    Raises:
        InputError: cells on top of each other, or a median distance to the nearest neighbour, or a density, that no
            tissue has.
    """
    finite = np.isfinite(places).all(axis=1)
    places = places[finite]
    if len(places) < _MIN_CELLS:
        return
    # Before the tree, whose search is slow where many points are one.
    ordered = places[np.lexsort(places.T)]
    coincident = (np.diff(ordered, axis=0) == 0).all(axis=1).mean()
    if coincident > _MAX_COINCIDENT:
        raise InputError(
            f"{where}: {coincident:.0%} of the cells stand exactly where another one does, as where sections lie on "
            "top of each other or cells are there twice; "
            f"{_PUBLISHED if published else 'name the column of sections under columns.sample, or drop the copies'}."
        )
    if unit_given and not sections:
        return
    tree = cKDTree(places)
    distances, neighbours = tree.query(places, k=2)
    for name, codes in (sections or {}).items():
        codes = codes[finite]
        shares = np.bincount(codes + 1) / len(codes)
        mixed = (codes != codes[neighbours[:, 1]]).mean() / max(1 - (shares**2).sum(), 1e-9)
        if (shares > 0).sum() > 1 and mixed > _MAX_MIXED:
            raise InputError(
                f"{where}: cells with different values of the obs column {name!r} stand among each other, as where "
                "sections lie on top of each other; name the column of sections under columns.sample."
            )
    if not unit_given:
        some = places[:: -(-len(places) // _DENSITY_CELLS)]
        tenth = float(np.median(tree.query(some, k=[_DENSITY_NEIGHBOUR + 1])[0]))
        _check_unit(distances[:, 1], tenth, where, cell_area_um2, published)


def _check_unit(nearest: np.ndarray, tenth: float, where: str, cell_area_um2: float | None, published: bool) -> None:
    """Judge distances to the nearest neighbour (n,) and the median one to the tenth."""
    low, median, high = (float(x) for x in np.quantile(nearest, [0.1, 0.5, 0.9]))
    bounds, visium = _SPACING_UM, ""
    if high - low < 0.1 * median:
        bounds = _SPOTS_UM if median > _SPACING_UM[1] else _BINS_UM
        visium = f", {100 / median:.4g} if these are the spots of Visium"
    limit = bounds[1]
    if cell_area_um2:
        limit = min(_MAX_SPACING_WITH_AREA_UM, _MAX_SPACING_IN_CELLS * cell_area_um2**0.5)
    mend = f"set unit_um to the micrometres per unit (1 if they are right{visium})"
    if not bounds[0] <= median <= limit:
        raise InputError(
            f"{where}: cells lie {median:.3g} um from their nearest neighbour (median), where {bounds[0]:g} to "
            f"{limit:.3g} um are possible, so the coordinates are not in the unit that they were taken for; "
            f"{_PUBLISHED if published else mend}."
        )
    if visium:
        # A lattice is as dense as its spacing says.
        return
    density = 1e6 * _DENSITY_NEIGHBOUR / (np.pi * tenth**2)
    # Of points at random half have none within .47 of the root of the area that falls to each.
    fewest = 1e6 * 0.15 / limit**2
    if not fewest <= density <= _MAX_DENSITY_PER_MM2:
        raise InputError(
            f"{where}: cells stand {_two_digits(density)} to a square millimetre (median), where "
            f"{_two_digits(fewest)} to {_two_digits(_MAX_DENSITY_PER_MM2)} are possible, so the coordinates are not "
            f"in the unit that they were taken for, or cells are there twice; {_PUBLISHED if published else mend}."
        )


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.0f}"


def may_tell_sections(column: str) -> bool:
    """Whether a column is called as those are that say from which section, slide or animal a cell comes."""
    return not _SECTION_WORDS.isdisjoint(re.split(r"[^a-z]+", column.lower()))


def nearest_distance(coordinates: np.ndarray) -> float:
    """Median distance of the cells (n, 2) to their nearest neighbour, in the unit of the coordinates."""
    if len(coordinates) < 2:
        return float("nan")
    return float(np.median(cKDTree(coordinates).query(coordinates, k=2)[0][:, 1]))
