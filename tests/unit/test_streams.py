"""Random streams: no two share numbers, and nothing in the package draws beside them."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np

import tissue_counterfactuals
from tissue_counterfactuals.streams import stream, stream_seed

PACKAGE = Path(tissue_counterfactuals.__file__).parent
# What repeats the authors' own draws (NumPy's older generator, PyTorch's shuffling loader), function by function.
AS_RUN = {
    ("models/celcomen_generation.py", "noise_angles"),
    ("models/celcomen_meanfield.py", "first_forces"),
    ("models/celcomen_meanfield.py", "shuffled_orders"),
    ("experiments/simulated_tissues.py", "generate_tissues"),
    ("experiments/celcomen_knockout.py", "knocked_out_cells"),
    ("experiments/perturbmap_question.py", "chosen_spots"),
}
GENERATORS = {"default_rng", "RandomState", "SeedSequence", "Generator", "manual_seed", "seed"}


def calls():
    """File, innermost function and node of every call in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        owner = {}
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                owner |= dict.fromkeys(ast.walk(function), function.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield path.relative_to(PACKAGE).as_posix(), owner.get(node, ""), node


def called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_a_stream_is_named_once_in_the_package():
    names = []
    for file, _, node in calls():
        if called(node) in ("stream", "stream_seed"):
            name = node.args[1]
            assert isinstance(getattr(name, "value", None), str), (file, node.lineno)
            names.append(name.value)
    assert len(names) > 30
    assert [name for name, n in Counter(names).items() if n > 1] == []


def test_nothing_draws_beside_the_named_streams():
    found = {}
    for file, function, node in calls():
        if called(node) in GENERATORS and file != "streams.py":
            seeds_torch = called(node) == "manual_seed" and isinstance(node.args[0], ast.Call)
            if not (seeds_torch and called(node.args[0]) == "stream_seed"):
                found.setdefault((file, function), []).append(node.lineno)
        if "random_state" in (keyword.arg for keyword in node.keywords):
            value = next(k.value for k in node.keywords if k.arg == "random_state")
            drawn = called(value) if isinstance(value, ast.Call) else ""
            assert drawn == "stream_seed", (file, node.lineno)
    assert set(found) == AS_RUN, found


def test_streams_differ_by_seed_name_and_every_number():
    """NumPy's own lists do not: trailing zeros count for nothing there."""
    keys = [
        (seed, name, *numbers)
        for seed in (0, 1, 10, 2**32, 2**64)
        for name in ("a", "ab", "1")
        for numbers in ((), (0,), (0, 0), (1,), (1, 0), (10,), ("0",), ("b",))
    ]
    first = {stream(*key).integers(2**63) for key in keys}
    seeds = {stream_seed(*key) for key in keys}
    assert len(first) == len(seeds) == len(keys)
    assert max(seeds) < 2**32


def test_a_stream_repeats_itself():
    """Also across versions: these numbers are what results on disk were made from."""
    assert stream(3, "donors", 1).integers(1000, size=3).tolist() == [496, 74, 408]
    np.testing.assert_array_equal(
        stream(np.int64(3), "donors", np.int32(1)).random(4), stream(3, "donors", 1).random(4)
    )
