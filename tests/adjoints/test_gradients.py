"""The checkpointed gradient against plain differentiation, differences, and the contract on failures."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from replays import gap, nodes, read, replay

import node_jax as nj
from node_jax.adjoints.parts.history import Slots, count_slots

LOOSE = nj.Adaptive(rtol=1e-4, atol=1e-6)
TIGHT = nj.Adaptive(rtol=1e-12, atol=1e-12)
TIMES = jnp.array([0.0, 0.3, 0.31, 0.31, 1.2, 2.0])  # both ends, two in one step, a repeated one


def logistic(z, t, theta):
    """Nonlinear, and dependent on time."""
    return theta * z * (1.0 - z) + 0.1 * jnp.sin(3.0 * t)


def network(z, t, theta):
    return jnp.tanh(theta @ z + t) - z


def conjugate(z, t, theta):
    return 1j * theta * jnp.conj(z)


def mixed(z, t, theta):
    """A pytree with a vector, a scalar, a complex leaf and an empty one."""
    v, x = z["v"], z["x"]
    c = 1j * theta["b"] * z["c"] * x
    return {"v": jnp.tanh(theta["w"] @ v) - x * v, "x": jnp.sum(v**2) - x, "c": c, "none": -z["none"]}


class Layer(eqx.Module):
    """A field whose weights are its leaves."""

    weight: jax.Array
    bias: jax.Array
    power: int = eqx.field(static=True)

    def __call__(self, z, t, theta):
        return jnp.tanh(self.weight @ z + self.bias) - z**self.power


LOGISTIC = (jnp.array(0.2), jnp.array(1.5))
WEIGHT = jnp.array([[0.5, -1.0], [1.0, 0.2]])
MIXED = {"v": jnp.array([0.3, -0.2]), "x": jnp.array(0.4), "c": jnp.array([1.0 + 0.5j]), "none": jnp.zeros(0)}
CASES = {
    "scalar": (logistic, *LOGISTIC),
    "vector": (network, jnp.array([1.0, -0.5]), WEIGHT),
    "complex": (conjugate, jnp.array([1.0 + 0.5j, -0.3j]), jnp.array([1.5, 0.4])),
    "complex parameters": (conjugate, jnp.array([1.0 + 0.5j]), jnp.array([1.5 - 0.2j])),
    "pytree": (mixed, MIXED, {"w": WEIGHT, "b": jnp.array(0.7), "unused": jnp.ones(2)}),
}


def size(z):
    """A real number that depends on every element of a pytree in its own way."""
    leaves = [jnp.sum(jnp.sin((1.0 + 0.5j) * x + 0.2).real) for x in jax.tree.leaves(z) if x.size]
    return sum(leaf * (i + 1) for i, leaf in enumerate(leaves))


def solve(f, z0, theta, **options):
    return nj.odesolve(f, z0, 0.0, 2.0, theta, **{"steps": LOOSE, "max_steps": 61, "method": nj.bosh3, **options})


def gradient(fn, *at):
    """Gradient with respect to every argument."""
    return jax.jit(jax.grad(fn, tuple(range(len(at)))))(*at)


# Against plain differentiation of the same steps


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_that_of_the_steps_taken(case):
    f, z0, theta = CASES[case]
    times = nodes(f, z0, 0.0, 2.0, theta, steps=LOOSE, method=nj.bosh3)
    got = gradient(lambda z0, theta: size(solve(f, z0, theta).z1), z0, theta)
    want = gradient(lambda z0, theta: size(replay(f, z0, times, theta, nj.bosh3)[0]), z0, theta)
    assert times.size > 8
    assert gap(got, want) <= 1e-12


@pytest.mark.parametrize("method", [nj.tsit5, nj.dopri8], ids=str)
def test_gradient_is_that_of_the_steps_taken_with_every_method(method):
    z0, theta = LOGISTIC
    times = nodes(logistic, z0, 0.0, 2.0, theta, steps=LOOSE, method=method)
    got = gradient(lambda z0, theta: size(solve(logistic, z0, theta, method=method).z1), z0, theta)
    want = gradient(lambda z0, theta: size(replay(logistic, z0, times, theta, method)[0]), z0, theta)
    assert gap(got, want) <= 1e-12


def test_gradient_reaches_the_leaves_of_a_module():
    f, z0 = Layer(WEIGHT, jnp.array([0.1, -0.2]), 3), jnp.array([0.4, -0.8])
    times = nodes(f, z0, 0.0, 2.0, None, steps=LOOSE, method=nj.bosh3)
    got = gradient(lambda f: size(solve(f, z0, None).z1), f)
    want = gradient(lambda f: size(replay(f, z0, times, None, nj.bosh3)[0]), f)
    assert gap(got, want) <= 1e-12


def batch_gradient(checkpoints, save):
    """Gradient over three lanes of different numbers of steps, the first 36."""

    def loss(z0s, theta):
        def saved(z0):
            adjoint = nj.Checkpointed(checkpoints=checkpoints)
            steps = nj.Adaptive(rtol=1e-5, atol=1e-7)
            sol = solve(logistic, z0, theta, steps=steps, adjoint=adjoint, save=SAVED[save])
            return sol.z1, sol.zs

        return size(jax.vmap(saved)(z0s))

    return gradient(loss, jnp.array([0.2, 0.9, 0.6]), jnp.array(1.5))


SAVED = {"z1": nj.SaveEnd(), "zs": nj.SaveAt(TIMES)}


@pytest.fixture(scope="module")
def full_storage():
    return {save: batch_gradient(None, save) for save in SAVED}


@pytest.mark.parametrize(
    ("checkpoints", "save"),
    [(1, "z1"), (2, "zs"), (4, "z1"), (16, "zs"), (64, "z1")],
)
def test_every_number_of_checkpoints_gives_the_same_gradient(checkpoints, save, full_storage):
    assert gap(batch_gradient(checkpoints, save), full_storage[save]) <= 1e-12


# What is saved


def saved_at(sol):
    return sol.zs


def saved_steps(sol):
    return jnp.where(jnp.isfinite(sol.zs), sol.zs, 0.0)


def saved_dense(sol):
    return sol.evaluate(TIMES)


def pushed_at(times, replayed, method):
    return read(replayed, times, TIMES, method)


def pushed_steps(times, replayed, method):
    return jnp.zeros(61).at[: times.size - 1].set(replayed[2])


SAVES = {
    "SaveAt": (nj.SaveAt(TIMES), saved_at, pushed_at),
    "SaveSteps": (nj.SaveSteps(61), saved_steps, pushed_steps),
    "Dense": (nj.Dense(61), saved_dense, pushed_at),
}


@pytest.mark.parametrize(
    ("save", "method"),
    [("SaveAt", nj.bosh3), ("SaveSteps", nj.bosh3), ("Dense", nj.bosh3), ("SaveAt", nj.dopri8)],
    ids=str,
)
def test_cotangents_of_saved_states_are_those_of_the_steps_taken(save, method):
    record, outputs, reference = SAVES[save]
    times = nodes(logistic, LOGISTIC[0], 0.0, 2.0, LOGISTIC[1], steps=LOOSE, method=method)

    def loss(z0, theta):
        sol = solve(logistic, z0, theta, save=record, method=method)
        return size((outputs(sol), sol.z1))

    def plain(z0, theta):
        replayed = replay(logistic, z0, times, theta, method)
        return size((reference(times, replayed, method), replayed[0]))

    got, want = (jax.jit(jax.value_and_grad(fn, (0, 1)))(*LOGISTIC) for fn in (loss, plain))
    assert gap(got, want) <= 1e-12


def scaled(z, t, theta):
    return theta * z + t


def test_a_function_of_the_saved_states_is_differentiated_too():
    times = nodes(logistic, LOGISTIC[0], 0.0, 2.0, LOGISTIC[1], steps=LOOSE, method=nj.bosh3)

    def plain(z0, theta):
        zs = read(replay(logistic, z0, times, theta, nj.bosh3), times, TIMES, nj.bosh3)
        return size(jax.vmap(lambda z, t: scaled(z, t, theta))(zs, TIMES))

    got = gradient(lambda z0, theta: size(solve(logistic, z0, theta, save=nj.SaveAt(TIMES, scaled)).zs), *LOGISTIC)
    assert gap(got, gradient(plain, *LOGISTIC)) <= 1e-12


# Against central differences, at a tight tolerance


@jax.jit
def observed(x):
    """A loss of `x = (z0, theta, t0, t1, ts)`, with three observations."""
    sol = nj.odesolve(logistic, x[0], x[2], x[3], x[1], steps=TIGHT, save=nj.SaveAt(x[4:]), throw=False)
    return jnp.cos(3.0 * sol.zs) @ jnp.arange(1.0, 4.0) + size(sol.z1)


OBSERVED_GRADIENT = jax.jit(jax.grad(observed))
OBSERVED_BATCH = jax.jit(jax.vmap(observed))


@pytest.mark.parametrize("times", [(-0.1, 2.0, 0.2, 0.9, 1.7), (2.0, -0.1, 1.7, 0.9, 0.2)], ids=["forward", "backward"])
def test_gradient_of_states_parameters_and_times_is_the_central_difference(times):
    x, h = jnp.array([*LOGISTIC, *times]), 4e-3
    offsets, weights = np.array([-3, -2, -1, 1, 2, 3]), np.array([-1, 9, -45, 45, -9, 1]) / 60  # sixth order
    points = np.array(x) + h * offsets[:, None, None] * np.eye(x.size)
    want = weights @ OBSERVED_BATCH(points.reshape(-1, x.size)).reshape(offsets.size, x.size) / h
    np.testing.assert_allclose(OBSERVED_GRADIENT(x), want, rtol=1e-8, atol=1e-8)


def test_gradient_of_a_complex_state_follows_the_solution():
    # z' = i theta conj(z): x + y and x - y grow and decay as exp(+-theta t)
    def loss(z0, theta, t1):
        return nj.odesolve(conjugate, z0, 0.0, t1, theta, steps=TIGHT).z1.real

    def exact(z0, theta, t1):
        total, difference = z0.real + z0.imag, z0.real - z0.imag
        return (total * jnp.exp(theta * t1) + difference * jnp.exp(-theta * t1)) / 2

    at = (jnp.array(0.8 - 0.3j), jnp.array(0.7), jnp.array(1.3))
    assert gap(gradient(loss, *at), gradient(exact, *at)) <= 1e-9


def test_nothing_to_integrate_has_the_gradient_of_the_identity():
    def loss(z0, theta, t0, t1):
        return size(nj.odesolve(logistic, z0, t0, t1, theta, steps=LOOSE, method=nj.bosh3).z1)

    z0, theta = LOGISTIC
    want = jax.grad(size)(z0)
    along = want * logistic(z0, 1.0, theta)
    assert gap(gradient(loss, z0, theta, 1.0, 1.0), (want, jnp.zeros(()), -along, along)) <= 1e-14


# Prescribed steps are functions of the times


def fixed_times(t0, t1, grid):
    return t0 + (t1 - t0) * jnp.arange(8) / 7


def grid_times(t0, t1, grid):
    return grid


GRID = jnp.array([-0.1, 0.0, 0.3, 0.35, 0.8, 1.0, 1.9, 2.0])
PRESCRIBED = {"Fixed": (lambda grid: nj.Fixed(7), fixed_times), "Grid": (nj.Grid, grid_times)}


@pytest.mark.parametrize(
    ("steps", "method", "checkpoints"),
    [("Fixed", nj.rk4, None), ("Fixed", nj.euler, 4), ("Grid", nj.euler, None), ("Grid", nj.rk4, 4)],
    ids=str,
)
def test_gradient_of_prescribed_steps_is_exact_in_the_times_too(steps, method, checkpoints):
    make, times_of = PRESCRIBED[steps]
    adjoint = nj.Checkpointed(checkpoints=checkpoints)

    def loss(z0, theta, t0, t1, grid):
        return size(nj.odesolve(network, z0, t0, t1, theta, steps=make(grid), method=method, adjoint=adjoint).z1)

    def plain(z0, theta, t0, t1, grid):
        return size(replay(network, z0, times_of(t0, t1, grid), theta, method)[0])

    at = (jnp.array([1.0, -0.5]), WEIGHT, -0.1, 2.0, GRID)
    assert gap(gradient(loss, *at), gradient(plain, *at)) <= 1e-12


def test_gradient_of_prescribed_steps_is_exact_in_the_output_times():
    def loss(z0, theta, t1, ts):
        save = nj.SaveAt(ts)
        sol = nj.odesolve(logistic, z0, 0.0, t1, theta, steps=nj.Fixed(7), save=save, method=nj.bosh3)
        return size((sol.zs, sol.z1))

    def plain(z0, theta, t1, ts):
        times = fixed_times(0.0, t1, None)
        replayed = replay(logistic, z0, times, theta, nj.bosh3)
        return size((read(replayed, times, ts, nj.bosh3), replayed[0]))

    at = (*LOGISTIC, 2.0, jnp.array([0.2, 0.9, 1.7]))
    assert gap(gradient(loss, *at), gradient(plain, *at)) <= 1e-12


# Values that the field closes over

TABLE = jnp.array([0.5, 1.0, 2.0])


def chosen(z, t, theta):
    rate, number = theta
    return -rate * TABLE[number] * z**2 + jnp.sin(t)


def closing(rate, number):
    """A solve whose field closes over a number and an integer."""
    return solve(lambda z, t, _: chosen(z, t, (rate, number)), 1.0, None).z1


def passing(rate, number):
    """The same, with both as parameters."""
    return solve(chosen, 1.0, (rate, number)).z1


def total(solve):
    return lambda rates, numbers: jnp.sum(jax.vmap(solve)(rates, numbers) ** 2)


CLOSURES = {
    "eager vmap": jax.vmap,
    "jit of vmap": lambda solve: jax.jit(jax.vmap(solve)),
    "vmap of grad": lambda solve: jax.vmap(jax.grad(solve)),
    "grad of vmap": lambda solve: jax.grad(total(solve)),
}


@pytest.mark.parametrize("transform", CLOSURES)
def test_what_the_field_closes_over_is_an_input_like_any_other(transform):
    rates, numbers = jnp.array([0.3, 1.0, 2.5]), jnp.array([2, 0, 1])
    got, want = (CLOSURES[transform](solve)(rates, numbers) for solve in (closing, passing))
    assert gap(got, want) <= 1e-14


def test_gradient_reaches_what_the_field_closes_over_in_a_single_solve():
    got, want = (jax.grad(solve)(jnp.array(1.3), 2) for solve in (closing, passing))
    assert gap(got, want) <= 1e-14


# Memory


@pytest.mark.parametrize(
    ("memory", "checkpoints", "count"),
    [
        (2**20, None, 32),  # 32 states of 32 KiB
        (2**20 + 2**15, None, 32),  # an even number
        (2**30, None, 500),  # never more than the steps
        (1, None, 2),  # never less than two
        (2**20, 10, 10),
        (1, 500, 500),
        (None, None, 500),  # 16 MiB hold them
    ],
)
def test_slots_are_the_budget_over_the_bytes_of_a_state(memory, checkpoints, count):
    state = {
        "a": jax.ShapeDtypeStruct((2048, 1), jnp.float64),
        "b": jax.ShapeDtypeStruct((1024,), jnp.complex128),
    }
    slots = Slots(memory, checkpoints, 500, False, True, True)
    assert slots.count(state) == count
    history = jax.eval_shape(lambda z: slots.blank(z, jnp.zeros(())), state)
    assert history.z["a"].shape[0] <= count + 1


@pytest.mark.parametrize(("size", "count"), [(2**12, 4096), (2**16, 256), (2**20, 256), (2**22, 64)])
def test_without_a_budget_large_states_get_few_slots(size, count):
    assert count_slots(None, None, 4096, size) == count


def wide(z, t, theta):
    return -theta * z


def test_memory_bounds_what_a_gradient_sets_apart():
    state, limit, slots = 2**18, 512, 32

    def loss(z0, theta):
        adjoint = nj.Checkpointed(memory=slots * state)
        return jnp.sum(solve(wide, z0, theta, max_steps=limit, adjoint=adjoint).z1)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((state // 8,), ())]
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= (slots + 2 * limit / slots + 24) * state


def residual(z, t, theta):
    weight, scale = theta
    return scale * jnp.tanh(weight @ z) - z


def test_one_mapped_leaf_of_theta_leaves_the_others_shared():
    width, lanes = 96, 23

    def loss(z0s, weight, scales):
        z1s = jax.vmap(lambda z0, scale: solve(residual, z0, (weight, scale)).z1)(z0s, scales)
        return jnp.sum(z1s**2)

    shapes = [jax.ShapeDtypeStruct(s, jnp.float64) for s in ((lanes, width), (width, width), (lanes,))]
    lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes)
    for shape in (f"{lanes}x{width}x{width}x", f"{width}x{width}x{lanes}x", f"{width}x{lanes}x{width}x"):
        assert shape not in lowered.as_text()
    history = 62 * lanes * width * 8
    assert lowered.compile().memory_analysis().temp_size_in_bytes < history + lanes * width * width * 8 / 2


# Failures


def failing(z, t, theta):
    """Leaves its domain at t = 0.5, where its derivatives are NaN too."""
    return -theta * z * (1.0 + jnp.sqrt(0.5 - t))


def growing(z, t, theta):
    """Blows up at t = 1 / (theta z0) where that is positive."""
    return theta * z**2


def test_max_steps_of_none_is_refused_under_a_gradient():
    with pytest.raises(ValueError, match=r"max_steps=None.*pass max_steps="):
        jax.grad(lambda z0: nj.odesolve(wide, z0, 0.0, 1.0, 1.0, max_steps=None).z1)(1.0)


@pytest.mark.parametrize(
    ("f", "steps"),
    [(failing, LOOSE), (growing, LOOSE), (failing, nj.Fixed(8))],
    ids=["domain", "blow-up", "Fixed"],
)
def test_a_failed_single_solve_has_a_gradient_of_nan(f, steps):
    def loss(z0, theta, t0, t1):
        return nj.odesolve(f, z0, t0, t1, theta, steps=steps, max_steps=500, method=nj.bosh3).z1

    assert all(jnp.isnan(g) for g in gradient(loss, 2.0, 1.0, 0.0, 1.0))


FAILURES = {
    "NaN state": (jnp.array([0.5, jnp.nan, -1.0]), LOOSE),
    "blow-up": (jnp.array([0.5, 3.0, -1.0]), LOOSE),
    "first lane": (jnp.array([3.0, 0.5, -1.0]), LOOSE),
    "blow-up in fixed steps": (jnp.array([0.5, 1e200, -1.0]), nj.Fixed(6)),
    "NaN state in fixed steps": (jnp.array([jnp.nan, 0.5, -1.0]), nj.Fixed(6)),
}


def grown(z0, theta, steps):
    return nj.odesolve(growing, z0, 0.0, 1.0, theta, steps=steps, max_steps=500, method=nj.bosh3, throw=False)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
def seen_lanes(z0s, own, theta, steps, seen):
    """A loss of the lanes that are seen, and which lanes succeed."""
    sol = jax.vmap(lambda z0, own: grown(z0, own * theta, steps))(z0s, own)
    return jnp.sum(jnp.where(seen, sol.z1, 0.0) ** 2), sol.ok


def after_a_failure(failure, everything):
    """Gradients with a failing lane, gradients with a good unseen one in its place, and which are good."""
    z0s, steps = FAILURES[failure]
    (_, ok), _ = seen_lanes(z0s, jnp.ones(3), 1.0, steps, jnp.zeros(3, bool))
    assert int(ok.sum()) == 2
    got = seen_lanes(z0s, jnp.ones(3), 1.0, steps, ok | everything)[1]
    return got, seen_lanes(jnp.where(ok, z0s, 0.1), jnp.ones(3), 1.0, steps, ok)[1], ok


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_lane_that_is_masked_contributes_exactly_zero(failure):
    got, want, ok = after_a_failure(failure, False)
    assert gap(got, want) <= 1e-14
    assert not got[0][~ok].any()
    assert not got[1][~ok].any()


@pytest.mark.parametrize("failure", FAILURES)
def test_an_unmasked_failed_lane_gives_nan_to_what_it_uses_and_to_nothing_else(failure):
    (z0_bar, own_bar, theta_bar), want, ok = after_a_failure(failure, True)
    assert jnp.isnan(theta_bar)
    assert gap((z0_bar[ok], own_bar[ok]), (want[0][ok], want[1][ok])) <= 1e-14
    assert jnp.isnan(z0_bar[~ok]).all()
    assert jnp.isnan(own_bar[~ok]).all()


def resting(z, t, rate):
    """One component may rest at the edge of its domain, where its derivative is infinite; the other blows up."""
    return jnp.stack([rate * (jnp.sqrt(z[0]) - z[0]), rate * z[1] ** 2])


@pytest.mark.parametrize(
    ("adjoint", "save"),
    [
        (nj.Direct(), nj.SaveEnd()),
        (nj.Checkpointed(), nj.SaveEnd()),
        (nj.Checkpointed(), nj.SaveAt(jnp.array([0.0, 0.1, 0.9]))),
        (nj.Interpolated(), nj.SaveAt(jnp.array([0.0, 0.1, 0.9]))),
        (nj.Backsolve(), nj.SaveAt(jnp.array([0.0, 0.1, 0.9]))),
        (nj.Direct(), nj.SaveAt(jnp.array([0.0, 0.1, 0.9]))),
        (nj.Direct(), nj.SaveSteps(500)),
    ],
)
def test_a_masked_lane_that_failed_at_the_edge_of_its_domain_contributes_exactly_zero(adjoint, save):
    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def loss(z0s, rate, seen):
        options = {"steps": LOOSE, "save": save, "adjoint": adjoint, "max_steps": 500, "throw": False}
        sol = jax.vmap(lambda z0: nj.odesolve(resting, z0, 0.0, 1.0, rate, **options))(z0s)
        rows = sol.filled().z1[:, None] if sol.zs is None else sol.filled().zs
        rows = jnp.where(jnp.isfinite(rows), rows, 0.0)  # of `SaveSteps` some are not used
        return jnp.sum(jnp.where((sol.ok & seen)[:, None, None], rows**2, 0.0)), sol.ok

    z0s, seen = jnp.array([[0.5, 0.5], [0.0, 9.0], [0.4, 0.7]]), jnp.array([True, False, True])
    (_, ok), (z0_bar, rate_bar) = loss(z0s, 0.5, jnp.ones(3, bool))
    _, (z0_want, rate_want) = loss(z0s.at[1].set(0.3), 0.5, seen)
    assert ok.tolist() == seen.tolist()
    assert not z0_bar[1].any()
    assert rate_bar == rate_want
    assert (z0_bar[seen] == z0_want[seen]).all()


def masked(z0, theta):
    sol = grown(z0, theta, LOOSE)
    return jnp.where(sol.ok, sol.z1, 0.0) ** 2


@pytest.mark.parametrize("z0", [3.0, jnp.nan])
def test_a_failed_single_solve_that_is_masked_contributes_exactly_zero(z0):
    assert gradient(masked, z0, 1.0) == (0.0, 0.0)


def test_a_failed_lane_contributes_the_gradient_of_what_it_saved():
    ts = jnp.array([0.1, 0.2, 0.45, 0.8, 1.0])
    adjoint = nj.Checkpointed(checkpoints=8)
    times = nodes(failing, 2.0, 0.0, 1.0, 1.0, steps=LOOSE, method=nj.bosh3)
    times = times[: int(jnp.sum(times < ts[2])) + 1]

    def loss(z0s, theta):
        def saved(z0):
            save = nj.SaveAt(ts)
            sol = nj.odesolve(
                failing,
                z0,
                0.0,
                1.0,
                theta,
                steps=LOOSE,
                throw=False,
                save=save,
                adjoint=adjoint,
                method=nj.bosh3,
            )
            return jnp.where(jnp.isfinite(sol.zs), sol.zs, 0.0)

        return size(jax.vmap(saved)(z0s))

    def plain(z0, theta):
        zs = read(replay(failing, z0, times, theta, nj.bosh3), times, ts[:3], nj.bosh3)
        return size(jnp.concatenate([zs, jnp.zeros(2)]))

    z0_bar, theta_bar = gradient(plain, 2.0, 1.0)
    want = (jnp.array([z0_bar, 0.0, z0_bar]), 2 * theta_bar)  # a lane whose first state is NaN saved nothing
    assert gap(gradient(loss, jnp.array([2.0, jnp.nan, 2.0]), 1.0), want) <= 1e-12


def test_gradient_of_a_batch_is_the_sum_of_the_gradients_of_its_lanes():
    z0s = jnp.array([0.5, jnp.nan, -1.0, 3.0, 0.1, 0.2])

    def batch(z0s, theta):
        return jnp.sum(jax.vmap(masked, (0, None))(z0s, theta))

    alone = jax.jit(jax.grad(masked, (0, 1)))
    lanes = jax.tree.map(lambda *x: jnp.stack(x), *[alone(z0, 1.0) for z0 in z0s])
    mapped = jax.jit(jax.vmap(jax.grad(masked, (0, 1)), (0, None)))(z0s, 1.0)
    assert gap(mapped, lanes) <= 1e-13
    whole = jax.jit(jax.grad(batch, (0, 1)))
    assert gap(whole(z0s, 1.0), (lanes[0], lanes[1].sum())) <= 1e-13
    halves = [whole(half, 1.0)[1] for half in (z0s[:3], z0s[3:])]
    assert gap(sum(halves), lanes[1].sum()) <= 1e-13
