"""The package as users meet it: metadata, docstrings, and the wheel in an empty folder."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from beartype.roar import BeartypeCallHintParamViolation

import node_jax
from node_jax import tree

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, **options):
    """Run a command to its end and return its output; a failure shows all that it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_annotations_are_checked():
    with pytest.raises(BeartypeCallHintParamViolation, match="three"):
        tree.buffer(0.0, "three")


def test_citation_and_changelog_name_the_version():
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited[1] == newest[1] == node_jax.__version__


def test_version_equals_the_installed_metadata():
    assert isinstance(node_jax.__version__, str)
    assert node_jax.__version__ == metadata.version("node-jax"), "reinstall: make clean test"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the source tree is not a git clone")
def test_what_is_installed_from_a_repository_comes_from_that_of_the_metadata():
    found = run(
        "git", "grep", "-I", "--untracked", "-oE", r"git\+https:[^ \"`\\]+", "--", "*.md", "notebooks", cwd=ROOT
    )
    address = f"git+{PROJECT['urls']['Repository']}"
    notebooks = [f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("[0-9][0-9]_*")]
    places = sorted(["README.md", "docs/start.md", *notebooks])
    assert sorted(found.split()) == [f"{place}:{address}" for place in places]


def test_lower_bounds_are_the_oldest_versions_tried():
    bounds = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["demo"]
    tried = re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "tests" / "oldest.txt").read_text(), re.MULTILINE)
    assert bounds == [f"{name}>={version}" for name, version in tried]


PARTS = (node_jax, node_jax.nn, node_jax.train, node_jax.datasets, node_jax.estimate)


@pytest.mark.parametrize(("part", "name"), [(part, name) for part in PARTS for name in part.__all__])
def test_public_name_has_a_docstring_of_its_own(part, name):
    doc = getattr(part, name).__doc__  # that of its class, for a record such as tsit5
    assert doc
    assert not re.match(r"\w+\(", doc), "this one was generated: Name(field, field)"


@pytest.fixture(scope="session")
def unpacked_wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    (wheel,) = folder.glob("node_jax-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_wheel_holds_data_and_type_marker(unpacked_wheel):
    assert (unpacked_wheel / "node_jax" / "py.typed").exists()
    assert list((unpacked_wheel / "node_jax" / "data").glob("*.csv"))


def test_demo_runs_from_the_wheel_in_an_empty_folder(unpacked_wheel, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(unpacked_wheel)}
    options = {"cwd": tmp_path, "env": environment}
    where = run(sys.executable, "-c", "import node_jax; print(node_jax.__file__)", **options)
    assert Path(where.strip()).is_relative_to(unpacked_wheel)
    run(sys.executable, "-m", "node_jax", "demo", "--updates", "3", "--out", "results", **options)
    assert list((tmp_path / "results").glob("*.png"))
    assert list((tmp_path / "results").glob("*.json"))
