"""Transformations of a solve: what they return, and what they compile to."""

import ast
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting import check_export
from replays import gap, nodes, replay

import node_jax as nj

LIMIT = 61  # a number that appears in no other shape
SLOTS = 22  # their buffer has 23 rows
STEPS = nj.Adaptive(rtol=1e-4, atol=1e-6)


def network(z, t, theta):
    return jnp.tanh(theta @ z + t) - z


def logistic(z, t, theta):
    return theta * z * (1.0 - z) + 0.1 * jnp.sin(3.0 * t)


def solve(f, z0, t0, t1, theta, **options):
    defaults = {"steps": STEPS, "method": nj.bosh3, "max_steps": LIMIT, "throw": False}
    return nj.odesolve(f, z0, t0, t1, theta, **{**defaults, **options})


def loss(z0, theta, checkpoints=None):
    adjoint = nj.Checkpointed(checkpoints=checkpoints)
    return jnp.sum(jnp.sin(solve(network, z0, 0.0, 1.5, theta, adjoint=adjoint).z1))


Z0S = jnp.array([[1.0, -0.5], [0.2, 2.0], [-1.0, 0.3]])
THETAS = jnp.array([[[0.5, -1.0], [1.0, 0.2]], [[2.0, 0.3], [-3.0, 1.0]]])
Z0, THETA = Z0S[0], THETAS[0]


# Compositions against the same thing done one by one, on a replay that JAX differentiates plainly


@functools.cache
def times_of(i, k):
    return nodes(network, Z0S[i], 0.0, 1.5, THETAS[k], steps=STEPS, method=nj.bosh3)


@functools.partial(jax.jit, static_argnums=0)
def transformed(transform, z0, theta, times):
    def plain(z0, theta):
        # steps of size zero pad the times of all lanes to one shape
        return jnp.sum(jnp.sin(replay(network, z0, times, theta, nj.bosh3)[0]))

    return transform(plain)(z0, theta)


def one_by_one(transform):
    """Results of `transform(loss)` for each of the states and networks."""

    def one(i, k):
        times = times_of(i, k)
        return transformed(transform, Z0S[i], THETAS[k], jnp.pad(times, (0, LIMIT - times.size), mode="edge"))

    table = [[one(i, k) for i in range(len(Z0S))] for k in range(len(THETAS))]
    rows = [jax.tree.map(lambda *x: jnp.stack(x), *row) for row in table]
    return jax.tree.map(lambda *x: jnp.stack(x), *rows)  # axes: networks, states


def gradients(loss):
    return jax.grad(loss, (0, 1))


def directional(loss):
    def push(z0, theta):
        return jax.jvp(jax.grad(loss, (0, 1)), (z0, theta), (jnp.ones_like(z0), theta))[1]

    return push


def hessian(loss):
    return jax.hessian(loss, (0, 1))


def over_data(fn):
    return jax.vmap(fn, (0, None))


def over_networks(fn):
    return jax.vmap(fn, (None, 0))


def grad_of_vmap_over_data(loss):
    return jax.grad(lambda z0s, theta: jnp.sum(over_data(loss)(z0s, theta)), (0, 1))


def grad_of_vmap_over_networks(loss):
    return jax.grad(lambda z0, thetas: jnp.sum(over_networks(loss)(z0, thetas)), (0, 1))


def grad_of_both(first, second):
    def transform(loss):
        return jax.grad(lambda z0s, thetas: jnp.sum(first(second(loss))(z0s, thetas)), (0, 1))

    return transform


def vmap_of_grad_of_vmap(loss):
    return over_networks(grad_of_vmap_over_data(loss))


def vmap_of_jacrev(loss):
    return over_data(jax.jacrev(loss, (0, 1)))


def grad_through_scan(loss):
    def total(z0s, theta):
        return jax.lax.scan(lambda sum_, z0: (sum_ + loss(z0, theta), None), 0.0, z0s)[0]

    return jax.grad(total, (0, 1))


def grad_of_checkpoint(loss):
    return jax.grad(lambda z0s, theta: jnp.sum(jax.checkpoint(over_data(loss))(z0s, theta)), (0, 1))


def hessian_of_vmap(loss):
    return jax.hessian(lambda z0s, theta: jnp.sum(over_data(loss)(z0s, theta)), 1)


def every(z0_bar, theta_bar):
    return z0_bar, theta_bar


def data_sum(z0_bar, theta_bar):
    return z0_bar[0], theta_bar[0].sum(0)


# name: (composition, its arguments, one lane's transformation, what of the table of lanes is expected)
COMPOSITIONS = {
    "grad": (gradients, Z0, THETA, gradients, lambda z, w: (z[0, 0], w[0, 0])),
    "vmap(grad) over data": (
        lambda f: over_data(gradients(f)),
        Z0S,
        THETA,
        gradients,
        lambda z, w: (z[0], w[0]),
    ),
    "vmap(grad) over networks": (
        lambda f: over_networks(gradients(f)),
        Z0,
        THETAS,
        gradients,
        lambda z, w: (z[:, 0], w[:, 0]),
    ),
    "grad(vmap) over data": (grad_of_vmap_over_data, Z0S, THETA, gradients, data_sum),
    "grad(vmap) over networks": (
        grad_of_vmap_over_networks,
        Z0,
        THETAS,
        gradients,
        lambda z, w: (z[:, 0].sum(0), w[:, 0]),
    ),
    "grad(networks of data)": (
        grad_of_both(over_networks, over_data),
        Z0S,
        THETAS,
        gradients,
        lambda z, w: (z.sum(0), w.sum(1)),
    ),
    "grad(data of networks)": (
        grad_of_both(over_data, over_networks),
        Z0S,
        THETAS,
        gradients,
        lambda z, w: (z.sum(0), w.sum(1)),
    ),
    "vmap(grad(vmap))": (vmap_of_grad_of_vmap, Z0S, THETAS, gradients, lambda z, w: (z, w.sum(1))),
    "vmap(jacrev)": (vmap_of_jacrev, Z0S, THETA, gradients, lambda z, w: (z[0], w[0])),
    "hessian": (hessian, Z0, THETA, hessian, lambda z, w: jax.tree.map(lambda x: x[0, 0], (z, w))),
    "vmap(hessian)": (
        lambda f: over_data(hessian(f)),
        Z0S,
        THETA,
        hessian,
        lambda z, w: jax.tree.map(lambda x: x[0], (z, w)),
    ),
    "hessian(vmap)": (hessian_of_vmap, Z0S, THETA, hessian, lambda z, w: w[1][0].sum(0)),
    "vmap(jvp of grad)": (
        lambda f: over_data(directional(f)),
        Z0S,
        THETA,
        directional,
        lambda z, w: (z[0], w[0]),
    ),
    "grad through scan": (grad_through_scan, Z0S, THETA, gradients, data_sum),
    "grad of jax.checkpoint": (grad_of_checkpoint, Z0S, THETA, gradients, data_sum),
}
REFERENCES = {}


def selected_shapes(text):
    """Shapes of what is selected in the text of a lowered program."""
    lines = re.findall(r"stablehlo\.select .*", text)
    return {shape for line in lines for shape in re.findall(r"tensor<([^>]*)>", line)}


def selects_over(text, *rows):
    return [shape for shape in selected_shapes(text) if {str(n) for n in rows} & set(shape.split("x"))]


def test_a_select_over_the_history_would_be_seen():
    def loop(z, n):
        return jax.lax.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1].at[c[0]].set(1.0)), (0, z))[1]

    text = jax.jit(jax.vmap(loop)).lower(jnp.zeros((3, LIMIT)), jnp.arange(3)).as_text()
    assert selects_over(text, LIMIT)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_composition_is_the_same_one_by_one(name):
    composition, z0, theta, single, expected = COMPOSITIONS[name]
    if single not in REFERENCES:
        REFERENCES[single] = one_by_one(single)
    lowered = jax.jit(composition(loss)).lower(z0, theta)
    assert not selects_over(lowered.as_text(), LIMIT)
    assert gap(lowered.compile()(z0, theta), expected(*REFERENCES[single])) <= 1e-10


@pytest.mark.parametrize("name", ["vmap(grad(vmap))", "vmap(hessian)"])
def test_composition_is_the_same_with_few_checkpoints(name):
    composition, z0, theta, single, expected = COMPOSITIONS[name]
    if single not in REFERENCES:
        REFERENCES[single] = one_by_one(single)
    lowered = jax.jit(composition(functools.partial(loss, checkpoints=SLOTS))).lower(z0, theta)
    assert not selects_over(lowered.as_text(), LIMIT, SLOTS, SLOTS + 1)
    assert gap(lowered.compile()(z0, theta), expected(*REFERENCES[single])) <= 1e-10


# Lane by lane


def general(z0, t0, t1, theta, ts, rtol, atol):
    save = nj.SaveAt(t0 + (t1 - t0) * ts)
    return contents(solve(logistic, z0, t0, t1, theta, save=save, steps=nj.Adaptive(rtol=rtol, atol=atol)))


USUAL = {"z0": 0.3, "t0": 0.0, "t1": 1.0, "theta": 1.5, "ts": jnp.array([0.1, 0.5, 0.9]), "rtol": 1e-4, "atol": 1e-6}
MAPPED = {
    "z0": [0.1, 0.9, -0.2],
    "t0": [0.0, -1.0, 0.9],
    "t1": [2.0, -1.0, 0.0],  # both directions, and none
    "theta": [0.5, 6.0, -1.0],
    "ts": [[0.1, 0.5, 0.9], [0.0, 0.0, 1.0], [0.7, 0.7, 0.7]],
    "rtol": [1e-3, 1e-5, 1e-4],
    "atol": [1e-3, 1e-5, 1e-7],
}


def contents(sol):
    dense = None if sol.interpolant is None else sol.evaluate(jnp.array([0.95, 0.99]))
    return sol.z1, sol.ts, sol.zs, sol.status, sol.t_reached, sol.stats._replace(idle=()), dense


def assert_same(batch, each):
    """Compare the contents of a batch with those of its lanes one by one; counts exactly, the rest to 1e-12."""
    each = jax.tree.map(lambda *x: np.stack(x), *each)
    assert np.array_equal(*(np.stack(jax.tree.leaves(x[5])) for x in (batch, each)))
    tidy = functools.partial(jax.tree.map, lambda x: np.where(np.isnan(x), -99.0, x))
    assert gap(tidy(batch), tidy(each)) <= 1e-12


@functools.cache
def general_alone():
    return jax.jit(general)


@pytest.mark.parametrize("name", MAPPED)
def test_solve_with_one_input_mapped_is_the_same_lane_by_lane(name):
    values = jnp.array(MAPPED[name])
    axes = [0 if key == name else None for key in USUAL]
    batch = jax.jit(jax.vmap(general, axes))(*{**USUAL, name: values}.values())
    assert_same(batch, [general_alone()(*{**USUAL, name: x}.values()) for x in values])


def test_solve_with_every_input_mapped_is_the_same_lane_by_lane():
    lanes = [jnp.array(values) for values in MAPPED.values()]
    assert_same(jax.jit(jax.vmap(general))(*lanes), [general_alone()(*lane) for lane in zip(*lanes, strict=True)])


def grid(x):
    return contents(solve(logistic, 0.3, 0.0, x, 1.5, steps=nj.Grid(x * jnp.array([0.0, 0.1, 0.5, 1.0]))))


def fixed(x):
    return contents(solve(logistic, 0.3, x, 1.0, 1.5, steps=nj.Fixed(5), save=nj.Dense(5)))


def every_step(x):
    return contents(solve(logistic, 0.3, 0.0, x, 1.5, save=nj.SaveSteps(17)))


OTHERS = {
    "Grid": (grid, [1.0, -1.0, 0.3]),
    "Fixed, Dense": (fixed, [0.0, 2.0, 0.9]),
    "SaveSteps": (every_step, [0.5, -1.5]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_steps_and_saves_are_the_same_lane_by_lane_in_both_directions(name):
    one, values = OTHERS[name]
    alone = jax.jit(one)
    assert_same(jax.jit(jax.vmap(one))(jnp.array(values)), [alone(x) for x in values])


def test_two_lane_axes_come_out_in_their_order():
    z0s, thetas = jnp.linspace(0.1, 0.8, 5), jnp.array([0.5, 1.5])

    def one(z0, theta):
        return solve(logistic, z0, 0.0, 1.0, theta, save=nj.SaveAt(jnp.linspace(0.0, 1.0, 4)))

    networks_of_data = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(z0s, thetas)
    data_of_networks = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(z0s, thetas)
    assert networks_of_data.z1.shape == networks_of_data.stats.nfe.shape == (2, 5)
    assert networks_of_data.zs.shape == (2, 5, 4)
    assert data_of_networks.zs.shape == (5, 2, 4)
    assert gap(data_of_networks.zs, networks_of_data.zs.transpose(1, 0, 2)) <= 1e-14
    assert gap(networks_of_data.zs[..., 0], jnp.broadcast_to(z0s, (2, 5))) == 0.0


def test_mapped_axes_may_lie_anywhere():
    z0s = jnp.arange(6.0).reshape(2, 3) / 10

    def one(z0):
        return solve(logistic, z0, 0.0, 1.0, 1.5 * jnp.ones(2)).z1

    assert gap(jax.vmap(one, 1, 1)(z0s), jax.vmap(one)(z0s.T).T) <= 1e-14


def padded_subjects():
    """Twelve subjects observed 5 to 29 times, the times of each padded with its last."""
    lengths = np.array([5, 29, 8, 17, 6, 11, 23, 5, 13, 20, 9, 26])
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0.0, 2.0, n)) for n in lengths]
    return lengths, jnp.array([np.pad(ts, (0, 29 - ts.size), mode="edge") for ts in times])


def subject(z0, ts, theta):
    save = nj.SaveAt(ts)
    return solve(logistic, z0, 0.0, ts[-1], theta, save=save, steps=nj.Adaptive(rtol=1e-3, atol=1e-5)).zs


def squares_of_one(z0, ts):
    zs = subject(z0, ts, 1.5)
    return jnp.sum(zs**2), zs


def test_padded_ragged_times_are_the_same_one_by_one_and_padding_gets_no_cotangent():
    lengths, times = padded_subjects()
    z0s = jnp.linspace(0.1, 0.8, 12)
    real = np.arange(29) < lengths[:, None]

    def squares(z0s, times, theta):
        zs = jax.vmap(subject, (0, 0, None))(z0s, times, theta)
        return jnp.sum(jnp.where(real, zs, 0.0) ** 2), zs

    (_, zs), bars = jax.jit(jax.value_and_grad(squares, (0, 1, 2), has_aux=True))(z0s, times, 1.5)
    alone = jax.jit(subject)
    want = np.stack([alone(z0, ts, 1.5) for z0, ts in zip(z0s, times, strict=True)])
    assert gap(zs, want) <= 1e-12
    assert not jnp.where(real, 0.0, bars[1])[:, :-1].any()  # the last one is t1 too
    # a subject of 9 times, without the padding
    (_, short), bar = jax.jit(jax.value_and_grad(squares_of_one, has_aux=True))(z0s[10], times[10, :9])
    assert lengths[10] == 9
    assert gap((zs[10, :9], bars[0][10]), (short, bar)) <= 1e-12


# What is compiled


def test_predicate_of_the_loop_is_not_batched():
    def one(z0):
        return solve(network, z0, 0.0, 1.0, THETA, save=nj.SaveSteps(LIMIT))

    text = jax.jit(jax.vmap(one)).lower(jnp.ones((7, 2))).as_text()
    assert not selects_over(text, LIMIT + 1)  # the rows in the loop; 61 are left after it
    conditions = re.findall(r"stablehlo\.while.*?cond \{(.*?)\} do \{", text, re.S)
    assert any("stablehlo.or" in condition for condition in conditions)
    assert all("stablehlo.return" in condition and "tensor<i1>" in condition for condition in conditions)


def counted():
    """A field, and the list that grows each time its Python runs."""
    runs = []

    def field(z, t, theta):
        runs.append(t)
        return -theta * z

    return field, runs


def eager(field):
    return lambda z0, theta: solve(field, z0, 0.0, 1.0, theta).z1


FIRST_CALLS = {
    "solve": (lambda f: eager(f), 1.0),
    "gradient": (lambda f: jax.grad(eager(f), (0, 1)), 1.0),
    "vmapped solve": (lambda f: jax.vmap(eager(f), (0, None)), np.ones(3)),
    "vmapped gradient": (lambda f: jax.vmap(jax.grad(eager(f), 1), (0, None)), np.ones(3)),
}


@pytest.mark.parametrize("call", FIRST_CALLS)
def test_python_of_a_field_runs_once_and_not_again_in_a_second_eager_call(call):
    field, runs = counted()
    transform, z0 = FIRST_CALLS[call]
    for _ in range(2):
        transform(field)(z0, 2.0)
        assert len(runs) == 1


def test_python_of_a_field_runs_at_most_once_more_for_a_gradient_after_a_solve():
    field, runs = counted()
    eager(field)(1.0, 2.0)
    jax.grad(eager(field))(1.0, 2.0)
    assert len(runs) <= 2


def test_new_values_of_the_same_shapes_trace_nothing():
    field, runs = counted()
    for rtol in (1e-3, 1e-4):
        steps, save = nj.Adaptive(rtol=rtol), nj.SaveAt(jnp.array([rtol, 0.5]))
        solve(field, 1.0 + rtol, rtol, 1.0, 2.0 + rtol, steps=steps, save=save)
    assert len(runs) == 1


def exported_solve(z0, theta):
    sol = solve(network, z0, 0.0, 1.0, theta, save=nj.SaveAt(jnp.linspace(0.0, 1.0, 5)))
    return sol.zs, sol.z1, sol.status, sol.stats


def exported_gradient(z0s, theta):
    def total(z0s, theta):
        zs, z1, *_ = jax.vmap(exported_solve, (0, None))(z0s, theta)
        return jnp.sum(zs) + jnp.sum(z1**2)

    return jax.grad(total, (0, 1))(z0s, theta)


EXPORTS = {
    "solve": (exported_solve, (2,)),
    "vmapped solve": (jax.vmap(exported_solve, (0, None)), (7, 2)),
    "gradient": (exported_gradient, (7, 2)),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_export_lowers_for_every_platform_in_float32_without_a_callback(name, float32):
    fn, shape = EXPORTS[name]
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, (2, 2))]
    check_export(fn, *shapes)


def end(z0, theta, steps=STEPS, **options):
    return nj.odesolve(network, z0, 0.0, 1.0, theta, steps=steps, **options)


SYMBOLIC = {
    "adaptive": end,
    "rows": functools.partial(end, save=nj.SaveAt([0.0, 0.5, 1.0])),
    "queued otherwise": functools.partial(end, lane_width=2),
    "together": functools.partial(end, lane_width=np.inf),
    "fixed": functools.partial(end, steps=nj.Fixed(3)),
}


@pytest.mark.parametrize("name", SYMBOLIC)
def test_solve_of_a_batch_is_exported_with_a_symbolic_size(name, float32):
    fn, theta = jax.vmap(SYMBOLIC[name], (0, None)), jnp.array([[0.0, 1.0], [-1.0, 0.5]])
    (size,) = jax.export.symbolic_shape("b")
    exported = check_export(fn, jax.ShapeDtypeStruct((size, 2), jnp.float32), theta)
    for count in (1, 5):
        z0 = jnp.linspace(-1.0, 1.0, 2 * count, dtype=jnp.float32).reshape(count, 2)
        got, want = exported.call(z0, theta), fn(z0, theta)
        assert np.all(got.ok)
        for x, y in zip(jax.tree.leaves((got.z1, got.zs)), jax.tree.leaves((want.z1, want.zs)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)  # of the steps; rounding may add one


def test_derivative_of_a_batch_of_symbolic_size_asks_for_a_fixed_one():
    shape = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("b"), 2), jnp.float64)

    def total(z0):
        return jnp.sum(jax.vmap(end, (0, None))(z0, jnp.eye(2)).z1)

    def one(z0):
        return jnp.sum(end(z0, jnp.eye(2)).z1)

    for fn in (jax.grad(total), jax.vmap(jax.grad(one))):
        with pytest.raises(
            NotImplementedError, match=r"batch of symbolic size b cannot .*: export it with a fixed size"
        ):
            jax.export.export(jax.jit(fn))(shape)


UNSTABLE = (
    "jax.core",
    "jax.extend",
    "jax.interpreters",
    "jax._src",
    "jax.experimental",
    "jaxlib",
    "equinox.internal",
    "jax.custom_batching",
)


def unstable_names(path):
    """Names of unstable modules that a file mentions outside strings and comments."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return {name for name in names if name.startswith(UNSTABLE)}


def test_unstable_names_of_jax_are_used_in_one_file_only():
    package = Path(nj.__file__).parent
    users = {str(path.relative_to(package)): unstable_names(path) for path in package.rglob("*.py")}
    assert {name for name, names in users.items() if names} == {"compat.py"}
