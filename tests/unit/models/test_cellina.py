"""Cellina and its training loop, through the public names."""

import numpy as np
import pytest
import torch

from slides import small_slide
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.graph import neighborhood_features, slide_graph
from tissue_counterfactuals.models import training
from tissue_counterfactuals.models.cellina import Cellina, HiddenLayers
from tissue_counterfactuals.models.training import batches_of, resolve_batch_size
from tissue_counterfactuals.question.folds import Fold, cells_of, split_cells
from tissue_counterfactuals.slide import log_normalize
from tissue_counterfactuals.streams import stream_seed

SMALL = {"n_hidden": 16, "n_latent": 4, "epochs": 4, "batch_size": 64, "device": "cpu"}
FOLD = Fold("A", "left", ("right",))


def fitted(slide, seed=0, checkpoint=None, report=lambda line: None, **options):
    split = split_cells(slide, FOLD)
    graph = slide_graph(slide, excluded=split.held_out, max_neighbors=20)
    model = Cellina(**(SMALL | options))
    model.fit(slide, graph, split, seed=seed, checkpoint=checkpoint, report=report)
    cells = cells_of(slide, "A", "left")
    return model, cells, neighborhood_features(graph[cells], log_normalize(slide.X))


@pytest.fixture(scope="module")
def slide():
    return small_slide(n_cells=500)


def test_training_learns_the_profile_of_a_type(slide):
    options = {"epochs": 60, "learning_rate": 5e-3, "lambda_adversary": 0.0}
    model, cells, features = fitted(slide, **options)
    losses = model.history["reconstruction"]
    assert losses.iloc[-1] < losses.iloc[0] - 2
    predicted = model.predict(slide, cells, features)
    observed = slide.X[cells].toarray()
    assert predicted.sum(axis=1) == pytest.approx(observed.sum(axis=1), rel=1e-4)
    assert np.corrcoef(predicted.mean(axis=0), observed.mean(axis=0))[0, 1] > 0.95


def test_expression_of_held_out_cells_changes_no_prediction(slide):
    held_out = np.flatnonzero(split_cells(slide, FOLD).held_out)
    other = slide.copy()
    counts = other.X.tolil()
    counts[held_out] = counts[np.random.default_rng(1).permutation(held_out)] * 3
    other.X = counts.tocsr()
    assert (other.X != slide.X).nnz > 0
    (model, cells, features), (model_other, _, features_other) = fitted(slide), fitted(other)
    assert np.array_equal(features, features_other)
    predictions = [
        model.predict(slide, cells, features),
        model_other.predict(other, cells, features_other),
    ]
    assert np.array_equal(*predictions)


def test_the_seed_decides_everything_and_the_global_generator_is_left_alone(slide):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, cells, features = fitted(slide, seed=1)
    same, other = fitted(slide, seed=1)[0], fitted(slide, seed=2)[0]
    assert np.array_equal(*(m.predict(slide, cells, features) for m in (first, same)))
    assert not np.array_equal(*(m.predict(slide, cells, features) for m in (first, other)))
    draws = [first.predict(slide, cells, features, latent="sample", seed=s) for s in (3, 3, 4)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert torch.equal(before, torch.get_rng_state())


class Killed(BaseException):
    """Stands for a signal: no handler of the training may swallow it."""


@pytest.mark.parametrize("options", [{}, {"lambda_classifier": 0.0, "lambda_adversary": 0.0}])
def test_a_killed_training_goes_on_at_the_epoch_border_with_the_same_result(slide, tmp_path, monkeypatch, options):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    whole = fitted(slide, epochs=5, **options)[0]
    checkpoint = tmp_path / "model.pt"

    def kill(line):
        if line.startswith("epoch 3/"):
            raise Killed

    with pytest.raises(Killed):
        fitted(slide, epochs=5, checkpoint=checkpoint, report=kill, **options)
    lines = []
    resumed = fitted(slide, epochs=5, checkpoint=checkpoint, report=lines.append, **options)[0]
    assert lines[0] == "resumed after epoch 3"
    assert len(lines) == 3
    for name, weight in whole.network.state_dict().items():
        assert torch.equal(weight, resumed.network.state_dict()[name]), name
    columns = whole.history.columns.drop("seconds")
    assert whole.history[columns].equals(resumed.history[columns])
    # Killed after the last epoch: nothing is left to train, and what is found predicts as it should.
    finished, cells, features = fitted(slide, epochs=5, checkpoint=checkpoint, **options)
    predictions = [model.predict(slide, cells, features) for model in (whole, finished)]
    assert np.array_equal(*predictions)


def test_a_checkpoint_of_another_training_is_not_used(slide, tmp_path):
    checkpoint = tmp_path / "model.pt"
    fitted(slide, seed=1, checkpoint=checkpoint)
    lines = []
    model = fitted(slide, seed=2, checkpoint=checkpoint, report=lines.append)[0]
    assert lines[0] == "the checkpoint found belongs to another training and is not used"
    assert torch.equal(model.network.log_theta, fitted(slide, seed=2)[0].network.log_theta)


@pytest.mark.parametrize("change", [{"dropout": 0.9}, {"n_hidden": 24}])
def test_a_checkpoint_of_another_network_is_not_used(slide, tmp_path, change):
    checkpoint = tmp_path / "model.pt"
    fitted(slide, checkpoint=checkpoint)
    lines = []
    fitted(slide, checkpoint=checkpoint, report=lines.append, **change)
    assert lines[0] == "the checkpoint found belongs to another training and is not used"


def test_a_saved_model_predicts_the_same(slide, tmp_path):
    model, cells, features = fitted(slide)
    model.save(tmp_path / "model.pt")
    loaded = Cellina.load(tmp_path / "model.pt", device="cpu")
    assert loaded.settings == model.settings
    assert np.array_equal(*(m.predict(slide, cells, features) for m in (model, loaded)))
    z, s = loaded.latents(slide, cells, features)
    assert z.shape == s.shape == (len(cells), 4)


def test_new_neighbours_change_s_and_leave_z(slide):
    model, cells, features = fitted(slide)
    (z, s), (z_new, s_new) = (model.latents(slide, cells, f) for f in (features, features + 1))
    assert np.array_equal(z, z_new)
    assert not np.allclose(s, s_new)


def test_the_first_epoch_of_the_supervised_model_only_measures(slide):
    def first_weights(**options):
        return fitted(slide, epochs=1, restore="last", **options)[0].network

    supervised, ablated = (
        first_weights(),
        first_weights(lambda_classifier=0.0, lambda_adversary=0.0),
    )
    torch.manual_seed(stream_seed(0, "initial_weights"))
    untouched = type(supervised)(slide.n_vars, 3, 2, n_hidden=16, n_latent=4)
    assert torch.equal(supervised.logits.weight, untouched.logits.weight)
    assert not torch.equal(ablated.logits.weight, untouched.logits.weight)


def test_the_encoder_moves_against_the_discriminator_and_with_the_classifier(slide):
    def after(epochs, **lambdas):
        options = {"batch_size": 512, "learning_rate": 1e-2, "restore": "last", "epochs": epochs}
        model = fitted(slide, **options, **lambdas)[0]
        nobody = np.zeros(slide.shape, np.float32)
        return model, torch.from_numpy(model.latents(slide, np.arange(slide.n_obs), nobody)[0])

    def loss(head, z, key):
        # As in training: statistics of the batch, dropout (averaged out).
        labels = torch.from_numpy(slide.obs[key].cat.codes.to_numpy().astype(np.int64))
        torch.manual_seed(0)
        with torch.no_grad():
            head.train()
            draws = [torch.nn.functional.cross_entropy(head(z), labels) for _ in range(200)]
        return float(torch.stack(draws).mean())

    # One batch holds all cells: epoch 0 measures, every further epoch is one step of each optimiser.
    adversarial = {"lambda_classifier": 0.0, "lambda_adversary": 1.0}
    (_, z_before), (model, z_after) = after(1, **adversarial), after(4, **adversarial)
    discriminator = model.network.discriminator
    assert loss(discriminator, z_after, "domain") > loss(discriminator, z_before, "domain") + 0.01
    classifying = {"lambda_classifier": 1.0, "lambda_adversary": 0.0}
    (_, z_before), (model, z_after) = after(1, **classifying), after(4, **classifying)
    classifier = model.network.classifier
    assert loss(classifier, z_after, "cell_type") < loss(classifier, z_before, "cell_type") - 0.01


def test_best_weights_are_those_of_the_best_epoch_and_last_of_the_last(slide):
    # Early stopping ends three epochs after the best one, so best and last differ.
    options = {"epochs": 100, "learning_rate": 0.1, "patience": 3}
    best, last = (fitted(slide, restore=r, **options)[0] for r in ("best", "last"))
    best_epoch = int(best.history.loc[best.history["best"], "epoch"].item())
    assert best_epoch == best.history["validation_loss"].idxmin() == len(best.history) - 4

    def after(epochs):
        ended = fitted(slide, restore="last", **(options | {"epochs": epochs, "patience": 100}))[0]
        return ended.network.logits.weight

    assert torch.equal(best.network.logits.weight, after(best_epoch + 1))
    assert torch.equal(last.network.logits.weight, after(best_epoch + 4))


def test_early_stopping_watches_the_reconstruction_or_as_run_the_growing_loss(slide):
    for monitor in ("reconstruction", "current_beta"):
        history = fitted(slide, monitor=monitor, kl_warmup_epochs=10)[0].history
        beta = history["epoch"] / 10 if monitor == "current_beta" else 0
        kl = history["validation_kl_z"] + history["validation_kl_s"]
        expected = history["validation_reconstruction"] + beta * kl
        assert np.allclose(history["validation_loss"], expected)


def test_training_stops_when_validation_no_longer_improves(slide):
    history = fitted(slide, epochs=200, learning_rate=0.3, patience=3)[0].history
    assert len(history) < 200
    assert len(history) - 1 - history["validation_loss"].idxmin() == 3


def test_a_loss_that_is_not_finite_ends_the_training(slide):
    with pytest.raises(FloatingPointError, match="not finite in epoch .*learning_rate in the method's section helps"):
        fitted(slide, epochs=30, learning_rate=1e30)


def test_a_loss_that_was_never_finite_is_not_blamed_on_the_learning_rate(slide, monkeypatch):
    monkeypatch.setattr(training, "_step", lambda *_: torch.tensor([np.nan, np.inf, 1.0, 1.0, 1.0, 1.0]))
    sentence = r"epoch 0 \(terms: train_loss, reconstruction\): no weight had been changed yet"
    with pytest.raises(FloatingPointError, match=sentence):
        fitted(slide, epochs=30)


def test_cuda_is_never_replaced_in_silence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device is 'cuda', and PyTorch finds no usable CUDA device"):
        Cellina(device="cuda")
    assert Cellina(device="auto").device.type == "cpu"


def test_other_genes_and_unseen_samples_are_refused(slide):
    model, cells, features = fitted(slide)
    with pytest.raises(InputError, match="genes are not those that the model was trained on"):
        model.predict(slide[:, ::-1].copy(), cells, features)
    renamed = slide.copy()
    renamed.obs["sample"] = renamed.obs["sample"].cat.rename_categories(["new"])
    with pytest.raises(InputError, match="sample 'new' was not seen in training"):
        model.predict(renamed, cells, features)


def test_samples_add_an_offset_like_a_concatenated_one_hot():
    torch.manual_seed(0)
    layers = HiddenLayers(5, 7, 1, 0.0, n_samples=3).eval()
    x, sample = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    joined = torch.cat([x, torch.nn.functional.one_hot(sample, 3).float()], dim=1)
    weight = torch.cat([layers.linear[0].weight, layers.offset[0].weight.T], dim=1)
    expected = torch.relu(layers.norm[0](joined @ weight.T + layers.linear[0].bias))
    assert torch.allclose(layers(x, sample), expected, atol=1e-6)


def test_an_offset_begins_like_a_column_of_the_linear_layer():
    """A layer of 300 genes and 4 samples, as it would begin with the samples among its inputs."""
    torch.manual_seed(0)
    layers = HiddenLayers(300, 128, 2, 0.0, n_samples=4)
    for place, n_in in enumerate((304, 132)):
        layer = torch.nn.Linear(n_in, 128)
        for name, values in (
            ("weight", layers.linear[place].weight),
            ("weight", layers.offset[place].weight),
            ("bias", layers.linear[place].bias),
        ):
            like = getattr(layer, name)
            assert values.std().item() == pytest.approx(like.std().item(), rel=0.15)
            assert values.abs().max() <= n_in**-0.5
    assert not HiddenLayers(300, 128, 2, 0.0, n_samples=1).offset


def test_batches_cover_all_cells_and_never_hold_one():
    cells = np.arange(129)
    sizes = [len(b) for b in batches_of(cells, 64)]
    assert sizes == [64, 65]
    assert np.array_equal(np.concatenate(batches_of(cells, 64)), cells)


# The smallest published slides: colorectal 232 and section 2.041 of the brain, less held-out and validation cells.
@pytest.mark.parametrize(
    ("n", "enough", "auto"),
    [
        (1_000, 128, 128),
        (4_500, 128, 128),
        (20_000, 512, 256),
        (42_000, 2048, 512),
        (95_000, 2048, 1024),
        (10**6, 2048, 2048),
    ],
)
def test_batches_stay_as_published_where_that_gives_enough_steps(n, enough, auto):
    assert resolve_batch_size("enough_steps", n, 100) == enough
    assert resolve_batch_size("auto", n, 100) == auto
    assert resolve_batch_size(512, n, 100) == 512
    assert enough in (128, 2048) or n * 100 / enough >= 2000


def test_an_epoch_that_only_measures_gives_no_steps(slide, monkeypatch):
    monkeypatch.setattr(training, "ENOUGH_STEPS", 2)
    sizes = {}
    for weight in (0, 1):
        options = {"lambda_classifier": weight, "lambda_adversary": weight, "batch_size": "enough_steps"}
        sizes[weight] = fitted(slide, epochs=3, **options)[0].settings.batch_size
    assert sizes == {0: 512, 1: 256}


def test_too_few_cells_are_refused(slide):
    held_out = np.flatnonzero(split_cells(slide, FOLD).held_out)
    tiny = slide[[*range(4), held_out[0]]].copy()
    split = split_cells(tiny, FOLD)
    with pytest.raises(InputError, match="at least 2 training cells and 1 validation cell"):
        Cellina(**SMALL).fit(tiny, slide_graph(tiny), split)
