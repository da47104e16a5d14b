"""The README's examples run as they stand, and its table is the stored result."""

import json
import re

import pytest

from benchmarks import table

README = (table.ROOT / "README.md").read_text()


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_readme_example_runs(example, capsys):
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_readme_table_is_the_stored_result():
    assert table.filled(README, json.loads(table.STORED.read_text())) == README
