"""Tables: what is read, and what is said of a file that is wrong."""

import numpy as np
import pytest

from node_jax.__main__ import main
from node_jax.commands import table

GOOD = "t,hare,lynx\n0,30,4\n1,47,6\n2,70,10\n"

BAD = {
    "": "is empty",
    "\n \n": "is empty",
    "t,hare,lynx\n": "has a header but no rows",
    "t,hare,hare\n0,1,2\n": "row 1: columns 2 and 3 are both called 'hare'",
    "t,hare,\n0,1,2\n": "row 1: column 3 has no name",
    "t\n0\n": "has no column but 't'",
    "t,hare,lynx\n0,30,4\n\n1,many,5\n": "row 4, column 'hare': expected a finite number, got 'many'",
    "t,hare,lynx\n0,30,4\n1,inf,5\n": "row 3, column 'hare': expected a finite number, got 'inf'",
    "t,hare,lynx\n0,30,4\n1,1_000,5\n": "row 3, column 'hare': expected a finite number, got '1_000'",
    "t,hare,lynx\n0,30,4\n1,5\n": "row 3: 2 cells, but the header has 3",
    "t,hare,lynx\n0,30,4\n,1,5\n": "row 3, column 't': a number is missing, got ''",
    "t,hare,lynx\n0,30,4\n2,1,5\n1,1,5\n": "row 4, column 't': times must increase, got 1 after 2 in row 3",
    "t,hare,lynx\n0,,4\n2,NaN,5\n": "column 'hare': all values are missing",
    "t,hare,lynx\n0,,\n2,NaN,na\n": "rows 2 to 3: all values are missing",
    't,hare,lynx\n0,"3"0,4\n': "is no CSV file",
}


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_what_is_wrong_in_a_file_is_said_by_row_and_column(text, tmp_path, capsys):
    path = write(tmp_path, text)
    assert main(["fit", str(path), "--model", "lotka-volterra", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fit: ")
    assert str(path) in said
    assert BAD[text] in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time", "year"], "argument --time: "),
        (["--observed", "hare", "fox"], "argument --observed: "),
        (["--subject", "who"], "argument --subject: "),
    ],
)
def test_a_column_that_is_missing_is_named_with_its_argument_and_those_there_are(words, said, tmp_path, capsys):
    path = write(tmp_path, GOOD)
    assert main(["fit", str(path), "--model", "lotka-volterra", *words]) == 2
    assert f"{said}{path} has no column '{words[-1]}', only 't', 'hare', 'lynx'" in capsys.readouterr().err


def test_a_column_cannot_be_used_twice(tmp_path, capsys):
    path = write(tmp_path, GOOD)
    assert main(["fit", str(path), "--model", "lotka-volterra", "--observed", "hare", "t"]) == 2
    assert "column 't' cannot be used twice" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"t,hare\n0,\xff\n", b"t,hare\n0,1\x00\n"])
def test_bytes_that_are_no_text_are_an_error_not_a_traceback(content, tmp_path, capsys):
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    assert main(["fit", str(path), "--model", "neural"]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_commas_semicolons_tabs_and_the_mark_of_utf_8_are_read(delimiter, tmp_path):
    found = table.read(write(tmp_path, GOOD.replace(",", delimiter), "utf-8-sig"), None, None, None)
    assert (found.time, found.observed) == ("t", ("hare", "lynx"))
    np.testing.assert_array_equal(found.series[0].values[:, 1], [4, 6, 10])
    assert found.series[0].rows == [2, 3, 4]


def test_empty_cells_and_nan_are_missing_values(tmp_path):
    (series,) = table.read(write(tmp_path, "t,a,b\n0,,1\n1,nan,2\n2,NA,3\n3,4,5\n"), None, None, None).series
    np.testing.assert_array_equal(series.values[:, 0], [np.nan, np.nan, np.nan, 4])


def test_rows_of_subjects_may_be_mixed_and_the_first_other_column_is_the_time(tmp_path):
    path = write(tmp_path, "who,t,a,dose\nx,0,1,5\ny,3,2,6\nx,1,3,5\n")
    found = table.read(path, None, None, "who", ("dose",))
    assert (found.time, found.observed) == ("t", ("a",))
    assert [one.subject for one in found.series] == ["x", "y"]
    np.testing.assert_array_equal(found.series[0].ts, [0, 1])
    assert [one.constants["dose"] for one in found.series] == [5, 6]


def test_a_dose_that_changes_is_refused(tmp_path, capsys):
    path = write(tmp_path, "who,t,a,dose\nx,0,1,5\nx,1,3,6\n")
    words = ["--model", "one-compartment", "--subject", "who", "--dose", "dose"]
    assert main(["fit", str(path), *words]) == 2
    assert "row 3, column 'dose': must be the same number in all rows of subject 'x', got 6" in capsys.readouterr().err
