"""The examples of the README and of docs/ run as they stand, and their tables are the stored results."""

import json
import re

import numpy as np
import pytest

from benchmarks import guide, table
from benchmarks.paper import pages, storage

PAGES = [table.ROOT / "README.md", *sorted((table.ROOT / "docs").glob("*.md"))]
EXAMPLES = [(page, re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)) for page in PAGES]
# each of the README stands alone, those of a guide build on each other
RUNS = [(page, [one]) for page, examples in EXAMPLES[:1] for one in examples] + EXAMPLES[1:]


def network_learns_the_spiral(said):
    assert float(said) < 0.006  # the text has 0.003, of which the last digit is the machine's


def strategies_agree(said):
    first, second = np.array(numbers(said)).reshape(2, 4)
    np.testing.assert_allclose(first, second, rtol=1e-3)


def breakpoint_moves_three(said):
    np.testing.assert_allclose(numbers(said), [3.0], rtol=1e-5)


def mask_keeps_the_gradient(said):
    masked, bare = said.split()
    np.testing.assert_allclose(float(masked), -1.5 * np.exp(-0.5), rtol=1e-5)
    assert bare == "nan"


def backsolve_is_found_out(said):
    assert "cannot be trusted" in said


def only_limited_steps_without_care_have_a_wrong_gradient(said):
    rows = np.array([numbers(line) for line in said.splitlines()])
    limited, accepted, z1, gradient = rows.T
    np.testing.assert_allclose(z1, 1.5849)
    np.testing.assert_allclose(gradient[[0, 2]], 0.0273)
    assert abs(gradient[1]) > 10 * 0.0273
    assert (limited[:2] > accepted[:2] / 5).all()


def few_steps_are_enough(said):
    assert numbers(said)[1] < 60


def truncation_changes_the_gradient(said):
    whole, long, short = numbers(said)
    np.testing.assert_allclose(long, whole, rtol=1e-5)
    assert abs(short - whole) > 0.01 * abs(whole)


# what the text of a page says of what its example prints
CLAIMS = {
    ("README", 0): network_learns_the_spiral,
    ("extending", 0): few_steps_are_enough,
    ("extending", 3): truncation_changes_the_gradient,
    ("gradients", 0): strategies_agree,
    ("gradients", 1): breakpoint_moves_three,
    ("gradients", 2): mask_keeps_the_gradient,
    ("gradients", 3): backsolve_is_found_out,
    ("gradients", 4): only_limited_steps_without_care_have_a_wrong_gradient,
}


def numbers(said):
    return [float(x) for x in re.findall(r"(?<![\w.])-?\d+\.?\d*(?:e-?\d+)?", said)]


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize(("page", "examples"), RUNS, ids=lambda x: getattr(x, "stem", ""))
def test_examples_run_and_print_what_the_text_says(page, examples, capsys):
    scope = {}
    for example in examples:
        exec(compile(example, str(page), "exec"), scope)
        said = capsys.readouterr().out
        assert said
        where = (page.stem, next(every.index(example) for each, every in EXAMPLES if each == page))
        CLAIMS.get(where, lambda said: None)(said)


@pytest.mark.parametrize("page", table.PAGES, ids=lambda page: page.path.stem)
def test_table_is_the_stored_result(page):
    assert page.filled() == page.path.read_text()


def test_guide_tables_are_the_stored_results():
    text = guide.GUIDE.read_text()
    assert guide.filled(text, json.loads(guide.STORED.read_text())) == text


@pytest.mark.parametrize("page", pages.PAGES)
def test_tables_of_experiments_are_the_stored_results(page):
    text = (storage.PAGES / f"{page}.md").read_text()
    assert pages.filled(page, text) == text


@pytest.mark.parametrize("page", [*PAGES, *storage.PAGES.glob("*.md")], ids=lambda page: page.stem)
def test_page_links_only_to_files_that_exist(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert all((page.parent / target).exists() for target in targets)
