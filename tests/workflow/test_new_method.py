"""The example of CONTRIBUTING.md for a method: a row, a file and an environment, and nothing else is touched.

The new method runs in an interpreter of its own that has no torch, no numba and nothing that the workflow is configured
with: only NumPy, SciPy and anndata.
"""

import json
import re
import sysconfig
from pathlib import Path

from runs import clone_to, examples, tiny
from tissue_counterfactuals.results.tables import TWIN, read_scores

FOREIGN = ("torch", "numba", "pydantic", "jsonschema", "sklearn", "scanpy", "matplotlib", "snakemake", "filelock")
GUARD = f"""import sys


class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOREIGN!r}:
            raise ImportError(name + " is not part of this environment")


sys.meta_path.insert(0, Guard())
"""


def test_a_new_method_is_a_row_a_file_and_an_environment(finished, tmp_path):
    row, module, environment = examples("A method")
    checkout = clone_to(tmp_path / "clone")
    package = checkout / "workflow/tissue_counterfactuals/methods"
    table = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text(
        table.replace('        Method("cellina",', f'        {row.strip()},\n        Method("cellina",')
    )
    (package / "halving.py").write_text(module)
    pins = re.findall(r"^ {6}- (.+)$", environment, re.MULTILINE)
    assert {*pins} <= {*(checkout / "requirements.txt").read_text().split()}
    (checkout / "envs/halving.yaml").write_text(re.sub(r"pip:\n(      - .+\n)+", "pip: []\n", environment))

    run = finished.copy_to(tmp_path / "run")
    run.checkout = checkout
    methods = [*tiny()["methods"], "halving"]
    run.configure(tiny(methods=methods, seeds=[0]))
    # No network here: the rule builds the environment without its pins, and the script that comes after pip lets it
    # find the packages of this one, but for those not meant.
    library = tmp_path / "library"
    library.mkdir()
    (library / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Not as sitecustomize: Debian's Python has one of its own, which would be taken instead.
    (library / "guard.py").write_text(GUARD)
    (library / "guard.pth").write_text("import guard\n")
    place = "$(python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')"
    (checkout / "envs/halving.post-deploy.sh").write_text(f'cp {library}/* "{place}"\n')

    # The code is that of a clone, and yet what there is need not be made again.
    outcome = run.snakemake("--rerun-triggers", "mtime", "input", "--", "table1")
    assert outcome.code == 0, outcome.screen
    assert outcome.planned()["build_environment"] == 1
    assert "built halving: " in run.read("results/logs/build_environment/halving.log")
    interpreter = json.loads(run.read("results/environments/halving.json"))["interpreter"]
    assert Path(interpreter).is_relative_to(run.folder / "results/environments")
    fit = "tiny/slide_0/type_0/halving/corrected.seed0"
    assert f"halving is trained by {interpreter}" in run.read(f"results/logs/fit/{fit}.log")
    status = json.loads(run.read(f"results/models/{fit}/status.json"))
    assert status["status"] == "ok"
    assert {"numpy", "scipy", "anndata"} <= status["versions"].keys()
    assert not set(FOREIGN) & status["versions"].keys()

    scores = read_scores([run.folder / "results/tables/tiny/scores.tsv"])
    assert set(scores["method"]) == set(methods)
    assert (scores["status"] == "ok").all()
    own = scores[scores["method"] == "halving"]
    assert set(own["variant"]) == {"published", "any_type", "matched", TWIN}
    # Its twin is the observed cell, as "no change" is.
    for metric in ("rmse_counts", "rmse_lfc"):
        chosen = scores[scores["metric"] == metric].set_index(["method", "variant"])["value"]
        assert chosen["halving", TWIN] == chosen["no_change", "-"]
    # What was there before has not been made again.
    again = {"prepare", "build_graph", "write_folds", "write_question"}
    assert set(outcome.planned()) & again == set()
    assert outcome.planned()["fit"] == 1
    assert outcome.planned()["predict"] == 1
    assert "halving" in run.read("results/tables/tiny/table_1.domain_1.corrected.md")
