"""Rows of files: tolerant where nothing is lost, exact about where and why a row cannot be read."""

import json
from pathlib import Path

import pytest

from expert_iteration.config import ConfigError
from expert_iteration.data.files import read_file


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def rows(file: Path) -> list[dict]:
    return [dict(line.fields) for line in read_file(file) if not line.problem]


def problems(file: Path) -> list[str]:
    """``name:line: problem`` of each row that cannot be read."""
    return [f"{Path(line.place).name}: {line.problem}" for line in read_file(file) if line.problem]


def test_jsonl_may_have_a_byte_order_mark_windows_line_ends_and_blank_lines(tmp_path):
    file = written(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"q": "\xc3\xa9"}\r\n\r\n{"q": 2}')
    assert rows(file) == [{"q": "é"}, {"q": 2}]
    assert [line.place for line in read_file(file)] == [f"{file}:1", f"{file}:3"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"q": "\xff"}', "not UTF-8 (byte 8 is 0xff)"),
        (b'{"q": "a"', "not JSON (Expecting ',' delimiter, column 10)"),
        (b'["q"]', "JSON of type list, not an object"),
        (b"7", "JSON of type int, not an object"),
        (b'{"q": ' + b"9" * 5000 + b"}", "not JSON (Exceeds the limit (4300 digits) for integer string"),
        (b"[" * 100_000, "not JSON (maximum recursion depth exceeded"),
    ],
)
def test_a_line_that_is_no_object_is_named_and_the_next_one_is_read(tmp_path, line, problem):
    file = written(tmp_path, "a.jsonl", b'{"q": 1}\n' + line + b'\n{"q": 3}\n')
    (found,) = problems(file)
    assert found.startswith(f"a.jsonl:2: {problem}")
    assert rows(file) == [{"q": 1}, {"q": 3}]


def test_csv_fields_may_hold_commas_quotes_and_line_ends(tmp_path):
    file = written(tmp_path, "a.csv", '\ufeffq,gold\r\n"one, ""two""\nthree",4\r\n\r\nfour,5\r\n')
    assert rows(file) == [{"q": 'one, "two"\nthree', "gold": "4"}, {"q": "four", "gold": "5"}]


def test_a_bad_csv_row_is_named_by_the_line_on_which_it_begins(tmp_path):
    file = written(tmp_path, "a.csv", 'q,gold\n"a\nb",1\nc\nd,2,3\n"e"f,4\ng,5\n"h\n')
    assert problems(file) == [
        "a.csv:4: 1 fields, but the header names 2",
        "a.csv:5: 3 fields, but the header names 2",
        "a.csv:6: not CSV (',' expected after '\"')",
        "a.csv:8: not CSV (unexpected end of data)",
    ]
    assert [row["gold"] for row in rows(file)] == ["1", "5"]


def test_bytes_of_a_csv_that_are_no_utf_8_are_left_for_the_reader_to_refuse(tmp_path):
    (row,) = rows(written(tmp_path, "a.csv", b"q\n\xff\n"))
    with pytest.raises(UnicodeEncodeError):
        row["q"].encode()


def test_parquet_rows_keep_their_types(tmp_path):
    import pyarrow
    from pyarrow import parquet

    table = {"question": ["one", "two"], "gold": ["1", None], "level": [3, 4]}
    file = tmp_path / "a[1].parquet"
    parquet.write_table(pyarrow.table(table), file)
    lines = list(read_file(file))
    assert [line.place for line in lines] == [f"{file}:1", f"{file}:2"]
    assert lines[1].fields == {"question": "two", "gold": None, "level": 4}


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    file = written(tmp_path, "a.parquet", "question,gold\n")
    with pytest.raises(ConfigError, match=r"a\.parquet is not a Parquet file"):
        list(read_file(file))


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"a\.jsonl cannot be read: Is a directory"):
        list(read_file(tmp_path / "a.jsonl"))


def test_an_empty_file_has_no_rows(tmp_path):
    for suffix in ("jsonl", "csv"):
        assert list(read_file(written(tmp_path, f"a.{suffix}", ""))) == []


def test_a_long_jsonl_line_is_one_row(tmp_path):
    text = "x" * 3_000_000
    assert rows(written(tmp_path, "a.jsonl", json.dumps({"q": text}))) == [{"q": text}]
