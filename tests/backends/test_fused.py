"""Small loops as one compiled function on a CPU: what is taken, what is refused, and that results stay the same."""

import re

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.scipy import special

import node_jax as nj
from node_jax import tree
from node_jax.backends import cpu

NEW = cpu.tried()
OURS = 'inlineable="false",xla_cpu_small_call="true"'
STEPS = nj.Fixed(3)

ELEMENTWISE = [
    *(jnp.abs, jnp.ceil, jnp.cos, jnp.cosh, jnp.exp, jnp.exp2, jnp.expm1, jnp.floor, jnp.round, jnp.sign, jnp.sin),
    *(jnp.sinh, jnp.tan, jnp.tanh, jnp.cbrt, jnp.arctan, jnp.arcsinh, jnp.square, lax.logistic, lax.erf, lax.erfc),
    lambda x: jnp.sqrt(1 + x * x) + lax.rsqrt(1 + x * x) + jnp.log(1 + x * x) + jnp.log1p(x * x),
    lambda x: jnp.arccos(x / 9) + jnp.arcsin(x / 9) + special.erfinv(x / 9) + jnp.arctanh(x / 9),
    lambda x: jnp.arccosh(2 + x * x) + x**3 + (1 + x * x) ** 0.3 + jnp.arctan2(x, 2.0) + x % 0.7,
    lambda x: jnp.maximum(x, 0.1) + jnp.minimum(x, 0.1) + jnp.clip(x, -1, 1),
    lambda x: (x.astype(jnp.int32) ^ 3).astype(x.dtype) + (x.astype(jnp.int32) >> 1).astype(x.dtype),
    lambda x: jnp.real((x + 1j * x) * jnp.exp(1j * x)) + jnp.where((x != 0) & ~jnp.isnan(x), x, 1.0),
]
MOVING = [
    lambda x: jnp.roll(x, 1) + x[::-1] + jnp.pad(x, 1)[:4] + jnp.stack([x, 2 * x]).T.reshape(-1)[:4],
    lambda x: x * jnp.sum(x) * jnp.max(x) * jnp.min(x) * jnp.arange(4),
    lambda x: lax.dynamic_slice_in_dim(jnp.concatenate([x, x]), x[0].astype(jnp.int32) % 3, 4),
    lambda x: lax.scan(lambda c, y: (c + y, c), 0.0, x)[1],
    lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
    lambda x: jnp.ones((4, 7)) @ jnp.tanh(jnp.outer(jnp.arange(7.0), x) @ x),
    jax.checkpoint(jnp.sin),
    jax.nn.relu,
    jax.nn.softplus,
]
NEWER = [  # operations that some versions of JAX have, and others not
    lambda x: jnp.log2(1 + x * x) + jnp.polyval(jnp.ones(3), x) + jnp.copysign(x, -1.0),
    lambda x: jnp.tile(x, 2)[1:5] + checkpoint_name(x, "here"),
    lambda x: lax.switch(x[0].astype(jnp.int32) % 3, [jnp.sin, lambda x: x * x, jnp.tanh], x),
    jax.checkpoint(lambda x: lax.scan(lambda c, y: (c * jnp.sin(y), jnp.cos(c)), 1.0, x)[0] * x),
]
FORWARD = [  # their transposes scatter or multiply cumulatively, or there are none
    lambda x: x[jnp.array([1, 0, 2, 2])] * jnp.prod(x) + jnp.nextafter(x, 1.0),
    lambda x: x * jnp.any(x > 0) * jnp.all(x > -9) * jnp.argmax(x) + jnp.argmin(x),
    lambda x: lax.fori_loop(0, 3, lambda i, y: y * 0.5 + i, x),
]


def together(functions):
    """Return a field that is the mean of all functions."""
    return lambda z, t, theta: sum(theta * fn(z) for fn in functions) / len(functions)


def compiled(fn, *args):
    return jax.jit(fn).lower(*args).compile()


def solved(f, steps=STEPS, **options):
    return lambda z, theta: nj.odesolve(f, z, 0.0, 1.0, theta, steps=steps, **options).z1


def runs_loops(program):
    """Whether a program has a loop that is not within one function: its kernels would run one by one."""
    text = program.as_text()
    return " while(" in text[text.index("\nENTRY ") :]


@pytest.fixture
def separately(monkeypatch):
    """Return a function that switches off what is tested here."""

    def switch():
        monkeypatch.setenv("NODE_JAX_FUSED", "0")
        jax.clear_caches()

    yield switch
    jax.clear_caches()


def test_of_a_newer_jaxlib_nothing_is_asked_and_one_warning_says_so(monkeypatch):
    cpu._warn_of_newer.cache_clear()
    monkeypatch.setattr(jaxlib.version, "__version_info__", (99, 0, 0))
    with pytest.warns(UserWarning, match="was not tried with jaxlib") as caught:
        assert [cpu.tried(), cpu.tried()] == [False, False]
    assert len(caught) == 1
    assert nj.info().compiled_loops.startswith("off: tried with jaxlib 0.10 to 0.12")
    monkeypatch.setenv("NODE_JAX_FUSED", "0")
    cpu._warn_of_newer.cache_clear()
    assert not cpu.tried()
    assert nj.info().compiled_loops == "off: NODE_JAX_FUSED=0 in the environment"


Z, THETA = np.array([0.3, -0.5, 1.2, 0.7]), np.array(0.4)


@pytest.mark.parametrize("functions", [ELEMENTWISE, MOVING, NEWER], ids=["elementwise", "moving", "newer"])
@pytest.mark.parametrize("mode", ["solve", "gradient", "lanes"])
def test_every_operation_that_is_taken_can_be_emitted(functions, mode, separately):
    if functions is MOVING and mode != "gradient":
        functions = MOVING + FORWARD
    solve = solved(together(functions), method=nj.heun)
    fn, z = {
        "solve": (solve, Z),
        "gradient": (jax.grad(lambda z, theta: jnp.sum(solve(z, theta)), (0, 1)), Z),
        "lanes": (jax.vmap(solve, (0, None)), np.stack([Z, 2 * Z])),
    }[mode]
    program = compiled(fn, z, THETA)
    assert (OURS in program.as_text()) == NEW
    assert not (NEW and runs_loops(program))
    separately()
    other = compiled(lambda *args: fn(*args), z, THETA)
    assert OURS not in other.as_text()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), program(z, THETA), other(z, THETA))


@pytest.mark.parametrize(
    "f",
    [
        lambda z, t, theta: jnp.ones((4, 8)) @ (jnp.ones((8, 4)) @ z),
        lambda z, t, theta: jnp.sum(jnp.tensordot(jnp.ones((3, 3, 4)), jnp.outer(z, z), 1), (0, 1)),
        lambda z, t, theta: jnp.sort(z),
        lambda z, t, theta: z.astype(jnp.bfloat16).astype(z.dtype),
    ],
    ids=["product of matrices", "product of many rows", "sort", "bfloat16"],
)
def test_other_operations_are_left_to_xla(f):
    assert OURS not in compiled(solved(f), Z, THETA).as_text()


def test_a_large_state_is_left_to_xla():
    f = solved(lambda z, t, theta: -theta * z)
    assert OURS not in compiled(f, jnp.ones(cpu.LARGEST + 1), THETA).as_text()
    assert (OURS in compiled(f, jnp.ones(cpu.LARGEST), THETA).as_text()) == NEW


def test_sizes_count_as_they_are_after_all_transformations():
    """A hessian multiplies matrices with a column for each of the lanes and directions."""
    f = solved(lambda z, t, theta: jnp.tanh(theta @ z), method=nj.euler)

    def loss(zs):
        return jnp.sum(jnp.sin(jax.vmap(f, (0, None))(zs, jnp.ones((2, 2)))))

    zs = jnp.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    assert (OURS in compiled(jax.grad(loss), zs).as_text()) == NEW
    hessian = compiled(jax.hessian(loss), zs)(zs)
    np.testing.assert_allclose(hessian[1, :, 1], jax.jit(jax.hessian(loss))(zs[1:2])[0, :, 0], rtol=1e-12)


@pytest.mark.parametrize("save", [nj.SaveEnd(), nj.SaveAt(jnp.linspace(0, 1, 5)), nj.SaveSteps(64), nj.Dense(64)])
def test_a_solve_of_constants_can_be_emitted(save):
    """Constants that XLA moves into a called function leave its arguments unused, which ends the process."""

    def constant():
        return nj.odesolve(lambda z, t, theta: -theta * z + jnp.arange(4.0), Z, 0.0, 1.0, 0.4, save=save, throw=False)

    program = compiled(constant)
    assert (OURS in program.as_text()) == NEW
    assert bool(program().ok)


def test_arguments_that_do_not_count_can_be_emitted():
    def gradient(z, theta):
        return jax.grad(lambda th: jnp.sum(solved(lambda z, t, th: 0.0 * th * z)(z, th)))(theta)

    program = compiled(gradient, Z, THETA)
    assert (OURS in program.as_text()) == NEW
    assert program(Z, THETA) == 0.0


def test_large_buffers_are_not_copied():
    """The buffer of 20,000 steps is allocated once."""
    save = nj.SaveSteps(20_000)
    program = compiled(
        lambda z: nj.odesolve(nj.testing.decay, z, 0.0, 1.0, 1.0, save=save, steps=nj.Adaptive(1e-6, 1e-6)).zs, Z
    )
    assert (OURS in program.as_text()) == NEW
    once = 20_001 * (Z.nbytes + 8)
    assert program.memory_analysis().temp_size_in_bytes < 1.2 * once


def neighbours(z, t, theta):
    return theta * (jnp.roll(z, 1) - 2 * z + jnp.roll(z, -1)) + jnp.sin(z)


def flops(f, z):
    return compiled(solved(f, nj.Fixed(3), method=nj.rk4), z, THETA).cost_analysis()["flops"]


@pytest.mark.parametrize("order", [("cuda", "cpu", "default"), ("cpu", "cuda", "default"), ("cuda", "default")])
def test_a_field_is_judged_by_what_a_cpu_runs_of_it(order):
    """What sorts is not compiled into one function: XLA would call a library that it does not find there."""

    def field(z, t, theta):
        sorts = "cpu" if "cpu" in order else "default"
        ways = {name: jnp.sort if name == sorts else jnp.negative for name in order}
        return theta * lax.platform_dependent(z, **ways)

    z1 = solved(field, steps=nj.Fixed(1), method=nj.euler)(Z, THETA)
    np.testing.assert_allclose(z1, Z + THETA * np.sort(Z), rtol=1e-12)


@pytest.mark.skipif(not NEW, reason="a jaxlib that was not tried")
def test_stages_are_computed_once():
    """Not anew for each element that a later stage reads: 4,096 components, as few operations for each as for 16."""
    assert flops(neighbours, jnp.ones(4096)) < 1.1 * 4096 / 16 * flops(neighbours, jnp.ones(16))


def boundaries(program):
    return re.findall(r"%jit_optimization_barrier\S* = (\S+) call", program.as_text())


@pytest.mark.skipif(not NEW, reason="a jaxlib that was not tried")
def test_states_of_stages_are_computed_once_too():
    """But not for a field that multiplies matrices, which reads its state from memory in any case."""
    matrix = jnp.ones((16, 16))
    for f, kept in ((neighbours, 2), (lambda z, t, theta: theta * (matrix @ z), 1)):
        program = compiled(solved(f, nj.Fixed(3), method=nj.rk4), jnp.ones(16), THETA)
        assert len(boundaries(program)) == 4 * kept


@pytest.mark.skipif(not NEW, reason="a jaxlib that was not tried")
def test_lanes_lie_next_to_each_other():
    program = compiled(jax.vmap(lambda z: solved(neighbours)(z, THETA)), jnp.ones((64, 3)))
    shapes = boundaries(program)
    states, slopes = shapes[::2], shapes[1::2]
    assert set(states) == {"f64[3,64]{1,0}"}
    # Before 0.12 XLA gave all calls the layout of their axes; now slopes lie as the field computes them, lane by lane.
    # Forced back by `jax.experimental.layout` solves of 8 to 1,024 lanes took 0.83 to 1.1 of the time, most of them 1.
    if jaxlib.version.__version_info__[:2] < (0, 12):
        assert set(slopes) == set(states)


def test_a_step_transposes_no_states():
    """XLA would take transposes away in a program for one device only."""

    def moved(z, h, k):
        return tree.combine(z, h, (0.5, 0.25), (k, 2.0 * k))

    z, h = jnp.ones((3, 7)), jnp.arange(7.0)
    step = jax.vmap(moved, (1, 0, 1), 1)
    assert "transpose" not in str(jax.make_jaxpr(step)(z, h, z))
    np.testing.assert_array_equal(step(z, h, z), np.tile(1.0 + h, (3, 1)))
    pulled = jax.grad(lambda h: jnp.sum(step(z, h, z) ** 2))(h)
    np.testing.assert_array_equal(pulled, 6.0 * (1.0 + h))


WAYS_BACK = {
    "alone": lambda solve: jax.grad(lambda z, theta: jnp.sum(solve(z, theta))),
    "of a sum": lambda solve: jax.grad(lambda zs, theta: jnp.sum(jax.vmap(solve, (0, None))(zs, theta))),
    "of lanes": lambda solve: jax.vmap(jax.grad(lambda z, theta: jnp.sum(solve(z, theta))), (0, None)),
}


@pytest.mark.skipif(not NEW, reason="a jaxlib that was not tried")
@pytest.mark.parametrize("name", WAYS_BACK)
def test_the_adaptive_solve_and_its_way_back_are_compiled_functions(name):
    solve = solved(lambda z, t, theta: -theta * z, steps=nj.Adaptive())
    z = jnp.ones(2) if name == "alone" else jnp.ones((8, 2))
    program = compiled(WAYS_BACK[name](solve), z, jnp.ones(()))
    assert not runs_loops(program)


@pytest.mark.skipif(not NEW, reason="a jaxlib that was not tried")
def test_a_small_solve_at_100_times_counts_as_cheap():
    """XLA hands a call to another thread, for 25 us, from an estimate of 1,000 operations on."""
    save = nj.SaveAt(jnp.linspace(0, 10, 100))

    def predator_and_prey(z, t, theta):
        a, b, c, d = theta
        x, y = z
        return jnp.stack([a * x - b * x * y, -c * y + d * x * y])

    def saved(z, theta):
        return nj.odesolve(predator_and_prey, z, 0.0, 10.0, theta, save=save, steps=nj.Adaptive(1e-6, 1e-6)).zs

    assert compiled(saved, jnp.ones(2), jnp.ones(4)).cost_analysis()["flops"] < 1000


@pytest.mark.skipif(not NEW, reason="a jaxlib that was not tried")
def test_what_xla_refuses_to_compile_runs_kernel_by_kernel_with_a_warning(monkeypatch):
    monkeypatch.setattr(cpu, "_TAKEN", cpu._TAKEN | {"sort"})  # it is not linked into such functions

    def solve():
        return nj.odesolve(lambda z, t, p: -jnp.sort(z), jnp.ones(3), 0.0, 1.0).z1

    with pytest.warns(UserWarning, match="kernel by kernel"):
        np.testing.assert_allclose(solve(), np.exp(-1.0), rtol=1e-5)
    np.testing.assert_allclose(nj.odesolve(lambda z, t, p: -z, jnp.ones(3), 0.0, 1.0).z1, np.exp(-1.0), rtol=1e-5)
