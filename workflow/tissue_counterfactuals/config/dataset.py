"""One data set of the configuration, and the slides that it consists of."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import ON_EACH_SLIDE, ON_SLIDES
from tissue_counterfactuals.files import slug, slugs
from tissue_counterfactuals.methods import METHODS
from tissue_counterfactuals.question.named import no_such_label
from tissue_counterfactuals.question.settings import GraphSettings, HoldoutSettings, UserQuestion
from tissue_counterfactuals.settings import Distinct, Settings, Some, Text
from tissue_counterfactuals.simulate.settings import FieldSettings, LesionSettings, ScreenSettings, TissueSettings
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.settings import ColumnsSettings, PreprocessSettings

# Name of the one slide of a data set that is fitted over all its samples.
POOLED = "pooled"
_BRACES = "braces stand for other things in a workflow: give the file another name"

SIMULATED = ("simulated", "simulated_field", "simulated_lesions", "simulated_screen")

# Layouts as instruments and tools write them, of whatever tissue: what a cell is must be said beside them.
_BUNDLES = tuple(name for name, reader in READERS.items() if reader.published is None and name != "h5ad")

# Key of a data set -> the only sources that read it: set for another, it would do nothing.
_ONLY_FOR = {
    "simulation": ("simulated",),
    "field": ("simulated_field",),
    "lesions": ("simulated_lesions",),
    "screen": ("simulated_screen",),
    "path": tuple(READERS),
    "files": tuple(READERS),
    "sha256": tuple(name for name, reader in READERS.items() if list(reader.files) == ["h5ad"]),
    "layer": ("h5ad", "spatialdata"),
    "spatial": ("h5ad", "spatialdata"),
    "columns": ("h5ad", *_BUNDLES),
    "keep_columns": ("h5ad",),
    "unit_um": ("h5ad", *_BUNDLES),
    "labels": _BUNDLES,
}


class Dataset(Settings):
    """One data set."""

    source: Literal[*READERS, *SIMULATED] = "h5ad"
    """Where the slides come from: `h5ad` reads any AnnData file, `simulated` makes a tissue with a known mechanism,
    `simulated_field` one with known forces between genes, `simulated_lesions` tumour sections with knock-outs,
    `simulated_screen` a section with clones of carriers of guides, the others read one raw layout each."""
    experiments: Some[Literal["cellina", *ON_EACH_SLIDE, *ON_SLIDES]] = ["cellina"]
    """What is run on the data set: `cellina` is the benchmark of counterfactuals, the others are further experiments of
    the Cellina paper, on each slide, and those of the Celcomen paper, on all of them as one."""
    kind: Literal["simulated", "real", "stand-in"] | None = None
    """What tables and figures call the data; `null` means `simulated` for a simulated source and `real` otherwise. Say
    `stand-in` where the data only resemble those of a published result."""
    label: Text | None = None
    """Title in figures and tables; `null` means the name of the entry."""
    path: Text | None = None
    """Your own copy: the file or folder, relative to the folder in which the workflow runs, or the http(s) address of a
    single file."""
    files: Text | None = None
    """Instead of `path`: name of a data set in resources/datasets.tsv, whose files are then downloaded."""
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Checksum that the file must have; `null` means that it is not checked."""
    layer: Text | None = None
    """Where the raw counts are; `null` is X, any other text names a layer; for `h5ad`, `raw` is raw.X."""
    labels: Text | None = None
    """For bundles of instruments (`xenium`, `visium`, `cosmx_flat`, `merscope`, `spatialdata`): a CSV, TSV or parquet
    with the ids of the cells (in a column called cell_id, barcode, EntityID or the like; for CosMx also fov and
    cell_ID) and the columns named under `columns`; cells without a row are dropped and counted. Where
    samples are folders in `path`, ids begin with the sample (`left_AAAC-1`), unless `columns.sample` names the column
    that says it; for `spatialdata` they are those of the table."""
    columns: ColumnsSettings = ColumnsSettings()
    keep_columns: Distinct[Text] | None = None
    """Further columns of obs by which a question may choose its cells (`questions[].where`)."""
    spatial: Text = "spatial"
    """Array of obsm with the coordinates (x, y). Where a table of `spatialdata` has no array `spatial`, they are the
    centres of its shapes."""
    unit_um: float | None = Field(None, gt=0, le=1_000_000)
    """Micrometres per unit of the coordinates, for example 0.12028 for CosMx pixels; it is used as given. `null` is
    what the layout says (1 for `h5ad`), and cells that then lie impossibly far apart or close together are refused."""
    fit: Literal["per_sample", "pooled", "leave_patient_out"] = "per_sample"
    """`per_sample` trains a model for each sample, as published; `pooled` trains one over all samples, each with a
    graph of its own; `leave_patient_out` trains, for each held-out type and each patient, one over the samples of all
    other patients, and asks it about this patient's cells: one slide and one type left out."""
    patients: dict[str, Some[str | int]] = {}
    """Patient (or animal) -> those of its samples, where several come from one. A sample that is not named is a patient
    of its own. Patients are the unit of intervals and tests, and a patient's samples are left out together."""
    samples: Some[str | int] | None = None
    """Values of the sample column to use; `null` means all of them. Needed for an address fitted per sample."""
    simulation: TissueSettings = TissueSettings()
    lesions: LesionSettings = LesionSettings()
    field: FieldSettings = FieldSettings()
    screen: ScreenSettings = ScreenSettings()
    control_domain: Text | None = None
    """Domain whose cells are asked what they would be elsewhere. Must be given for `cellina`."""
    target_domains: Distinct[Text] = []
    """Domains into whose neighbourhoods the cells are put; the held-out type is removed from all of them. Must be given
    for `cellina`."""
    holdout: HoldoutSettings = HoldoutSettings()
    preprocess: PreprocessSettings = PreprocessSettings()
    graph: GraphSettings = GraphSettings()
    methods: Some[Literal[*METHODS]] | None = None
    """Methods for this data set; `null` means those of the top level."""
    questions: list[UserQuestion] = []
    """Questions of your own about the slide, each answered in results/answers. With questions, `control_domain` and
    `target_domains` may be left out; then there is no benchmark."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = [*self._unread_keys(), *self._file_faults(), *self._domain_faults()]
        faults += self._method_faults()
        if faults:
            raise ValueError(*faults)
        return self

    def _unread_keys(self) -> Iterator[str]:
        for key, sources in _ONLY_FOR.items():
            value = getattr(self, key) if key in self.model_fields_set else None
            is_set = bool(value.model_fields_set) if isinstance(value, Settings) else value is not None
            if self.source not in sources and is_set:
                yield (
                    f".{key} is set, but is not read when source is {self.source}; remove it, or set source to "
                    f"{sources[0]}{' or another that reads it' * (len(sources) > 1)}."
                )
        if self.source in SIMULATED and self.kind not in (None, "simulated"):
            yield f".kind is {self.kind}, but source is {self.source}; say simulated or leave it out."

    def _file_faults(self) -> Iterator[str]:
        """Faults in where the files of the data set come from."""
        if self.source in READERS:
            yield from self._path_faults()
        if self.labels is not None and not Path(self.labels).is_file():
            yield f".labels: there is no file {self.labels!r}; paths count from {Path.cwd()}."
        elif self.labels is not None and set("{}") & set(self.labels):
            yield f".labels is {self.labels!r}; {_BRACES}."
        if self.source in _BUNDLES and self.columns.sample and self.labels is None:
            yield (
                f".columns.sample is set, but source {self.source} reads it in the file labels alone, and a "
                f"{'region' if self.source == 'spatialdata' else 'folder'} is one sample; give labels or take it out. "
                "Sections that lie in one are read as samples from an .h5ad file (source h5ad)."
            )
        for name in {*(self.keep_columns or [])} & {"cell_type", "domain", "sample"}:
            yield f".keep_columns names {name}, which every slide has from columns.{name}; take it out."
        if self.source == "h5ad" and self.samples and self.columns.sample is None:
            yield ".samples is set, but columns.sample is not; name the column they are in."
        if self.source == "h5ad" and self.patients and self.columns.sample is None:
            yield ".patients is set, but columns.sample is not; name the column of the samples."
        owner: dict[str, str] = {}
        for patient, own in self.patients.items():
            for sample in own:
                if owner.setdefault(str(sample), patient) != patient:
                    yield (
                        f".patients.{patient} has the sample {sample!r}, which is said to be of {owner[str(sample)]!r} "
                        "too; keep one."
                    )
                if self.samples and str(sample) not in map(str, self.samples):
                    yield (
                        f".patients.{patient} has the sample {sample!r}, which samples does not name; correct one of "
                        "them."
                    )

    def _path_faults(self) -> Iterator[str]:
        reader, path = READERS[self.source], self.path
        single = len(reader.needed) == 1
        if path is None and self.files is None:
            yield (
                f".path is missing; name the {'file or its http(s) address' if single else 'folder'} (source "
                f"{self.source} reads {reader.description}), or a data set of resources/datasets.tsv under files."
            )
        elif path is None:
            return
        elif self.files is not None:
            yield ".files is set, and so is path; keep the one that names the data."
        elif "://" in path and not is_url(path):
            yield f".path is {path!r}; allowed are files and http:// or https:// addresses."
        elif is_url(path) and not single:
            yield (
                f".path is an address, but source {self.source} reads several files; fetch them into a folder and "
                "name the folder."
            )
        elif not is_url(path) and not Path(path).exists():
            yield f".path: there is no file {path!r}; paths count from {Path.cwd()}."
        elif set("{}") & set(path):
            yield f".path is {path!r}; {_BRACES}."

    def _domain_faults(self) -> Iterator[str]:
        names = [question.name for question in self.questions]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f".questions has two of the name {name!r}; give each a name of its own."
        no_benchmark = self.questions and self.control_domain is None and not self.target_domains
        asking = "cellina" in self.experiments and not no_benchmark
        if not asking and not {"cellina_gene_range", "cellina_application"} & {*self.experiments}:
            return
        if self.control_domain is None:
            yield ".control_domain is missing; name the domain that cells are taken from."
        if not self.target_domains:
            yield ".target_domains is missing; name the domains that cells are put into."
        held_out = self.holdout.cell_types
        for key, labels in (
            ("target_domains", self.target_domains),
            ("holdout.cell_types", [] if held_out == "auto" else held_out),
        ):
            try:
                slugs(labels, f".{key}:")
            except InputError as error:
                yield str(error)
        if self.control_domain in self.target_domains:
            yield f".target_domains holds the control domain {self.control_domain!r}; take it out."

    def _method_faults(self) -> Iterator[str]:
        """Methods that are asked for here and cannot be asked; a list at the top level is run where it can be."""
        for place, question in enumerate(self.questions):
            for column in question.where:
                if column not in (self.keep_columns or []):
                    yield (
                        f".questions[{place}].where names the column {column!r}, which keep_columns does not; name it "
                        "there too."
                    )
            for name in question.methods:
                if reason := METHODS[name].refusal(self.source == "simulated"):
                    yield f".questions[{place}].methods names {name}, which cannot be run here: {reason}; leave it out."
        for name in self.methods or []:
            if reason := METHODS[name].refusal(self.source == "simulated", self.fit):
                yield f".methods names {name}, which cannot be run here: {reason}; leave it out."


def samples_of(name: str, dataset: dict) -> dict[str, list[str] | None]:
    """The slides of a data set: path form of the name -> values of the sample column to keep, None for all.

    A pooled data set is one slide, and so is one that only Celcomen is run on. Otherwise there is one for each sample:
    those configured, those simulated, or those of the file's sample column (read with h5py, without loading the slide);
    without a sample column, one.

    Args:
        name: the data set's key under `datasets`.
        dataset: its entry in a configuration from `load_config`.
    Raises:
        InputError: the samples cannot be known beforehand, a named one is not there, two share a path form, or a
            question is about one that is not read.
    """
    slides = _samples_of(name, dataset)
    read = [sample for samples in slides.values() for sample in samples or []]
    for place, asked in enumerate(dataset["questions"]):
        if None not in (asked["sample"], *slides.values()) and asked["sample"] not in read:
            raise InputError(
                f"config: datasets.{name}.questions[{place}].sample is {asked['sample']!r}, which is not read here; "
                f"the samples are {', '.join(map(str, read[:30]))}."
            )
    return slides


def _samples_of(name: str, dataset: dict) -> dict[str, list[str] | None]:
    pooled = dataset["fit"] != "per_sample" or not {"cellina", *ON_EACH_SLIDE} & {*dataset["experiments"]}
    named = {"samples": dataset["samples"] or []} | {f"patients.{p}": own for p, own in dataset["patients"].items()}
    if pooled and not any(named.values()):
        return {POOLED: None}
    if dataset["source"] == "simulated":
        present = [f"slide_{i}" for i in range(dataset["simulation"]["n_slides"])]
    elif dataset["source"] == "simulated_field":
        present = [f"sample_{i}" for i in range(dataset["field"]["n_samples"])]
    elif dataset["source"] == "simulated_lesions":
        present = [f"KP_{i + 1}" for i in range(dataset["lesions"]["n_sections"])]
    elif dataset["source"] == "simulated_screen":
        present = ["screen"]
    elif dataset["source"] == "h5ad" and dataset["columns"]["sample"] is None:
        return {slug(name): None}
    elif dataset["path"] is None or is_url(dataset["path"]):
        if pooled:
            return {POOLED: dataset["samples"]}
        if dataset["samples"] is None:
            raise InputError(
                f"config: datasets.{name}.samples is missing; list the samples to use, because those of a file "
                "that is still to be downloaded are not known (or set fit to pooled)."
            )
        present = dataset["samples"]
    else:
        reader = READERS[dataset["source"]]
        present = reader.samples(reader.locate(dataset["path"]), dataset)
    for key, samples in named.items():
        for sample in samples:
            if sample not in present:
                raise InputError(no_such_label(f"config: datasets.{name}.{key}", sample, present))
    for patient, own in dataset["patients"].items():
        if patient in present and patient not in own:
            raise InputError(
                f"config: datasets.{name}.patients.{patient} is called like a sample that it has not; rename the "
                "patient."
            )
    if pooled:
        return {POOLED: dataset["samples"]}
    wanted = present if dataset["samples"] is None else dataset["samples"]
    paths = slugs(wanted, f"config: datasets.{name}: the samples")
    # A sample that is called like the slide of all of them gets a name that no other has.
    return {not_pooled(path, paths): [label] for path, label in paths.items()}


def not_pooled(path: str, taken: Iterable[str]) -> str:
    """Slide of a sample, by the path form of its name and those of all samples."""
    # Capitals do not tell files apart everywhere.
    own = path
    while own.lower() == POOLED or own != path and own in taken:
        own = f"sample_{own}"
    return own


def is_url(path: str) -> bool:
    """Whether a path is an address to download from."""
    return path.startswith(("http://", "https://"))
