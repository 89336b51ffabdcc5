"""Tables of bundles: CSV (plain or gzip) and parquet, streamed in blocks, refused where they are not whole."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tissue_counterfactuals.errors import InputError
from tissue_counterfactuals.sources.columns import write_text

# Bytes of text parsed at once; a line must fit in (18,000 genes are about 40 kB).
_BLOCK_BYTES = 1 << 24


def refuse_web_page(path: Path) -> None:
    """Raise where a file is not there, empty, in UTF-16, or a web page that was saved in place of data.

    Raises:
        InputError
    """
    if not path.is_file():
        raise InputError(f"file {path}: there is no such file; check the path.")
    try:
        with pa.input_stream(str(path), compression=_compression(path)) as stream:
            beginning = stream.read(512)
    except OSError as error:
        raise _cut_short(path) from error
    if not beginning:
        raise InputError(f"file {path}: it is empty; fetch it again.")
    if beginning.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise InputError(f"file {path}: it is a web page (HTML) and not data; fetch the file itself again.")
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"file {path}: its text is in UTF-16; save it as CSV in UTF-8.")


def _refuse_open_end(path: Path) -> None:
    """Raise where the last line of a plain CSV has no end: a number that is cut short looks like a number."""
    if _is_parquet(path) or _compression(path):
        return
    with open(path, "rb") as file:
        file.seek(-1, 2)
        if file.read() not in (b"\n", b"\r"):
            raise InputError(
                f"file {path}: its last line has no end, so it is cut short; fetch it again, or end it with a line "
                "break if it is whole."
            )


def column_names(path: Path) -> list[str]:
    """Names in the first line of a CSV, or in the schema of a parquet file, in order."""
    refuse_web_page(path)
    if _is_parquet(path):
        return _open_parquet(path).schema_arrow.names
    with _open_csv(path) as reader:
        return reader.schema.names


def header_names(path: Path) -> list[str]:
    """Names in the first line of a CSV and nothing further: `column_names` parses a block, which is long where a table
    has a column for each gene.

    Raises:
        InputError: not there, empty, or a web page.
    """
    refuse_web_page(path)
    first, delimiter = _beginning(path)
    with pa.input_stream(str(path), compression=_compression(path)) as stream:
        line = next(itertools.islice(io.BufferedReader(stream), first, None), b"")
    # Where lines end as on old Macs, the whole file is one to those who look for a line feed.
    return next(csv.reader([line.decode("utf-8-sig").partition("\r")[0]], delimiter=delimiter), [])


def count_rows(path: Path, enough: int, header: bool = True) -> int:
    """How many rows a table has, of CSV up to `enough` and by lines, so that a quoted line break makes two.

    Raises:
        InputError: not there, empty, a web page, or no parquet.
    """
    refuse_web_page(path)
    if _is_parquet(path):
        return _open_parquet(path).metadata.num_rows
    first = _beginning(path)[0] + header
    with pa.input_stream(str(path), compression=_compression(path)) as stream:
        lines = itertools.islice(io.BufferedReader(stream), first, first + enough)
        return sum(1 for line in lines if line.strip())


def read_table(
    path: Path, texts: tuple[str, ...] = (), numbers: tuple[str, ...] = (), names: tuple[str, ...] | None = None
) -> pd.DataFrame:
    """Some columns of a table, texts as str and numbers as float64 (empty: NaN).

    Args:
        names: names of all columns where the file has no header line; None takes the first line.
    Raises:
        InputError: not whole, not a table, a column is missing, or a number cannot be read.
    """
    refuse_web_page(path)
    if numbers:
        _refuse_open_end(path)
    wanted = [*texts, *numbers]
    if _is_parquet(path):
        file = _open_parquet(path)
        require_columns(path, wanted, file.schema_arrow.names)
        table = file.read(wanted)
    else:
        types = dict.fromkeys(texts, pa.string()) | dict.fromkeys(numbers, pa.float64())
        with _open_csv(path, types, wanted, names) as reader:
            table = pa.Table.from_batches(_batches(reader, path), reader.schema)
    # Not what pandas notes in parquet files of its own: an index is a column like the others.
    frame = table.select(numbers).to_pandas(ignore_metadata=True).astype(np.float64)
    for column in texts:
        values = [None if value is None else write_text(value) for value in table[column].to_pylist()]
        frame[column] = pd.Series(values, dtype=object)
    return frame


def read_matrix(
    path: Path, ids: tuple[str, ...], genes: list[str], names: tuple[str, ...] | None = None
) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """A table with a column for each gene, block by block: ids as text, and values (rows, genes) float32.

    Args:
        names: of all columns where the file has no header line.

    Raises:
        InputError: as `read_table`.
    """
    _refuse_open_end(path)
    types = dict.fromkeys(ids, pa.string()) | dict.fromkeys(genes, pa.float32())
    with _open_csv(path, types, [*ids, *genes], names) as reader:
        for batch in _batches(reader, path):
            columns = [batch.column(i).to_numpy(zero_copy_only=False) for i in range(len(ids))]
            values = np.empty((batch.num_rows, len(genes)), dtype=np.float32)
            for gene in range(len(genes)):
                values[:, gene] = batch.column(len(ids) + gene).to_numpy(zero_copy_only=False)
            yield pd.DataFrame(dict(zip(ids, columns, strict=True))), values


def _open_csv(
    path: Path,
    types: dict[str, pa.DataType] | None = None,
    wanted: list[str] | None = None,
    names: tuple[str, ...] | None = None,
) -> pa.csv.CSVStreamingReader:
    if wanted is not None:
        require_columns(path, wanted, column_names(path) if names is None else list(names))
    try:
        comments, delimiter = _beginning(path)
        return pa.csv.open_csv(
            pa.input_stream(str(path), compression=_compression(path)),
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names, skip_rows=comments),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter),
            convert_options=pa.csv.ConvertOptions(column_types=types, include_columns=wanted),
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from error


def _beginning(path: Path) -> tuple[int, str]:
    """How many lines with # stand at the top, as Xenium Explorer writes them, and what stands between the columns."""
    with pa.input_stream(str(path), compression=_compression(path)) as stream:
        lines = io.BufferedReader(stream)
        comments = 0
        while (line := lines.readline()).startswith(b"#"):
            comments += 1
    if ".tsv" in path.suffixes:
        return comments, "\t"
    return comments, max(",;\t", key=lambda mark: line.count(mark.encode()))


def _batches(reader: pa.csv.CSVStreamingReader, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from error


def _open_parquet(path: Path) -> pa.parquet.ParquetFile:
    try:
        return pa.parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _cut_short(path) from error


def require_columns(path: Path, wanted: list[str], present: list[str]) -> None:
    """Raise where a wanted column is not among those present, or is there more than once.

    Raises:
        InputError
    """
    for column in wanted:
        if column not in present:
            shown = ", ".join(repr(name) for name in present[:12])
            raise InputError(
                f"file {path}: there is no column {column!r}, it has {shown}{', ...' * (len(present) > 12)}; use the "
                "file as it came from the instrument or archive."
            )
        if present.count(column) > 1:
            raise InputError(
                f"file {path}: the column {column!r} occurs {present.count(column)} times; keep one of them."
            )


def _unreadable(path: Path, error: Exception) -> InputError:
    text = str(error).splitlines()[0]
    if "invalid UTF8" in text:
        return InputError(
            f"file {path}: it holds a text that is not in UTF-8, as Excel writes where it is not asked for it; save it "
            "as CSV in UTF-8."
        )
    if "conversion error" in text:
        return InputError(
            f"file {path}: a value is not the number that its column must hold ({text.removeprefix('In ')}); use "
            "the file as the instrument wrote it."
        )
    return _cut_short(path)


def _cut_short(path: Path) -> InputError:
    return InputError(
        f"file {path}: it is cut short, damaged, or not the {''.join(path.suffixes[-2:]) or 'table'} that its name "
        "says; fetch it again."
    )


def _compression(path: Path) -> str | None:
    """By the first bytes and not by the name, because browsers unpack files without renaming them."""
    with open(path, "rb") as file:
        return "gzip" if file.read(2) == b"\x1f\x8b" else None


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"
