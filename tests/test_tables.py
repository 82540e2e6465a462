"""Tables: what is written is read back, a spreadsheet finds no formula in them, damage is one message."""

import csv

import pytest

from semiseg.errors import InputError
from semiseg.tables import parse_table, read_table, table_writer, write_table

HOSTILE = [
    "=cmd|'/C calc'!A0", "+1+2", "-2+3", "@SUM(A1)", "\tx", "\rx", "\nx", "'=1", "''=1", "'", "'quoted'", "＝1", "－x",
    "-", "=", "a=b", "a,b", 'a"b', "a;b", "é", "", " =1", "-1", "+1", "-1.5e3", "a\r\nb",
]  # fmt: skip


def read(path, needed=("name",), **more):
    return read_table(path, needed, "a table", "write it anew", **more)


def test_no_cell_of_text_begins_as_a_formula_and_all_are_read_back(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, ["name", "number"], ({"name": name, "number": -1.5} for name in HOSTILE))
    with path.open(newline="", encoding="utf-8") as file:
        cells = [row[0] for row in csv.reader(file)][1:]
    formulas = [cell for cell in cells if cell[:1] in {*"=+-@\t\r\n＝＋－＠"}]
    assert formulas == ["-1", "+1", "-1.5e3"]  # numbers, as the values of classes are
    assert [row["name"] for row in read(path)] == HOSTILE
    assert {row["number"] for row in read(path)} == {"-1.5"}


def test_nothing_and_columns_of_others(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, ["name", "score"], [{"name": "a", "score": None, "more": 1}, {"name": "b"}])
    assert path.read_bytes() == b"name,score\r\na,\r\nb,\r\n"
    assert read(path) == [{"name": "a", "score": ""}, {"name": "b", "score": ""}]


def test_a_failure_leaves_the_table_that_was_there(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, ["name"], [{"name": "old"}])
    with pytest.raises(RuntimeError), table_writer(path, ["name"]) as write:  # noqa: PT012
        write({"name": "new"})
        raise RuntimeError
    assert read(path) == [{"name": "old"}]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "t.csv: got no column name"),
        (b"names\na\n", "t.csv: got no column name"),
        (b"name,name\na,b\n", "t.csv: got the column name twice"),
        (b"name,x\na,b\na\n", "t.csv, line 3: got another number of cells than the header has"),
        (b"name\na,b\n", "t.csv, line 2: got another number of cells than the header has"),
        (b"name\nbad\n", "t.csv, line 2: got a bad name"),
        (b'name\n"a\n', "t.csv: got unexpected end of data"),
        (b"name\ncaf\xe9\n", "t.csv: got .*codec can't decode"),
        (b"name\n" + b"a" * 200000 + b"\n", "t.csv: got field larger than field limit"),
    ],
)
def test_damage_is_one_message(tmp_path, content, found):
    def parse(row):
        if row["name"] == "bad":
            raise ValueError("a bad name")

    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{found}.*, expected a table; write it anew") as told:
        parse_table(path, ("name",), "a table", "write it anew", parse)
    assert len(str(told.value)) < 1000


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"t\.csv: got No such file or directory, expected a table"):
        read(tmp_path / "t.csv")


def test_tables_as_people_save_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffname;status;who\r\na;x\r\n\r\n'=b;;é\r\n".encode())
    rows = read(path, ("name", "status", "who"), by_hand=True)
    assert rows == [{"name": "a", "status": "x", "who": ""}, {"name": "=b", "status": "", "who": "é"}]
    with pytest.raises(InputError, match="no column name"):
        read(path)
