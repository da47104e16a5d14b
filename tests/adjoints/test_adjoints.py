"""Every strategy against plain differentiation, differences and each other; every mode; the certificate."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting import check_export
from jax.flatten_util import ravel_pytree
from replays import combined, gap, nodes

import node_jax as nj
from node_jax.adjoints.parts.history import buffers
from node_jax.methods import coupled

TIGHT = nj.Adaptive(rtol=1e-10, atol=1e-10)
REVERSE = [nj.Checkpointed(), nj.Direct(), nj.Backsolve(), nj.Interpolated(), nj.Reversible()]


def driven(z, t, theta):
    """Lotka and Volterra, with a season."""
    a, b, c, d = theta
    x, y = z
    return jnp.stack([a * x - b * x * y + jnp.sin(3.0 * t), -c * y + d * x * y])


def forced(z, t, theta):
    return jnp.stack([z[1], jnp.cos(theta * t) - jnp.sin(z[0])])


def turning(z, t, theta):
    return 1j * theta * jnp.conj(z)


def van_der_pol(z, t, mu):
    return jnp.stack([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


def network(z, t, theta):
    return jnp.tanh(theta @ z)


THETA = jnp.array([1.5, 1.0, 3.0, 1.0])
START = jnp.array([1.0, 0.8])
AT = (jnp.array(0.1), jnp.array(2.0), jnp.array([0.5, 1.0, 1.7]), START, THETA)
FLAT, UNRAVEL = ravel_pytree(AT)


SHORT, UNRAVEL_SHORT = ravel_pytree((*AT[:2], AT[3], jnp.array(1.5)))


def short(flat, adjoint):
    """A loss on the end only."""
    t0, t1, z0, theta = UNRAVEL_SHORT(flat)
    options = {"steps": nj.Adaptive(1e-8, 1e-8), "max_steps": 1024, "method": nj.bosh3}
    z1 = nj.odesolve(forced, z0, t0, t1, theta, adjoint=adjoint, **options).z1
    return jnp.sum(jnp.sin(z1))


def loss(flat, adjoint, steps=TIGHT, method=nj.tsit5):
    t0, t1, ts, z0, theta = UNRAVEL(flat)
    options = {"adjoint": adjoint, "steps": steps, "method": method, "max_steps": 400}
    sol = nj.odesolve(driven, z0, t0, t1, theta, save=nj.SaveAt(ts), **options)
    return jnp.sum(sol.zs**2) + jnp.sum(jnp.sin(sol.z1))


def differences(f, at, h=5e-4):
    """Central differences of 4th order."""
    rows = []
    for e in np.eye(at.size):
        near, far = (f(at + k * h * e) - f(at - k * h * e) for k in (1, 2))
        rows.append((8 * near - far) / (12 * h))
    return jnp.stack(rows)


@pytest.fixture(scope="module")
def slope():
    return differences(jax.jit(lambda x: loss(x, nj.Checkpointed())), FLAT)


@pytest.fixture(scope="module")
def hessian():
    return differences(jax.jit(jax.grad(lambda x: short(x, nj.Checkpointed()))), SHORT)


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_gradient_in_times_state_and_parameters_agrees_with_differences(adjoint, slope):
    assert gap(jax.jit(jax.grad(loss), static_argnums=1)(FLAT, adjoint), slope) < 5e-8


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Forward(), nj.Direct()], ids=repr)
def test_forward_mode_in_times_state_and_parameters_agrees_with_differences(adjoint, slope):
    assert gap(jax.jit(jax.jacfwd(loss), static_argnums=1)(FLAT, adjoint), slope) < 5e-8


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Forward(), nj.Direct()], ids=repr)
def test_times_of_fixed_steps_move_with_the_ends(adjoint):
    def weighted(ends):
        options = {"steps": nj.Fixed(4), "method": nj.heun, "save": nj.SaveSteps(4), "adjoint": adjoint}
        sol = nj.odesolve(forced, START, *ends, 1.5, **options)
        return jnp.sum(sol.ts * sol.zs[:, 0])

    at = jnp.array([0.2, 1.3])
    modes = [jax.jacfwd] if isinstance(adjoint, nj.Forward) else [jax.jacfwd, jax.jacrev]
    assert all(gap(mode(weighted)(at), differences(weighted, at)) < 1e-9 for mode in modes)


SECOND = {
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(f)),
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
}
SUPPORTED = {
    "Checkpointed": {"reverse", "forward", "forward over reverse", "forward over forward"},
    "Direct": {"reverse", "forward", *SECOND},
    "Forward": {"forward", "forward over forward"},
    "Backsolve": {"reverse"},
    "Interpolated": {"reverse"},
    "Reversible": {"reverse"},
}


@pytest.mark.parametrize("mode", SECOND)
@pytest.mark.parametrize("name", SUPPORTED)
def test_second_derivatives_are_right_or_refused_by_name(name, mode, hessian):
    second = jax.jit(SECOND[mode](lambda x: short(x, getattr(nj, name)())))
    if mode in SUPPORTED[name]:
        found = second(SHORT)
        assert gap(found, hessian) < 1e-5
        assert gap(found, found.T) < 1e-12
    else:
        with pytest.raises(NotImplementedError, match=r"does not support .*: use adjoint=(Direct|Checkpointed)"):
            second(SHORT)


@pytest.mark.parametrize("name", ["Forward", "Backsolve", "Interpolated", "Reversible"])
def test_a_mode_that_is_missing_is_refused_by_name(name):
    mode = jax.grad if name == "Forward" else jax.jacfwd
    with pytest.raises(NotImplementedError, match=r"use adjoint=Checkpointed\(\)"):
        mode(lambda x: loss(x, getattr(nj, name)()))(FLAT)


@pytest.mark.parametrize(
    ("adjoint", "steps"),
    [
        (nj.Checkpointed(checkpoints=8), nj.Adaptive(1e-5, 1e-5)),
        (nj.Checkpointed(), nj.Fixed(30)),
        (nj.Checkpointed(checkpoints=4), nj.Fixed(32)),  # full at the last step
    ],
    ids=["Adaptive", "Fixed", "Fixed, thinned"],
)
def test_exact_strategies_equal_plain_differentiation(adjoint, steps):
    found = jax.grad(loss)(FLAT, adjoint, steps, nj.bosh3)
    assert gap(found, jax.grad(loss)(FLAT, nj.Direct(), steps, nj.bosh3)) < 1e-12


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_lanes_with_shared_and_own_parameters_equal_one_by_one(adjoint):
    starts = jnp.stack([START, 1.3 * START, 0.7 * START])

    def one(z0, theta, shared):
        options = {"adjoint": adjoint, "method": nj.bosh3, "max_steps": 400}
        return jnp.sum(nj.odesolve(driven, z0, 0.0, 1.5, theta * shared, **options).z1 ** 3)

    own = jnp.stack([THETA, 1.1 * THETA, 0.9 * THETA])
    batch = jax.grad(lambda *args: jnp.sum(jax.vmap(one, (0, 0, None))(*args)), (0, 1, 2))(starts, own, 1.0)
    each = [jax.grad(one, (0, 1, 2))(z0, theta, 1.0) for z0, theta in zip(starts, own, strict=True)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
    assert gap(batch, (*stacked[:2], jnp.sum(stacked[2]))) < 1e-9
    mapped = jax.vmap(jax.grad(one, (0, 1, 2)), (0, 0, None))(starts, own, 1.0)
    assert gap(mapped, stacked) < 1e-9


@pytest.mark.parametrize("adjoint", [*REVERSE, nj.Forward()], ids=repr)
def test_failed_lanes_that_are_masked_add_nothing_and_others_are_nan(adjoint):
    starts = jnp.array([0.5, jnp.nan, 1.0])

    def total(theta, masked):
        sol = jax.vmap(lambda z0: nj.odesolve(nj.testing.decay, z0, 0.0, 1.0, theta, adjoint=adjoint, max_steps=64))(
            starts
        )
        return jnp.sum(jnp.where(sol.ok | (not masked), sol.z1, 0.0))

    derivative = jax.jacfwd if isinstance(adjoint, nj.Forward) else jax.grad
    assert abs(derivative(total)(0.5, True) + 1.5 * np.exp(-0.5)) < 1e-5
    assert np.isnan(derivative(total)(0.5, False))


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_gradient_of_complex_states_agrees_with_the_exact_solution(adjoint):
    # z' = i theta conj(z): with z = x + i y, x' = theta y, y' = theta x
    def found(theta, t1):
        z1 = nj.odesolve(turning, 1.0 + 0.5j, 0.0, t1, theta, adjoint=adjoint, steps=TIGHT, max_steps=400).z1
        return z1.real + 2 * z1.imag

    def exact(theta, t1):
        s, c = jnp.sinh(theta * t1), jnp.cosh(theta * t1)
        return (c + 0.5 * s) + 2 * (0.5 * c + s)

    assert gap(jax.grad(found, (0, 1))(0.7, 1.3), jax.grad(exact, (0, 1))(0.7, 1.3)) < 1e-8


@pytest.mark.parametrize("adjoint", [nj.Backsolve(), nj.Interpolated()], ids=repr)
def test_error_of_continuous_adjoints_falls_with_the_tolerance(adjoint):
    slope = jax.jit(jax.grad(lambda at, tol: loss(at, adjoint, nj.Adaptive(tol, tol))))
    want = jax.grad(loss)(FLAT, nj.Checkpointed())
    gaps = [gap(slope(FLAT, tol), want) for tol in (1e-5, 1e-7, 1e-9)]
    assert gaps[0] < 1e-3
    assert all(tight < loose / 10 for loose, tight in itertools.pairwise(gaps))


def test_backsolve_restarts_from_what_was_saved():
    # the way back of a contraction explodes over 20 units of time, and does not over one
    ts = jnp.linspace(0.0, 20.0, 21)

    def ends(theta, save):
        sol = nj.odesolve(van_der_pol, START, 0.0, 20.0, theta, adjoint=nj.Backsolve(), steps=TIGHT, save=save)
        return sol.z1[0] if sol.zs is None else sol.zs[-1, 0]

    want = jax.grad(lambda mu: nj.odesolve(van_der_pol, START, 0.0, 20.0, mu, steps=TIGHT).z1[0])(2.0)
    assert abs(jax.grad(ends)(2.0, nj.SaveAt(ts)) - want) < 1e-4 * abs(want)
    assert not abs(jax.grad(ends)(2.0, nj.SaveEnd()) - want) < 1e-2 * abs(want)


def test_interpolated_is_right_where_the_way_back_explodes():
    def end(at, adjoint, tol):
        steps = nj.Adaptive(tol, tol)
        return jnp.sum(nj.odesolve(van_der_pol, at[0], 0.0, 20.0, at[1], adjoint=adjoint, steps=steps).z1)

    at = (jnp.array([2.0, 0.0]), 1.0)
    want = jax.grad(end)(at, nj.Checkpointed(), 1e-12)
    assert gap(jax.grad(end)(at, nj.Interpolated(), 1e-7), want) < 1e-5
    assert gap(jax.grad(end)(at, nj.Backsolve(), 1e-7), want) > 0.1


def test_options_of_reversible_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match=r"Reversible\(coupling=\.\.\.\) must lie between 0 and 1, got 1\.5"):
        nj.Reversible(coupling=1.5)
    with pytest.raises(ValueError, match=r"Reversible\(restart=\.\.\.\) must be a positive integer or None, got 0"):
        nj.Reversible(restart=0)
    with pytest.raises(TypeError, match=r"method must be a method such as .* got Coupled\(tsit5, 0.999, 16\)"):
        nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 1.0, method=coupled(nj.tsit5, 0.999, 16))

    def saved(x):
        options = {"method": nj.dopri8, "save": nj.SaveAt(jnp.array([0.5])), "adjoint": nj.Reversible()}
        return nj.odesolve(nj.testing.decay, x, 0.0, 1.0, 1.0, **options).zs[0]

    with pytest.raises(ValueError, match="does not support save=SaveAt"):
        jax.grad(saved)(1.0)


def coupled_replay(f, z0, times, theta, coupling=0.999, restart=16):
    """The reversible scheme over known steps, plainly; the last state."""

    def increment(t, x, h):
        slopes = []
        for c, a in zip(nj.tsit5.c, nj.tsit5.a, strict=True):
            slopes.append(f(combined(x, h, a, slopes) if slopes else x, t + c * h, theta))
        return combined(jnp.zeros_like(x), h, nj.tsit5.b, slopes)

    def step(carry, ends):
        (y, z, i), h = carry, ends[1] - ends[0]
        z = jnp.where(i % restart == 0, y, z)
        y = coupling * y + (1 - coupling) * z + increment(ends[0], z, h)
        return (y, z - increment(ends[1], y, -h), i + 1), None

    return jax.lax.scan(step, (z0, z0, 0), (times[:-1], times[1:]))[0][0]


@pytest.mark.parametrize(("field", "z0"), [(van_der_pol, (2.0, 0.0)), (forced, (1.0, 0.8))], ids=["stiff", "timed"])
def test_reversible_equals_plain_differentiation_of_its_scheme(field, z0):
    options = {"steps": nj.Adaptive(1e-7, 1e-7), "adjoint": nj.Reversible()}
    times = nodes(field, jnp.array(z0), 0.0, 20.0, 1.0, **options)

    def end(z0, theta):
        return jnp.sum(jnp.sin(nj.odesolve(field, z0, 0.0, 20.0, theta, **options).z1))

    def plain(z0, theta):
        return jnp.sum(jnp.sin(coupled_replay(field, z0, times, theta)))

    assert gap(jax.grad(end, (0, 1))(jnp.array(z0), 1.0), jax.grad(plain, (0, 1))(jnp.array(z0), 1.0)) < 1e-12


@pytest.mark.parametrize("adjoint", [*REVERSE, nj.Checkpointed(checkpoints=4)], ids=repr)
def test_gradient_through_dense_output_agrees(adjoint):
    def read(theta, adjoint):
        options = {"steps": nj.Adaptive(1e-8, 1e-8), "method": nj.bosh3, "save": nj.Dense(512), "adjoint": adjoint}
        return jnp.sum(nj.odesolve(driven, START, 0.0, 1.0, theta, **options).evaluate(jnp.array([0.1, 0.4, 0.9])) ** 2)

    def saved(theta):
        save = nj.SaveAt(jnp.array([0.1, 0.4, 0.9]))
        return jnp.sum(nj.odesolve(driven, START, 0.0, 1.0, theta, steps=TIGHT, save=save).zs ** 2)

    assert gap(jax.grad(read)(THETA, adjoint), jax.grad(saved)(THETA)) < 1e-6


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_gradient_of_every_saved_step_agrees_with_differences(adjoint):
    def weighted(z0):
        nodes = jnp.linspace(0.0, 1.0, 161)
        options = {"steps": nj.Grid(nodes), "method": nj.bosh3, "save": nj.SaveSteps(160), "adjoint": adjoint}
        sol = nj.odesolve(forced, z0, 0.0, 1.0, 1.5, **options)
        return jnp.sum(jnp.sin(3 * sol.ts) * sol.zs[:, 0] ** 2)

    found = jax.grad(weighted)(START)
    assert gap(found, differences(weighted, START, 1e-3)) < 1e-5


def switched(z, t, theta):
    """A pendulum that is pushed, harder and harder, with times of the switches in the last two of theta."""
    push = jnp.where(t < theta[1], 1.0, -0.5 * z[0]) * jnp.where(t < theta[2], 1.0, 2.0)
    return jnp.stack([z[1] + push + jnp.sin(t), -theta[0] * jnp.sin(z[0])])


def pushed(at, adjoint):
    points = at[2:4]
    steps = nj.Adaptive(1e-9, 1e-9, breakpoints=points)
    theta = jnp.stack([at[4], *jax.lax.stop_gradient(points)])
    options = {"adjoint": adjoint, "steps": steps, "method": nj.bosh3, "save": nj.SaveAt(jnp.array([0.5, 1.0, 1.7]))}
    sol = nj.odesolve(switched, START, at[0], at[1], theta, **options)
    return jnp.sum(jnp.sin(sol.z1)) + jnp.sum(sol.zs**2)


PUSHED = jnp.array([0.1, 2.0, 0.7, 1.3, 1.5])


@pytest.fixture(scope="module")
def slope_of_pushed():
    return differences(jax.jit(lambda at: pushed(at, nj.Checkpointed())), PUSHED, 1e-4)


@pytest.mark.parametrize("adjoint", [*REVERSE, nj.Forward()], ids=repr)
def test_derivative_in_breakpoints_agrees_with_differences(adjoint, slope_of_pushed):
    mode = jax.jacfwd if isinstance(adjoint, nj.Forward) else jax.grad
    assert gap(jax.jit(mode(pushed), static_argnums=1)(PUSHED, adjoint), slope_of_pushed) < 1e-7


def test_error_of_the_exact_gradient_follows_the_tolerance():
    """Held against the variational equations, integrated at 1e-13."""

    def variational(state, t, mu):
        z, s = state
        slope, ds = jax.jvp(lambda z, mu: van_der_pol(z, t, mu), (z, mu), (s, jnp.ones_like(mu)))
        return slope, ds

    def end(mu, tol):
        steps = nj.Adaptive(tol, tol)
        return nj.odesolve(van_der_pol, START, 0.0, 5.0, mu, steps=steps).z1[0]

    both = (START, jnp.zeros(2))
    steps = nj.Adaptive(1e-13, 1e-13)
    want = nj.odesolve(variational, both, 0.0, 5.0, 1.0, method=nj.dopri8, steps=steps).z1[1][0]
    slope = jax.jit(jax.grad(end))
    assert all(abs(slope(1.0, tol) - want) < 40 * tol * abs(want) for tol in (1e-5, 1e-7, 1e-9, 1e-11))


COUNT = [0]


def _bump(z):
    COUNT[0] += 1
    return z


@jax.custom_jvp
def counted(z):
    return jax.pure_callback(_bump, jax.ShapeDtypeStruct(z.shape, z.dtype), z, vmap_method="expand_dims")


@counted.defjvp
def _(primals, tangents):
    return counted(*primals), tangents[0]


def van_der_pol_counted(z, t, mu):
    return van_der_pol(counted(z), t, mu)


@pytest.mark.parametrize("slots", [None, 16, 4, 2])
def test_checkpoints_obey_their_law(slots):
    """Field evaluations: each step is taken once more to transpose it, and at most once more for each buffer."""

    def end(mu):
        sol = nj.odesolve(van_der_pol_counted, START, 0.0, 8.0, mu, adjoint=nj.Checkpointed(checkpoints=slots))
        return sol.z1[0], sol.stats

    COUNT[0] = 0
    _, stats = jax.block_until_ready(jax.grad(end, has_aux=True)(1.0))
    accepted, levels = int(stats.accepted), 0 if slots is None else len(buffers(4096, slots))
    least = int(stats.nfe) + 6 * accepted
    assert least <= COUNT[0] <= least + 6 * accepted * levels
    if slots is None:
        assert COUNT[0] <= int(stats.nfe) * (1 + accepted / (accepted + int(stats.rejected)))
    else:
        assert max(buffers(4096, slots)) <= slots
        assert nj.Checkpointed(checkpoints=slots).stored(4096, 1, 0) <= slots * (levels + 1)


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(checkpoints=4), nj.Reversible(restart=None)], ids=repr)
def test_memory_hardly_grows_with_the_steps(adjoint):
    def gradient(n):
        def end(theta):
            options = {"adjoint": adjoint, "method": nj.heun, "steps": nj.Fixed(n)}
            return jnp.sum(nj.odesolve(van_der_pol, START, 0.0, 1.0, theta, **options).z1)

        return jax.jit(jax.grad(end)).lower(1.0).compile().memory_analysis().temp_size_in_bytes

    # with checkpoints each level of buffers has a loop of its own; all states would be 1.6 MB
    assert gradient(100_000) <= gradient(100) + (4000 if isinstance(adjoint, nj.Checkpointed) else 0)


def test_memory_of_backsolve_does_not_grow_with_the_bound_on_steps():
    def gradient(limit):
        def end(theta):
            return jnp.sum(
                nj.odesolve(driven, START, 0.0, 1.0, theta, adjoint=nj.Backsolve(), method=nj.bosh3, max_steps=limit).z1
            )

        return jax.jit(jax.grad(end)).lower(THETA).compile().memory_analysis().temp_size_in_bytes

    assert gradient(100_000) <= 1.05 * gradient(100)


def sizes_in(function, *args):
    """Shapes of all arrays of the lowered program, each as a sorted tuple."""
    found = re.findall(r"tensor<((?:\d+x)+)", jax.jit(function).lower(*args).as_text())
    return {tuple(sorted(map(int, shape.split("x")[:-1]))) for shape in found}


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_parameters_are_never_repeated_for_each_lane(adjoint):
    networks, lanes, size = 3, 64, 47

    def total(theta):
        def one(z0, theta):
            return nj.odesolve(network, z0, 0.0, 1.0, theta, adjoint=adjoint, method=nj.heun, steps=nj.Fixed(16)).z1

        return jnp.sum(jax.vmap(jax.vmap(one, (0, None)), (None, 0))(jnp.ones((lanes, size)), theta))

    sizes = sizes_in(jax.grad(total), jnp.ones((networks, size, size)))
    assert (networks, size, size) in sizes
    assert not any({lanes, size} <= set(shape) and shape.count(size) > 1 for shape in sizes)


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Reversible()], ids=repr)
def test_jacobian_keeps_one_history(adjoint):
    def end(z0):
        options = {"adjoint": adjoint, "method": nj.bosh3, "max_steps": 29}
        return nj.odesolve(network, z0, 0.0, 1.0, jnp.eye(5), **options).z1

    rows = 29 if isinstance(adjoint, nj.Checkpointed) else 3
    sizes = sizes_in(jax.jacrev(end), jnp.ones(5))
    assert tuple(sorted((rows, 5))) in sizes
    assert tuple(sorted((29, 5, 5))) not in sizes
    assert 29 not in {n for shape in sizes if len(shape) > 2 for n in shape}


@pytest.mark.parametrize("adjoint", REVERSE, ids=repr)
def test_every_strategy_lowers_for_every_platform_without_callbacks(adjoint, float32):
    def total(z0, theta):
        solve = jax.vmap(lambda z0: nj.odesolve(driven, z0, 0.0, 1.0, theta, adjoint=adjoint, method=nj.bosh3).z1)
        return jnp.sum(solve(z0))

    args = (jnp.ones((3, 2), jnp.float32), jnp.ones(4, jnp.float32))
    check_export(jax.grad(total, (0, 1)), *args)


def test_backsolve_takes_only_steps_of_numbers():
    with pytest.raises(TypeError, match=r"Backsolve\(steps=\.\.\.\) must be an Adaptive of Python numbers"):
        nj.Backsolve(steps=nj.Adaptive(rtol="1e-3"))


# The limit of stability.


@pytest.mark.parametrize("method", [nj.tsit5, nj.dopri5, nj.dopri8], ids=repr)
def test_steps_at_the_limit_of_stability_are_counted_and_avoided(method):
    def end(mu, **options):
        steps = nj.Adaptive(1e-6, 1e-6, **options)
        return nj.odesolve(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, mu, method=method, steps=steps).z1[0]

    truth = 0.02733902092
    assert abs(jax.grad(end)(19.5) - truth) < 1e-4 * truth
    stiff = nj.odesolve(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, 19.5, method=method).stats
    mild = nj.odesolve(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, 1.0, method=method).stats
    assert stiff.limited > 0.15 * stiff.accepted
    assert mild.limited == 0
    if method is not nj.dopri8:
        assert abs(jax.grad(lambda mu: end(mu, stay_stable=False))(19.5) - truth) > truth


def test_a_method_that_cannot_tell_counts_minus_one():
    assert nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, 1.0, method=nj.bosh3).stats.limited == -1


def test_the_real_interval_of_stability_is_that_of_the_literature():
    # Hairer and Wanner, Solving ODEs II, IV.2: 3.3 for dopri5, 6.4 for the 8th-order method; 2.78 for rk4
    limits = {nj.dopri5: 3.31, nj.dopri8: 6.39, nj.rk4: 2.78, nj.euler: 2.0}
    assert all(abs(method.stability_limit - limit) < 0.02 for method, limit in limits.items())


# The certificate.


def test_certificate_accepts_a_good_gradient():
    report = nj.check_gradient(nj.testing.decay, 1.0, 0.0, 1.0, 2.0)
    assert report.ok
    assert report.relative_error < 1e-4
    assert "can be trusted" in str(report)


def test_certificate_exposes_a_backsolve_gradient_that_is_wrong():
    steps = nj.Adaptive(1e-4, 1e-4)
    report = nj.check_gradient(van_der_pol, START, 0.0, 5.0, 2.0, adjoint=nj.Backsolve(), steps=steps)
    assert not report.ok
    assert report.relative_error > 0.1
    assert report.reconstruction_error > 1e-3
    assert report.needed_rtol < 1e-4
    assert "cannot be trusted" in str(report)


def test_certificate_says_whether_a_reversible_solve_finds_its_start_again():
    options = {"steps": nj.Adaptive(1e-4, 1e-4), "method": nj.bosh3, "adjoint": nj.Reversible()}
    report = nj.check_gradient(forced, START, 0.0, 2.0, 1.5, **options)
    assert report.ok
    assert report.reconstruction_error < 1e-10
    sol = nj.odesolve(forced, START, 0.0, 2.0, 1.5, **options)
    assert (report.forward_nfe, report.backward_nfe) == (sol.stats.nfe, 6 * sol.stats.accepted)


def test_certificate_exposes_the_limit_of_stability():
    steps = nj.Adaptive(1e-6, 1e-6, stay_stable=False)
    report = nj.check_gradient(van_der_pol, jnp.array([2.0, 0.0]), 0.0, 10.0, 19.5, steps=steps)
    assert not report.ok
    assert report.relative_error > 100
    assert report.uncertainty < 1e-4
    assert report.limited > 0.5
    assert "stiff" in str(report)


def test_memory_is_estimated_by_compiling():
    options = {"lanes": 16, "max_steps": 1024, "method": nj.bosh3}
    adjoints = (nj.Checkpointed(), nj.Backsolve(), nj.Reversible())
    found = nj.estimate_memory(driven, START, 0.0, 1.0, THETA, adjoints=adjoints, **options)
    assert found["Checkpointed()"].law == 1024 * 16 * (2 + 1) * 8
    assert found["Backsolve()"].law == 0
    for estimate in found.values():
        assert estimate.law <= estimate.compiled <= estimate.law + 200_000


def only_before_zero(z, t, rate):
    return rate * jnp.sqrt(-t) * z


@pytest.mark.parametrize("adjoint", [nj.Direct(), nj.Checkpointed()])
def test_solve_over_no_time_reads_the_field_nowhere_else(adjoint):
    def saved(rate):
        save = nj.SaveAt(jnp.array([-1.0]))
        return nj.odesolve(only_before_zero, 1.0, -1.0, -1.0, rate, save=save, adjoint=adjoint).zs[0]

    assert jax.grad(saved)(0.2) == 0.0
