"""Cellina's training against a plain reference in float64, which repeats it from the papers' formulas.

The reference is given what is random (first weights, batches, noise), and computes the rest itself: features,
encoders, likelihood, divergences, classifier, adversary, their scales, Adam, batch normalisation, validation.
"""

import copy
import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from slides import small_slide
from tissue_counterfactuals.graph import slide_graph
from tissue_counterfactuals.models import cellina as cellina_module
from tissue_counterfactuals.models import training
from tissue_counterfactuals.models.cellina import Cellina, Dropout
from tissue_counterfactuals.question.folds import Fold, split_cells

FOLD = Fold("A", "left", ("right",))
EPOCHS, BATCH = 4, 100


class Reference:
    """Cellina in float64 and plain torch, from a state dict of first weights."""

    def __init__(self, state, settings):
        self.state = {k: v.double() if v.is_floating_point() else v.clone() for k, v in state.items()}
        self.settings = settings
        learned = [k for k in self.state if "running" not in k and "num_batches" not in k]
        for name in learned:
            self.state[name].requires_grad_()
        self.groups = [
            [self.state[k] for k in learned if k.startswith("discriminator") == adversary]
            for adversary in (False, True)
        ]
        self.moments = [[(0.0, 0.0)] * len(group) for group in self.groups]
        self.steps = [0, 0]
        self.scale = {"classifier": 1.0, "adversary": 1.0}

    def layer(self, x, linear, norm, training, offset=0.0):
        get = self.state.__getitem__
        x = x @ get(f"{linear}.weight").T + get(f"{linear}.bias") + offset
        mean, variance = get(f"{norm}.running_mean"), get(f"{norm}.running_var")
        if training:
            own_mean, own_variance = x.mean(dim=0), x.var(dim=0, correction=0)
            mean.mul_(0.99).add_(0.01 * own_mean.detach())
            variance.mul_(0.99).add_(0.01 * x.var(dim=0, correction=1).detach())
            mean, variance = own_mean, own_variance
        x = (x - mean) / (variance + 1e-3).sqrt()
        return torch.relu(x * get(f"{norm}.weight") + get(f"{norm}.bias"))

    def hidden(self, x, name, samples, training):
        for i in range(2):
            offset = self.state[f"{name}.offset.{i}.weight"][samples]
            x = self.layer(x, f"{name}.linear.{i}", f"{name}.norm.{i}", training, offset)
        return x

    def encoder(self, x, name, samples, training):
        hidden = self.hidden(x, f"{name}.hidden", samples, training)
        mean, log_variance = (
            hidden @ self.state[f"{name}.{head}.weight"].T + self.state[f"{name}.{head}.bias"]
            for head in ("mean", "log_variance")
        )
        return torch.distributions.Normal(mean, (log_variance.exp() + 1e-4).sqrt())

    def head(self, z, name, n_layers, training):
        for i in range(n_layers):
            z = self.layer(z, f"{name}.{4 * i}", f"{name}.{4 * i + 1}", training)
        last = f"{name}.{4 * n_layers}"
        return z @ self.state[f"{last}.weight"].T + self.state[f"{last}.bias"]

    def losses(self, cells, data, noise, training, heads):
        """Means over cells: reconstruction, KL of z, KL of s, and where asked for the two cross entropies."""
        counts, features, types, domains, samples = (x[cells] for x in data)
        q_z = self.encoder(torch.log(1 + counts), "z_encoder", samples, training)
        q_s = self.encoder(features, "s_encoder", samples, training)
        z, s = (q.mean + q.stddev * e for q, e in zip((q_z, q_s), noise, strict=True))
        prior = torch.distributions.Normal(torch.zeros_like(z), 1.0)
        kl_z, kl_s = (torch.distributions.kl_divergence(q, prior).sum(dim=1).mean() for q in (q_z, q_s))
        if heads and training and "adversary" in heads and not self.measuring:
            loss = F.cross_entropy(self.head(z.detach(), "discriminator", 2, True), domains)
            self.move(1, self.settings["lambda_adversary"] * loss)
        hidden = self.hidden(torch.cat([z, s], dim=1), "decoder", samples, training)
        logits = hidden @ self.state["logits.weight"].T + self.state["logits.bias"]
        mean = counts.sum(dim=1, keepdim=True) * torch.softmax(logits, dim=1)
        theta = self.state["log_theta"].exp()
        likelihood = torch.distributions.NegativeBinomial(
            total_count=theta, logits=torch.log(mean / theta), validate_args=False
        ).log_prob(counts)
        out = {"reconstruction": -likelihood.sum(dim=1).mean(), "kl_z": kl_z, "kl_s": kl_s}
        if "classifier" in heads:
            out["classifier"] = F.cross_entropy(self.head(z, "classifier", 1, training), types)
        if "adversary" in heads:
            scores = self.head(z, "discriminator", 2, training)
            out["adversary"] = F.cross_entropy(scores, domains)
        return out

    def move(self, which, loss):
        """A step of Adam; a parameter that the loss does not reach stays as it is."""
        rate = self.settings.get("learning_rate", 1e-3)
        epsilon = self.settings.get("adam_epsilon", 0.01)
        decay = self.settings.get("weight_decay", 1e-6)
        parameters, moments = self.groups[which], self.moments[which]
        self.steps[which] += 1
        corrections = (1 - beta ** self.steps[which] for beta in (0.9, 0.999))
        first_correction, second_correction = corrections
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is None:
                continue
            gradient = gradient + decay * parameter.detach()
            first, second = moments[i]
            moments[i] = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            first, second = moments[i]
            spread = (second / second_correction).sqrt() + epsilon
            parameter.data -= rate * (first / first_correction) / spread

    def epoch(self, epoch, batches, validation, data, noises):
        """One epoch; its row of history."""
        settings = self.settings
        weights = {
            name: settings[f"lambda_{name}"] for name in ("classifier", "adversary") if settings[f"lambda_{name}"] > 0
        }
        beta = min(1.0, epoch / settings["kl_warmup_epochs"])
        self.measuring = epoch == 0 and bool(weights)
        rows = []
        for cells in batches:
            losses = self.losses(cells, data, (next(noises), next(noises)), True, weights)
            vae = losses["reconstruction"] + beta * (losses["kl_z"] + losses["kl_s"])
            signs = {"classifier": 1, "adversary": -1}
            total = vae + sum(
                signs[name] * weight * self.scale[name] * losses[name] for name, weight in weights.items()
            )
            if not self.measuring:
                self.move(0, total)
            row = {"train_loss": vae} | losses
            rows.append({k: len(cells) * v.item() for k, v in row.items()})
        n = sum(map(len, batches))
        row = (pd.DataFrame(rows).sum() / n).to_dict()
        if self.measuring:
            self.scale = {name: row["train_loss"] / row[name] for name in weights}
        with torch.no_grad():
            checked = self.losses(validation, data, (next(noises), next(noises)), False, ())
        return row | {f"validation_{k}": v.item() for k, v in checked.items()}


@pytest.fixture
def recorded(monkeypatch):
    """What a training draws: its first weights, the cells of its batches and its noise."""
    seen = {"batches": [], "noise": []}
    of_data, draw = training.CellData.batch, torch.randn_like

    def record_batch(self, cells):
        seen["batches"].append(np.array(cells))
        return of_data(self, cells)

    def record_noise(*args, **kwargs):
        noise = draw(*args, **kwargs)
        seen["noise"].append(noise.double().clone())
        return noise

    def record_weights(network, *args):
        for module in network.modules():
            if isinstance(module, Dropout):
                module.share = 0.0
        seen["first"] = copy.deepcopy(network.state_dict())
        monkeypatch.setattr(training.CellData, "batch", record_batch)
        monkeypatch.setattr(torch, "randn_like", record_noise)
        history = training.train(network, *args)
        monkeypatch.setattr(training.CellData, "batch", of_data)
        monkeypatch.setattr(torch, "randn_like", draw)
        return history

    monkeypatch.setattr(cellina_module, "train", record_weights)
    return seen


def data_of(slide, graph, cells):
    """Counts, features and labels of the cells that are not held out, computed without the package."""
    counts = slide.X.toarray().astype(float)
    log = np.log(1 + counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-30) * 1e4)
    weights = graph.toarray().astype(float)
    degree = weights.sum(axis=1, keepdims=True)
    features = np.divide(weights @ log, degree, out=np.zeros_like(log), where=degree > 0)
    labels = [
        np.unique(slide.obs[key].astype(str).to_numpy()[cells], return_inverse=True)[1]
        for key in ("cell_type", "domain", "sample")
    ]
    arrays = [torch.from_numpy(x[cells]) for x in (counts, features)]
    return [*arrays, *(torch.from_numpy(x) for x in labels)]


@pytest.mark.parametrize(
    "options",
    [
        {"lambda_classifier": 1.0, "lambda_adversary": 1.0},
        {"lambda_classifier": 0.0, "lambda_adversary": 0.0},
        {"lambda_classifier": 0.5, "lambda_adversary": 0.0, "weight_decay": 0.3},
        {"lambda_classifier": 0.0, "lambda_adversary": 2.0, "learning_rate": 3e-3},
    ],
    ids=["cellina", "ablated", "classifier", "adversary"],
)
def test_training_equals_the_plain_reference(recorded, options):
    slide = small_slide(n_cells=260, n_genes=12, samples=("one", "two"))
    split = split_cells(slide, FOLD)
    graph = slide_graph(slide, excluded=split.held_out, max_neighbors=15)
    options = {"kl_warmup_epochs": 3, "monitor": "current_beta", "restore": "last"} | options
    model = Cellina(8, 2, 3, device="cpu", epochs=EPOCHS, batch_size=BATCH, **options)
    started = time.perf_counter()
    history = model.fit(slide, graph, split).history
    assert 0 < history["seconds"].sum() < time.perf_counter() - started

    cells = np.flatnonzero(~split.held_out)
    n_train, n_validation = split.train.sum(), split.validation.sum()
    reference = Reference(recorded["first"], options)
    data, noises = data_of(slide, graph, cells), iter(recorded["noise"])
    batches = iter(recorded["batches"])
    for epoch, row in enumerate(history.to_dict("records")):
        of_epoch = [next(batches) for _ in range(math.ceil(n_train / BATCH))]
        assert np.array_equal(np.sort(np.concatenate(of_epoch)), np.flatnonzero(split.train[cells]))
        validation = next(batches)
        assert np.array_equal(validation, np.flatnonzero(split.validation[cells]))
        assert 2 <= n_validation == len(validation)
        expected = reference.epoch(epoch, of_epoch, validation, data, noises)
        beta = epoch / 3 if epoch < 3 else 1
        assert row["epoch"] == epoch
        assert row["beta"] == pytest.approx(beta)
        expected["classifier_loss"] = expected.pop("classifier", 0.0)
        expected["adversary_loss"] = expected.pop("adversary", 0.0)
        expected["validation_loss"] = expected["validation_reconstruction"] + beta * (
            expected["validation_kl_z"] + expected["validation_kl_s"]
        )
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=2e-5, abs=1e-5), (epoch, name)
    assert next(batches, None) is None
    assert next(noises, None) is None
    for name, weight in model.network.state_dict().items():
        if "num_batches" not in name:
            np.testing.assert_allclose(weight, reference.state[name].detach(), rtol=1e-3, atol=2e-5, err_msg=name)


def test_dropout_stands_behind_every_hidden_layer_but_the_decoders(monkeypatch):
    """The share that the user sets in the encoders, 0.1 in classifier and discriminator, none in the decoder."""
    shares = {}

    def watch(network, data, *args):
        network.train()

        def hook(name):
            def measure(module, inputs, output):
                kept = inputs[0] != 0
                shares.setdefault(name, []).append(((output == 0) & kept).sum() / kept.sum())

            return measure

        for part in ("z_encoder", "s_encoder", "decoder", "classifier", "discriminator"):
            for module in getattr(network, part).modules():
                if isinstance(module, Dropout):
                    module.register_forward_hook(hook(part))
        for _ in range(20):
            batch = data.batch(np.arange(200))
            z, s, *_ = network.encode_sampled(batch)
            network.reconstruction_loss(z, s, batch)
            network.classifier(z)
            network.discriminator(z)
        return pd.DataFrame()

    monkeypatch.setattr(cellina_module, "train", watch)
    slide = small_slide(n_cells=260, n_genes=12)
    split = split_cells(slide, FOLD)
    Cellina(64, 2, 3, dropout=0.3, device="cpu").fit(slide, slide_graph(slide), split)
    assert {name: len(found) for name, found in shares.items()} == {
        "z_encoder": 40, "s_encoder": 40, "decoder": 40, "classifier": 20, "discriminator": 40,
    }  # fmt: skip
    expected = {
        "z_encoder": 0.3, "s_encoder": 0.3, "decoder": 0.0, "classifier": 0.1, "discriminator": 0.1,
    }  # fmt: skip
    for name, share in expected.items():
        assert np.mean(shares[name]) == pytest.approx(share, abs=0.01), name


def test_defaults_are_those_of_the_paper_and_of_scvi():
    """Table A1 of the paper; Adam's epsilon, weight decay and warm-up of scvi-tools, as the authors ran it."""
    model = Cellina(device="cpu")
    assert model.shape == {"n_hidden": 128, "n_layers": 2, "n_latent": 64, "dropout": 0.1}
    settings = {"epochs", "learning_rate", "weight_decay", "adam_epsilon", "kl_warmup_epochs"}
    settings |= {"patience", "lambda_classifier", "lambda_adversary", "restore", "monitor"}
    assert {name: getattr(model.settings, name) for name in settings} == {
        "epochs": 100,
        "learning_rate": 1e-3,
        "weight_decay": 1e-6,
        "adam_epsilon": 0.01,
        "kl_warmup_epochs": 400,
        "patience": 10,
        "lambda_classifier": 1.0,
        "lambda_adversary": 1.0,
        "restore": "best",
        "monitor": "reconstruction",
    }


def test_the_network_has_the_sizes_of_the_paper(monkeypatch):
    networks = []
    monkeypatch.setattr(cellina_module, "train", lambda network, *args: networks.append(network) or pd.DataFrame())
    slide = small_slide(n_cells=100, n_genes=12, samples=("one", "two"))
    Cellina(device="cpu").fit(slide, slide_graph(slide), split_cells(slide, FOLD))
    (network,) = networks
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items() if k.endswith("weight")}
    linear = {
        "z_encoder.hidden.linear.0": (128, 12), "z_encoder.hidden.linear.1": (128, 128),
        "z_encoder.mean": (64, 128), "z_encoder.log_variance": (64, 128),
        "s_encoder.hidden.linear.0": (128, 12), "s_encoder.hidden.linear.1": (128, 128),
        "s_encoder.mean": (64, 128), "s_encoder.log_variance": (64, 128),
        "decoder.linear.0": (128, 128), "decoder.linear.1": (128, 128), "logits": (12, 128),
        "classifier.0": (128, 64), "classifier.4": (3, 128),
        "discriminator.0": (32, 64), "discriminator.4": (32, 32), "discriminator.8": (2, 32),
    }  # fmt: skip
    for name, shape in linear.items():
        assert shapes[f"{name}.weight"] == shape, name
    # Every layer of the three stacks has an offset for each sample.
    for part in ("z_encoder.hidden", "s_encoder.hidden", "decoder"):
        for i in range(2):
            assert shapes[f"{part}.offset.{i}.weight"] == (2, 128)
    # Log dispersions start as N(0, 1) draws.
    theta = network.log_theta.detach()
    assert theta.min() < 0 < theta.max()


def trained(**options):
    slide = small_slide(n_cells=120, n_genes=10)
    split = split_cells(slide, FOLD)
    graph = slide_graph(slide, excluded=split.held_out, max_neighbors=10)
    shape = {"n_hidden": 8, "n_layers": 1, "n_latent": 3, "dropout": 0.0, "device": "cpu"}
    return Cellina(**shape, epochs=3, batch_size=50, **options).fit(slide, graph, split)


@pytest.mark.parametrize(("precision", "products"), [("tf32", "high"), ("bfloat16", "medium")])
def test_products_are_rounded_in_training_steps_and_nowhere_else(monkeypatch, precision, products):
    seen = set()
    loss = cellina_module.CellinaNetwork.reconstruction_loss

    def watch(network, *args):
        seen.add((network.training, torch.get_float32_matmul_precision()))
        return loss(network, *args)

    monkeypatch.setattr(cellina_module.CellinaNetwork, "reconstruction_loss", watch)
    trained(precision=precision)
    assert seen == {(True, products), (False, "highest")}
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_compiled_network_learns_the_same_up_to_rounding(monkeypatch):
    compiled, compile_ = [], torch.nn.Module.compile

    def without_a_compiler(module):
        compiled.append(type(module).__name__)
        # All of PyTorch's compilation but the last step, which would call a C++ compiler.
        compile_(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", without_a_compiler)
    plain, fast = trained(), trained(compile=True)
    assert compiled == ["Encoder", "Encoder", "HiddenLayers"]
    for name, weight in plain.network.state_dict().items():
        np.testing.assert_allclose(fast.network.state_dict()[name], weight, rtol=1e-4, atol=1e-6)


def test_the_noise_of_a_training_follows_its_seed(monkeypatch):
    slide = small_slide(n_cells=120, n_genes=12)
    split = split_cells(slide, FOLD)
    graph = slide_graph(slide, excluded=split.held_out, max_neighbors=15)
    seeded, plain = [], torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda number: seeded.append(number) or plain(number))
    numbers = []
    for seed in (0, 1):
        seeded.clear()
        Cellina(8, 2, 3, device="cpu", epochs=2, batch_size=BATCH).fit(slide, graph, split, seed=seed)
        numbers.append(set(seeded))
    # First weights, the noise of each epoch and that of validation: none of them is the other seed's.
    assert len(numbers[0]) == len(numbers[1]) == 4
    assert not numbers[0] & numbers[1]
