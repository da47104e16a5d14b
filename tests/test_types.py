"""What a strict type checker says of users' code: nothing that this package could have prevented."""

import json
import subprocess
import sys

import pytest
from test_pages import PAGES, README, examples_of, name_of

import node_jax as nj

pytest.importorskip("pyright")
# what is said of JAX and optax, which are not typed throughout, and of arguments that a reader leaves untyped
OTHERS = ("MissingParameterType", "MissingTypeStubs", "UnknownArgumentType", "UnknownLambdaType", "UnknownMemberType",
          "UnknownParameterType", "UnknownVariableType")  # fmt: skip
STYLE = ("DuplicateImport", "Redeclaration", "UnusedImport")  # a page is several programs


def complaints(folder, programs, without=()):
    """Check programs strictly; return what is said of each, by name."""
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(text)
    rules = {f"report{rule}": False for rule in without}
    (folder / "pyrightconfig.json").write_text(json.dumps({"include": ["."], "typeCheckingMode": "strict"} | rules))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(x["file"].split("/")[-1], 1 + x["range"]["start"]["line"], x["rule"], x["message"]) for x in found]


def test_examples_of_the_docs_pass_a_strict_type_checker(tmp_path):
    programs = {}
    for page in PAGES:
        texts = [text for title, text, _ in examples_of(page) if title in ("", "node_jax")]
        apart = page == README  # its programs stand alone, those of a guide build on each other
        for i, text in enumerate(texts if apart else ["\n".join(texts)] if texts else []):
            programs[f"{name_of(page)}_{i}".replace("/", "_").replace("-", "_")] = text
    assert complaints(tmp_path, programs, (*OTHERS, *STYLE)) == []


def test_the_type_of_every_public_name_is_known(tmp_path):
    lines = ["import node_jax as nj", ""]
    for part, name in ((nj, "nj"), (nj.nn, "nj.nn"), (nj.train, "nj.train"), (nj.datasets, "nj.datasets")):
        lines += [f"print({name}.{public})" for public in part.__all__]
    assert complaints(tmp_path, {"names": "\n".join(lines)}, ["UnknownArgumentType"]) == []
