"""The benchmark of accelerators runs on the CPU with a few lanes, and says what it leaves out."""

import inspect
import json

import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj
from benchmarks import cards, gpu, gpu_checks, gpu_rows, measure
from node_jax import adjoints, save


def ran(folder, part, word, *more):
    path = folder / "card.json"
    gpu.main(["--small", "--part", part, "--row", word, "--rounds", "2", "--out", str(path), *more])
    return json.loads(path.read_text())


def test_checks_have_every_adjoint_save_and_status():
    checks = list(gpu_checks.checks(8))
    names = [check.name for check in checks]
    public = [value for value in vars(nj).values() if inspect.isclass(value)]
    for module, prefix in ((adjoints, "adjoint "), (save, "")):
        wanted = [one.__name__ for one in public if one.__module__.startswith(module.__name__)]
        assert wanted
        for one in wanted:
            assert any(f"{prefix}{one}" in name for name in names), one
    assert "adjoint Checkpointed, SaveAt(fn)" in names
    assert {status for check in checks for status in check.statuses} == set(nj.Status)


@pytest.mark.parametrize("word", ["status", "SaveAt(fn)"])
def test_checks_hold_on_the_cpu_in_both_dtypes(word, tmp_path):
    results = ran(tmp_path, "checks", word)["checks"]["results"]
    assert {x["dtype"] for x in results} == {"float64", "float32"}
    assert [x for x in results if not x["ok"]] == []


def test_a_check_that_differs_or_ends_otherwise_does_not_hold():
    good = {"difference": 1e-9, "bound": 1e-7, "statuses": ["SUCCESS"], "expected": ["SUCCESS"]}
    assert gpu_checks.passed(good)
    assert not gpu_checks.passed(good | {"difference": 1e-6})
    assert not gpu_checks.passed(good | {"difference": None})
    assert not gpu_checks.passed(good | {"statuses": ["MAX_STEPS"]})
    assert not gpu_checks.passed(good | {"error": "RuntimeError"})
    one, lost = ({"z1": np.array([2.0, x])} for x in (1.0, np.nan))
    assert gpu_checks.apart(one, {"z1": np.array([1.0, 1.0])}) == 1.0
    assert gpu_checks.apart(one, lost) is gpu_checks.apart(lost, one) is None
    assert gpu_checks.apart(lost, lost) == 0.0


@pytest.mark.parametrize("word", ["8,192 Lorenz", "gradient, 2,048 Van der Pol"])
def test_rows_are_timed_stored_and_shown_with_what_is_left_out(word, tmp_path):
    content = ran(tmp_path, "rows", word)
    part = content["rows"]
    (record,) = part["results"]
    assert {"node_jax", "lockstep"} <= set(record["packages"])
    assert all("error" in x or x["compile_s"] > 0 or x["median_ms"] > 0 for x in record["packages"].values())
    assert record["packages"]["node_jax"]["median_ms"] > 0
    assert record["disagree"] == []
    for package in ("diffrax", "tinydiffeq", "torchdiffeq"):
        assert package in part["left_out"] or package in " ".join(record["packages"])
    shown = "\n".join(cards.of_card(content))
    assert word in shown
    assert all(name in shown for name in part["left_out"])


def test_what_the_budget_does_not_reach_is_named_and_parts_keep_each_other(tmp_path, capsys):
    ran(tmp_path, "rows", "Lorenz", "--budget", "0")
    content = ran(tmp_path, "checks", "adjoint", "--budget", "0")
    names = [f"{row.name} (float32)" for row in gpu_rows.rows(small=True) if "Lorenz" in row.name]
    assert content["rows"]["not_run"] == names
    assert len(content["checks"]["not_run"]) > 6
    assert all(name in capsys.readouterr().out for name in names[:1])


def test_without_an_accelerator_large_rows_are_refused():
    with pytest.raises(SystemExit, match="--small"):
        gpu.main([])


def test_a_floor_is_its_evaluations_at_their_cost_and_the_rest_of_a_model():
    field = lambda z, theta: theta * z  # noqa: E731
    floor = measure.Floor(field, lambda x, w: (3, 2), True, lambda x, w: (2 * x, w), lambda x, w: x + w)
    row = measure.Row("a model", {}, (jnp.ones(2), jnp.full(2, 0.5)), floor=floor)
    loops = measure.loops_of(row)
    assert list(loops) == [*measure.LOOPS, measure.REST]
    np.testing.assert_allclose(loops[measure.LOOPS[0]](), 2 * 1.0005**measure.LOOP, rtol=1e-3)  # from the start
    np.testing.assert_allclose(loops[measure.REST](), 1.5)
    value, slope = measure.LOOPS
    bare = {value: [1.0 * measure.LOOP] * 2, slope: [10.0 * measure.LOOP] * 2, measure.REST: [7.0] * 2}
    found = measure.over_floor(row, [60.0, 60.0], bare)
    assert found == {"evaluations": [3, 2], "one_us": [1e6, 1e7], "rest_ms": 7e3, "ratio": 60 / (3 + 20 + 7)}
    bare[slope] = bare[slope][:1]  # which took part in one round of two
    assert measure.over_floor(row, [60.0, 60.0], bare) == found
    del bare[measure.REST]
    found = measure.over_floor(row, [46.0, 46.0], bare)
    assert found == {"evaluations": [3, 2], "one_us": [1e6, 1e7], "ratio": 2.0}
