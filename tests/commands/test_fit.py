"""`node-jax fit` of known fields and of those in a file."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax.__main__ import main
from node_jax.commands import parametric
from node_jax.commands.models import MODELS

RATES = {"growth": 0.6, "predation": 0.03, "death": 0.8, "gain": 0.02}
EPIDEMIC = {"transmission": 1.7, "recovery": 0.5, "susceptible": 760.0}
QUICK = ["--starts", "2", "--rtol", "1e-5"]
FIELD = """
import jax.numpy as jnp

theta0 = {"rate": 0.5, "order": 1}
transform = {"rate": "log"}


def field(z, t, theta):
    return -theta["rate"] * z ** theta["order"]


def broken(z, t, theta):
    return -theta["speed"] * z


def observe(z, theta):
    return jnp.stack([z[0]])
"""


def lines(columns, rows):
    return "\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n"


def run(tmp_path, text, *words, out="out"):
    """Write a table, fit, and return the exit code and the content of fit.json."""
    (tmp_path / "data.csv").write_text(text)
    code = main(["fit", str(tmp_path / "data.csv"), *words, "--out", str(tmp_path / out)])
    file = tmp_path / out / "fit.json"
    return code, json.loads(file.read_text()) if file.exists() else None


@pytest.fixture(scope="module")
def populations():
    """Hares and lynxes by the equations, with errors of 2 %."""
    known = MODELS["lotka-volterra"]
    ts = np.arange(0.0, 15.0)
    z0 = {"prey": jnp.asarray(30.0), "predators": jnp.asarray(5.0)}
    zs = nj.odesolve(known.field, z0, 0.0, 14.0, RATES, save=nj.SaveAt(ts)).zs
    values = np.stack([zs["prey"], zs["predators"]], axis=1)
    return ts, values * np.exp(0.02 * np.sin(7.0 * np.arange(30).reshape(15, 2)))


def table_of(ts, values):
    cells = [["" if np.isnan(x) else x for x in row] for row in values.tolist()]
    return lines(["year", "hare", "lynx"], [[t, *row] for t, row in zip(ts, cells, strict=True)])


@pytest.fixture(scope="module")
def fitted(populations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    ts, values = populations
    values = values.copy()
    values[3, 0] = np.nan
    return folder, values, *run(folder, table_of(ts, values), "--model", "lotka-volterra", *QUICK)


def test_rates_are_found_within_their_errors_and_all_files_are_written(fitted):
    folder, _, code, content = fitted
    assert code == 0
    (fit,) = content["fits"]
    for name, rate in RATES.items():
        found = fit["parameters"][name]
        assert abs(found["estimate"] - rate) < 3 * found["standard_error"]
        assert found["low"] < found["estimate"] < found["high"]
        assert found["scale"] == "log"
    assert (fit["values"], fit["missing"], fit["converged"]) == (29, 1, True)
    assert (folder / "out" / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["fit.checkpoint", "fit.json", "fit.png"]


def test_numbers_are_those_of_fit_parameters(fitted, populations):
    _, values, _, content = fitted
    known = MODELS["lotka-volterra"]

    def logs(z, theta):
        return jnp.log(jnp.stack([z["prey"], z["predators"]]))

    z0 = {"prey": 30.0, "predators": 5.0}
    fit = nj.fit_parameters(
        known.field, z0, RATES, populations[0], np.log(values), t0=0.0, observe=logs, transform="log", fit_z0="log"
    )
    (found,) = content["fits"]
    assert list(found["parameters"]) == list(fit.names)
    estimates = [row["estimate"] for row in found["parameters"].values()]
    errors = [row["standard_error"] for row in found["parameters"].values()]
    np.testing.assert_allclose(estimates, fit.model.parameters.flat(fit.x), rtol=1e-3)
    np.testing.assert_allclose(errors, fit.standard_errors(), rtol=1e-2)
    np.testing.assert_allclose(found["correlation"], fit.correlation(), atol=1e-2)


def test_settings_data_and_versions_are_in_the_numbers(fitted):
    content = fitted[3]
    assert content["data"]["observed"] == ["hare", "lynx"]
    assert content["settings"]["errors"] == "multiplicative"
    assert content["settings"]["starts"] == 2
    assert content["environment"]["versions"]["jax"] == jax.__version__


def test_resume_goes_on_from_the_estimates(populations, tmp_path, capsys):
    text = table_of(*populations)
    words = ["--model", "lotka-volterra", "--starts", "1", "--rtol", "1e-5"]
    code, first = run(tmp_path, text, *words, "--updates", "1")
    assert code == 1
    assert "did not converge" in capsys.readouterr().out
    code, second = run(tmp_path, text, *words, "--updates", "50", "--resume")
    assert code == 0
    assert "Nothing to resume" not in capsys.readouterr().out
    assert second["fits"][0]["log_likelihood"] > first["fits"][0]["log_likelihood"]
    code, third = run(tmp_path, text, *words, "--updates", "2", "--resume")
    assert code == 0, "it starts at the optimum"
    assert third["fits"][0]["log_likelihood"] == pytest.approx(second["fits"][0]["log_likelihood"], abs=1e-3)


def test_a_checkpoint_of_another_fit_is_refused(populations, tmp_path, capsys):
    text = table_of(*populations)
    words = ["--model", "lotka-volterra", "--starts", "1", "--updates", "1"]
    run(tmp_path, text, *words)
    assert run(tmp_path, text, *words, "--transform", "gain=none", "--resume")[0] == 2
    assert "belongs to a run with parameters=" in capsys.readouterr().err


def test_resuming_from_nothing_is_said(populations, tmp_path, capsys):
    run(tmp_path, table_of(*populations), "--model", "lotka-volterra", "--starts", "1", "--updates", "1", "--resume")
    assert "Nothing to resume" in capsys.readouterr().out


def doses(subjects):
    record = nj.datasets.theophylline()
    rows = [
        (f"p{i}", record.dose[i], t, c)
        for i in subjects
        for t, c in zip(record.ts[i], record.concentration[i], strict=True)
    ]
    return lines(["who", "dose", "h", "conc"], rows)


PK = ["--model", "one-compartment", "--subject", "who", "--time", "h", "--dose", "dose", *QUICK]


def test_subjects_fitted_together_are_those_fitted_alone(tmp_path, capsys):
    code, together = run(tmp_path, doses([0, 2]), *PK)
    assert code == 0
    assert [fit["subject"] for fit in together["fits"]] == ["p0", "p2"]
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in listed for name in ("p0", "p2"))
    _, alone = run(tmp_path, doses([2]), *PK, out="alone")
    for name, row in alone["fits"][0]["parameters"].items():
        assert together["fits"][1]["parameters"][name]["estimate"] == pytest.approx(row["estimate"], rel=1e-3)
        assert row["scale"] == "log"


def test_a_subject_with_too_few_values_is_named(tmp_path, capsys):
    text = doses([0]) + "p9,4,0.5,2.0\np9,4,1.0,3.0\n"
    assert run(tmp_path, text, *PK)[0] == 2
    assert "subject 'p9' has 2 values, fewer than the 3 parameters" in capsys.readouterr().err


def test_data_that_do_not_determine_the_parameters_are_no_success(tmp_path, capsys):
    text = lines(["t", "x"], [(5, 1), (5, 1.1), (5, 0.9), (5, 1.2), (5, 1)])
    code, content = run(tmp_path, text, "--model", "sir", "--starts", "1")
    assert code == 1
    assert content["fits"][0]["parameters"]["recovery"]["standard_error"] is None
    assert "1 of 1 fits left parameters open" in capsys.readouterr().out


def test_an_epidemic_gives_back_its_numbers(tmp_path):
    known, ts = MODELS["sir"], np.arange(0.0, 14.0)
    z0 = {"share": jnp.asarray(1.0), "infected": jnp.asarray(3.0), "removed": jnp.asarray(0.0)}
    zs = nj.odesolve(known.field, z0, 0.0, 13.0, EPIDEMIC, save=nj.SaveAt(ts)).zs
    text = lines(["day", "ill"], zip(ts, np.round(np.asarray(zs["infected"]), 1), strict=True))
    code, content = run(tmp_path, text, "--model", "sir", "--starts", "1", "--rtol", "1e-5")
    assert code == 0
    found = content["fits"][0]["parameters"]
    assert {name: found[name]["estimate"] for name in EPIDEMIC} == pytest.approx(EPIDEMIC, rel=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_the_start_of_a_model_is_near_enough_for_one_start_to_converge(name):
    """Starts from the data are within a factor of three of the truth."""
    known, ts = MODELS[name], np.linspace(0.0, 14.0, 29)
    truth, z0 = {
        "lotka-volterra": (RATES, {"prey": 30.0, "predators": 5.0}),
        "sir": (EPIDEMIC, {"share": 1.0, "infected": 3.0, "removed": 0.0}),
        "one-compartment": ({"elimination": 0.2, "excess": 1.0, "volume": 0.5}, {"gut": 4.0, "concentration": 0.0}),
    }[name]  # fmt: skip
    columns = min(known.observe)
    zs = nj.odesolve(known.field, jax.tree.map(jnp.asarray, z0), 0.0, 14.0, truth, save=nj.SaveAt(ts)).zs
    values = np.asarray(jax.vmap(lambda z: known.observe[columns](z, truth))(zs))
    begun, _ = known.begin(ts, values, 4.0)
    assert begun.keys() == truth.keys()
    for key, value in truth.items():
        assert 1 / 3 < begun[key] / value < 3, key


def test_a_field_of_a_file_is_fitted_with_what_the_file_says(tmp_path):
    (tmp_path / "own.py").write_text(FIELD)
    ts = np.linspace(0.0, 3.0, 7)
    text = lines(["t", "x"], zip(ts, 2 * np.exp(-0.7 * ts) + 0.001 * np.cos(9 * ts), strict=True))
    code, content = run(tmp_path, text, "--model", f"{tmp_path / 'own.py'}:field", "--starts", "1")
    found = content["fits"][0]["parameters"]
    assert code == 0
    assert {name: row["scale"] for name, row in found.items()} == {"rate": "log", "z0[0]": "none"}
    assert found["rate"]["estimate"] == pytest.approx(0.7, rel=1e-2)
    assert found["z0[0]"]["estimate"] == pytest.approx(2.0, rel=1e-2)


def test_a_parameter_that_is_held_stays_where_it_is_put(tmp_path):
    (tmp_path / "own.py").write_text(FIELD)
    ts = np.linspace(0.0, 3.0, 5)
    text = lines(["t", "x"], zip(ts, 2 * np.exp(-0.7 * ts), strict=True))
    words = ["--start", "rate=0.7", "--transform", "rate=held", "--transform", "z0=log", "--starts", "1"]
    code, content = run(tmp_path, text, "--model", f"{tmp_path / 'own.py'}:field", *words)
    assert code == 0
    (found,) = content["fits"][0]["parameters"].items()
    assert found[0] == "z0[0]"
    assert found[1]["scale"] == "log"
    assert found[1]["estimate"] == pytest.approx(2.0, rel=1e-4)
    assert content["settings"]["transform"] == {"rate": "held", "z0": "log"}


def test_a_value_without_a_logarithm_is_named_for_a_field_of_a_file_too(tmp_path, capsys):
    (tmp_path / "own.py").write_text(FIELD)
    words = ["--model", f"{tmp_path / 'own.py'}:field", "--errors", "multiplicative"]
    assert run(tmp_path, "t,x\n0,1\n1,-0.5\n2,0.3\n", *words)[0] == 2
    assert "data.csv, row 3, column 'x': -0.5 has no logarithm" in capsys.readouterr().err


@pytest.mark.parametrize("subject", [False, True])
def test_a_value_where_the_model_starts_at_zero_is_named_if_logarithms_are_compared(tmp_path, capsys, subject):
    rows = [(0, 0.02), (0.5, 2.1), (1, 3.0), (2, 3.3), (4, 2.5), (8, 1.2)]
    columns, words = ["t", "c"], ["--model", "one-compartment", "--errors", "multiplicative"]
    if subject:
        columns, rows = [*columns, "who"], [(*row, who) for who, some in (("a", rows[1:]), ("b", rows)) for row in some]
        words += ["--subject", "who", "--time", "t", "--observed", "c"]
    assert run(tmp_path, lines(columns, rows), *words)[0] == 2
    said = capsys.readouterr().err
    where = f"data.csv, row {7 if subject else 2}, column 'c'"
    assert f"{where}: the model starts at 0 there, which has no logarithm; leave the cell empty, or use" in said


def test_a_number_that_is_held_cannot_be_started_elsewhere(tmp_path, capsys):
    (tmp_path / "own.py").write_text(FIELD)
    words = ["--model", f"{tmp_path / 'own.py'}:field", "--start", "order=2"]
    assert run(tmp_path, "t,x\n0,1\n1,0.5\n2,0.3\n", *words)[0] == 2
    assert "argument --start: order = 1 is no floating number" in capsys.readouterr().err


OWN = {
    "missing.py:field": "argument --model: there is no file",
    "lotka": "argument --model: must be lotka-volterra, sir, one-compartment, neural or FILE.py:field, got 'lotka'",
    "own.py": "argument --model: must be lotka-volterra, sir, one-compartment, neural or FILE.py:field, got",
    "own.py:": "argument --model: must be lotka-volterra, sir, one-compartment, neural or FILE.py:field, got",
    "own.py:fields": "own.py defines no fields",
    "own.py:theta0": "theta0 must be a function theta0(z, t, theta)",
    "own.py:broken": "own.py, line 13: KeyError: 'speed'",
    "syntax.py:field": "syntax.py, line 1: SyntaxError",
    "text.py:field": "text.py: theta0 must be a dict of numbers and arrays by name, got {'rate': 'fast'}",
    "marks.py:field": "marks.py: transform names ['speed'], which theta0 does not have",
}


@pytest.mark.parametrize("model", OWN)
def test_what_is_wrong_with_a_file_of_ones_own_is_said(model, tmp_path, capsys):
    (tmp_path / "own.py").write_text(FIELD)
    (tmp_path / "syntax.py").write_text("def field(z t):\n")
    (tmp_path / "text.py").write_text(FIELD.replace("0.5", "'fast'").replace(', "order": 1', ""))
    (tmp_path / "marks.py").write_text(FIELD.replace('{"rate": "log"}', '{"speed": "log"}'))
    where = model if model == "lotka" else str(tmp_path / model)
    assert run(tmp_path, "t,x\n0,1\n1,0.5\n2,0.3\n", "--model", where, "--starts", "1")[0] == 2
    assert OWN[model] in capsys.readouterr().err


WRONG = [
    (["--starts", "0"], "argument --starts: must be a whole number from 1 to 100,000, got '0'"),
    (["--updates", "x"], "argument --updates: must be a whole number of at least 1, got 'x'"),
    (["--rtol", "-1"], "argument --rtol: must be a positive number, got '-1'"),
    (["--t0", "nan"], "argument --t0: must be a finite number, got 'nan'"),
    (["--start", "gain"], "argument --start: must be NAME=NUMBER, got 'gain'"),
    (["--transform", "gain=exp"], "argument --transform: must be NAME=SCALE with a scale of log, logit, none, held"),
    (["--errors", "some"], "argument --errors: invalid choice: 'some'"),
    (["--start", "speed=1"], "argument --start: lotka-volterra has no parameter 'speed', only growth, predation"),
    (["--start", "gain=-1"], "gain must be positive to start from on the scale 'log', got -1"),
    (["--transform", "speed=log"], "argument --transform: lotka-volterra has no parameter 'speed'"),
    (["--t0", "1"], "argument --t0: the first time, in row 2, is 0, before 1"),
    (["--dose", "1"], "argument --dose: is not for --model lotka-volterra"),
    (["--window", "3"], "argument --window: is not for --model lotka-volterra"),
    (["--observed", "hare"], "argument --observed: lotka-volterra takes 2 columns (prey, then predators), got 'hare'"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_wrong_option_is_named_with_its_value(words, said, tmp_path, capsys):
    text = lines(["t", "hare", "lynx"], [(i, 3 + i % 3, 2 + i % 4) for i in range(8)])
    try:
        code, content = run(tmp_path, text, "--model", "lotka-volterra", *words)
    except SystemExit as stop:
        code, content = stop.code, None
    assert (code, content) == (2, None)
    assert said in capsys.readouterr().err


def test_a_value_without_a_logarithm_is_named(tmp_path, capsys):
    text = lines(["t", "hare", "lynx"], [(i, i % 3, 2 + i % 4) for i in range(8)])
    assert run(tmp_path, text, "--model", "lotka-volterra")[0] == 2
    assert "row 2, column 'hare': 0 has no logarithm" in capsys.readouterr().err


def test_a_file_that_is_not_there_and_a_folder_that_cannot_be_made_are_errors(tmp_path, capsys):
    assert main(["fit", str(tmp_path / "none.csv"), "--model", "sir"]) == 2
    assert "none.csv" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert run(tmp_path, "t,x\n0,1\n1,2\n", "--model", "sir", out="file/out")[0] == 2


def test_an_interruption_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(parametric, "run", interrupted)
    (tmp_path / "my data.csv").write_text("t,x\n0,1\n")
    words = ["fit", str(tmp_path / "my data.csv"), "--model", "sir", "--out", str(tmp_path / "out")]
    assert main(words) == 130
    assert f"Go on with: node-jax fit '{words[1]}' --model sir --out {words[-1]} --resume" in capsys.readouterr().err


def test_numbers_stay_when_the_figure_fails_and_no_unfinished_file_is_left(populations, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no ink")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", broken)
    with pytest.raises(RuntimeError, match="no ink"):
        run(tmp_path, table_of(*populations), "--model", "lotka-volterra", "--starts", "1", "--rtol", "1e-5")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fit.checkpoint", "fit.json"]


def test_without_matplotlib_the_numbers_are_written_and_it_is_named(populations, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, content = run(
        tmp_path, table_of(*populations), "--model", "lotka-volterra", "--starts", "1", "--rtol", "1e-5"
    )
    assert code == 0
    assert content["fits"][0]["converged"]
    assert "No figure: it needs matplotlib" in capsys.readouterr().out
