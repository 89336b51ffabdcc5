"""What differs between the authors' run of Cellina and the paper's definitions."""

from tissue_counterfactuals.protocols.switch import Switch

SWITCHES = (
    Switch(
        "donor_features",
        corrected="log1p",
        as_run="raw_counts",
        step="counterfactual",
        why="The spatial encoder is trained on log-normalised neighbours, but the authors' edge perturbation "
        "averaged the donors' raw counts; the corrected form gives donors on the scale of training.",
    ),
    Switch(
        "donor_domain",
        corrected="target_only",
        as_run="any",
        step="counterfactual",
        why="The paper draws donors from the target domain; the authors' code takes every neighbour of the "
        "held-out target cells, across the domain border as well.",
    ),
    Switch(
        "latent",
        corrected="mean",
        as_run="sample",
        step="counterfactual",
        why="The authors' code decodes one random draw of both latents per cell; posterior means remove that "
        "noise. As-run draws are seeded here.",
    ),
    Switch(
        "node_renormalization",
        corrected="none",
        as_run="totals",
        step="counterfactual",
        why="After a node perturbation the authors' code scales every altered cell back to the sum that it had, so "
        "that genes that are not perturbed change too; the paper's definition does not, and leaves them as they are.",
    ),
    Switch(
        "node_scaling",
        corrected="counts",
        as_run="counts_plus_one",
        step="counterfactual",
        why="Where counts are altered, the paper multiplies them by the exponential of the change; the authors' code "
        "multiplies counts + 1 and takes 1 off again, so that a gene appears in cells that did not show it. Read by "
        "methods of counts and by questions that say so, not by the additive form of Cellina.",
    ),
    Switch(
        "brain_unit",
        corrected="by_extent",
        as_run="pixels",
        step="graph",
        why="The authors took the coordinates of the mouse brain for pixels of 0.109 um, so that the bandwidth of 100 "
        "um became 917 units; the extent of a section says that the units are micrometres. Other data sets are not "
        "concerned. The unit that was found stands in the provenance of the slide. Read by questions and by what is "
        "trained for them; cellina_application, cellina_gene_range and cellina_weights keep the bandwidth in um.",
    ),
    Switch(
        "hyperparameters",
        corrected="configured",
        as_run="published",
        step="training",
        why="As run are Table A1 and the defaults of the authors' code whatever the section `cellina` says: 100 "
        "epochs, batches of 2,048. By default the section differs in one thing: where batches of 2,048 give a slide "
        "fewer than 2,000 optimiser steps (no published slide is so small), and the spatial latent would stay "
        "unused, batches are smaller. `cellina.batch_size: auto`, which aims at 8,000 steps, is a retuning of ours.",
    ),
    Switch(
        "variable_genes",
        corrected="without_held_out",
        as_run="all_cells",
        step="training",
        why="The held-out cells helped to choose the variable genes that they are then predicted in; the corrected "
        "form chooses them anew for each fold, without its held-out cells. Read where genes are chosen "
        "(`n_top_genes`).",
    ),
    Switch(
        "restore",
        corrected="best",
        as_run="last",
        step="training",
        why="Early stopping chose when to stop, but the weights of the last epoch were used; the corrected form "
        "goes back to the best validation epoch.",
    ),
    Switch(
        "monitor",
        corrected="reconstruction",
        as_run="current_beta",
        step="training",
        why="The monitored validation loss contains the KL terms at the weight of the current epoch, which grows, so "
        "epochs are not comparable and later ones look worse; the corrected monitor is the validation "
        "reconstruction alone.",
    ),
    Switch(
        "gat_edges",
        corrected="nearest",
        as_run="transposed",
        choices=("nearest", "transposed", "symmetric"),
        step="training",
        why="Cellina-GAT is described on Cellina's graph, in which a cell has its own nearest cells. The edges were "
        "handed to the layers the other way round, so that a cell heard those that it is among the nearest of. "
        "`symmetric` has both, as later versions of the authors' code.",
    ),
    Switch(
        "gat_field",
        corrected="three_hops",
        as_run="one_hop",
        step="training",
        why="Three layers reach three steps. As run, a batch of random cells and their direct neighbours were cut out "
        "as one small graph, in which all three layers stayed, so that what a cell hears depends on who else is in "
        "its batch; the contrastive loss was taken over all cells of it. Corrected, layers see the tissue around "
        "each cell, as if computed for the whole slide, and the contrastive loss is taken over the cells of a batch, "
        "which are patches of neighbours (`cellina_gat.patch_cells`; with `one_hop` they are random cells).",
    ),
    Switch(
        "gat_inputs",
        corrected="log1p",
        as_run="log_counts",
        step="training",
        why="The paper's attention reads log-normalised neighbours; the code gave it the logarithm of raw counts, in "
        "which the library sizes of neighbours remain.",
    ),
    Switch(
        "gat_cutoff",
        corrected="applied",
        as_run="none",
        step="training",
        why="Weights below the cutoff were stored as zeros, and the attention took every stored entry for an edge; the "
        "corrected form has the edges of the graph, none longer than 215 um at the published bandwidth.",
    ),
    Switch(
        "gat_new_edges",
        corrected="to_focal",
        as_run="both_ways",
        step="counterfactual",
        why="As run, donors of a moved cell heard it as well, so that the cell's own expression came back to it "
        "through the donors (mended in later versions); corrected, donors stay as they are in their own place.",
    ),
    Switch(
        "gat_altered_inputs",
        corrected="as_trained",
        as_run="raw_counts",
        step="counterfactual",
        why="Node perturbation gave Cellina-GAT altered raw counts, where it was trained on their logarithm (mended in "
        "later versions).",
    ),
    Switch(
        "scgen_difference",
        corrected="seen_cells",
        as_run="all_cells",
        step="counterfactual",
        why="scGen moves cells by the difference of two domains in its latent space. The authors registered all cells, "
        "so that those to be predicted took part in it, with the weight of every other type (scGen draws as many of "
        "each); the corrected form has no cell that is held out. Training is the same.",
    ),
    Switch(
        "mintflow_cells",
        corrected="seen_cells",
        as_run="all_cells",
        step="training",
        why="The authors trained one MintFlow per slide on all cells, those to be predicted included, and then drew "
        "these very cells, by their types and among their real neighbours: what they put into them is not read. The "
        "corrected form trains without them, and draws control cells among their donors.",
    ),
    Switch(
        "lfc",
        corrected="natural_pseudocount_1",
        as_run="log2_epsilon",
        step="metrics",
        why="The paper prints a natural logarithm with pseudocount 1; the code takes log2 with 1e-6, so genes that "
        "are absent from one group get changes of up to 20 and fill the list of differential genes.",
    ),
    Switch(
        "pca_fit",
        corrected="log",
        as_run="counts",
        step="metrics",
        why="The authors fit the PCA of the E-distance on normalised data without logarithm and apply it to log data.",
    ),
    Switch(
        "rmse_counts",
        corrected="mean",
        as_run="sum",
        step="metrics",
        why="The authors sum log expression over two populations of different size; the mean makes them comparable.",
    ),
)

# Differences that are no switch: the same under both protocols, or a choice of data rather than of code.
NOTES = (
    (
        "e_distance_seed",
        "metrics",
        "seeded",
        "seeded (the authors' draws were not)",
        "Published E-distances cannot be repeated exactly; compare them within resampling noise.",
    ),
    (
        "kl_weight",
        "training",
        "epoch / 400",
        "epoch / 400",
        "The paper says that the weight rises from 0 to 1; with 100 epochs it never exceeds 0.25. Kept, because "
        "every published number has it; key `cellina.kl_warmup_epochs`.",
    ),
    (
        "measuring_epoch",
        "training",
        "epoch 0 updates nothing",
        "epoch 0 updates nothing",
        "Cellina's first epoch only measures the loss terms that normalise the classifier and adversary weights; "
        "the ablated model has none.",
    ),
    (
        "adversary_pass",
        "training",
        "one encoder pass",
        "one encoder pass (the authors: two)",
        "Adversary and main step share one draw of z: the encoder does not change between them, so the "
        "distribution is the same and a quarter of the work is saved.",
    ),
    (
        "directed_neighbours",
        "graph",
        "a cell's own nearest cells",
        "a cell's own nearest cells",
        "The paper cuts a weight where a cell is outside the nearest neighbours of either; the code keeps each "
        "cell's own list, so that A can be B's neighbour and B not A's. Kept, because every published number has it.",
    ),
    (
        "domains_in_training",
        "training",
        "all domains of a section",
        "all domains of a section",
        "The paper speaks of three domains of the mouse brain; its number of cells is that of whole sections, on which "
        "the authors trained.",
    ),
    (
        "flavor_of_variable_genes",
        "prepare",
        "seurat_v3 on counts",
        "seurat_v3 on counts",
        "The paper says only Seurat; the code takes seurat_v3.",
    ),
    (
        "weight_decay",
        "training",
        "1e-6",
        "1e-6",
        "Table A1 gives none for Cellina; the code has the default of scvi-tools. Key `cellina.weight_decay`.",
    ),
    (
        "gat_z_statistics",
        "training",
        "the batch's cells",
        "the batch's cells (the authors: all cells of the batch's small graph)",
        "Batch normalisation of the encoder of z saw neighbours as well as the batch, so that cells counted by how "
        "often they are neighbours; later versions have the batch alone.",
    ),
    (
        "contrastive_scale",
        "training",
        "the batches that have the loss",
        "the batches that have the loss (the authors: all batches)",
        "Where a domain is rare, few batches have cells of two domains. Measured on all batches, the contrastive loss "
        "would look small, and its weight in these few become large. Where all batches have it, both are the same.",
    ),
    (
        "gat_altered_graph",
        "counterfactual",
        "the graph of training",
        "the graph of training (the authors: 200 neighbours)",
        "The authors' notebook of node perturbation built a graph of 200 neighbours for models trained with 50.",
    ),
    (
        "gat_donors",
        "counterfactual",
        "those of the question",
        "those of the question (the authors: from a graph of 50 neighbours)",
        "All methods get the same donors; for Cellina-GAT the authors drew them from a smaller pool.",
    ),
    (
        "pca_cells",
        "metrics",
        "training cells",
        "training cells (the authors: validation cells as well)",
        "Principal components of the E-distance are fitted on the nine tenths that models are trained on; neither has "
        "held-out cells.",
    ),
    (
        "donors_of_pooled_fits",
        "counterfactual",
        "from all samples of a pooled fit",
        "from all samples of a pooled fit",
        "With one model over several samples a cell gets donors from any of them, with two samples half from the "
        "other: the pool is defined by domain and type. Fits per sample, as published, have donors of their own "
        "sample only.",
    ),
    (
        "random_numbers",
        "all",
        "a named stream for each draw",
        "a named stream for each draw (the authors: seed 0 of NumPy's and PyTorch's generators)",
        "Validation cells, donors and first weights are drawn by the same rules, and are not the same ones.",
    ),
    (
        "donor_weights",
        "counterfactual",
        "1",
        "1",
        "Donors count equally, without Gaussian weights, in the authors' code; kept.",
    ),
    (
        "node_cells",
        "counterfactual",
        "all cells of the slide",
        "all cells of the slide",
        "The paper alters neighbours; the code alters every cell of a type, also in the target domain. The same to a "
        "method that looks one step far; key `counterfactual.node.cells`.",
    ),
    (
        "table_spread",
        "tables",
        "pooled, over slides and over seeds, side by side",
        "pooled",
        "The published spread pools all slides and types, although a caption speaks of slides.",
    ),
    (
        "network_of_whole_slides",
        "figures 3 and A7",
        "the network and training of the benchmark; modules over posterior means of s",
        "the same, as published for the benchmark: 2 layers, batches of 2,048, last weights (the authors: for figure 3 "
        "3 layers, batches of 4,096, patience 5, best weights and modules over one draw of s; for figure A7 batches "
        "of 512)",
        "One Cellina for all figures, so that what differs between them is the question. As run repeats what was done "
        "with a trained model, not these two trainings.",
    ),
    (
        "probe",
        "figure A1",
        "latents standardised; probes of z and of s",
        "the same, on one draw of the latents (the authors: as they are, z alone)",
        "A penalised probe reads nothing from a latent with small values; without s nothing is said of what it holds.",
    ),
    (
        "layout_of_weights",
        "figure A1",
        "a column for each loss, its probes above its likelihood",
        "the same (the paper: a square of four panels of probes, and one of four panels of likelihood)",
        "What a weight gains and what it costs stand below one another, on axes that show all of a curve; two more "
        "rows have the other weights at 1. Of one slide, bars are the spread over seeds, which the paper lacks.",
    ),
    (
        "layout_of_pathways",
        "figure 3c and 3d",
        "dots sized by the t value; changes observed against those predicted under one pathway",
        "the same (the paper: dots sized by adjusted p value; changes under TGFb against those under NFkB)",
        "Genes of a module are not independent, so that a p value would say too much. Two pathways against one another "
        "say how they differ, not whether either comes near what is observed.",
    ),
    (
        "disentanglement",
        "figure A5",
        "no scaling to the methods at hand; k-means from ten sets of first centres; seven panels",
        "the same (the authors: some scores scaled, k-means from one set, another slide among the cells, two panels)",
        "Scaled scores depend on which methods are compared, and k-means from one set of first centres on that set. "
        "The paper draws the two aggregates; their parts, probes and information stand beside them here. Hatched is a "
        "latent that is told the label in training, by the methods as they are written (the authors hatch scVIVA "
        "under domains).",
    ),
    (
        "training_seconds",
        "figure A6",
        "the whole of a method's training, its graph and features included, and the whole job",
        "the same (the authors: the loop over epochs alone)",
        "Methods that work out more beforehand would look cheaper than they are.",
    ),
    (
        "gene_range",
        "figure A7",
        "variable genes and metrics of the benchmark; observed cells and reconstructions",
        "the same (the authors: 3,000 genes, log2 with 1e-8, E-distance on 50 genes; reconstructions alone)",
        "The published curves compare predictions with the model's own reconstructions, which leaves out all that the "
        "model cannot express; the shift is added to log values, as in the paper and the notebook (a script "
        "multiplied).",
    ),
)


def graph_as_run(graph: dict, provenance: dict, switches: dict[str, str]) -> dict:
    """Settings of a slide's graph under `brain_unit`: a unit that the authors took the coordinates for changes the
    bandwidth.

    A bandwidth of 100 um, divided by the pixel size that they assumed, is so many units of the file, whatever these
    are.

    Args:
        provenance: what the slide says of its origin.
    """
    assumed = provenance.get("unit_um_as_run")
    if assumed is None or switches.get("brain_unit") != "pixels":
        return graph
    return graph | {"bandwidth_um": graph["bandwidth_um"] * float(provenance["unit_um"]) / float(assumed)}
