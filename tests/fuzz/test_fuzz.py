"""A hundred draws of fixed seeds, and tests that the fuzzer can fail."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj

from . import __main__ as command
from . import checks, programs, shrinking, solves, worker
from .comparing import Finding
from .draws import SWITCHES, draw_structure
from .failing import KINDS, spoil
from .structures import VALUES, Structure
from .values import Draw, draw_values

CHEAP = (11, 19, 23, 38, 43, 48, 64, 82, 88, 92)  # structures of seed 0 that compile fast


def small(**changes) -> tuple[Structure, Draw]:
    """A small structure, and a draw of it without failures."""
    keys = ("w.z1.0", "w.rows.0", "keep", "nodes", "count", "z0.0")
    s = Structure("decay", **changes)
    s = s.replace(masks=tuple((key, (True,) * len(s.lanes)) for key in keys))
    return s, draw_values(s, 0, 3)


@pytest.mark.parametrize("number", CHEAP)
def test_draws_of_fixed_seeds_find_nothing(number):
    for index in range(number * VALUES, (number + 1) * VALUES):
        record = worker.record(0, index, worker.SWITCHES, None)
        assert record["ok"], (record["kind"], record["findings"], f"python -m tests.fuzz --show {index}")


def off(s, a):
    """A solve whose gradient with respect to `k`, and nothing else, is wrong by a tenth."""
    y, seen = solves.solve(s, a)
    still, _ = solves.solve(s, {**a, "p.k": jax.lax.stop_gradient(a["p.k"])})
    return jax.tree.map(lambda x, constant: x + 0.1 * (x - constant), y, still), seen


@pytest.fixture
def faulty(monkeypatch):
    """Replace the solve by one that is wrong."""

    def use(wrong):
        monkeypatch.setattr(checks, "solve", wrong)
        checks.program.cache_clear()

    yield use
    checks.program.cache_clear()


def test_wrong_gradient_is_found(faulty):
    s, draw = small()
    assert checks.check(s, draw) == []
    faulty(off)
    assert [(f.check, f.key) for f in checks.check(s, draw)] == [("derivative", "p.k")]


def test_wrong_value_and_time_are_found(faulty):
    def wrong(s, a):
        y, seen = solves.solve(s, a)
        return y, seen | {"z1": [1.001 * x for x in seen["z1"]], "t_reached": a["t0"]}

    s, draw = small()
    faulty(wrong)
    assert {f.check for f in checks.check(s, draw)} == {"value", "t_reached"}


def test_wrong_status_is_found(faulty):
    def wrong(s, a):
        y, seen = solves.solve(s, a)
        return y, seen | {"status": seen["status"] + nj.Status.CAPACITY}

    s, draw = small()
    faulty(wrong)
    assert {f.check for f in checks.check(s, draw)} == {"status"}


def test_failed_lane_that_adds_something_is_found(faulty):
    def wrong(s, a):
        y, seen = solves.solve(s, a)
        return {part: [x + 1e-9 * a["z0.0"] for x in xs] for part, xs in y.items()}, seen

    s, draw = small(lanes=(2,))
    values = {**draw.values, "z0.0": np.where([True, False], np.nan, draw.values["z0.0"])}
    draw = draw._replace(values=values, allowed=np.array([1 << nj.Status.NON_FINITE, 1]))
    assert checks.check(s, draw) == []
    faulty(wrong)
    assert "derivative, failed lane" in {f.check for f in checks.check(s, draw)}


def test_exception_is_a_finding(faulty):
    def wrong(s, a):
        raise ZeroDivisionError("of the test")

    s, draw = small()
    faulty(wrong)
    assert checks.check(s, draw) == [Finding.of_error(ZeroDivisionError("of the test"))]


def step(f, z0, t0, t1, theta, *, save, **_):
    """One step of Euler's method, in place of a solve."""
    h, slope = t1 - t0, f(z0, t0, theta)
    z1 = jax.tree.map(lambda x, k: x + h.astype(x.real.dtype) * k, z0, slope)
    n = save.ts.shape[0] if isinstance(save, nj.SaveAt) else save.capacity or 1
    zs = jax.tree.map(lambda x: jnp.stack([x] * n), z1)
    one = jnp.ones((), jnp.int32)
    sol = nj.Solution(z1, jnp.stack([t1] * n), zs, 0 * one, t1, nj.Stats(*[one] * len(nj.Stats._fields)), None)
    return sol if not isinstance(save, nj.Dense) else Dense(sol)


class Dense(nj.Solution):
    """A solution that is constant."""

    def __init__(self, sol):
        for field in dataclasses.fields(sol):
            setattr(self, field.name, getattr(sol, field.name))

    def evaluate(self, t):
        return jax.tree.map(lambda x: jnp.stack([x] * t.shape[0]), self.z1)


@pytest.mark.parametrize("switch", SWITCHES)
def test_what_surrounds_a_solve_holds_under_every_switch(switch, monkeypatch):
    monkeypatch.setattr(solves.nj, "odesolve", step)
    numbers = [n for n in range(120) if draw_structure(7, n, 1.0).switch == switch]
    for number in numbers[:3]:
        s = draw_structure(7, number, 1.0)
        checks.run(s, draw_values(s, 7, number * VALUES).values)  # raises nothing
    checks.program.cache_clear()


@pytest.mark.parametrize(
    "changes",
    [
        {"derivative": "none", "save": "at"},
        {"derivative": "grad", "save": "steps", "steps": "fixed", "n": 3, "home": "module"},
        {"derivative": "jvp", "save": "dense", "home": "closure"},
        {"derivative": "hvp_fr", "lanes": (2,), "wrapper": "scan"},
    ],
    ids=lambda changes: changes["derivative"],
)
def test_printed_program_prints_what_was_found(changes, capsys):
    s, draw = small(**changes)
    got = checks.run(s, draw.values).derivative
    text = programs.program(s, draw, Finding("derivative", "", (), 0, 0, 1.0))
    assert len(text.splitlines()) <= 15
    exec(text, {})
    printed = capsys.readouterr().out
    numbers = [x for leaf in _leaves(got) for x in np.ravel(leaf)]
    assert all(f"{x:.5g}"[:6] in printed or f"{x:.8f}"[:8] in printed for x in numbers[:4]), (printed, numbers)


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for _, x in sorted(tree.items()) for leaf in _leaves(x)]
    return [leaf for x in tree for leaf in _leaves(x)] if isinstance(tree, list) else [tree]


def test_shrinking_keeps_the_fault_and_drops_the_rest(faulty):
    faulty(off)
    s, draw = small(lanes=(3,), tree="vector", home="module", save="at", wrapper="checkpoint")
    found = [f for f in checks.check(s, draw) if f.key == "p.k"]
    smaller, _, finding = shrinking.shrink(s, draw, found[0])
    kept = (smaller.lanes, smaller.tree, smaller.home, smaller.save, smaller.wrapper)
    assert kept == ((), "scalar", "theta", "end", "plain")
    assert (finding.check, finding.key) == ("derivative", "p.k")


def test_draw_is_determined_by_seed_and_index():
    for index in (0, 17, 123):
        first, second = (worker.draw(5, index, worker.SWITCHES) for _ in range(2))
        assert first[0] == second[0]
        np.testing.assert_equal(first[1], second[1])


def test_every_kind_of_failure_is_drawn():
    drawn = set()
    for number in range(400):
        s = draw_structure(0, number)
        for index in (number * VALUES, number * VALUES + 1):
            drawn |= set(spoil(s, 0, index, draw_values(s, 0, index), share=1.0).tags)
    assert drawn >= KINDS.keys()


def test_run_goes_on_where_the_last_one_stopped(tmp_path, monkeypatch):
    path = tmp_path / "seed0.jsonl"
    path.write_text(json.dumps({"index": 0, "ok": True}) + "\n" + '{"index": 1, "o')
    assert command.read(path) == {0: {"index": 0, "ok": True}}
    out = io.StringIO()
    monkeypatch.setattr(worker, "record", lambda seed, index, switches, known: {"index": index, "ok": True})
    worker.serve(io.StringIO("1\n"), out, 0, 0.0, 12)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines == [{"index": 10, "ok": True}, {"index": 11, "ok": True}, {"structure": 1}]


def test_description_of_a_structure_is_json():
    assert json.loads(json.dumps(worker.describe(dataclasses.replace(Structure("decay"), lanes=(2,))))) == {
        "field": "decay",
        "lanes": [2],
    }
