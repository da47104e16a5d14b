"""The examples of docs/ run as they stand, and its tables are the stored results."""

import json
import re

import pytest

from benchmarks import guide

TEXT = guide.GUIDE.read_text()


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_guide_example_runs(example, capsys):
    exec(compile(example, "docs/gradients.md", "exec"), {})
    assert capsys.readouterr().out


def test_guide_tables_are_the_stored_results():
    assert guide.filled(TEXT, json.loads(guide.STORED.read_text())) == TEXT


def test_guide_links_only_to_files_that_exist():
    assert all((guide.GUIDE.parent / target).exists() for target in re.findall(r"\]\(([^)#:]+)\)", TEXT))
