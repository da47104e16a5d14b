"""`node-jax fit --model neural`, and `node-jax bench`."""

import json

import numpy as np
import pytest

import node_jax as nj
from node_jax.__main__ import main
from node_jax.commands.network import load

SMALL = ["--model", "neural", "--width", "8", "--depth", "1", "--window", "4"]


@pytest.fixture(scope="module")
def spirals(tmp_path_factory):
    """Two subjects on decaying spirals, with a gap."""
    path = tmp_path_factory.mktemp("spirals") / "data.csv"
    ts = np.linspace(0.0, 6.0, 20)
    rows = ["who,t,x,y"]
    for who, size in (("a", 1.0), ("b", 0.6)):
        xs, ys = (size * np.exp(-0.1 * ts) * f(ts) for f in (np.cos, np.sin))
        xs = np.where(np.arange(20) == 7, np.nan, xs)
        rows += [f"{who},{t},{'' if np.isnan(x) else x},{y}" for t, x, y in zip(ts, xs, ys, strict=True)]
    path.write_text("\n".join(rows) + "\n")
    return path


def train(path, out, updates, *words):
    code = main(["fit", str(path), *SMALL, "--subject", "who", "--updates", str(updates), "--out", str(out), *words])
    file = out / "fit.json"
    return code, json.loads(file.read_text()) if file.exists() else None


@pytest.fixture(scope="module")
def trained(spirals, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return out, *train(spirals, out, 120)


def test_training_beats_a_state_that_stays_and_all_files_are_written(trained):
    out, code, content = trained
    assert code == 0
    training = content["training"]
    assert training["rmse_scaled"] < 0.3 * training["rmse_scaled_of_no_change"]
    assert training["windows"] == 2 * 17 - 2, "none begins at the row that lacks a value"
    assert [fit["subject"] for fit in content["fits"]] == ["a", "b"]
    names = ["fit.checkpoint", "fit.json", "fit.png", "network.eqx"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_a_network_that_is_read_again_gives_the_errors_that_were_written(trained, spirals):
    out, _, content = trained
    rows = np.genfromtxt(spirals, delimiter=",", skip_header=1)[:20, 1:]
    network = load(out)
    off = np.asarray(network.trajectory(rows[0, 1:], rows[:, 0])) - rows[:, 1:]
    written = content["fits"][0]["rmse"]
    np.testing.assert_allclose(np.sqrt(np.nanmean(off**2, axis=0)), [written["x"], written["y"]], rtol=1e-6)


def test_a_resumed_run_is_the_run_that_was_not_interrupted(spirals, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, once = train(spirals, whole, 6)
    train(spirals, parts, 3)
    _, twice = train(spirals, parts, 6, "--resume")
    assert twice["training"] == once["training"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--starts", "3"], "argument --starts: is not for --model neural"),
        (["--window", "1"], "argument --window: must be a whole number of at least 2, got '1'"),
        (["--learning-rate", "0"], "argument --learning-rate: must be a positive number, got '0'"),
        (["--errors", "multiplicative"], "row 2, column 'y': 0 has no logarithm"),
    ],
)
def test_a_wrong_option_is_named(words, said, spirals, tmp_path, capsys):
    try:
        code, _ = train(spirals, tmp_path, 1, *words)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t,x\n0,1\n0,2\n1,2\n", "row 3, column 't': times must increase for a network, got 0 once more"),
        ("t,x,y\n0,1,\n1,,2\n", "has no complete row that another one follows"),
        ("t,x\n0,1\n", "has no complete row that another one follows"),
    ],
)
def test_a_table_with_nothing_to_train_on_is_refused(text, said, tmp_path, capsys):
    (tmp_path / "data.csv").write_text(text)
    assert main(["fit", str(tmp_path / "data.csv"), *SMALL, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_bench_prints_and_stores_its_times_with_versions_and_hardware(tmp_path, capsys):
    file = tmp_path / "new" / "times.json"
    assert main(["bench", "--lanes", "3", "--repeats", "1", "--dtype", "float32", "--out", str(file)]) == 0
    content, printed = json.loads(file.read_text()), capsys.readouterr().out
    rows = content["rows"]
    assert len(rows) == 8
    assert all(row["first_call_s"] > 0 and row["median_s"] > 0 for row in rows)
    assert {(row["lanes"], row["what"]) for row in rows} == {
        (n, what) for n in (1, 3) for what in ("solve", "gradient")
    }
    assert content["cores"] >= 1
    assert content["cpu"] in printed
    assert nj.__version__ in printed
