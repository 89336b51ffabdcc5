"""Single files out of a zip archive on a server: only their bytes travel, and they arrive whole."""

import hashlib
import random
import shutil
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest

from downloads import gzipped, hdf5, settings, write_table, zipped
from misbehaving_server import serving
from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.downloads.obtain import obtain
from tissue_counterfactuals.sources.downloads.remote_zip import unpack
from tissue_counterfactuals.sources.downloads.table import DataFile, read_datasets

MATRIX = hdf5(400_000) + bytes(200_000)
CELLS = gzipped("cell_id,x_centroid,y_centroid\n" + "1,2.5,3.5\n" * 5000)
FILLING = {f"images/{i}.tif": np.random.default_rng(i).bytes(1_000_000) for i in range(5)}
BUNDLE = zipped({"cells.csv.gz": CELLS} | FILLING | {"cell_feature_matrix.h5": MATRIX})


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with serving({"x_outs.zip": BUNDLE}) as running:
        yield running


@pytest.fixture
def files(server, tmp_path):
    url = server.url("x_outs.zip")
    table = write_table(
        tmp_path / "table.tsv",
        {"role": "matrix", "file": "x_matrix.h5", "member": "cell_feature_matrix.h5", "url": url},
        {"role": "cells", "file": "x_cells.csv.gz", "member": "cells.csv.gz", "url": url},
    )
    return read_datasets(table)["set"]


def get(file, folder, **changes):
    own = settings(folder, table=str(folder / "table.tsv"), **changes)
    return obtain(file, own, folder / "results" / file.file)


def store(folder):
    return sorted(p.name for p in (folder / "downloads/set").iterdir() if p.name[0] != ".")


def test_only_the_wanted_files_travel(server, files, tmp_path):
    sent = []
    for file, body in zip(files, (MATRIX, CELLS), strict=True):
        assert get(file, tmp_path).read_bytes() == body
    assert store(tmp_path) == ["x_cells.csv.gz", "x_matrix.h5"]
    for headers in server.asked("x_outs.zip"):
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        sent.append(int(last) - int(first) + 1)
    # The two files, and twice the directory, which is read in blocks.
    assert sum(sent) < len(MATRIX) + len(CELLS) + 600_000 < len(BUNDLE) / 4


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("inside", ["cell_feature_matrix.h5", "outs/cell_feature_matrix.h5"])
def test_packed_or_not_in_a_folder_or_not(server, files, tmp_path, compression, inside):
    server.files["x_outs.zip"] = zipped({"readme": b"x", inside: MATRIX}, compression)
    assert get(files[0], tmp_path).read_bytes() == MATRIX


def test_the_stretch_is_resumed(server, files, tmp_path):
    get(files[0], tmp_path)
    asked = len(server.requests)
    (tmp_path / "downloads/set/x_matrix.h5").unlink()
    # As often as before it is asked where the file lies; then the stretch breaks off.
    server.faults["x_outs.zip"] = ["ok"] * (2 * asked - 1) + ["break", "503", "ok"]
    assert get(files[0], tmp_path).read_bytes() == MATRIX
    *_, first, again, last = server.starts("x_outs.zip")
    assert again == last
    assert again - first > 100_000


def test_a_server_without_ranges_is_read_whole_and_the_archive_goes_in_the_end(server, files, tmp_path):
    server.faults["x_outs.zip"] = ["no ranges"]
    assert get(files[0], tmp_path).read_bytes() == MATRIX
    assert store(tmp_path) == ["x_matrix.h5", "x_outs.zip"]
    asked = len(server.requests)
    assert get(files[1], tmp_path).read_bytes() == CELLS
    assert store(tmp_path) == ["x_cells.csv.gz", "x_matrix.h5"]
    assert len(server.requests) == asked + 1


def test_a_whole_archive_is_checked(server, files, tmp_path):
    server.faults["x_outs.zip"] = ["no ranges"]
    wrong = replace(files[0], archive_md5="0" * 32)
    found = hashlib.md5(BUNDLE).hexdigest()
    with pytest.raises(InputError, match=f"x_outs.zip has the MD5 {found}, but 0+ is expected"):
        get(wrong, tmp_path)
    assert store(tmp_path) == []
    assert get(replace(files[0], archive_md5=found), tmp_path).read_bytes() == MATRIX


def damaged(archive: bytes, seed: int) -> bytes:
    """The archive with one byte of its last file changed."""
    place = random.Random(seed).randrange(len(archive) - 300_000, len(archive) - 100_000)
    return archive[:place] + bytes([archive[place] ^ 0xFF]) + archive[place + 1 :]


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_seen(server, files, tmp_path, seed):
    server.files["x_outs.zip"] = damaged(BUNDLE, seed)
    with pytest.raises(
        InputError,
        match=r"cell_feature_matrix\.h5 in http.*zip does not have the checksum of the archive's own directory",
    ):
        get(files[0], tmp_path)
    assert store(tmp_path) == []


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"not a zip" * 100, "is no zip archive, as it must be for cell_feature_matrix.h5"),
        (BUNDLE[:-500], "is no zip archive"),
        (zipped({"readme": b"x"}), r"holds no files cell_feature_matrix\.h5 \(readme\); check member"),
        (zipped({"a/cell_feature_matrix.h5": b"", "b/cell_feature_matrix.h5": b""}),
        r"holds several files cell_feature_matrix\.h5 \(a/cell_.*, b/cell_"),
        (zipped({"cell_feature_matrix.h5": MATRIX}, zipfile.ZIP_LZMA), "packed by a method that is not read here"),
    ],
)  # fmt: skip
def test_another_archive_is_refused(server, files, tmp_path, archive, message):
    server.files["x_outs.zip"] = archive
    with pytest.raises(InputError, match=message) as error:
        get(files[0], tmp_path)
    assert "\n" not in str(error.value)
    assert store(tmp_path) == []


@pytest.mark.parametrize("kind", ["cache", "offline"])
@pytest.mark.parametrize("layout", ["archive", "unpacked", "own name"])
def test_a_bundle_fetched_by_hand(server, files, tmp_path, kind, layout):
    shared = tmp_path / "shared/somewhere"
    shared.mkdir(parents=True)
    if layout == "archive":
        (shared / "x_outs.zip").write_bytes(BUNDLE)
    elif layout == "unpacked":
        (shared / "x_outs").mkdir()
        (shared / "x_outs/cell_feature_matrix.h5").write_bytes(MATRIX)
    else:
        (shared / "x_matrix.h5").write_bytes(MATRIX)
    # A file of the same short name from another bundle is not taken.
    (shared / "y_outs").mkdir()
    (shared / "y_outs/cell_feature_matrix.h5").write_bytes(hdf5(10))
    found = get(files[0], tmp_path, **{kind: str(tmp_path / "shared")})
    assert found.read_bytes() == MATRIX
    assert found.is_relative_to(tmp_path / "downloads") == (layout == "archive")
    assert server.requests == []


def test_a_damaged_archive_fetched_by_hand(files, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/x_outs.zip").write_bytes(damaged(BUNDLE, 0))
    with pytest.raises(InputError, match=r"x_outs\.zip is a damaged zip archive"):
        get(files[0], tmp_path, offline=str(tmp_path / "shared"))


def test_the_disk_must_hold_both_forms(server, files, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=len(MATRIX) + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="bytes free, but .* more are needed"):
        get(files[0], tmp_path)


def test_a_file_without_an_archive_is_no_member():
    assert DataFile("set", "", "h5ad", "a.h5ad", url="http://x/a.zip").archive == ""


def packed_stretch(folder, plain, **changes):
    """A file with the packed bytes, and what the directory says of them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(plain) + packer.flush()
    (folder / "stretch").write_bytes(packed)
    info = zipfile.ZipInfo("member")
    said = {"file_size": len(plain), "compress_size": len(packed), "CRC": zlib.crc32(plain)} | changes
    for name, value in ({"compress_type": zipfile.ZIP_DEFLATED} | said).items():
        setattr(info, name, value)
    return folder / "stretch", info


def test_what_unpacks_to_more_than_the_directory_says_is_cut_off_there(tmp_path):
    """A bomb: 200 MB of zeros in 200 kB, of which the directory says that they are 1,000 bytes."""
    bomb = packed_stretch(tmp_path, bytes(200_000_000), file_size=1000)
    assert not unpack(*bomb, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size <= 1000


@pytest.mark.parametrize("size", [0, 1, 1000, 2**20 - 1, 2**20, 2**20 + 1, 5 * 2**20 + 7])
def test_a_member_of_any_size_arrives_whole(tmp_path, size):
    plain = np.random.default_rng(size).integers(0, 3, size, dtype=np.uint8).tobytes()
    assert unpack(*packed_stretch(tmp_path, plain), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == plain


def test_fewer_bytes_than_the_directory_says_are_refused(tmp_path):
    plain = np.random.default_rng(0).bytes(5000)
    stretch, info = packed_stretch(tmp_path, plain, file_size=5001)
    assert not unpack(stretch, info, tmp_path / "out")
    stretch, info = packed_stretch(tmp_path, plain)
    stretch.write_bytes(stretch.read_bytes()[:-100])
    assert not unpack(stretch, info, tmp_path / "out")


def test_an_archive_of_another_name_is_fetched_once_for_all_its_files(server, files, tmp_path):
    """Both files have an address of the user's own, of a server that sends whole files only."""
    server.files["copy.zip"] = BUNDLE
    server.faults["copy.zip"] = ["no ranges"]
    for file, body in zip(files, (MATRIX, CELLS), strict=True):
        asked = len(server.requests)
        assert get(replace(file, url=server.url("copy.zip")), tmp_path).read_bytes() == body
    assert len(server.requests) == asked + 1
    assert store(tmp_path) == ["x_cells.csv.gz", "x_matrix.h5"]


def test_of_a_server_that_does_not_say_how_long_its_archive_is_the_whole_is_read(server, files, tmp_path):
    server.faults["x_outs.zip"] = ["no length"]
    assert get(files[0], tmp_path).read_bytes() == MATRIX
