"""What differs between the authors' run of Celcomen and the paper's definitions."""

from tissue_counterfactuals.protocols.switch import Switch

SWITCHES = (
    # --- inference (CCE) ---
    Switch(
        "log_partition",
        corrected="gaussian",
        as_run="paper",
        choices=("gaussian", "vmf", "paper"),
        step="inference",
        why="The mean-field log Z of the paper depends on the forces through as many numbers as there are genes, "
        "while the energy is linear in all pairs of genes: the loss has no minimum, and what is fitted is the start "
        "plus steps. The measure is also that of a sphere in three dimensions; `vmf` is the one for any number of "
        "genes, and still without a minimum. `gaussian` is the maximum-entropy model under the paper's own "
        "constraints, with one finite optimum.",
    ),
    Switch(
        "centre",
        corrected="mean",
        as_run="none",
        step="inference",
        why="Without centring, products of mean expression rule the second moments, so that agreement of forces is "
        "agreement of mean expression. Read by the gaussian log Z only, in inference and in generation, which climbs "
        "the cells less the mean that the forces act about.",
    ),
    Switch(
        "ridge",
        corrected="given",
        as_run="none",
        step="inference",
        why="A departure of ours: pseudo-cells in which genes do not vary together (settings `ridge`, 0.1 or 1 per "
        "cell) make the gaussian optimum finite where genes are many. The model's moments between genes are then 1 / "
        "(1 + ridge) of those observed, so that it is the maximum-entropy model under the paper's constraints for "
        "`none` only, which needs more cells than genes. Intervals are given without a ridge only. Read by the "
        "gaussian log Z only.",
    ),
    Switch(
        "interaction_weights",
        corrected="symmetric",
        as_run="gcn",
        choices=("symmetric", "gcn", "row", "adjacency"),
        step="inference",
        why="The paper's J is the adjacency matrix of a symmetric relation; the code normalises a directed graph by "
        "its in-degrees.",
    ),
    Switch(
        "neighbour_number",
        corrected="graph",
        as_run="6",
        step="inference",
        why="log Z takes six neighbours for each cell, also where the graph has 4.3 on average or its weights sum to "
        "one; `graph` takes the mean sum of a cell's interaction weights, which is what the energy sums over. Read "
        "by the mean-field log Z only.",
    ),
    Switch(
        "pair_sum",
        corrected="unordered",
        as_run="ordered",
        step="inference",
        why="The mean-field log Z counts each pair of neighbours once, the code's energy counts it twice. Read by the "
        "mean-field log Z only: the gaussian one and its energy both take ordered pairs.",
    ),
    Switch(
        "temperature",
        corrected="1",
        as_run="0.1",
        step="inference",
        why="The code scales the energy, and not log Z, by 0.1.",
    ),
    Switch(
        "force_range",
        corrected="signed",
        as_run="unit_box",
        choices=("signed", "unit_box", "free"),
        step="inference",
        why="Forces are clipped to 0 .. 1 with ones on the diagonal after each step, so that no gene can repress "
        "another; `signed` clips to -1 .. 1, `free` keeps them symmetric only, as the published package 0.0.1 does "
        "(the notebooks of the paper clip). Read by the mean-field log Z only.",
    ),
    Switch(
        "first_forces",
        corrected="zero",
        as_run="shared",
        choices=("zero", "independent", "shared"),
        step="inference",
        why="One random matrix starts both kinds of forces, and much of it is still there at the end. Read by the "
        "mean-field log Z only: the gaussian optimum does not depend on a start.",
    ),
    Switch(
        "loss_unit",
        corrected="cell",
        as_run="slide",
        step="inference",
        why="The loss is summed over cells, so that one learning rate is another step on each slide: with matched "
        "norms it throws all forces to a bound. Read by the mean-field log Z only.",
    ),
    Switch(
        "slide_steps",
        corrected="pooled",
        as_run="shuffled",
        step="inference",
        why="One step per slide, in shuffled order, ends where the order of slides says; the corrected form takes one "
        "step down the loss of all slides. Read by the mean-field log Z only.",
    ),
    Switch(
        "scale",
        corrected="l2",
        as_run="squared_l2",
        choices=("l2", "squared_l2", "none"),
        step="inference",
        why="The paper puts cells on the unit sphere; inference divides by the squared norm, generation by the norm. "
        "`none` takes cells as they are: in inference, and under the gaussian log Z also in generation, which then "
        "keeps no norm and ends at the field's own conditional mean.",
    ),
    # --- generation (SCE) ---
    Switch(
        "chart",
        corrected="sphere",
        as_run="angles",
        step="generation",
        why="Steps in nested angles depend on the order of the genes; the corrected form steps on the sphere itself "
        "(in expression where gaussian forces were fitted to cells that are not scaled, see `scale`).",
    ),
    Switch(
        "angles",
        corrected="arctangent",
        as_run="arccosine",
        step="generation",
        why="Behind the last expressed gene of a cell the angle is an arc cosine beyond 1 or 0/0: not a number, and "
        "after one step the whole cell is zero. Read under `chart: angles` only.",
    ),
    Switch(
        "last_gene",
        corrected="sine",
        as_run="squared_sine",
        step="generation",
        why="The decoder multiplies the last gene by the sine of the last angle twice (not in the simulations). Read "
        "under `chart: angles` only.",
    ),
    Switch(
        "knocked_out_gene",
        corrected="clamped",
        as_run="free",
        step="generation",
        why="The knocked-out gene may grow again while the tissue relaxes.",
    ),
    Switch(
        "generation_log_partition",
        corrected="frozen",
        as_run="sample_mean",
        step="generation",
        why="With the forces fixed log Z is a constant; the code lets it vary with the mean of the generated cells, "
        "which drives that mean to zero.",
    ),
    Switch(
        "knockout_effect",
        corrected="against_twin",
        as_run="against_start",
        step="generation",
        why="Effects were read against the state at the start, so that the drift of generation itself counts as "
        "effect; the corrected form subtracts a run without the knock-out.",
    ),
    # --- experiments ---
    Switch(
        "true_forces",
        corrected="independent",
        as_run="shared",
        step="celcomen_simulation",
        why="One matrix is the truth of both kinds of forces, so that the simulation cannot test whether they are "
        "told apart.",
    ),
    Switch(
        "simulated_tissue",
        corrected="sampled",
        as_run="generated",
        step="celcomen_simulation",
        why="The tissue that inference is tested on is the end of generation, the most likely tissue and no draw from "
        "the model: its mean is near zero and half of its values are negative. `sampled` draws from the field.",
    ),
    Switch(
        "compared_entries",
        corrected="upper_triangle",
        as_run="all",
        step="celcomen_simulation",
        why="The diagonal of ones and both triangles are compared; the shared diagonal alone gives noise a rank "
        "correlation near 0.40.",
    ),
    Switch(
        "constant_forces",
        corrected="failure",
        as_run="dropped",
        step="celcomen_simulation",
        why="About half of the fits end with all forces at a bound; their undefined correlations were dropped. As a "
        "failure they count as 0.",
    ),
    Switch(
        "force_units",
        corrected="partial_correlation",
        as_run="raw",
        step="comparison",
        why="A gaussian force is counted in the inverse units of its two genes, so that genes of little expression "
        "have the largest forces; partial correlations compare genes, samples and kinds of force on one scale. Read "
        "under the gaussian log Z only.",
    ),
    Switch(
        "held_out_slide",
        corrected="fixed",
        as_run="shuffled",
        step="celcomen_spleen",
        why="The position in a shuffled list names the held-out slide, so that in each epoch it is another one and "
        "both models see all slides.",
    ),
    Switch(
        "random_forces",
        corrected="permuted",
        as_run="resampled",
        step="celcomen_spleen",
        why="The random control draws entries with replacement instead of permuting genes.",
    ),
    Switch(
        "localization_test",
        corrected="genes",
        as_run="entries",
        step="celcomen_glioblastoma",
        why="Tens of thousands of dependent entries enter a Mann-Whitney test; the corrected test permutes genes "
        "within bins of mean expression.",
    ),
    Switch(
        "knockout_cells",
        corrected="many",
        as_run="one",
        step="celcomen_glioblastoma",
        why="One cell, drawn with one seed, is knocked out; its neighbour groups hold 6 and 12 cells.",
    ),
    Switch(
        "lesion_sections",
        corrected="all",
        as_run="one",
        step="celcomen_perturbmap",
        why="One section of four is used; the corrected form takes every section that has lesions with and without the "
        "knock-out.",
    ),
    Switch(
        "lesion_outlines",
        corrected="components",
        as_run="boxes",
        step="celcomen_perturbmap",
        why="Five boxes drawn by hand say what a lesion is; the corrected form takes spots of one label that hang "
        "together.",
    ),
    Switch(
        "experimental_scale",
        corrected="matched",
        as_run="mixed",
        step="celcomen_perturbmap",
        why="The wild type is scaled log expression, the knock-out is scaled raw counts.",
    ),
    Switch(
        "wild_type",
        corrected="own_lesion",
        as_run="last_lesion",
        step="celcomen_perturbmap",
        why="The observed difference is taken once, with the last lesion, for all lesions.",
    ),
    Switch(
        "knockout_spots",
        corrected="all",
        as_run="one",
        step="celcomen_perturbmap",
        why="One spot in each lesion, drawn with one seed, is knocked out, and its change is read against the other "
        "spots; in the lesions that it is compared with, every tumour cell has lost the gene.",
    ),
)

# Differences that are no switch: the same under both protocols, or a choice of data rather than of code.
NOTES = (
    (
        "annotation",
        "prepare",
        "labels joined to spots by barcode",
        "labels joined to spots by barcode (the authors: by position)",
        "Where the annotation stands in the order of the spots the two agree; the reader says so where it does not.",
    ),
    (
        "doubled_gene",
        "celcomen_perturbmap",
        "the lost gene stands once, last",
        "the lost gene stands once, last (the authors: twice where it is highly variable)",
        "A second copy would stay as it is while the other is knocked out.",
    ),
    (
        "genes_of_the_gaussian_field",
        "celcomen_spleen, celcomen_glioblastoma",
        "genes seen in a few cells of every sample",
        "all genes",
        "Of a gene that does not vary the gaussian optimum knows nothing; the mean field takes it along.",
    ),
    (
        "forces_of_the_clusters",
        "celcomen_spleen, celcomen_glioblastoma",
        "Ward's method, five clusters, hypergeometric test against the model's genes",
        "ours as well: the authors published no code for Figs. 7 and 8",
        "Linkage, number of clusters, test, gene sets and, for the spleen, the model shown are unknown.",
    ),
    (
        "knockout_signature",
        "celcomen_glioblastoma",
        "found in cells outside the rings, scored from epoch 0, tested as a gene set",
        "found and scored in the same cells, scored from epoch 5, tested as a gene set (the authors: never passed on)",
        "A signature that the knocked-out cell itself defined is lost with it; the first epochs show the knock-out "
        "alone.",
    ),
    (
        "unit_spread_of_forces",
        "celcomen_glioblastoma",
        "Fig. 3b compares |inter| - |intra|, each kind of force at unit spread over the pairs of genes",
        "inter - intra as fitted (the table gives both forms)",
        "The two kinds are on scales of their own; without a common one the larger numbers decide.",
    ),
    (
        "filter_of_100",
        "celcomen_glioblastoma",
        "cells with at least 100 counts",
        "cells with at least 100 counts (the paper: genes expressed in at least 100 cells)",
        "The code filters cells, and the published number of cells, 628,324, is that of this filter.",
    ),
    (
        "gene_set_collections",
        "celcomen_glioblastoma",
        "hallmarks and GO biological processes, and any GMT file named under enrichment.gene_sets",
        "MSigDB H, C2, C5, C6 and C7",
        "C2 to C7 are not shipped: C2 holds sets under licences of their own (KEGG, BioCarta), and all are to be had "
        "from MSigDB as GMT files. Of C5 the GO biological processes are here.",
    ),
    (
        "placebo_knockouts",
        "celcomen_glioblastoma",
        "other genes knocked out in the same way, each scored on its own signature",
        "no placebo",
        "A signature is chosen for going along with its gene, so it falls with it, whatever the gene. Genes of a set "
        "go up and down together too: only other knock-outs say how rare an enrichment is.",
    ),
    (
        "p_values",
        "celcomen_spleen, celcomen_glioblastoma, celcomen_perturbmap",
        "only where simulated nulls are rejected as often as the p value says",
        "as published, marked: they take genes, entries, lesions or hold-outs for independent",
        "On lesions without any effect a permutation of genes is significant in about a third of the simulations.",
    ),
)
