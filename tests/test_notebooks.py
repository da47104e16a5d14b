"""Every notebook is stored beside its source, as it was last run; `make notebooks` runs them."""

import json
import re

import pytest

from benchmarks.table import ROOT

FOLDER = ROOT / "notebooks"
SOURCES = sorted(set(FOLDER.glob("*.py")) - {FOLDER / "execute.py"})
MACHINE = re.compile(r"/(home|root|tmp|Users|opt|usr)/|[A-Z]:\\|site-packages|dist-packages")


@pytest.fixture(params=SOURCES, ids=lambda source: source.stem)
def source(request):
    return request.param


@pytest.fixture
def stored(source):
    return json.loads(source.with_suffix(".ipynb").read_text())


def percent_cells(text):
    """Kind and text of each cell of a percent script."""
    cells = []
    for kind, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", text, re.MULTILINE):
        if kind == " [markdown]":
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        cells.append(("markdown" if kind else "code", body.strip()))
    return cells


def texts(cell):
    """What a code cell printed and showed, pictures left out."""
    for output in cell["outputs"]:
        yield "".join(output.get("text", ""))
        yield from ("".join(x) for kind, x in output.get("data", {}).items() if not kind.startswith("image/"))


def test_every_stored_notebook_has_a_source():
    assert [x.stem for x in sorted(FOLDER.glob("*.ipynb"))] == [x.stem for x in SOURCES] != []


def test_stored_notebook_has_the_cells_of_its_source(source, stored):
    cells = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in stored["cells"]]
    assert cells == percent_cells(source.read_text()), "run make notebooks"


def test_stored_notebook_was_run_from_top_to_bottom_without_error(stored):
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds == {"stream", "display_data"}


def test_stored_notebook_says_nothing_of_the_machine(stored):
    printed = [text for cell in stored["cells"] if cell["cell_type"] == "code" for text in texts(cell)]
    assert not [text for text in printed if MACHINE.search(text)]
    assert all(cell["metadata"] == {} for cell in stored["cells"])
    assert stored["metadata"]["language_info"] == {"name": "python"}  # no version


def test_stored_notebook_is_small(source):
    assert source.with_suffix(".ipynb").stat().st_size < 400_000


def test_notebook_links_only_to_files_that_exist(source):
    targets = re.findall(r"\]\(([^)#:]+)\)", source.read_text())
    assert all((FOLDER / target).exists() for target in targets)
