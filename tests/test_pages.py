"""The examples of the README and of docs/ run as they stand and print what is shown; tables are the stored results."""

import inspect
import itertools
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import node_jax as nj
from benchmarks import guide, table
from benchmarks.paper import pages, storage

README = table.ROOT / "README.md"
DOCS = table.ROOT / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BENCH = table.ROOT / ".venv-bench" / "bin" / "python"
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def examples_of(page):
    """Programs of a page, each with what is shown of its output: in the next block if that is text, else None."""
    blocks = [*BLOCK.findall(page.read_text()), ("", "", "")]
    return [
        (title, text, shown[2] if shown[0] == "text" else None)
        for (kind, title, text), shown in itertools.pairwise(blocks)
        if kind == "python"
    ]


OURS = ("", "node_jax")
EXAMPLES = {page: [(text, shown) for title, text, shown in examples_of(page) if title in OURS] for page in PAGES}
# programs of other packages, each shown beside a counterpart that prints the same
OTHERS = [
    (title, text, shown or each[i + 1][2])
    for each in map(examples_of, PAGES)
    for i, (title, text, shown) in enumerate(each)
    if title not in OURS
]
# those of the README stand alone, those of a guide build on each other
RUNS = [(README, [one]) for one in EXAMPLES[README]] + [(page, EXAMPLES[page]) for page in PAGES[1:] if EXAMPLES[page]]


def name_of(page):
    return str(page.relative_to(table.ROOT).with_suffix("")) if hasattr(page, "suffix") else ""


def assert_shown(said, shown):
    """Words are the same, numbers as far as their digits are shown; counts above 20 to 5 %, as rounding moves steps."""
    assert " ".join(NUMBER.sub("#", said).split()) == " ".join(NUMBER.sub("#", shown).split())
    for got, want in zip(NUMBER.findall(said), NUMBER.findall(shown), strict=True):
        digits, _, power = want.replace(",", "").partition("e")
        step = 10.0 ** (int(power or 0) - len(digits.partition(".")[2]))
        few = abs(float(want.replace(",", ""))) <= 20
        bound = 1.01 * step if "." in want or power else 0.0 if few else 0.05 * abs(float(want.replace(",", "")))
        assert abs(float(got.replace(",", "")) - float(want.replace(",", ""))) <= bound, (got, want, said)


def network_learns_the_spiral(said):
    assert float(said) < 0.006  # the text has 0.003, of which the last digit is the machine's


def flow_comes_close_to_the_entropy(said):
    assert 1.0 < numbers(said)[0] < 1.25  # the text has 1.15


def series_tell_their_noise(said):
    assert 0.045 < numbers(said)[0] < 0.075  # the text has 0.06


def few_steps_are_enough(said):
    assert numbers(said)[1] < 60


def truncation_changes_the_gradient(said):
    whole, long, short = numbers(said)
    np.testing.assert_allclose(long, whole, rtol=1e-5)
    assert abs(short - whole) > 0.01 * abs(whole)


# what the text of a page says of what an example prints, where no output is shown
EXTENDING = DOCS / "extending.md"
CLAIMS = {
    (README, 0): network_learns_the_spiral,
    (README, 1): flow_comes_close_to_the_entropy,
    (README, 2): series_tell_their_noise,
    (EXTENDING, 0): few_steps_are_enough,
    (EXTENDING, 3): truncation_changes_the_gradient,
}


def numbers(said):
    return [float(x) for x in re.findall(r"(?<![\w.])-?\d+\.?\d*(?:e-?\d+)?", said)]


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(("page", "examples"), RUNS, ids=name_of)
def test_examples_run_and_print_what_the_text_says(page, examples, capsys):
    scope = {}
    with np.printoptions():  # restored
        for text, shown in examples:
            exec(compile(text, str(page), "exec"), scope)
            said = capsys.readouterr().out
            assert said
            if shown is not None:
                assert_shown(said, shown)
            CLAIMS.get((page, EXAMPLES[page].index((text, shown))), lambda said: None)(said)


def test_examples_of_guides_show_what_they_print():
    guides = [page for page in PAGES[1:] if page != EXTENDING]
    assert [(name_of(page), text) for page in guides for text, shown in EXAMPLES[page] if shown is None] == []


@pytest.mark.parametrize(("title", "text", "shown"), OTHERS, ids=[title for title, _, _ in OTHERS])
def test_programs_of_other_packages_print_the_same(title, text, shown):
    program = sys.executable if title.startswith("jax.") else BENCH
    if not program or not os.path.exists(program):
        pytest.skip(f"{title} is not installed: `make bench` makes the environment that has it")
    done = subprocess.run([program, "-c", text], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert_shown(done.stdout, shown)


@pytest.mark.parametrize("page", table.PAGES, ids=lambda page: name_of(page.path))
def test_table_is_the_stored_result(page):
    assert page.filled() == page.path.read_text()


@pytest.mark.parametrize("page", [guide.GUIDE, guide.MEASURED], ids=name_of)
def test_guide_tables_are_the_stored_results(page):
    assert guide.filled(page, json.loads(guide.STORED.read_text())) == page.read_text()


@pytest.mark.parametrize("page", pages.PAGES)
def test_tables_of_experiments_are_the_stored_results(page):
    text = (storage.PAGES / f"{page}.md").read_text()
    assert pages.filled(page, text) == text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_links_only_to_files_that_exist(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.M))
    assert all((page.parent / target).exists() for target in targets)


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_code_fits_its_column(page):
    widest = 120 if page == EXTENDING else 82
    lines = [line for _, _, text in BLOCK.findall(page.read_text()) for line in text.splitlines()]
    assert [line for line in lines if len(line) > widest] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_has_no_more_than_12_000_characters_of_tables(page):
    assert sum(len(line) for line in page.read_text().splitlines() if line.startswith("|")) <= 12_000


def public_names():
    """Yield the path of every public name."""
    yield from (f"node_jax.{name}" for name in nj.__all__)
    for part in (nj.nn, nj.train, nj.datasets):
        yield from (f"{part.__name__}.{name}" for name in part.__all__)
    own = [x for x, y in vars(nj.testing).items() if getattr(y, "__module__", "").startswith(nj.testing.__name__)]
    yield from (f"{nj.testing.__name__}.{name}" for name in own if not name.startswith("_"))


def found(path):
    thing = nj
    for name in path.split(".")[1:]:
        thing = getattr(thing, name)
    return thing


def test_every_public_name_is_in_the_reference_once():
    text = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    entries = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    assert len({id(found(entry)) for entry in entries}) == len(entries)
    missing = {id(found(path)): path for path in public_names() if not inspect.ismodule(found(path))}
    assert [path for key, path in missing.items() if key not in {id(found(entry)) for entry in entries}] == []


THINGS = {id(found(path)): (path, found(path)) for path in public_names()}
DOCUMENTED = [(path, x) for path, x in THINGS.values() if inspect.isclass(x) or inspect.isfunction(x)]


@pytest.mark.parametrize(("path", "thing"), DOCUMENTED, ids=[path for path, _ in DOCUMENTED])
def test_a_public_name_has_an_example_and_an_entry_for_each_argument(path, thing):
    doc = inspect.getdoc(thing) or ""
    assert "Example:" in doc
    arguments = [] if thing is nj.Status else [name for name in inspect.signature(thing).parameters if name != "self"]
    sections = re.findall(r"^(?:Args|Attributes):\n((?: {4}.*\n|\n)*)", f"{doc}\n", re.MULTILINE)
    entries = re.findall(r"^ {4}\*{0,2}(\w+):", "".join(sections), re.MULTILINE)
    assert [name for name in arguments if name not in entries] == []
