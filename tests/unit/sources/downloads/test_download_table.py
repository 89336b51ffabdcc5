"""The table of data sets: the one that comes along is sound, and a faulty one is refused in one sentence."""

import re

import pytest

from downloads import write_table
from tissue_counterfactuals.config import load_config
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources import READERS
from tissue_counterfactuals.sources.downloads.table import COLUMNS, read_datasets, requested_files

BENCHMARK = {"control_domain": "REF", "target_domains": ["CRC"]}


def entry(source, **more):
    return {"source": source, "experiments": ["celcomen_spleen"]} | more


def test_every_file_of_the_table_has_a_role_that_its_reader_knows():
    readers = {
        "crc_cosmx": "cosmx_crc",
        "brain_merfish": "merfish_brain",
        "spleen_visium": "fetal_spleen",
        "glioblastoma_xenium": "xenium",
        "perturbmap_visium": "visium_perturbmap",
        "perturb_fish": "perturb_fish",
    }
    datasets = read_datasets()
    assert datasets.keys() == readers.keys()
    for name, files in datasets.items():
        reader = READERS[readers[name]]
        assert reader.published in (None, name)
        slides = {file.slide for file in files}
        for slide in slides:
            roles = {file.role for file in files if file.slide == slide}
            assert {role for role, needed in reader.files.items() if needed} <= roles
            assert roles <= reader.files.keys()


def test_every_file_says_what_is_in_it_whose_it_is_and_how_to_get_it():
    for files in read_datasets().values():
        for file in files:
            assert file.expected, file.key
            assert file.licence, file.key
            assert file.citation, file.key
            assert "https://" in file.by_hand, file.key
            assert not file.by_hand.endswith("."), file.key


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"dataset": "a b"}, "line 2: dataset is 'a b'; give letters, digits, _ and -"),
        ({"dataset": "own"}, "dataset 'own' is kept for users' addresses"),
        ({"file": "../a.h5ad"}, r"file is '\.\./a\.h5ad'; give a file name"),
        ({"url": "ftp://x/a.h5ad"}, "url is 'ftp://x/a.h5ad'; give an http"),
        ({"mirror": "http://a b"}, r"mirror is 'http://a b'; give http\(s\) addresses with a space"),
        ({"size": "1e9"}, "size is '1e9'; give bytes as a whole number"),
        ({"md5": "ABC"}, "md5 is 'ABC'; give 32 hexadecimal digits in small letters"),
        ({"sha256": "0" * 63}, "sha256 is '0+'; give 64 hexadecimal digits"),
        ({"verified": "maybe"}, "verified is 'maybe'; give yes or no"),
        ({"verified": "yes"}, "verified is yes, but there is no url"),
        ({"by_hand": ""}, "by_hand is ''; give how to get the file by hand"),
        ({"member": "a", "url": "http://x/a.h5ad"}, r"member is set, but url names no \.zip archive"),
    ],
)  # fmt: skip
def test_a_faulty_row_is_told_in_one_sentence(tmp_path, row, message):
    table = write_table(tmp_path / "table.tsv", {"file": "a.h5ad"} | row)
    with pytest.raises(InputError, match=message) as error:
        read_datasets(table)
    assert str(error.value).startswith(f"table {table}, line 2: ")
    assert "\n" not in str(error.value)


def test_a_file_or_role_that_is_there_twice(tmp_path):
    table = write_table(tmp_path / "a.tsv", {"file": "a.h5ad"}, {"file": "a.h5ad", "slide": "1"})
    with pytest.raises(InputError, match=r"line 3: set a\.h5ad is already in line 2"):
        read_datasets(table)
    table = write_table(tmp_path / "b.tsv", {"file": "a.h5ad"}, {"file": "b.h5ad"})
    with pytest.raises(InputError, match="line 3: set h5ad role is already in line 2"):
        read_datasets(table)


def test_columns_are_checked(tmp_path):
    table = write_table(tmp_path / "table.tsv", {"file": "a.h5ad"})
    header, row = table.read_text().splitlines()
    cases = {
        header.replace("\tmd5\t", "\tmd6\t"): "column 'md6' is unknown; the columns are dataset, slide",
        header.replace("\tmd5\t", "\t"): "column 'md5' is missing",
        header.replace("\tmd5\t", "\tsha256\t"): "column 'md5' is missing",
        header + "\tmd5": "column 'md5' is there twice",
        "": "column 'dataset' is missing",
    }
    for number, (text, message) in enumerate(cases.items()):
        faulty = tmp_path / f"{number}.tsv"
        faulty.write_text(f"{text}\n{row}\n")
        with pytest.raises(InputError, match=re.escape(message)):
            read_datasets(faulty)
    short = tmp_path / "short.tsv"
    short.write_text(f"{header}\n{row.rpartition(chr(9))[0]}\n")
    with pytest.raises(InputError, match=r"line 2: it has not as many values as the header \(19\)"):
        read_datasets(short)
    with pytest.raises(InputError, match=r"nowhere\.tsv cannot be read"):
        read_datasets(tmp_path / "nowhere.tsv")


def test_a_data_set_asks_for_the_files_of_its_samples():
    config = load_config(
        {
            "datasets": {
                "crc": {"source": "cosmx_crc", "files": "crc_cosmx", "samples": [120, 242]} | BENCHMARK,
                "maps": entry("visium_perturbmap", files="perturbmap_visium", samples=["KP_2"]),
                "all_maps": entry("visium_perturbmap", files="perturbmap_visium"),
                "mine": entry("h5ad", path="https://x.org/some/slide.h5ad?v=1"),
                "made": entry("simulated"),
            },
            "downloads": {"urls": {"crc_cosmx/242.h5ad": "http://mirror/242.h5ad"}},
        }
    )  # fmt: skip
    assert config["datasets"]["all_maps"]["samples"] == ["KP_1", "KP_2", "KP_3", "KP_4"]
    files = requested_files(config)
    assert [key for key in files if key.startswith("crc")] == ["crc_cosmx/120.h5ad", "crc_cosmx/242.h5ad"]
    assert len([key for key in files if key.startswith("perturbmap_visium/")]) == 20
    assert files["crc_cosmx/242.h5ad"].addresses == ["http://mirror/242.h5ad"]
    assert files["crc_cosmx/120.h5ad"].addresses[0].startswith("https://zenodo.org/records/15574384/")
    (own,) = [file for key, file in files.items() if key.startswith("own/")]
    assert re.fullmatch(r"mine\.[0-9a-f]{8}\.h5ad", own.file)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"datasets": {"a": entry("cosmx_crc", files="crc")}},
        r"datasets\.a\.files is 'crc'; resources/datasets\.tsv has crc_cosmx, "),
        ({"datasets": {"a": entry("cosmx_crc", files="crc_cosmx", samples=["243"])}},
        r"datasets\.a\.samples names '243', which has no file in crc_cosmx .* there are 110, 120"),
        ({"downloads": {"urls": {"crc_cosmx": "http://x"}}}, r"downloads\.urls names 'crc_cosmx', which is not in"),
        ({"downloads": {"urls": {"crc_cosmx/242.h5ad": "x"}}},
        r"downloads\.urls\.crc_cosmx/242\.h5ad is \"x\"; allowed is text of the form"),
        ({"downloads": {"cache": "nowhere"}}, r"downloads\.cache: there is no folder 'nowhere'"),
        ({"downloads": {"offline": "nowhere"}}, r"downloads\.offline: there is no folder 'nowhere'"),
        ({"downloads": {"table": "nowhere.tsv"}}, r"downloads\.table: table nowhere\.tsv cannot be read"),
        ({"downloads": {"parallel": 0}}, r"downloads\.parallel is 0; allowed is a whole number of at least 1"),
    ],
)  # fmt: skip
def test_what_the_configuration_asks_for_is_checked(config, message):
    with pytest.raises(InputError, match=message):
        load_config({"datasets": {"x": entry("simulated")}} | config)


def test_the_data_page_tells_of_every_data_set_and_column(root):
    page = (root / "resources/DATA.md").read_text()
    assert [name for name in read_datasets() if f"## {name}" in page or f"`{name}`" in page] == [*read_datasets()]
    columns = (root / "resources/README.md").read_text().split("## datasets.tsv")[1].split("\n## ")[0]
    assert [column for column in COLUMNS if f"`{column}`" not in columns] == []
