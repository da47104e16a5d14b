"""Every notebook is stored beside its source, as it was last run; `make notebooks` runs them from the built wheel."""

import json
import re
import tomllib

import pytest

from benchmarks.table import ROOT

FOLDER = ROOT / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
MACHINE = re.compile(r"/(home|root|tmp|work|Users|opt|usr)/|[A-Z]:\\|site-packages|dist-packages|glibc|Linux-|macOS-")
COLAB = "https://colab.research.google.com"


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


def test_only_numbered_notebooks_are_in_the_folder():
    assert {x.stem for x in FOLDER.glob("*.py")} - {x.stem for x in SOURCES} == {"execute"}
    assert [int(x.stem[:2]) for x in SOURCES] == list(range(1, len(SOURCES) + 1))


def test_notebook_begins_with_its_number_and_opens_in_colab(source):
    kind, first = percent_cells(source.read_text())[0]
    assert kind == "markdown"
    assert first.startswith(f"# {int(source.stem[:2])}. ")
    badge = f"[![Colab]({COLAB}/assets/colab-badge.svg)]"
    address = f"{COLAB}/github/{REPOSITORY.removeprefix('https://github.com/')}/blob/main/notebooks/{source.stem}.ipynb"
    assert f"{badge}({address})" in first


def installation(path):
    """The first code cell, without the packages that a notebook needs besides."""
    cell = next(text for kind, text in percent_cells(path.read_text()) if kind == "code")
    return re.sub(r"\{package\}( [a-z-]+)* \{kept\}", "{package} {kept}", cell)


def test_every_notebook_is_installed_in_the_same_way_and_keeps_the_jax_that_is_there(source):
    assert installation(source) == installation(SOURCES[0])
    assert f"git+{REPOSITORY}" in installation(source)
    assert 'f"{name}=={importlib.metadata.version(name)}"' in installation(source)


def test_notebook_ends_by_checking_what_it_claims(source):
    code = [text for kind, text in percent_cells(source.read_text()) if kind == "code"]
    assert code[-1].count("assert ") >= 3


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
