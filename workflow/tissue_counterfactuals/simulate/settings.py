"""What the simulators can be told: sections `simulation`, `field`, `lesions` and `screen` of a data set."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tissue_counterfactuals.settings import Seed, Settings

# Cells x genes that fit a workstation: of counts, of which about a tenth are not 0, and of a field, which has no zeros.
MOST_COUNTS = 2_000_000_000
MOST_FIELD_VALUES = 500_000_000
# Ligand genes of each signal, and neighbours of each cell of a field.
LIGAND_GENES_PER_SIGNAL = 2
N_NEIGHBORS = 6
# Genes that simulated lesions lose.
KNOCKOUTS = ("Tgfbr2", "Jak2", "Ifngr2")

Cells = Annotated[int, Field(ge=1, le=10_000_000)]
Genes = Annotated[int, Field(ge=2, le=100_000)]
Overdispersion = Annotated[float, Field(ge=0, le=100)]
# Standard deviation of a log: beyond 3, e^3 = 20 times more or less, counts are extremes only.
LogSpread = Annotated[float, Field(ge=0, le=3)]
Effect = Annotated[float, Field(ge=0, le=5)]
Strength = Annotated[float, Field(ge=0, le=0.95)]
Density = Annotated[float, Field(ge=1e-5, le=0.1)]


def check_size(n_cells: int, n_genes: int, most: int = MOST_FIELD_VALUES) -> None:
    """Refuse what would fill the memory: a check for validators of `Settings` with keys n_cells and n_genes."""
    if n_cells * n_genes > most:
        raise ValueError(
            f".n_cells is {n_cells} and n_genes {n_genes}; together they make {n_cells * n_genes:,} values, and "
            f"{most:,} are the most: give fewer cells or genes."
        )


class TissueSettings(Settings):
    """For `simulated`: what `simulate.simulate_tissue` takes."""

    n_cells: Cells = 10_000
    """Cells in all, shared out evenly among the slides."""
    n_genes: Genes = 300
    """Genes; two per signal are ligand genes."""
    seed: Seed = 0
    """Seed of the tissue; the seeds of the benchmark do not change it. The mechanism follows from it alone, the cells
    of each slide from it and the slide's number."""
    n_slides: int = Field(2, ge=1, le=1000)
    """Slides, named slide_0, slide_1, ..."""
    n_domains: int = Field(3, ge=2, le=100)
    """Domains, bands of equal width from left to right named domain_0, domain_1, ...; only successive ones touch."""
    n_types: int = Field(5, ge=2, le=1000)
    """Cell types, named type_0, type_1, ..., each at least about 1 / (2 n_types) of the cells of every domain."""
    n_signals: int = Field(6, ge=1, le=1000)
    """Signals that cells send and receive."""
    effect_size: Effect = 1.2
    """Root mean square change of the log rate that a change of domain makes through the neighbours, over responding
    genes; 0 means that no signal acts."""
    responding_fraction: float = Field(0.4, ge=0, le=1)
    """Share of the genes that respond to a signal; ligand genes do not."""
    domain_effect: Effect = 0.0
    """Standard deviation of a direct effect of the domain on the log rate: a confounder that no neighbour carries."""
    secretion_noise: LogSpread = 0.5
    """Standard deviation of the log secretion between cells of a type in a place."""
    patchiness: LogSpread = 0.4
    """Standard deviation of the smooth drift in space (over about 120 micrometres) of log composition and log
    secretion."""
    library_size: float = Field(500.0, ge=1, le=1_000_000)
    """Median counts of a cell."""
    library_noise: LogSpread = 0.4
    """Standard deviation of the log library size between cells."""
    overdispersion: Overdispersion = 0.2
    """Median over the genes of a in the variance m + a m^2; 0 gives Poisson counts."""
    density_per_um2: Density = 0.0025
    """Cells per square micrometre."""
    confounding: float = Field(0.0, ge=0, le=0.9)
    """How strongly the type goes with the domain: the composition of a domain to the power 1 / (1 - confounding), so
    that near 1 a type stands in one domain only."""
    label_noise: float = Field(0.0, ge=0, le=1)
    """Share of the cells that bear the label of another type, drawn at random."""
    spill: float = Field(0.0, ge=0, lt=1)
    """Segmentation spill: chance of each count to be found in one of the cell's three nearest cells instead."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_size(self.n_cells, self.n_genes, MOST_COUNTS)
        fewest_genes = 2 * LIGAND_GENES_PER_SIGNAL * self.n_signals
        if self.n_genes < fewest_genes:
            raise ValueError(
                f".n_genes is {self.n_genes}; {self.n_signals} signals have {fewest_genes // 2} ligand genes, so give "
                f"at least {fewest_genes} genes or fewer signals (n_signals)."
            )
        fewest_cells = 10 * self.n_slides * self.n_domains * self.n_types
        if self.n_cells < fewest_cells:
            raise ValueError(
                f".n_cells is {self.n_cells}; {self.n_slides} slides of {self.n_domains} domains and {self.n_types} "
                f"types need at least {fewest_cells} cells: give more cells or fewer of these."
            )
        return self


class FieldSettings(Settings):
    """For `simulated_field`: what `simulate.field.simulate_field` takes."""

    n_cells: Cells = 4000
    """Cells in all, shared out evenly among the samples."""
    n_genes: int = Field(60, ge=2, le=5000)
    """Genes."""
    n_samples: int = Field(1, ge=1, le=1000)
    """Samples, named sample_0, sample_1, ..., that share their forces."""
    seed: Seed = 0
    """Seed of forces and cells; the seeds of the experiments do not change it."""
    inter_strength: Strength = 0.7
    """Strength of the forces between cells; 0 is none, 1 the critical point, where correlations span the tissue."""
    intra_strength: Strength = 0.5
    """Strength of the forces within cells, on the same scale."""
    n_partners: float = Field(3.0, ge=0, le=5000)
    """Mean number of genes that a gene has forces with, of each kind."""
    secreted_factor: float = Field(3.0, ge=1, le=100)
    """How much stronger forces between cells are where one of the genes is secreted."""
    log_rate_sd: LogSpread = 0.7
    """Log rate per unit of the field, whose standard deviation in a gene is about 1."""
    depth: float = Field(500.0, ge=1, le=1_000_000)
    """Median counts of a cell at mean log rate."""
    depth_noise: LogSpread = 0.3
    """Standard deviation of the log depth between cells."""
    noise: Overdispersion = 0.1
    """Overdispersion a in the variance m + a m^2; 0 gives Poisson counts."""
    dropout: float = Field(0.0, ge=0, le=0.99)
    """Share of the counts that are lost, entry by entry."""
    density_per_um2: Density = 0.006
    """Cells per square micrometre; with 0.006 a radius of 15 micrometres holds 4.2 neighbours."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_size(self.n_cells, self.n_genes)
        fewest = (N_NEIGHBORS + 1) * self.n_samples
        if self.n_cells < fewest:
            raise ValueError(
                f".n_cells is {self.n_cells}; {self.n_samples} samples with {N_NEIGHBORS} neighbours for each cell "
                f"need at least {fewest}: give more cells or fewer samples."
            )
        return self


class LesionSettings(Settings):
    """For `simulated_lesions`: what `simulate.lesions.simulate_lesions` takes."""

    n_genes: int = Field(10_000, ge=20, le=100_000)
    """Genes, among them the three that lesions lose; four features of the vectors come on top."""
    seed: Seed = 0
    """Seed of the lesions; the seeds of the experiment do not change it."""
    n_sections: int = Field(4, ge=1, le=4)
    """How many of the four published sections to make, from the first: KP_1, KP_2, ..."""
    knockout_effect: Effect = 1.0
    """Root mean square change of the log rate, over responding genes, where the activity of the gene falls from 1, its
    mean, to 0; a spot of a lesion that has lost it keeps 0.15. 0 is the null: no other gene changes."""
    spread: Effect = 0.5
    """The same where it falls in all neighbours of a spot, relative to the spot's own."""
    lesion_effect: LogSpread = 0.1
    """Standard deviation of a change in log rate that each lesion has of its own."""
    library_size: float = Field(8005.0, ge=100, le=1_000_000)
    """Median counts of a spot of KP_1; the other sections keep their published proportions to it."""
    target_counts: float = Field(2.0, ge=0.01, le=100)
    """Mean counts of a gene to be lost in a spot of KP_1 that has it."""
    overdispersion: Overdispersion = 0.1
    """a in the variance m + a m^2; 0 gives Poisson counts."""
    normal_tissue: float = Field(1.0, ge=0, le=1)
    """Share of the published number of normal spots, which no experiment models."""


class ScreenSettings(Settings):
    """For `simulated_screen`: what `simulate.screen.simulate_screen` takes."""

    n_cells: Cells = 6000
    """Cells of the section."""
    n_genes: int = Field(60, ge=12, le=5000)
    """Genes; the first eight are ligand genes, two for each of four signals."""
    seed: Seed = 0
    """Seed of the screen; the seeds of the experiment do not change it."""
    n_targets: int = Field(9, ge=2, le=500)
    """Genes that are lost, named KO1, KO2, ..."""
    clones_per_target: int = Field(12, ge=1, le=100_000)
    """Clones of each; with the clone size it sets how many recipients see the loss."""
    control_share: float = Field(1.0, gt=0, le=100)
    """Clones with a control guide, over those of all targets together."""
    clone_size: float = Field(3.0, ge=1, le=1000)
    """Mean number of cells of a clone, called or not (1 + Poisson)."""
    missed: float = Field(0.5, ge=0, lt=1)
    """Chance of a carrier that its guide is not seen, save that one of each clone always is; the others stand around as
    if they carried none."""
    recipient_share: float = Field(0.3, gt=0, lt=1)
    """Share of the cells that are recipients (T cells)."""
    spillover: Effect = 0.0
    """Change of a recipient's log rate per unit of the log of a received signal; 0 is the null: no loss acts on
    others.
    """
    autonomous: Effect = 1.0
    """Standard deviation of the change of a carrier's own log rate, in three genes of ten."""
    signal_change: Effect = 2.0
    """Length of the change of a carrier's log secretion, over the signals."""
    measured: bool = False
    """Whether the lost genes are among the measured ones, the last of them: a tumour cell has the less of one the more
    it secretes as after its loss, and after its loss next to none."""
    shared: float = Field(0.0, ge=0, le=1)
    """How far all lost genes change signals in one direction: at 1 each loss does to others what every loss does."""
    region_effect: LogSpread = 0.3
    """Standard deviation of the smooth drift in space of the log rates, which knows nothing of guides."""
    spill: float = Field(0.0, ge=0, lt=1)
    """Share of a cell's counts that are those of tumour cells around it, where there are any (segmentation); recipients
    spill nothing."""
    depth: float = Field(100.0, ge=1, le=1_000_000)
    """Median counts of a cell."""
    density_per_um2: Density = 0.003
    """Cells per square micrometre."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_size(self.n_cells, self.n_genes)
        if self.measured and self.n_genes < 12 + self.n_targets:
            raise ValueError(
                f".n_genes is {self.n_genes}; with {self.n_targets} lost genes among them at least "
                f"{12 + self.n_targets} are needed."
            )
        clones = self.n_targets * self.clones_per_target * (1 + self.control_share)
        room = 0.7 * (1 - self.recipient_share) * self.n_cells
        if clones * self.clone_size > room:
            raise ValueError(
                f".clones_per_target is {self.clones_per_target}; {clones:.0f} clones of {self.clone_size:g} cells "
                f"leave no room between {self.n_cells} cells, of which {room:.0f} can be in clones: give more cells "
                "or fewer clones."
            )
        return self
