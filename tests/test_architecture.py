"""The map of the code names every room that there is, and nothing else."""

import pathlib
import re

import node_jax

DOCS = pathlib.Path(__file__).parent.parent / "docs"
PACKAGE = pathlib.Path(node_jax.__file__).parent


def test_the_map_of_the_code_lists_the_rooms_that_there_are():
    rooms = DOCS.joinpath("architecture.md").read_text().split("## The rooms")[1].split("\n## ")[0]
    listed = [name for row in re.findall(r"^\| (`.*?) \|", rooms, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.joinpath("__init__.py").exists()}
    assert len(listed) == len(set(listed))
    assert set(listed) == there - {"__init__"}


def test_the_glossary_is_short():
    words = DOCS.joinpath("architecture.md").read_text().split("## Words")[1]
    assert len(re.findall(r"^\| (?!word|---)", words, re.MULTILINE)) <= 25
