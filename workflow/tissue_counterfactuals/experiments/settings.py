"""What experiments can be told: the sections below `celcomen` and `cellina_experiments` in the configuration."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tissue_counterfactuals.experiments import WITHOUT_SLIDES
from tissue_counterfactuals.methods import CORE, METHODS
from tissue_counterfactuals.question.settings import GraphSettings
from tissue_counterfactuals.settings import Distinct, Draws, Epochs, LearningRate, Seed, Settings, Some, Text, show
from tissue_counterfactuals.simulate.settings import Effect, LogSpread, Overdispersion, Strength, check_size

# Gene sets that come with the workflow.
BUNDLED_GENE_SETS = ("hallmark", "go_bp", "go_cc")

ModelledGenes = Annotated[int, Field(ge=3, le=5000)]
LatticeCells = Annotated[int, Field(ge=16, le=1_000_000)]
Simulations = Annotated[int, Field(ge=2, le=10_000)]
Ridge = Annotated[float, Field(ge=0, le=1000)]
Depth = Annotated[float, Field(gt=0, le=100_000_000)]
SetSize = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, lt=1)]
# Contacts between cells; a graph of larger discs than this holds no neighbours but whole regions.
Radius = Annotated[float, Field(gt=0, le=1000)]


def _not_reversed(box: list[float]) -> list[float]:
    x_low, x_high, y_low, y_high = box
    if not (x_low < x_high and y_low < y_high):
        raise ValueError(f" is {show(box)}; give [x_low, x_high, y_low, y_high] in micrometres, low before high.")
    return box


Box = Annotated[
    list[Annotated[float, Field(ge=-1_000_000_000, le=1_000_000_000)]],
    Field(min_length=4, max_length=4),
    AfterValidator(_not_reversed),
]


class GeneSetSettings(Settings):
    """Which gene sets are tested."""

    gene_sets: Some[Text] = ["go_bp"]
    """Gene sets to test: `hallmark` and `go_bp` come with the workflow, anything else is the path of a GMT file."""
    min_size: SetSize = 5
    """Genes of the model that a gene set must hold to be tested."""
    max_size: SetSize = 500
    """Genes of the model that a gene set may hold at most."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError(
                f".min_size is {self.min_size}, above max_size {self.max_size}, so that no gene set would be tested; "
                "lower it or raise max_size."
            )
        return self


class ClusterSettings(GeneSetSettings):
    """Clusters of the fitted forces; the paper gives no settings, so these are ours."""

    n_clusters: int = Field(5, ge=1, le=5000)
    """Clusters that the tree of genes is cut into."""


class EnrichmentSettings(GeneSetSettings):
    """Gene set enrichment along the changes after the knock-out (Fig. 3e)."""

    gene_sets: Some[Text] = ["hallmark", "go_bp"]
    """Gene sets to test: `hallmark` and `go_bp` come with the workflow, anything else is the path of a GMT file."""
    min_size: SetSize = 15
    """Genes of the model that a gene set must hold to be tested."""
    n_permutations: Draws = 1000
    """Random permutations of genes, which enrichment is normalised by."""


class GridSettings(Settings):
    """How recovery changes with each of four things, under `corrected`."""

    n_simulations: Simulations = 20
    """Simulations at each value."""
    usual_n_genes: ModelledGenes = 10
    """Genes where another thing is varied."""
    usual_n_cells: LatticeCells = 1600
    """Cells where another thing is varied."""
    n_genes: Some[ModelledGenes] = [4, 10, 20, 40]
    """Numbers of genes to compare."""
    n_cells: Some[LatticeCells] = [100, 400, 1600, 6400, 25_600]
    """Numbers of cells to compare."""
    noise: Some[Annotated[float, Field(ge=0, le=1000)]] = [0, 0.5, 1, 2]
    """Standard deviations of measurement noise to compare, over that of the gene."""
    dropout: Some[Share] = [0, 0.1, 0.3, 0.5]
    """Shares of the entries that read 0 to compare."""

    @model_validator(mode="after")
    def _fits_memory(self) -> Self:
        check_size(max(self.n_cells), self.usual_n_genes)
        check_size(self.usual_n_cells, max(self.n_genes))
        return self


class SimulationSettings(Settings):
    """Figure 2c: whether the forces of a simulated tissue are found again."""

    n_simulations: Simulations = 100
    """Simulations with the paper's numbers of genes and cells; their seeds count from 0."""
    n_genes: ModelledGenes = 4
    """Genes in these simulations."""
    n_cells: LatticeCells = 100
    """Cells in these simulations, on a lattice like a honeycomb."""
    epochs: Epochs = 2000
    """Steps of generation, and of inference by the mean field; read by `as_run`."""
    learning_rate: LearningRate = 0.1
    """Learning rate of both."""
    grid: GridSettings = GridSettings()

    @model_validator(mode="after")
    def _fits_memory(self) -> Self:
        check_size(self.n_cells, self.n_genes)
        return self


class RecoverySettings(Settings):
    """Recovery of independent forces: tissues drawn from the Gaussian field, all estimators on each."""

    tissues: int = Field(3, ge=1, le=1000)
    """Tissues for each seed, number of genes and number of cells."""
    n_genes: Some[ModelledGenes] = [10, 30, 100]
    """Numbers of genes."""
    n_cells: Some[Annotated[int, Field(ge=10, le=10_000_000)]] = [1000, 10_000, 100_000]
    """Numbers of cells."""
    inter_strength: Strength = 0.8
    """Strength of the true forces between cells; 0 is none, 1 critical."""
    intra_strength: Strength = 0.6
    """Strength of the true forces within cells."""
    n_partners: float = Field(3.0, ge=0, le=5000)
    """Mean number of genes that a gene has forces with, of each kind."""
    chain_cells: int = Field(10_000, ge=10, le=10_000_000)
    """Cells of the tissues with a chain of three genes."""
    chain_strength: float = Field(0.8, gt=0, le=0.95)
    """Strength of the two forces of a chain."""
    log_rate_sd: LogSpread = 0.7
    """Log rate of the counts per unit of the field."""
    counts_per_gene: float = Field(10.0, gt=0, le=1_000_000)
    """Mean counts of a gene in a cell."""
    depth_noise: LogSpread = 0.3
    """Standard deviation of the log depth between cells."""
    noise: Overdispersion = 0.1
    """Overdispersion of the counts."""
    dropout: float = Field(0.0, ge=0, le=0.99)
    """Share of the counts that are lost."""
    epochs: Epochs = 200
    """Epochs of the mean-field fits."""
    learning_rate: LearningRate = 0.05
    """Learning rate of the mean-field fits."""

    @model_validator(mode="after")
    def _fits_memory(self) -> Self:
        check_size(max(self.n_cells), max(self.n_genes))
        return self


class SpleenSettings(Settings):
    """Agreement between samples (fetal spleen, Figs. 6 and 8)."""

    target_sum: Depth = 10_000
    """Counts that each cell or spot is scaled to before the logarithm."""
    n_top_genes: int = Field(300, ge=2, le=100_000)
    """Most variable genes to keep (Scanpy, flavour seurat, all samples pooled)."""
    n_neighbors: int = Field(6, ge=1, le=500)
    """Nearest neighbours of each spot."""
    epochs: Epochs = 50
    """Epochs of the mean field; the gaussian optimum needs none."""
    learning_rate: LearningRate = 0.05
    """Learning rate of the mean field."""
    ridge: Ridge = 0.1
    """Pseudo-cells per cell, in which genes vary independently, that the gaussian optimum is drawn towards; 0 is
    none.
    """
    min_cells_per_gene: int = Field(20, ge=2, le=10_000_000)
    """Cells of every sample that a gene must be seen in to enter the gaussian fit, which knows nothing of a gene that
    does not vary."""
    n_permutations: Draws = 1000
    """Random permutations of genes behind each empirical p value."""
    clusters: ClusterSettings = ClusterSettings()


class LocalizationSettings(Settings):
    """Test of Fig. 3b on genes."""

    n_bins: int = Field(10, ge=1, le=5000)
    """Bins of mean expression within which classes of genes are exchanged."""
    n_permutations: Draws = 10_000
    """Random exchanges behind each p value."""


class KnockoutSettings(Settings):
    """The knock-out of Fig. 3c-e."""

    gene: Text = "IFITM3"
    """Gene to knock out."""
    n_cells: int = Field(50, ge=1, le=1_000_000)
    """Cells to knock the gene out of, far from each other; as run it is one."""
    n_placebo: int = Field(39, ge=0, le=5000)
    """Further genes of like expression that are knocked out, one at a time, each of as many cells that express it, to
    see what any gene would do (gaussian log Z only); gene sets have p values from 19 on."""
    epochs: Epochs = 50
    """Epochs of generation."""
    learning_rate: LearningRate | None = None
    """Learning rate of generation; `null` is 0.001 in angles, as run, and the largest safe one else."""


class GlioblastomaSettings(Settings):
    """Forces in a tumour, localisation and knock-out (Xenium glioblastoma, Figs. 3 and 7)."""

    min_counts_per_cell: int = Field(100, ge=0, le=1_000_000_000)
    """Cells with fewer counts are dropped."""
    target_sum: Depth = 1_000_000
    """Counts that each cell is scaled to before the logarithm."""
    crop_um: Box | None = None
    """Part of the slide to use, [x_low, x_high, y_low, y_high] in micrometres; `null` is all of it."""
    radius_um: Radius = 15
    """Cells nearer to each other than this are neighbours, micrometres."""
    epochs: Epochs = 200
    """Epochs of the mean field; the gaussian optimum needs none."""
    learning_rate: LearningRate = 0.05
    """Learning rate of the mean field."""
    ridge: Ridge = 0.1
    """Pseudo-cells per cell, in which genes vary independently, that the gaussian optimum is drawn towards; 0 is
    none.
    """
    min_cells_per_gene: int = Field(20, ge=2, le=10_000_000)
    """Cells of every sample that a gene must be seen in to enter the gaussian fit, which knows nothing of a gene that
    does not vary."""
    localization: LocalizationSettings = LocalizationSettings()
    knockout: KnockoutSettings = KnockoutSettings()
    enrichment: EnrichmentSettings = EnrichmentSettings()
    clusters: ClusterSettings = ClusterSettings()


class NullTestSettings(Settings):
    """The whole experiment on simulated lesions in which no gene but the lost one changes."""

    seeds: Simulations = 12
    """Simulations at each depth, seeds counted from 0."""
    depths: Some[Annotated[float, Field(ge=100, le=1_000_000)]] = [8000, 20_000]
    """Median counts of a spot."""
    n_genes: int = Field(20_000, ge=20, le=100_000)
    """Genes of the simulated transcriptome."""
    n_modelled_genes: int = Field(200, ge=10, le=5000)
    """Genes that are modelled, as `max_genes`."""
    n_sections: int = Field(2, ge=1, le=4)
    """Sections; `as_run` uses the first."""
    draws: Draws = 39
    """Random genes knocked out in each simulation, each once at most, for an empirical p value."""


class PerturbmapSettings(Settings):
    """Figure 4: whether a predicted knock-out agrees with lesions that have lost the gene."""

    knockouts: Some[Text] = ["Tgfbr2", "Jak2"]
    """Lost genes, as the labels of lesions name them (Tgfbr2 for Tgfbr2_1)."""
    section: Text = "KP_1"
    """The one section of `as_run`."""
    boxes_um: Some[Box] = [
        [4285.71, 5918.37, 3061.22, 3877.55],
        [5510.20, 6122.45, 5102.04, 6122.45],
        [3265.31, 4285.71, 3061.22, 3877.55],
        [1632.65, 2142.86, 2857.14, 3163.27],
        [1020.41, 2857.14, 3183.67, 5102.04],
    ]
    """Lesions of `as_run`: from x, to x, from y, to y, micrometres. The default is the authors' (pixels of KP_1 /
    0.49)."""
    trim_um: float = Field(210, ge=0, le=100_000)
    """Spots up to this far from a lesion with a knock-out belong to no wild-type lesion; two steps of the lattice are
    200."""
    min_spots: int = Field(10, ge=7, le=1_000_000)
    """Spots that a lesion needs after that; never fewer than 7, since each has six neighbours."""
    max_genes: int | None = Field(None, ge=10, le=100_000)
    """Modelled genes besides the lost one, taken evenly from the highly variable ones; `null` takes all of them."""
    epochs: Epochs = 100
    """Epochs of the inference; read by the mean field."""
    learning_rate: LearningRate = 1.0
    """Learning rate of the inference; read by the mean field."""
    ridge: Ridge = 1.0
    """Pseudo-cells per cell with genes that do not vary together; read by the gaussian field, which needs it where
    genes are many."""
    generation_epochs: int = Field(20, ge=2, le=1_000_000)
    """Epochs of the generation."""
    generation_learning_rate: LearningRate = 0.001
    """Learning rate of the generation in angles, as run; otherwise the largest safe one is taken."""
    draws: Draws = 200
    """Draws of each control: random genes (each gene once at most), spots and forces, permuted predictions."""
    shuffled_fits: int = Field(20, ge=0, le=100_000)
    """Fits to data whose genes were shuffled over the spots, each by itself."""
    null_test: NullTestSettings = NullTestSettings()


class ScreenPowerSettings(Settings):
    """False positives and power of spatial screens, on simulated ones."""

    n_simulations: Simulations = 40
    """Screens in each scenario; their seeds count from 0."""
    slow_simulations: int = Field(200, ge=0, le=10_000)
    """Of these, how many are tested for a dose and against shifted carriers too, where the clones are as usual."""
    n_targets: int = Field(9, ge=4, le=500)
    """Genes lost in each screen."""
    n_genes: int = Field(60, ge=12, le=5000)
    """Genes that are measured."""
    clones_per_target: Some[Annotated[int, Field(ge=1, le=100_000)]] = [4, 12, 36]
    """Numbers of clones to compare: they set the number of recipients."""
    spillovers: Some[Annotated[float, Field(ge=0, le=5)]] = [0, 0.25, 0.5, 1]
    """Effects to compare, as `simulate.screen` means them; 0 gives false positives."""
    usual_clones: int = Field(12, ge=1, le=100_000)
    """Clones where a trap is set: large clones, missed guides, segmentation spill, few counts, regions."""
    draws: Draws = 99
    """Permutations behind each p value."""
    shifts: int = Field(19, ge=0, le=10_000)
    """Shifts of the map of carriers."""
    relevant_effect: float = Field(0.2, gt=0, le=5)
    """Change of log expression that would matter: a section that would not have shown it resolves nothing."""


class CelcomenSettings(Settings):
    """Settings of the experiments on Celcomen."""

    without_slides: Distinct[Literal[*WITHOUT_SLIDES]] = []
    """Experiments to run that make their own data."""
    simulation: SimulationSettings = SimulationSettings()
    spleen: SpleenSettings = SpleenSettings()
    glioblastoma: GlioblastomaSettings = GlioblastomaSettings()
    recovery: RecoverySettings = RecoverySettings()
    perturbmap: PerturbmapSettings = PerturbmapSettings()
    screen: ScreenPowerSettings = ScreenPowerSettings()


class SeededSettings(Settings):
    """What every experiment on Cellina has."""

    seeds: Some[Seed] | None = None
    """Seeds; `null` means those of the run."""


class OnSlideSettings(SeededSettings):
    """What those that train a model on each slide have."""

    slides: Some[Text] | None = None
    """Slides of the data set to run on, as their names in results/slides; `null` means all of them."""


class GeneRangeSettings(OnSlideSettings):
    """Figure A7: node perturbation of more and more genes, by a model that has seen all cells."""

    n_genes: Some[Annotated[int, Field(ge=1, le=100_000)]] = [10, 50, 200]
    """Numbers of genes that neighbours are shifted in, those with the largest change first; all genes are always
    added.
    """
    min_cells: int = Field(50, ge=4, le=10_000_000)
    """Cells that a type needs in the control and in the target domain."""


class WeightSettings(OnSlideSettings):
    """Figure A1: one weight of the loss at a time."""

    sweeps: Some[Literal["classifier", "adversary", "domain_classifier", "contrastive"]] = [
        "classifier",
        "adversary",
        "domain_classifier",
    ]
    """Losses whose weight is varied: of the cell-type classifier and the domain adversary on z, of a domain classifier
    on s that Cellina has not, and the contrastive loss of Cellina-GAT, which trains far longer."""
    weights: Some[Annotated[float, Field(ge=0, le=1_000_000)]] = [0, 0.1, 1, 10]
    """Weights to compare."""
    others: Some[Annotated[float, Field(ge=0, le=1_000_000)]] = [1e-7, 1]
    """Weight of the other losses of z; published is 1e-7, which is as good as none; 1 is Cellina's default."""
    test_share: float = Field(0.1, gt=0, lt=1)
    """Share of the cells that are kept from training, for probes and likelihood."""
    n_samples: Draws = 50
    """Draws of the latents behind each marginal likelihood; 500 as published."""


_LEARNED = tuple(method.name for method in METHODS.values() if method.learned)


class ScalabilitySettings(OnSlideSettings):
    """Figure A6: what training costs, on more and more cells of a slide."""

    methods: Some[Literal[_LEARNED]] = ["hierarchical", "cellina_ablated", "cellina"]
    """Methods to compare."""
    n_cells: Some[Annotated[int, Field(ge=200, le=100_000_000)]] = [500, 1000, 2000]
    """Numbers of cells; of a slide that has fewer, all of them."""
    most_cells: dict[Literal[_LEARNED], Annotated[int, Field(ge=1, le=100_000_000)]] = {}
    """Method: the most cells that it is tried on, where more takes too long or does not fit; the figure says so."""
    subsets: Some[Literal["random", "contiguous"]] = ["random", "contiguous"]
    """Which cells: at random, as published, which leaves fewer neighbours in reach, or a patch around the middle."""
    epochs: Epochs | None = 50
    """Epochs of every method that counts them, as published; `null` leaves to each its own."""
    batch_size: Annotated[int, Field(ge=2, le=10_000_000)] | None = 2048
    """Cells of a step of every method that has batches, as published; `null` leaves to each its own."""


class DisentanglementSettings(SeededSettings):
    """Figure A5: what latents hold of cell type and domain; models see all cells of a data set, its slides together."""

    methods: Some[Literal[*(m.name for m in METHODS.values() if "latent" in m.needs)]] = ["cellina_ablated", "cellina"]
    """Methods to compare; those of other groups run in environments of their own."""
    n_cells: int = Field(5000, ge=100, le=1_000_000)
    """Cells that are looked at, at random and the same for all methods; time grows with their square."""


class ApplicationSettings(OnSlideSettings):
    """Figure 3: subdomains of the first target domain, and cells that are moved into them."""

    n_neighbors: int = Field(30, ge=2, le=1000)
    """Nearest cells in the spatial latent, over which genes are correlated."""
    max_genes: int = Field(1200, ge=2, le=100_000)
    """Genes that modules are made of at most, those with the largest autocorrelation."""
    min_genes: int = Field(100, ge=2, le=10_000)
    """Genes that make a module; 100 as published, where 2,000 genes are modelled."""
    fdr: float = Field(0.05, gt=0, lt=1)
    """False discovery rate of autocorrelations, of genes that 50 cells or more show, and of the correlations that join
    genes."""
    n_deg: int = Field(200, ge=2, le=100_000)
    """Genes with the largest change that scores are taken over."""
    min_cells: int = Field(50, ge=4, le=10_000_000)
    """Cells that a type needs in the control domain, in the target domain, and in a subdomain to be compared with."""
    max_focal: int = Field(2000, ge=10, le=10_000_000)
    """Cells of a type that are moved at most, drawn at random."""
    embedding: Literal["umap", "pca"] = "umap"
    """How cells are drawn in two dimensions: `pca` are two principal components, `umap` is made of twenty."""
    n_shuffles: int = Field(199, ge=19, le=10_000)
    """Times that the map of subdomains is shifted over the tissue, the null of what matched donors gain."""
    pathway_weights: Text | None = None
    """Weights of genes in pathways: a table with the columns source, target and weight; `null` takes PROGENy's for
    human or mouse genes, whichever are there, and on tissue of the source `simulated` the signals of its cells."""


# Methods that are trained within an experiment and say what other cells would express.
_ANSWERS = tuple(
    name
    for name, method in METHODS.items()
    if method.environment == CORE and not {"truth", "in_domain", "latent_only"} & {*method.needs}
)


class TrustSettings(Settings):
    """When to trust an answer: errors against the true counterfactual of simulated tissue, one knob at a time."""

    n_simulations: Simulations = 3
    """Tissues in each scenario; their seeds count from 0."""
    methods: Distinct[Literal[_ANSWERS]] = ["mean_shift_by_type", "hierarchical", "cellina"]
    """Methods that answer; ridge, whose penalty is chosen between neighbouring cells, is off by several times the
    effect.
    """
    reaches: Some[Annotated[float, Field(ge=0, le=10)]] = [0, 0.5, 1, 1.5, 2, 3]
    """How far donors lead away from what was seen: cells are drawn with chance exp(reach x how much more they send of
    what the target domain sends more of, in standard deviations)."""
    usual_reach: float = Field(1, ge=0, le=10)
    """One of `reaches`, at which the other knobs are shown."""
    n_donors: int = Field(50, ge=1, le=10_000)
    """New neighbours per focal cell."""
    n_genes: int = Field(100, ge=24, le=100_000)
    """Genes of each tissue."""
    n_cells: int = Field(2000, ge=500, le=10_000_000)
    """Cells of each tissue, where their number is not what is turned."""
    numbers_of_cells: Some[Annotated[int, Field(ge=500, le=10_000_000)]] = [1000, 4000]
    """Numbers of cells to compare with that."""
    effect_size: Effect = 1.2
    """Effect of the signals as usual, as `simulation` means it."""
    effect_sizes: Some[Effect] = [0.3, 0.6, 2.4]
    """Effects to compare with that."""
    confounding: Some[Annotated[float, Field(ge=0, le=0.9)]] = [0.3, 0.6]
    """Confounding of domain and type; as usual it is none."""
    label_noise: Some[Annotated[float, Field(ge=0, le=1)]] = [0.1, 0.3]
    """Shares of wrong labels; as usual there are none."""
    spill: Some[Annotated[float, Field(ge=0, lt=1)]] = [0.1, 0.3]
    """Segmentation spill; as usual there is none."""

    @model_validator(mode="after")
    def _usual_reach_is_asked(self) -> Self:
        if self.usual_reach not in self.reaches:
            raise ValueError(f".usual_reach is {self.usual_reach:g}, which is none of reaches: add it there.")
        return self


class InVivoGraphSettings(GraphSettings):
    """The authors' graph: Gaussian of 250 pixels of 0.108 um."""

    bandwidth_um: float = Field(27, gt=0, le=100_000)
    """Standard deviation of the kernel, micrometres."""
    max_neighbors: int = Field(30, ge=1, le=10_000)
    """Nearest neighbours that a cell can have."""


class InVivoSettings(Settings):
    """A screen with guides in tumour cells (Perturb-FISH): what do predictions say of the cells around a lost gene?"""

    methods: Some[Literal[_ANSWERS]] = [
        *(
            "no_change",
            "mean_shift",
            "ridge",
            "hierarchical",
            "celcomen",
            "spatialprop",
            "concert",
            "cellina",
            "cellina_gat",
        )
    ]
    """Methods that are asked. They are trained within this experiment, without the recipients near guides; `celcomen`
    is asked a second time, with lost genes clamped at 0 in the carriers."""
    targets: Distinct[Text] | None = None
    """Lost genes to ask about; `null` is all that can be tested, and as run, where the section has them, the nine that
    the authors chose on it: MAP2K2 IRAK1 IRF7 PELI1 IRF3 IRF5 NFKBIA LBP MAP2K3."""
    min_recipients: int = Field(30, ge=5, le=1_000_000)
    """Recipients that a target needs to be tested: near its carriers, and near those of no other guide."""
    radius_um: float = Field(30, gt=0, le=1000)
    """A recipient is near a carrier up to this far from it; as run, near those among its neighbours in `graph`."""
    far_um: float = Field(57.9, gt=0, le=1000)
    """A recipient with no carrier up to this far is far from all guides, and one with a carrier is never trained on;
    57.9 is where the authors' graph ends."""
    min_mean_counts: float = Field(0.2, ge=0, le=1_000_000)
    """Mean counts per cell that a gene needs to be looked at."""
    graph: InVivoGraphSettings = InVivoGraphSettings()
    max_focal: int = Field(2000, ge=10, le=10_000_000)
    """Recipients near control guides whose neighbours are exchanged (`corrected`)."""
    control_draws: int = Field(5, ge=1, le=1000)
    """Draws of as many control carriers as a target has, as its donors (K3b); every draw is one more question to each
    method for each target."""
    draws: Draws = 999
    """Permutations of clones behind each p value."""
    splits: int = Field(100, ge=2, le=100_000)
    """Halves of the tiles behind the ceiling."""
    shifts: int = Field(99, ge=0, le=100_000)
    """Shifts of the map of carriers, the second null."""
    relevant_effect: float = Field(0.2, gt=0, le=5)
    """Change of log expression that would matter: a section that would not have shown it resolves nothing."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.radius_um > self.far_um:
            raise ValueError(
                f".radius_um is {self.radius_um:g}, above far_um {self.far_um:g}, so that recipients would be near a "
                "carrier and far from all at once; lower it or raise far_um."
            )
        return self


class CellinaExperimentSettings(Settings):
    """Settings of the further experiments on Cellina."""

    scalability: ScalabilitySettings = ScalabilitySettings()
    gene_range: GeneRangeSettings = GeneRangeSettings()
    weights: WeightSettings = WeightSettings()
    disentanglement: DisentanglementSettings = DisentanglementSettings()
    application: ApplicationSettings = ApplicationSettings()
    trust: TrustSettings = TrustSettings()
    in_vivo: InVivoSettings = InVivoSettings()
