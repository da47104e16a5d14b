"""The examples of the README and of docs/ run as they stand, and their tables are the stored results."""

import json
import re

import pytest

from benchmarks import guide, table

PAGES = [table.ROOT / "README.md", *sorted((table.ROOT / "docs").glob("*.md"))]
EXAMPLES = [(page, re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)) for page in PAGES]
# each of the README stands alone, those of a guide build on each other
RUNS = [(page, [one]) for page, examples in EXAMPLES[:1] for one in examples] + EXAMPLES[1:]


@pytest.mark.parametrize(("page", "examples"), RUNS, ids=lambda x: getattr(x, "stem", ""))
def test_examples_run(page, examples, capsys):
    scope = {}
    for example in examples:
        exec(compile(example, str(page), "exec"), scope)
        assert capsys.readouterr().out


@pytest.mark.parametrize("page", table.PAGES, ids=lambda page: page.path.stem)
def test_table_is_the_stored_result(page):
    assert page.filled() == page.path.read_text()


def test_guide_tables_are_the_stored_results():
    text = guide.GUIDE.read_text()
    assert guide.filled(text, json.loads(guide.STORED.read_text())) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_links_only_to_files_that_exist(page):
    targets = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert all((page.parent / target).exists() for target in targets)
