"""Rows of a file, each with the place where it stands; what cannot be read is a row with a problem."""

import csv
import glob
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from expert_iteration.config import ConfigError
from expert_iteration.data.readers import MAX_CHARACTERS, Fields

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One row, or why there is none."""

    place: str
    """``train.jsonl:17``, counted from 1; of a row that goes over several lines, the first."""
    fields: Fields
    problem: str = ""
    """When it is not empty, there are no fields."""


def read_file(file: Path) -> Iterator[Line]:
    """The rows of a JSONL, CSV or Parquet file, in order.

    Raises:
        ConfigError: the file as a whole cannot be read.
    """
    try:
        yield from FORMATS[file.suffix](file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}.") from error


def _read_jsonl(file: Path) -> Iterator[Line]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            if line.strip():
                yield _parsed(f"{file}:{number}", line)


def _parsed(place: str, line: bytes) -> Line:
    try:
        row = json.loads(line.decode().rstrip())
    except UnicodeDecodeError as error:
        return Line(place, {}, f"not UTF-8 (byte {error.start + 1} is 0x{line[error.start]:02x})")
    except json.JSONDecodeError as error:
        return Line(place, {}, f"not JSON ({error.msg}, column {error.colno})")
    except (ValueError, RecursionError) as error:  # numbers without end, brackets without end
        return Line(place, {}, f"not JSON ({str(error).partition(';')[0]})")
    if not isinstance(row, dict):
        return Line(place, {}, f"JSON of type {type(row).__name__}, not an object")
    return Line(place, row)


def _read_csv(file: Path) -> Iterator[Line]:
    csv.field_size_limit(2 * MAX_CHARACTERS)  # a longer field is refused here, one too long by the reader
    # bytes that are no UTF-8 become characters that are none, and the reader refuses their row
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        rows = csv.reader(text, strict=True)
        header: list[str] | None = None
        while True:
            place = f"{file}:{rows.line_num + 1}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Line(place, {}, f"not CSV ({error})")
                continue
            if header is None:
                header = row
            elif row:
                yield _named(place, header, row)


def _named(place: str, header: list[str], row: list[str]) -> Line:
    if len(row) != len(header):
        return Line(place, {}, f"{len(row)} fields, but the header names {len(header)}")
    return Line(place, dict(zip(header, row, strict=True)))


def _read_parquet(file: Path) -> Iterator[Line]:
    load, pattern = quiet_datasets().load_dataset, glob.escape(str(file))
    try:
        with TemporaryDirectory() as locks:  # streaming keeps nothing else in its cache
            rows = load("parquet", data_files=pattern, split="train", streaming=True, cache_dir=locks)
            for number, row in enumerate(rows, start=1):
                yield Line(f"{file}:{number}", row)
    except ValueError as error:
        raise ConfigError(f"{file} is not a Parquet file ({first_line(error)}).") from error


def quiet_datasets() -> Any:
    """The library `datasets`, without its progress bars and without counting downloads for its makers."""
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    return datasets


def first_line(error: Exception) -> str:
    """What an error says, without the advice that follows."""
    return next(iter(str(error).splitlines()), type(error).__name__)


FORMATS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
"""Suffix of a file -> what reads it."""
