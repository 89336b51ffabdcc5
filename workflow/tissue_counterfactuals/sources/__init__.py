"""Readers: one file per raw layout, each ending in a slide; this is the table of them.

The adapter of a source is the module of its name in this package. It defines one of

    read_sample(files, dataset) -> Sample                   one sample of a layout whose samples are folders
    read(files, dataset, samples) -> AnnData                a slide, every filter in its provenance
    stored(files, dataset, samples) -> StoredSlide          the same with its counts still in the file, which
                                                            `prepare_slide` then filters block by block

and, where the table and the folders do not say it,

    samples(files, dataset) -> list[str]            the samples there are, without reading any counts; by default those
                                                    of `cells` where they share an h5ad file
    absent(files, dataset) -> list[str]             what the entry names and the header of the file has not
    cells(files, dataset, enough) -> dict[str, int] sample -> how many cells it has at most, where files tell it
                                                    without their counts; counted up to `enough` and little beyond
    genes(files, dataset) -> list[str]              the genes there are, doubles not yet numbered, from headers
    locate(folder) -> dict[str, Path]               the files in a folder by their roles
    left_out() -> dict[str, str]                    published slides that are not used: which, and why
    BUNDLE                                          further arguments of `bundles.read_bundles`

`files` says which file plays which role: {"h5ad": Path(...)}. Where each sample has files of its own the key is
"sample/role": {"KP_1/matrix": Path(...), "KP_1/positions": Path(...), ...}. `dataset` is the data set's entry in a
configuration from `load_config`; `samples` are the samples to read, None for all. Planning a run asks for the samples
in every job, so an adapter imports what is slow to import (anndata, scanpy) only inside what reads.
"""

import importlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from tissue_counterfactuals.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

    from tissue_counterfactuals.sources.stored import StoredSlide

# Small facts about the data sets: label tables, published shapes, where the files are.
RESOURCES = Path(__file__).resolve().parents[3] / "resources"
# What published runs found in the real files.
EXPECTED = RESOURCES / "expected_shapes.tsv"


@dataclass(frozen=True)
class Reader:
    """A raw layout that can be read.

    Attributes:
        files: role -> what a file of that role is called, as patterns for a folder, the first that fits being taken.
        optional: roles without which the layout can be read.
        tables: the tables in resources/ that the adapter reads.
        description: what the files are; it begins the line of the source in the documentation.
        published: the data set of resources/datasets.tsv whose published shapes hold for every file of this layout;
            None where the layout says nothing about whose data it is.
    """

    name: str
    files: dict[str, tuple[str, ...]]
    description: str
    published: str | None = None
    optional: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def needed(self) -> list[str]:
        """The roles without which the layout cannot be read."""
        return [role for role in self.files if role not in self.optional]

    @property
    def adapter(self) -> ModuleType:
        """The module that reads the layout, imported when first asked for."""
        return importlib.import_module(f"{__name__}.{self.name}")

    def open(self, files: dict[str, str | Path], dataset: dict, samples: list[str] | None) -> "AnnData | StoredSlide":
        """The slide that the files hold, with its counts still in the file where the adapter can do that.

        Raises:
            InputError: a file is missing or is not what it must be.
        """
        files = {key: Path(path) for key, path in files.items()}
        self.check_files(files, f"source {self.name}")
        for way in ("stored", "read"):
            if hasattr(self.adapter, way):
                return getattr(self.adapter, way)(files, dataset, samples)
        from tissue_counterfactuals.sources.bundles import read_bundles

        more = getattr(self.adapter, "BUNDLE", {})
        return read_bundles(files, dataset, samples, self.adapter.read_sample, **more)

    def samples(self, files: dict[str, Path], dataset: dict) -> list[str]:
        """The samples that there are, without reading any counts.

        Raises:
            InputError: they cannot be told.
        """
        if hasattr(self.adapter, "samples"):
            return self.adapter.samples(files, dataset)
        if "h5ad" in self.files:
            return list(self.adapter.cells(files, dataset, 0))
        from tissue_counterfactuals.sources.folders import sample_names

        return list(sample_names(files_by_sample(files), self.needed[0]).values())

    def genes(self, files: dict[str, Path], dataset: dict) -> list[str]:
        """The genes as a slide would have them, before any filter, from headers alone: doubles are numbered.

        Raises:
            InputError: a file cannot be read.
        """
        from tissue_counterfactuals.sources.headers import shared_genes

        times: Counter = Counter()
        names = getattr(self.adapter, "genes", shared_genes)(files, dataset)
        for place, name in enumerate(names):
            names[place] = f"{name}-{times[name]}" if times[name] else name
            times[name] += 1
        return names

    def locate(self, path: str | Path) -> dict[str, Path]:
        """The files of a user's own copy, by role: the file itself, or what the adapter knows in a folder.

        Raises:
            InputError: there is nothing at `path`, or it is a folder where a file is wanted or the reverse.
        """
        path = Path(path)
        if not path.exists():
            raise InputError(f"file {path}: there is no such file or folder; check the path.")
        if path.is_dir():
            if hasattr(self.adapter, "locate"):
                found = self.adapter.locate(path)
            elif len(self.needed) > 1:
                from tissue_counterfactuals.sources.folders import locate_bundles

                found = locate_bundles(path, self.files, self.needed)
            else:
                raise InputError(
                    f"file {path}: it is a folder, but source {self.name} reads a file; name the file itself."
                )
            return self.check_files(found, f"folder {path}")
        if len(self.needed) != 1:
            names = ", ".join(map(self._called, self.needed))
            raise InputError(f"file {path}: source {self.name} reads a folder with {names}; name the folder.")
        return {self.needed[0]: path}

    def _called(self, role: str) -> str:
        first, *others = self.files[role]
        return " or ".join([first, *[name for name in others[:1] if name.lstrip("*_") != first]])

    def left_out(self) -> dict[str, str]:
        """Slides that are read only where a configuration names them under samples -> why."""
        return getattr(self.adapter, "left_out", dict)()

    def check_files(self, files: dict[str, Path], where: str) -> dict[str, Path]:
        """The files again, if every sample has the required roles and no role is unknown.

        Raises:
            InputError: a role is missing or unknown.
        """
        for sample, own in files_by_sample(files).items():
            of_sample = f" of sample {sample!r}" if sample else ""
            for role in own:
                if role not in self.files:
                    raise InputError(
                        f"{where}: source {self.name} has no file of the role {role!r}; its roles are "
                        f"{', '.join(self.files)}."
                    )
            for role in self.needed:
                if role not in own:
                    raise InputError(
                        f"{where}: the file {self._called(role)}{of_sample}, without which source {self.name} cannot "
                        "be read, is missing; fetch it and put it beside the others."
                    )
        if not files:
            raise InputError(
                f"{where}: it holds no file that source {self.name} reads "
                f"({', '.join(map(self._called, self.files))}); check the path."
            )
        return files


def published_as(dataset: dict) -> str:
    """The data set of resources/datasets.tsv whose published numbers hold for an entry's data; "" for none."""
    if dataset["kind"] != "real":
        return ""
    return dataset["files"] or getattr(READERS.get(dataset["source"]), "published", None) or ""


def files_by_sample(files: dict[str, Path]) -> dict[str, dict[str, Path]]:
    """Sample -> role -> file; the sample is "" for files that belong to the data set as a whole."""
    grouped: dict[str, dict[str, Path]] = {}
    for key, path in files.items():
        sample, _, role = key.rpartition("/")
        grouped.setdefault(sample, {})[role] = Path(path)
    return grouped


def files_of_samples(files: dict[str, Path], samples: list[str] | None) -> dict[str, Path]:
    """The files of some samples, and those that belong to the data set as a whole."""
    if samples is None:
        return files
    return {key: path for key, path in files.items() if key.rpartition("/")[0] in ("", *samples)}


def _table(readers: Iterable[Reader]) -> dict[str, Reader]:
    return {reader.name: reader for reader in readers}


READERS = _table(
    [
        Reader("h5ad", {"h5ad": ("*.h5ad",)}, "any AnnData file with raw counts"),
        Reader(
            "cosmx_crc",
            {"h5ad": ("*.h5ad",)},
            "colorectal cancer, CosMx whole transcriptome, a file per slide (Crowell et al. 2025)",
            published="crc_cosmx",
            tables=("labels_cosmx_crc.tsv", "slides_cosmx_crc.tsv"),
        ),
        Reader(
            "merfish_brain",
            {"h5ad": ("*.h5ad",)},
            "whole mouse brain, MERFISH, as CELLxGENE gives it (Zhang et al. 2023)",
            published="brain_merfish",
        ),
        Reader(
            "fetal_spleen",
            {"h5ad": ("*.h5ad",)},
            "fetal spleen, Visium, log-normalised (Suo et al. 2022)",
            published="spleen_visium",
        ),
        Reader(
            "xenium",
            {
                "matrix": ("cell_feature_matrix.h5", "*_cell_feature_matrix.h5", "cell_feature_matrix/"),
                "cells": (*("cells.parquet", "cells.csv.gz", "cells.csv"), *("*_cells.csv.gz", "*_cells.parquet")),
            },
            "Xenium output bundle: cell_feature_matrix.h5 and cells.csv.gz or cells.parquet",
        ),
        Reader(
            "visium",
            {
                "matrix": (
                    *("filtered_feature_bc_matrix.h5", "*filtered_feature_bc_matrix.h5"),
                    "filtered_feature_bc_matrix/",
                ),
                "positions": tuple(
                    f"{folder}tissue_positions{name}"
                    for folder in ("spatial/", "", "*_")
                    for name in (".parquet", ".csv", "_list.csv", ".csv.gz", "_list.csv.gz")
                ),
                "scalefactors": tuple(
                    f"{folder}scalefactors_json.json{packed}"
                    for folder in ("spatial/", "", "*_")
                    for packed in ("", ".gz")
                ),
            },
            "Space Ranger output folder",
            optional=("scalefactors",),
        ),
        Reader(
            "visium_perturbmap",
            {
                "matrix": ("*_filtered_feature_bc_matrix.h5",),
                "positions": ("*_tissue_positions_list.csv.gz",),
                "annotation": ("*_spot_annotation.csv.gz",),
                "off_tissue": ("*_off_tissue.csv.gz",),
                "scalefactors": ("*_scalefactors_json.json.gz",),
            },
            "Perturb-map, Visium, as GEO ships it (GSE193460, Dhainaut et al. 2022)",
            published="perturbmap_visium",
            optional=("scalefactors",),
        ),
        Reader(
            "perturb_fish",
            {
                "counts": ("merfishcounttable.csv",),
                "coordinates": ("coordinates.csv",),
                "guides": ("allcellsPerturbationTable.csv",),
                "tumour": ("tumorMerfish.csv",),
                "tumour_guides": ("tumorpooledperturbations.csv",),
                "t_cells": ("perturbed_tcells_merfish.csv",),
            },
            "Perturb-FISH, tables of the tumour section as the Brain Image Library ships them (Binan et al. 2025)",
            published="perturb_fish",
        ),
        Reader("spatialdata", {"zarr": ("*.zarr",)}, "SpatialData zarr store"),
        Reader(
            "cosmx_flat",
            {
                role: (f"*{name}_file.csv", f"*{name}_file.csv.gz")
                for role, name in (("matrix", "exprMat"), ("metadata", "metadata"), ("fov_positions", "fov_positions"))
            },
            "folder of CosMx flat files (AtoMx)",
            optional=("fov_positions",),
        ),
        Reader(
            "merscope",
            {
                role: (f"{name}.csv", f"{name}.csv.gz", f"*{name}*.csv*")
                for role, name in (("matrix", "cell_by_gene"), ("metadata", "cell_metadata"))
            },
            "MERSCOPE output folder",
        ),
    ]
)
