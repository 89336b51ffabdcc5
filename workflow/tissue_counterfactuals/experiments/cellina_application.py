"""Application of Cellina (Fig. 3): subdomains of the tumour, and what cells of other tissue would be in each of them.

A model of the whole slide, of which a random tenth is kept from training alone, gives the spatial latent s of the cells
in the (first) target domain. Genes that vary together over s make modules (`gene_modules`), and each cell belongs to
the module that is highest around it: its subdomain. Then control cells of each type are given other neighbourhoods:
those of cells of the whole target domain (`global`), of one subdomain (`matched`), of the others (`other`), or their
own (`twin`); which comes nearest to the cells of their type in that subdomain?

The authors compared with cells of all types in the subdomain, and moved the cells of all other domains: rows `as_run`
beside `type_matched`. They named two of one run's modules by hand; here all are kept, for every seed.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from tissue_counterfactuals import pathways
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.experiments import cellina_slides, gene_modules, preparation, shuffled_subdomains
from tissue_counterfactuals.graph import neighborhood_features
from tissue_counterfactuals.metrics import METRICS, Comparison, Reference
from tissue_counterfactuals.metrics.populations import log_mean
from tissue_counterfactuals.question.nodes import NodePerturbation, alter_counts, alter_log
from tissue_counterfactuals.results.tables import write_tsv
from tissue_counterfactuals.simulate.mechanism import signal_weights
from tissue_counterfactuals.slide import log_normalize, normalize_counts
from tissue_counterfactuals.streams import stream, stream_seed

SCORES = ("pearson", "spearman")
FORMS = ("type_matched", "as_run")
DONORS = ("twin", "global", "other", "matched", "pathway")
# Cells of each kind in the embedding.
_SHOWN = 400
# Donors that each cell gets where subdomains are shifted.
_DRAWS = 4
# Weights beyond this are cut, and those within it left out, as run.
LARGEST_WEIGHT, SMALLEST_WEIGHT, SMALLEST_CHANGE = 5.0, 0.5, 0.01


def run(
    slide: Path,
    graph: Path,
    entry: dict,
    domains: dict,
    protocol: str,
    seed: str,
    model: dict,
    device: str,
    settings: dict,
    switches: dict[str, str],
    outputs: dict[str, Path],
) -> None:
    """One slide and seed: `scores`, `modules`, `subdomains`, `activities`, `genes`, `embedding`, `shuffles` (TSV), a
    manifest.

    Args:
        seed: a number, as it stands in names of files.
        settings: section cellina_experiments.application of the configuration.
        domains: control_domain, target_domains.

    Raises:
        InputError: no type has cells enough in both domains.
    """
    cells, graph, seed = *cellina_slides.read_inputs(slide, graph), int(seed)
    control, target = domains["control_domain"], domains["target_domains"][0]
    types = moved_types(cells, control, target, settings["min_cells"])
    if not types:
        raise InputError(
            f"slide {Path(slide).stem}: no cell type has {settings['min_cells']} cells in {control!r} and in "
            f"{target!r}: lower cellina_experiments.application.min_cells, or name other domains."
        )
    there = np.flatnonzero((cells.obs["domain"] == target).to_numpy())
    split = cellina_slides.split_slide(cells.n_obs, seed, test_share=0.1)
    fitted = cellina_slides.fit(cells, graph, split, model, switches, seed, device)
    _, s = fitted.latents(cells, there, cellina_slides.own_features(cells, graph, there))
    genes, subdomain = find_modules(cells[there], s, settings)
    move = _Moves(cells, graph, fitted, control, target, there, types, subdomain, seed, settings, switches)
    weights = _weights(settings["pathway_weights"], cells)
    activity = module_activities(genes, weights)
    scores, changed = move.rows(activity, weights)
    tables = {
        "scores": scores,
        "modules": genes,
        "subdomains": pd.DataFrame({"cell": cells.obs_names[there], "module": subdomain}),
        "activities": activity,
        "genes": changed,
        "embedding": move.embedding(settings["embedding"]),
        "shuffles": move.shuffled(Path(slide).stem),
    }
    record = preparation.write_manifest(
        outputs["manifest"], entry, cells, protocol, [seed],
        settings | {"switches": switches, "cellina": model, "domains": domains},
    )  # fmt: skip
    for name, table in tables.items():
        keyed = preparation.keyed(table, record, seed)
        keyed.insert(2, "slide", Path(slide).stem)
        write_tsv(keyed, outputs[name], sort=False)


def moved_types(slide: AnnData, control: str, target: str, min_cells: int) -> list[str]:
    """Types with cells enough in both domains."""
    sizes = pd.crosstab(*(slide.obs[key].astype(str) for key in ("cell_type", "domain")))
    enough = sizes.reindex(columns=[control, target], fill_value=0) >= min_cells
    return list(enough.index[enough.all(axis=1)])


def find_modules(cells: AnnData, latent: np.ndarray, settings: dict) -> tuple[pd.DataFrame, np.ndarray]:
    """Genes with their module (0: none), and the module (n,) that each cell belongs to."""
    weights = gene_modules.neighbor_weights(latent, min(settings["n_neighbors"], len(latent) - 1))
    table = gene_modules.autocorrelation(cells.X, weights, cells.var_names)
    table = table.assign(module=gene_modules.UNASSIGNED)
    chosen = table.index[table["fdr"] < settings["fdr"]][: settings["max_genes"]]
    if not len(chosen):
        return table, np.full(cells.n_obs, gene_modules.UNASSIGNED)
    place = cells.var_names.get_indexer(table.loc[chosen, "gene"])
    counts = sparse.csc_array(cells.X)
    depth = np.asarray(counts.sum(axis=1), dtype=float).ravel()
    values = gene_modules.standardize(counts[:, place], depth)
    z = gene_modules.local_correlation(values, weights)
    module = gene_modules.modules(z, settings["min_genes"], settings["fdr"])
    table.loc[chosen, "module"] = module
    return table, gene_modules.module_of_cells(values, weights, module)


def module_activities(genes: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Activity of pathways in each module: of its genes, each with its autocorrelation, the others 0, as run.

    No p value: the t value takes genes for independent, and those of a module were chosen because they are not.

    Args:
        genes: a row per gene: gene, module, strength.
        weights: source (pathway), target, weight, of these genes.

    Returns:
        module, pathway, n_genes, activity, status; one row with the reason where there is none.
    """
    columns = ["module", "pathway", "n_genes", "activity", "status"]
    values = genes.pivot_table(index="module", columns="gene", values="strength", fill_value=0.0)
    values = values.drop(index=gene_modules.UNASSIGNED, errors="ignore")
    reason = ""
    if values.empty:
        reason = "no module was found"
    elif weights.empty:
        reason = "no pathway has five of the genes"
    if reason:
        return pd.DataFrame([{"status": reason}]).reindex(columns=columns)
    scores, _ = pathways.activities(values, weights)
    table = scores.rename_axis(index="module", columns="pathway").stack().rename("activity")
    n_genes = weights.groupby("source").size().rename("n_genes")
    table = table.reset_index().join(n_genes, on="pathway").assign(status="ok")
    return table[columns]


def most_active(activity: pd.DataFrame, module: int) -> str:
    """The pathway of the highest activity in a module (see `module_activities`); empty where none is above 0."""
    active = activity[(activity["module"] == module) & (activity["activity"] > 0)]
    return active.loc[active["activity"].idxmax(), "pathway"] if len(active) else ""


def _weights(source: str | None, slide: AnnData) -> pd.DataFrame:
    """Weights of the pathways of which the slide has genes enough. Where no file is named: the signals of a simulated
    slide, otherwise PROGENy's of the species that fits.
    """
    genes = slide.var_names
    if source is None and "simulation_programmes" in slide.varm:
        return pathways.within(signal_weights(slide), genes)
    source = source or pathways.fitting(genes)
    if source is None:
        return pd.DataFrame(columns=pathways.COLUMNS)
    return pathways.within(pathways.read_weights(source), genes)


class _Moves:
    """Control cells in other neighbourhoods."""

    def __init__(self, slide, graph, model, control, target, there, types, subdomain, seed, settings, switches):
        self.slide, self.graph, self.model, self.seed = slide, graph, model, seed
        self.settings, self.switches = settings, switches
        self.log_expression = log_normalize(slide.X)
        self.cell_type = slide.obs["cell_type"].astype(str).to_numpy()
        domain = slide.obs["domain"].astype(str).to_numpy()
        self.from_where = {"type_matched": domain == control, "as_run": domain != target}
        self.there, self.types, self.subdomain = there, types, subdomain
        self.altered: dict[str, sparse.csr_array] = {}
        self.modules = [int(m) for m in np.unique(subdomain) if m != gene_modules.UNASSIGNED]

    def rows(self, activity: pd.DataFrame, weights: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Scores of every form, type, module, kind of donors and metric; and the genes behind those of pathways.

        Types with too few cells in a module are left out there.
        """
        rows, genes = [], []
        top = {module: most_active(activity, module) for module in self.modules}
        for form in FORMS:
            for cell_type in self.types:
                focal = self._focal(form, cell_type)
                twin = self._predict(focal, self._own(focal))
                everywhere = self._predict(focal, self._anchored(focal, self.there, cell_type))
                for module in self.modules:
                    observed = self.there[self.subdomain == module]
                    if form == "type_matched":
                        observed = observed[self.cell_type[observed] == cell_type]
                    if len(observed) < self.settings["min_cells"]:
                        continue
                    inside = self.subdomain == module
                    made = {"twin": twin, "global": everywhere}
                    for donors, pool in (("other", ~inside), ("matched", inside)):
                        if pool.any():
                            features = self._anchored(focal, self.there[pool], cell_type, donors, module)
                            made[donors] = self._predict(focal, features)
                    if top[module]:
                        made["pathway"] = self._predict(focal, self._altered(focal, weights, top[module]))
                    reference = Reference(
                        self.slide.X[focal],
                        self.slide.X[observed],
                        n_deg=min(self.settings["n_deg"], self.slide.n_vars),
                        seed=self.seed,
                        lfc=self.switches["lfc"],
                    )
                    names = {"form": form, "cell_type": cell_type, "module": module}
                    names |= {"pathway": top[module], "n_focal": len(focal), "n_observed": len(observed)}
                    for donors, values in made.items():
                        compared = Comparison(reference, values)
                        rows += [
                            names | {"donors": donors, "metric": m, "value": float(METRICS[m].function(compared))}
                            for m in SCORES
                        ]  # fmt: skip
                    if "pathway" in made and form == "type_matched":
                        genes.append(self._genes(names, focal, observed, made["pathway"], weights))
        columns = ["form", "cell_type", "module", "pathway", "n_focal", "n_observed", "donors", "metric", "value"]
        changed = ["cell_type", "module", "pathway", "gene", "weight", "observed", "predicted"]
        every = pd.concat(genes) if genes else pd.DataFrame(columns=changed)
        return pd.DataFrame(rows, columns=columns), every[changed]

    def shuffled(self, slide: str) -> pd.DataFrame:
        """Gain of matched over global donors, cells of the type alone, with subdomains as they are and shifted.

        Returns:
            cell_type, shuffle (0: as they are), gain: see `shuffled_subdomains`.
        """
        cell_type = self.cell_type[self.there]
        place, section = self.slide.obsm["spatial"][self.there], self.slide.obs["sample"].astype(str).to_numpy()
        where = cell_type, place, section[self.there]
        labels = shuffled_subdomains.shuffles(self.subdomain, *where, self.settings["n_shuffles"], slide)
        rows = []
        for name in self.types if self.modules else []:
            focal, own = self._focal("type_matched", name), np.flatnonzero(cell_type == name)
            rng = stream(self.seed, "donors_of_any_subdomain", name)
            donors = rng.choice(len(self.there), (len(focal), _DRAWS))
            predicted = np.stack(
                [normalize_counts(self._predict(focal, self._own(self.there[places]))) for places in donors.T], axis=1
            )
            observed = self.slide.X[self.there[own]]
            reference = Reference(self.slide.X[focal], observed, lfc=self.switches["lfc"])
            gain = shuffled_subdomains.gains(
                *(labels, self.modules, own, normalize_counts(observed)),
                *(donors, predicted),
                lambda mean, reference=reference: reference.change(mean, reference.control_mean),
                *(self.settings["n_deg"], self.settings["min_cells"]),
            )
            rows.append(pd.DataFrame({"cell_type": name, "shuffle": range(len(gain)), "gain": gain}))
        columns = ["cell_type", "shuffle", "gain"]
        return pd.concat(rows) if rows else pd.DataFrame(columns=columns)

    def embedding(self, kind: str) -> pd.DataFrame:
        """Two dimensions of the type with most cells: observed cells, reconstructions, and counterfactual cells.

        Returns:
            cell, cell_type, what (`observed` or `reconstructed` control cells, cells `in module`, `moved to module`),
            module, x, y; principal components, or UMAP of them.
        """
        columns = ["cell", "cell_type", "what", "module", "x", "y"]
        sizes = {y: (self.cell_type[self.from_where["type_matched"]] == y).sum() for y in self.types}
        cell_type = max(sizes, key=sizes.get)
        focal = self._focal("type_matched", cell_type)[:_SHOWN]
        groups = [("observed", 0, focal, None), ("reconstructed", 0, focal, self._own(focal))]
        for module in self.modules:
            inside = self.there[self.subdomain == module]
            same = inside[self.cell_type[inside] == cell_type][:_SHOWN]
            if len(same) >= 2:
                groups.append(("in module", module, same, None))
                moved = self._anchored(focal, inside, cell_type, "embedding", module)
                groups.append(("moved to module", module, focal, moved))
        parts, rows = [], []
        for what, module, cells, features in groups:
            counts = self.slide.X[cells]
            if features is not None:
                counts = sparse.csr_matrix(self._predict(cells, features))
            parts.append(np.log1p(normalize_counts(counts).toarray()))
            rows += [(name, cell_type, what, module) for name in self.slide.obs_names[cells]]
        table = pd.DataFrame(rows, columns=columns[:4])
        table[["x", "y"]] = _in_two_dimensions(np.vstack(parts), kind, self.seed)
        return table

    def _focal(self, form: str, cell_type: str) -> np.ndarray:
        found = np.flatnonzero(self.from_where[form] & (self.cell_type == cell_type))
        most = self.settings["max_focal"]
        if len(found) > most:
            found = np.sort(stream(self.seed, "moved_cells", form, cell_type).choice(found, most, replace=False))
        return found

    def _predict(self, cells: np.ndarray, features: np.ndarray) -> np.ndarray:
        return self.model.predict(self.slide, cells, features, latent=self.switches["latent"], seed=self.seed)

    def _own(self, cells: np.ndarray) -> np.ndarray:
        return neighborhood_features(self.graph[cells], self.log_expression)

    def _anchored(self, focal, pool, *name) -> np.ndarray:
        """Neighbourhoods of cells of a pool, one drawn for each focal cell, as run (`anchor` mode)."""
        return self._own(stream(self.seed, "anchors", *name).choice(pool, len(focal)))

    def _altered(self, focal, weights, pathway) -> np.ndarray:
        """The focal cells' own neighbourhoods, in which genes answer to a pathway."""
        if pathway not in self.altered:
            self.altered[pathway] = self._alter(weights, pathway)
        return neighborhood_features(self.graph[focal], self.altered[pathway])

    def _alter(self, weights: pd.DataFrame, pathway: str) -> sparse.csr_array:
        """Log expression of all cells in which genes answer to a pathway."""
        shift = self._shift(weights, pathway)
        node = NodePerturbation(np.tile(shift, (len(self.slide.obs["cell_type"].cat.categories), 1)))
        code = self.slide.obs["cell_type"].cat.codes.to_numpy()
        keep = self.switches["node_renormalization"] == "totals"
        if self.switches["node_scaling"] == "counts_plus_one":
            # As run: the form for counts, applied to logarithms.
            return alter_counts(self.log_expression, code, node, one_more=True, renormalize=keep)
        return alter_log(self.log_expression, code, node, renormalize=keep)

    def _shift(self, weights: pd.DataFrame, pathway: str) -> np.ndarray:
        """Weights (g,) of a pathway, as run: cut at 5, without those up to 0.5 and genes that do not change at all."""
        own = weights[weights["source"] == pathway].set_index("target")["weight"]
        shift = own.reindex(self.slide.var_names).fillna(0).to_numpy()
        shift = np.clip(shift, -LARGEST_WEIGHT, LARGEST_WEIGHT)
        domains = (self.there, np.flatnonzero(self.from_where["type_matched"]))
        change = np.subtract(*(log_mean(self.slide.X[part]) for part in domains))
        kept = (np.abs(shift) > SMALLEST_WEIGHT) & (np.abs(change) > SMALLEST_CHANGE)
        return np.where(kept, shift, 0).astype(np.float32)

    def _genes(self, names, focal, observed, predicted, weights) -> pd.DataFrame:
        """Log changes of every gene against the observed focal cells: in the module, and under the pathway."""
        base = log_mean(self.slide.X[focal])
        found = {"observed": log_mean(self.slide.X[observed]) - base, "predicted": log_mean(predicted) - base}
        own = weights[weights["source"] == names["pathway"]].set_index("target")["weight"]
        table = pd.DataFrame({"gene": self.slide.var_names, **found})
        table["weight"] = own.reindex(self.slide.var_names).to_numpy()
        return table.assign(**{key: names[key] for key in ("cell_type", "module", "pathway")})


def _in_two_dimensions(values: np.ndarray, kind: str, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    n = min(20 if kind == "umap" else 2, *values.shape)
    found = PCA(n, random_state=stream_seed(seed, "components_of_cells")).fit_transform(values)
    if kind == "pca":
        return found
    from umap import UMAP  # compiles for a quarter of a minute

    n_neighbors = min(20, len(values) - 1)
    return UMAP(n_neighbors=n_neighbors, random_state=stream_seed(seed, "umap")).fit_transform(found)
