"""Where cells can stand, for every layout: as far apart as cells and spots are, and not on top of each other."""

import re

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from tissue_counterfactuals.errors import InputError

# Neighbouring cells of a tissue lie about 10 um apart, in sparse ones 15. Above 25 um it may be pixels that are taken
# for micrometres, and who has such a tissue is asked for one word; the area of the cells, where it is known, tells
# more.
_SPACING_UM, _MAX_SPACING_WITH_AREA_UM = (2.5, 25.0), 40.0
# Spots of Visium stand on a lattice about 100 um apart, bins of Visium HD on a square one, each 2, 8 or 16 um wide.
_SPOTS_UM, _BINS_UM, _BIN_ROUNDING = (90.0, 110.0), (2, 8, 16), 0.05
# Widths of a cell between the centres of neighbours: 1 to 2 in tissue, 4 and more where pixels are taken for
# micrometres.
_MAX_SPACING_IN_CELLS = 3.5
_MIN_CELLS = 50
# Cells to a square millimetre around a cell, by its tenth neighbour. Eight real slides have 1,600 (mouse brain) to
# 12,900 (human lung cancer); the fewest are those that lie as far apart as is possible, at random.
_MAX_DENSITY_PER_MM2, _DENSITY_NEIGHBOUR, _DENSITY_CELLS = 60_000.0, 10, 10_000
# The sixth neighbour of a spot, counted with the spot itself.
_LATTICE_NEIGHBOURS = 7
# Share of cells that may stand exactly where another one does, as by rounding.
_MAX_COINCIDENT = 0.05
# Share of nearest neighbours from another section, relative to sections that are mixed at random: 0 where they lie
# apart, 1 where they lie on top of each other.
_MAX_MIXED = 0.5
_PUBLISHED = "use the file as it was published"
# More values than this, or fewer cells to each, tell something else, such as a coordinate on the slide.
_MAX_SECTIONS, _MIN_CELLS_OF_SECTION = 1000, 10
_SECTION_WORDS = frozenset(
    ("sample", "section", "slice", "slide", "library", "puck", "bregma", "animal", "mouse", "donor")
    + ("patient", "subject", "replicate", "batch", "core", "sid", "specimen", "block")
    + ("fov", "roi", "region", "run", "dataset")
)


def check_places(
    places: np.ndarray,
    where: str,
    unit_given: bool = False,
    cell_area_um2: float | None = None,
    sections: dict[str, np.ndarray] | None = None,
    published: bool = False,
    mend: str = "name the column of sections under columns.sample, or it under keep_columns if it tells something else",
) -> None:
    """Refuse places that the cells of one section cannot have.

    Spots on a lattice may lie as close as the bins of Visium HD, and as far apart as the spots of Visium. Fewer than 50
    cells prove nothing.

    Args:
        places: (n, 2), taken for micrometres; rows that are not finite are left out of account.
        unit_given: the unit is measured, or the user's word, so that distances need no proof.
        cell_area_um2: median area of the cells, if known: neighbours then lie at most a few cells apart.
        sections: columns by name, codes (n,) with -1 for none, that may tell sections apart though the user names
            them not; of columns with too many values, or too few cells to a value, no account is taken.
        mend: what to do where one of these columns has its values mixed.
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
    distances, neighbours = tree.query(places, k=_LATTICE_NEIGHBOURS)
    for name, codes in (sections or {}).items():
        codes = codes[finite]
        pairs = np.column_stack([codes, codes[neighbours[:, 1]]])
        pairs = pairs[(pairs >= 0).all(axis=1)]
        sizes = np.bincount(pairs[:, 0])
        if not 1 < (sizes > 0).sum() <= min(_MAX_SECTIONS, len(pairs) / _MIN_CELLS_OF_SECTION):
            continue
        if (pairs[:, 0] != pairs[:, 1]).mean() / (1 - ((sizes / len(pairs)) ** 2).sum()) > _MAX_MIXED:
            raise InputError(
                f"{where}: cells with different values of the column {name!r} stand among each other, as where "
                f"{_what_overlays(name)}; {_PUBLISHED if published else mend}."
            )
    if not unit_given:
        some = places[:: -(-len(places) // _DENSITY_CELLS)]
        tenth = float(np.median(tree.query(some, k=[_DENSITY_NEIGHBOUR + 1])[0]))
        _check_unit(distances, tenth, where, cell_area_um2, published)


def _check_unit(distances: np.ndarray, tenth: float, where: str, cell_area_um2: float | None, published: bool) -> None:
    """Judge distances to the nearest neighbours (n, k), of which the first is the cell itself, and the median one to
    the tenth.
    """
    low, median, high = (float(x) for x in np.quantile(distances[:, 1], [0.1, 0.5, 0.9]))
    bounds, visium = _SPACING_UM, ""
    if high - low < 0.1 * median:
        bounds, visium = _SPOTS_UM, f", {100 / median:.4g} if these are the spots of Visium"
        # Four of the nearest on a square lattice are as far away as the first; six on one of triangles.
        if np.median(distances[:, -1]) > 1.2 * median:
            bins = [width for width in _BINS_UM if abs(median / width - 1) <= _BIN_ROUNDING]
            bounds = (bins[0] * (1 - _BIN_ROUNDING), bins[0] * (1 + _BIN_ROUNDING)) if bins else _SPOTS_UM
            factors = ", ".join(f"{width / median:.4g} of {width}" for width in _BINS_UM)
            visium += f", of bins of Visium HD {factors} um"
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


def _what_overlays(column: str) -> str:
    if "fov" in _words(column):
        return "each field of view has coordinates of its own (those on the slide are obsm['spatial_fov'] in squidpy)"
    return "sections lie on top of each other"


def may_tell_sections(column: str) -> bool:
    """Whether a column is called as those are that say from which section, slide or animal a cell comes."""
    words = _words(column)
    # Seurat's column of samples; its other column "ident" holds clusters. In screens a "condition" is the gene that a
    # cell has lost.
    return not _SECTION_WORDS.isdisjoint(words) or words == ["orig", "ident"]


def _words(column: str) -> list[str]:
    """The words of a column's name in small letters, the last one without an ending s or id (SampleID, samples)."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower())
    if words and words[-1] not in _SECTION_WORDS:
        words[-1] = re.sub(r"(id)?s?$", "", words[-1])
    return words


def sections_of(columns: pd.DataFrame) -> dict[str, np.ndarray]:
    """Column -> codes (n,), -1 for none, of the columns (n rows) that may tell sections apart, as `check_places` takes
    them.
    """
    return {name: pd.factorize(columns[name])[0] for name in filter(may_tell_sections, columns)}


def nearest_distance(coordinates: np.ndarray) -> float:
    """Median distance of the cells (n, 2) to their nearest neighbour, in the unit of the coordinates."""
    if len(coordinates) < 2:
        return float("nan")
    return float(np.median(cKDTree(coordinates).query(coordinates, k=2)[0][:, 1]))
