"""The main job, from the command line inwards."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from node_jax import __main__ as command_line
from node_jax.studies.hare_lynx import demo, plotting, populations


@pytest.fixture(scope="module")
def record():
    return populations.load()


@pytest.fixture(scope="module")
def hidden(record):
    """The record without the held-out years."""
    return record._replace(logs=record.logs.at[populations.TRAINED :].set(jnp.nan))


@pytest.fixture(scope="module")
def networks(hidden):
    return populations.networks(hidden, jax.random.key(0))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A run too short to be held to its result: its exit code, folder, and numbers."""
    out = tmp_path_factory.mktemp("demo") / "made" / "here"
    code = command_line.main(["demo", "--updates", "8", "--out", str(out)])
    return code, out, json.loads((out / "demo.json").read_text())


def test_short_run_writes_figure_and_numbers_and_succeeds(short):
    code, out, numbers = short
    assert code == 0
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert set(numbers["rmse_log"]) == {"network", "lotka_volterra", "last_cycle"}
    assert numbers["best_forecast"] in numbers["rmse_log"]
    assert numbers["training"]["network"]["updates"] == [2, 6]


def test_gradient_that_trains_agrees_with_differences(short):
    assert short[2]["gradient_check"]["worst_relative_error"] < 1e-3


def test_best_forecast_is_the_smallest_held_out_error(short):
    rows = short[2]["rmse_log"]
    assert rows[short[2]["best_forecast"]]["held_out"] == min(row["held_out"] for row in rows.values())


def test_a_network_that_forecasts_worse_than_the_equations_is_said_to(short):
    rows = short[2]["rmse_log"]
    worse = rows["network"]["held_out"] >= rows["lotka_volterra"]["held_out"]
    assert demo._compared(rows) == f"The network forecasts {'worse' if worse else 'better'} than Lotka-Volterra."
    rows = {"network": {"held_out": 0.4}, "lotka_volterra": {"held_out": 0.3}}
    assert "worse" in demo._compared(rows)


def test_resumed_run_gives_the_same_numbers(short, capsys):
    _, out, numbers = short
    assert command_line.main(["demo", "--updates", "8", "--out", str(out), "--resume"]) == 0
    again = json.loads((out / "demo.json").read_text())
    assert "Nothing to resume" not in capsys.readouterr().out
    assert again["training"] == numbers["training"]
    assert again["rmse_log"] == numbers["rmse_log"]


def test_resuming_with_another_seed_is_an_error_not_a_traceback(short, capsys):
    command = ["demo", "--updates", "8", "--out", str(short[1]), "--resume", "--seed", "1"]
    assert command_line.main(command) == 2
    assert "belongs to a run with key=" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--updates", "0"], ["--updates", "many"], ["--seed", "-1"], ["--size", "3"]])
def test_wrong_option_is_named(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["demo", *words])
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_folder_that_cannot_be_made_is_an_error_not_a_traceback(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command_line.main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err


def test_help_needs_no_matplotlib_and_the_demo_names_it():
    block = "import sys; sys.modules['matplotlib'] = None; from node_jax.__main__ import main; "
    for words, code, said in ((["demo", "--help"], 0, "--updates"), (["demo"], 2, "node-jax[demo]")):
        call = [sys.executable, "-c", f"{block}sys.exit(main({words}))"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code
        assert said in done.stdout + done.stderr


def test_result_no_better_than_lotka_volterra_fails_plainly_when_required(capsys):
    numbers = {"rmse_log": {"network": {"train": 0.3}, "lotka_volterra": {"train": 0.2}}}
    assert demo._verdict(numbers, require=True) == 1
    assert "no better than Lotka-Volterra: 0.300, 0.200" in capsys.readouterr().out
    assert demo._verdict(numbers, require=False) == 0


def test_numbers_stay_when_the_figure_fails(short, tmp_path, monkeypatch):
    def broken(picture, path):
        raise RuntimeError("no ink")

    monkeypatch.setattr(plotting, "draw", broken)
    checkpoints = tmp_path / "checkpoints"
    checkpoints.symlink_to(short[1] / "checkpoints")
    with pytest.raises(RuntimeError, match="no ink"):
        demo.run(tmp_path, 0, 8, resume=True, require=False)
    assert json.loads((tmp_path / "demo.json").read_text())["rmse_log"] == short[2]["rmse_log"]


def test_split_is_1914_and_held_out_years_touch_neither_models_nor_baseline(record, hidden, networks):
    assert float(record.ts[populations.TRAINED - 1]) + 1900 == 1914
    for models in (networks, populations.classical(hidden, jax.random.key(0))):
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(models) if hasattr(x, "shape"))
    assert np.isfinite([networks.ode.field.mean, networks.ode.field.spread]).all()
    period, repeated = populations.last_cycle(hidden)
    assert period == 10
    np.testing.assert_array_equal(repeated[15:], record.logs[5:11])


def test_lotka_volterra_of_logarithms_keeps_its_invariant():
    rates = jnp.log(jnp.array(populations.FIRST_RATES))

    def invariant(z):
        growth, predation, death, gain = jnp.exp(rates)
        return gain * jnp.exp(z[0]) - death * z[0] + predation * jnp.exp(z[1]) - growth * z[1]

    z0 = jnp.log(jnp.array([30.0, 4.0]))
    steps = nj.Adaptive(rtol=1e-10, atol=1e-10)
    z1 = nj.odesolve(populations.lotka_volterra, z0, 0.0, 14.0, rates, steps=steps).z1
    np.testing.assert_allclose(invariant(z1), invariant(z0), rtol=1e-8)


def test_visited_states_are_the_stages_of_the_steps(networks):
    model = populations.member(networks, 0)
    went = populations.visits(model, 5.0)
    stages = len(model.ode.method.a)
    assert went.evaluations.shape == ((len(went.steps) - 1) * stages, 2)
    np.testing.assert_allclose(went.evaluations[::stages], went.steps[:-1])
    np.testing.assert_allclose(went.evaluations[stages - 1 :: stages], went.steps[1:], rtol=1e-10)
