"""What all commands have in common, and the short ones."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import node_jax as nj
from node_jax import __main__ as command_line
from node_jax.commands import info


def test_the_console_script_is_the_command_line():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["node-jax"].partition(":")
    assert getattr(importlib.import_module(module), name) is command_line.main


def test_info_prints_versions_and_devices(capsys):
    assert command_line.main(["info"]) == 0
    assert capsys.readouterr().out.strip() == str(nj.info())


def test_info_of_a_source_tree_says_that_the_package_is_not_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert nj.info().versions["node-jax"] == "not installed"


@pytest.mark.parametrize("words", [[], ["solve"], ["bench", "--lanes", "0"]])
def test_a_wrong_command_ends_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(words)
    assert stop.value.code == 2
    assert "node-jax" in capsys.readouterr().err


def test_an_interrupted_command_without_checkpoints_promises_none(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "info", interrupted)
    assert command_line.main(["info"]) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


def test_help_of_fit_documents_every_model_and_parameter(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["fit", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    words = "lotka-volterra sir one-compartment neural growth predation death gain transmission recovery susceptible"
    assert all(word in said for word in [*words.split(), "elimination", "excess", "volume", "theta0"])


def test_a_reader_of_the_output_may_leave():
    command = [sys.executable, "-u", "-m", "node_jax", "info"]  # -u: each line is written at once
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0
