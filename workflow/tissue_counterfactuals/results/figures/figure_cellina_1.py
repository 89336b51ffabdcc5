"""Cellina, Figs. 1 and 2 as schematics: the model, the question and the hold-out, in the numbers of the very run.

Nothing is drawn that the configuration of the run does not say: sizes of layers, weights of losses, graph, donors,
domains, held-out types, and what `fit` and `patients` make of the slides.
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from tissue_counterfactuals import protocols
from tissue_counterfactuals.models.settings import CellinaGATSettings, under_switches
from tissue_counterfactuals.results import provenance
from tissue_counterfactuals.results.figures import style
from tissue_counterfactuals.results.figures.schematics import INTER, INTRA

_OTHER, _HIDDEN, _FOCAL = "#DDDDDD", "#D55E00", "#0072B2"
# The two forms, and what `as_run` trains each with.
PUBLISHED = {"cellina": None, "cellina_gat": CellinaGATSettings()}
_TITLE_IN, _NETWORK_IN, _SCHEME_IN = 0.4, 2.9, 3.3
FITS = {
    "per_sample": "one model for each slide and held-out type",
    "pooled": "one model over all slides for each held-out type",
    "leave_patient_out": "one model for each held-out type and patient, over the slides of all other patients",
}


def draw_files(inputs: dict, output: Path, protocol: str) -> None:
    """Draw from the `manifest` (JSON) of a data set."""
    record = provenance.read(inputs["manifest"])
    style.save(compose(record, protocol), output)


def compose(record: dict, protocol: str) -> Figure:
    """The figure: the network, that of Cellina-GAT below it where that is run, and what they are asked."""
    config, dataset = record["config"], record["config"]["datasets"][record["dataset"]]
    switches = protocols.resolve(protocol, config["switches"])
    graph = protocols.cellina.graph_as_run(dataset["graph"], record["slides"][0], switches)
    forms = [name for name in PUBLISHED if name in dataset["methods"]]
    height = _TITLE_IN + _NETWORK_IN * len(forms) + _SCHEME_IN
    with style.context():
        figure = style.new_figure(11, height)
        title = f"Figs. 1 and 2 of Cellina, as run here · {style.data_name(record)} · protocol: {protocol}"
        style.suptitle(figure, title)
        bottom = style.footer(figure, provenance.footer(record, protocol))
        for i, form in enumerate(forms):
            settings = {k: v for k, v in config[form].items() if k != "time_limit_minutes"}
            model = under_switches(settings, switches, PUBLISHED[form])
            own_in = height - _TITLE_IN - _NETWORK_IN * (i + 1)
            network = figure.add_axes((0.01, own_in / height, 0.98, _NETWORK_IN / height))
            read, encoder = _surroundings(form, graph, model, switches)
            steps = config["equal_steps"] if config["budget"] == "equal" else None
            _network(network, style.method_style(form).label, record["n_genes"], read, encoder, model, steps)
        scheme = figure.add_axes((0.01, bottom, 0.98, (_SCHEME_IN - 0.26) / height - bottom))
        _scheme(scheme, dataset, config["counterfactual"], switches)
    return figure


def _surroundings(form: str, graph: dict, model: dict, switches: dict[str, str]) -> tuple[str, str]:
    """What one of Cellina's forms reads of where a cell stands, and what makes s of it."""
    weights = f"weights over {graph['cutoff']:g}"
    kernel = f"Gaussian of {graph['bandwidth_um']:g} µm"
    layers = f"{model['n_layers']} × {model['n_hidden']}"
    if form == "cellina":
        return f"mean of its neighbours\nat most {graph['max_neighbors']}, {kernel},\n{weights}", f"encoder\n{layers}"
    within = "" if switches["gat_cutoff"] == "none" else f",\n{weights} ({kernel})"
    steps = model["n_layers"] if switches["gat_field"] == "three_hops" else 1
    far = f"{steps} step{'s' * (steps > 1)} far"
    return f"its neighbours one by one\nat most {model['max_neighbors']}{within}", f"graph attention\n{layers}, {far}"


def _network(
    axes: Axes, form: str, n_genes: list[int], read: str, encoder: str, model: dict, steps: int | None
) -> None:
    axes.set(xlim=(0, 11), ylim=(0, 3))
    axes.axis("off")
    genes = " to ".join(f"{n:,}" for n in sorted({min(n_genes), max(n_genes)}))
    layers = f"{model['n_layers']} × {model['n_hidden']}"
    latent = model["n_latent"]
    axes.text(0.1, 2.8, form, weight="bold", size=8)
    _box(axes, 0.1, 1.9, 2.1, f"counts of a cell\n{genes} genes", INTRA)
    _box(axes, 0.1, 0.5, 2.1, read, INTER)
    _box(axes, 2.8, 1.9, 1.5, f"encoder\n{layers}", INTRA)
    _box(axes, 2.8, 0.5, 1.5, encoder, INTER)
    _box(axes, 4.9, 1.9, 1.1, f"z\n{latent}", INTRA)
    _box(axes, 4.9, 0.5, 1.1, f"s\n{latent}", INTER)
    _box(axes, 6.6, 0.9, 1.6, f"decoder\n{layers}", "#555555")
    _box(axes, 8.8, 0.9, 2.0, "expected counts\nnegative binomial", "#555555")
    for y in (2.25, 0.85):
        for left, right in ((2.25, 2.75), (4.35, 4.85)):
            _arrow(axes, (left, y), (right, y))
    _arrow(axes, (6.05, 2.1), (6.55, 1.5))
    _arrow(axes, (6.05, 0.95), (6.55, 1.15))
    _arrow(axes, (8.25, 1.3), (8.75, 1.3))
    named = {"classifier": "classifier of the type on z", "adversary": "adversary of the domain on z"}
    named["contrastive"] = "contrastive loss of s"
    weights = {name: model.get(f"lambda_{name}") for name in named}
    losses = [f"{named[name]}: weight {weight:g}" for name, weight in weights.items() if weight is not None]
    _box(axes, 6.6, 2.15, 4.2, "\n".join(losses), INTRA)
    _arrow(axes, (6.05, 2.45), (6.55, 2.5))
    axes.text(0.1, 0.1, _trained(model, steps), size=7, color=style.MUTED_COLOR)


def _trained(model: dict, steps: int | None) -> str:
    size, epochs, warmup = (model[key] for key in ("batch_size", "epochs", "kl_warmup_epochs"))
    batches = f"batches of {size}" if isinstance(size, int) else f"batches by the rule {size}"
    if steps is None:
        return f"at most {epochs} epochs, {batches}, KL terms rise over {warmup} epochs"
    return f"about {steps:,} steps, as every method, {batches}, KL weight rises to {min(1, epochs / warmup):.2g}"


def _scheme(axes: Axes, dataset: dict, asked: dict, switches: dict[str, str]) -> None:
    """Types by domains: what trains, what is moved, what is hidden; for the first of the held-out types."""
    control, targets = dataset["control_domain"], dataset["target_domains"]
    named = dataset["holdout"]["cell_types"]
    types = ["each type in turn"] if named == "auto" else [style.short(t, 24) for t in named]
    rows = [*types[:6], *(["…"] if len(types) > 6 else []), "all other types"]
    columns = [control, *targets, "other domains"]
    axes.set(xlim=(0, 11), ylim=(len(rows) + 1.9, -0.9))
    axes.axis("off")
    width = min(1.25, 5.2 / len(columns))
    for i, row in enumerate(rows):
        axes.text(2.0, i + 0.5, row, ha="right", va="center", size=7.5)
        for j in range(len(columns)):
            hidden = i == 0 and 1 <= j <= len(targets)
            color = _HIDDEN if hidden else _FOCAL if (i, j) == (0, 0) else _OTHER
            axes.add_patch(
                Rectangle(
                    (2.1 + j * width, i + 0.1),
                    width * 0.92,
                    0.8,
                    facecolor=color,
                    edgecolor="white",
                    hatch="///" if hidden else None,
                    gid="hidden" if hidden else None,
                )
            )
    for j, name in enumerate(columns):
        axes.text(2.1 + (j + 0.46) * width, -0.1, style.short(name, 18), ha="center", va="bottom", size=7)
    held_out = ", ".join(types) if named != "auto" else f"every type with {dataset['holdout']['min_cells']} cells"
    within = "of the target domain" if switches["donor_domain"] == "target_only" else "of any domain"
    patients = dataset["patients"].values() if dataset["fit"] == "leave_patient_out" else ()
    lines = [
        f"Held out, one at a time (shown: the first): {held_out}; from all target domains at once.",
        f"Training: {FITS[dataset['fit']]}.",
        *(f"Of one patient, left out together: {', '.join(own)}." for own in patients),
        f"Blue: cells that are moved. Each keeps its z and gets {asked['n_donors']} donors {within}; rules "
        f"{', '.join(asked['donor_rules'])}.",
        "Orange: hidden from every method, and nobody's neighbour; compared with afterwards.",
    ]  # fmt: skip
    if asked["node"]["shifts"]:
        lines.append(_altered(asked["node"], switches))
    text = "\n".join(line for whole in lines for line in style.wrap(whole, 3.6, 7))
    axes.text(2.4 + len(columns) * width, -0.3, text, va="top", size=7, linespacing=1.4)


def _altered(node: dict, switches: dict[str, str]) -> str:
    """The sentence on node perturbations."""
    changed = {"node": "of each type", "node_global": "of all types together"}
    who = "all cells" if node["cells"] == "all" else "neighbours of these cells"
    share = f"{node['share']:.0%} of " if node["share"] < 1 else ""
    scale = {"log": "added to logarithms", "counts": "multiplied into counts"}
    scale["own"] = f"{scale['log']} (Cellina) or {scale['counts']} (Cellina-GAT)"
    kept = ", and cells keep their totals" if switches["node_renormalization"] == "totals" else ""
    genes = " or ".join(changed[shift] for shift in node["shifts"])
    return (
        f"Node perturbation: the {node['n_genes']} most changed genes {genes}, "
        f"in {share}{who}; the change from control to target is {scale[node['scale']]}{kept}."
    )


def _box(axes: Axes, x: float, y: float, width: float, text: str, color: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, 0.7, boxstyle="round,pad=0.04", facecolor="white", edgecolor=color, linewidth=1.4
        )  # fmt: skip
    )
    axes.text(x + width / 2, y + 0.35, text, ha="center", va="center", size=7)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 0.9})
