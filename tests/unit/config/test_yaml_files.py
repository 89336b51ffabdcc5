"""What YAML would swallow without a word is told with its line."""

import pytest

from tissue_counterfactuals.config.yaml_files import check_config_files
from tissue_counterfactuals.errors import InputError

GOOD = """\
# Zellen: Äpfel
datasets:
  mine: &mine
    path: a.h5ad
    samples: [242, "010", '1_1', s_1, -3]
    control_domain: normal
    holdout: {cell_types: auto, min_cells: 1_000}
  other:
    <<: *mine
    samples: null
    patients: {p: ["010"]}
    questions: [{where: {batch: "1_1", seen: true, plate: 3}}]
seeds: [0, 1]
"""


def check(tmp_path, text: str | bytes) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    check_config_files([path])


@pytest.mark.parametrize("text", [GOOD, "\ufeff" + GOOD, "", '{"seeds": [1], "datasets": {}}'])
def test_a_good_file_passes(tmp_path, text):
    check(tmp_path, text)


FAULTS = {
    "data set twice": (
        GOOD + "datasets:\n  mine: {}\n",
        "lines 2 and 14: the key datasets is given twice; keep one of them.",
    ),
    "key of a data set twice": (
        GOOD.replace("  other:", "  mine:"),
        "lines 3 and 8: the key datasets.mine is given twice",
    ),
    "twice on one line": ("seeds: [0]\ncellina: {epochs: 1, epochs: 2}\n", "lines 2 and 2: the key cellina.epochs"),
    "twice in JSON": ('{"seeds": [1],\n "seeds": [2]}', "lines 1 and 2: the key seeds is given"),
    "underscore": (GOOD.replace("'1_1'", "1_1"),
    'line 5: datasets.mine.samples holds 1_1, which YAML reads as the int 11; put it in quotation marks: "1_1"'),
    "octal": (GOOD.replace('"010"', "010"), "datasets.mine.samples holds 010, which YAML reads as the int 8"),
    "no": (GOOD.replace("normal", "no"),
    "line 6: datasets.mine.control_domain holds no, which YAML reads as the bool False"),
    "fraction": (GOOD.replace("auto", "[1.10]"),
    "datasets.mine.holdout.cell_types holds 1.10, which YAML reads as the float 1.1;"),
    "patients": (GOOD.replace('["010"]}', "[010]}"),
    'line 11: datasets.other.patients.p holds 010, which YAML reads as the int 8; put it in quotation'),
    "where": (GOOD.replace('"1_1"', "1_1"), "datasets.other.questions.where.batch holds 1_1, which YAML reads as"),
    "where no": (GOOD.replace("seen: true", "seen: no"), "where.seen holds no, which YAML reads as the bool False"),
    "date": (GOOD.replace("normal", "2024-01-02"), "holds 2024-01-02, which YAML reads as the date 2024-01-02"),
    "impossible date": (GOOD.replace("normal", "2024-99-99"), "2024-99-99, which YAML reads as a faulty timestamp"),
    "minutes": (GOOD.replace("s_1", "1:30"), "samples holds 1:30, which YAML reads as the int 90"),
    "cp1252": (GOOD.encode("cp1252"), "it is not written in UTF-8; save it again"),
    "UTF-16": (GOOD.encode("utf-16"), "it is not written in UTF-8; save it again"),
    "UTF-16 without a mark": ("seeds: [0]\n".encode("utf-16-le"), "it is not written in UTF-8"),
    "tab": ("datasets:\n\tmine: {}\n", "line 2: it is no YAML (found character '\\t' that cannot start any token)"),
    "open bracket": ("seeds: [0\ndevice: cpu\n", "it is no YAML"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_with_its_line(tmp_path, fault):
    text, sentence = FAULTS[fault]
    with pytest.raises(InputError) as told:
        check(tmp_path, text)
    assert str(told.value).startswith(f"config file {tmp_path / 'mine.yaml'}: ")
    assert sentence in str(told.value)


def test_all_faults_are_told_at_once_and_an_anchor_in_itself_has_an_end(tmp_path):
    with pytest.raises(InputError) as told:
        check(tmp_path, "a: &a [*a]\nb: 1\nb: 2\nc: 3\nc: 4\n")
    assert len(str(told.value).splitlines()) == 2


def test_anchors_upon_anchors_take_no_time(tmp_path):
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    check(tmp_path, "\n".join(lines))


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(InputError, match="it cannot be read .No such file"):
        check_config_files([tmp_path / "absent.yaml"])
