"""Functions of JAX as fields, alone and in lanes: the solve and its gradient are those of plain Euler steps."""

import functools

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
import pytest
from jax import lax
from jax.scipy.interpolate import RegularGridInterpolator

import node_jax as nj

GRID, TABLE = jnp.array([0.0, 0.4, 1.0, 3.0]), jnp.array([1.0, 2.0, 0.5, 1.5])
MATRIX = jnp.array([[3.0, 0.2, 0.1], [0.2, 2.0, 0.3], [0.1, 0.3, 1.0]])
STEPS, THETA = 2, 0.4
ZS = jnp.array([[0.3, 0.5, 1.2], [0.7, 0.2, 0.9]])  # with theta four components: lanes push each of them forward


def positive(x):
    """A positive definite matrix that depends on the state."""
    return MATRIX + jnp.outer(x, x)


@jax.custom_jvp
def with_jvp(x):
    return jnp.sin(x)


@with_jvp.defjvp
def _(primals, tangents):
    return with_jvp(*primals), jnp.cos(primals[0]) * tangents[0]


@jax.custom_vjp
def with_vjp(x):
    return jnp.sin(x)


with_vjp.defvjp(lambda x: (jnp.sin(x), x), lambda x, bar: (jnp.cos(x) * bar,))


def root(x):
    """The y at which y + y^3 = x, by Newton's method."""

    def residual(y):
        return y + y**3 - x

    def newton(f, y):
        return lax.fori_loop(0, 30, lambda _, y: y - f(y) / (1 + 3 * y * y), y)

    return lax.custom_root(residual, x, newton, lambda g, y: y / g(jnp.ones_like(y)))


def linear(x):
    return lax.custom_linear_solve(
        lambda y: MATRIX @ y,
        x,
        lambda _, b: jnp.linalg.solve(MATRIX, b),
        lambda _, b: jnp.linalg.solve(MATRIX.T, b),
        symmetric=True,
    )


def looked_up(x):
    return TABLE[jnp.searchsorted(GRID, x)]


FIELDS = {
    "interp": lambda x: jnp.interp(x, GRID, TABLE),
    "searchsorted": lambda x: x * looked_up(x),
    "searchsorted by sorting": lambda x: x * TABLE[jnp.searchsorted(GRID, x, method="sort")],
    "digitize": lambda x: x * TABLE[jnp.digitize(x, GRID[1:])],
    "unique": lambda x: x * jnp.unique(jnp.floor(3 * x), size=3, fill_value=0.0),
    "histogram": lambda x: x * jnp.histogram(x, GRID[:4])[0],
    "sort": lambda x: jnp.sort(x),
    "median": lambda x: jnp.median(x) * x,
    "cumsum": jnp.cumsum,
    "diff": lambda x: jnp.diff(x, prepend=0.0),
    "gradient": jnp.gradient,
    "roll": lambda x: jnp.roll(x, 1) - x,
    "convolve": lambda x: jnp.convolve(x, TABLE, mode="valid")[0] * jnp.convolve(x, x, mode="same"),
    "polyval": lambda x: jnp.polyval(TABLE, x),
    "fft": lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * 1j, 3),
    "var": lambda x: jnp.var(x) * x,
    "max and argmin": lambda x: jnp.max(x) * x + x[jnp.argmin(x)],
    "select": lambda x: jnp.select([x < 0.4, x < 1.0], [x, 2 * x], jnp.sin(x)),
    "piecewise": lambda x: jnp.piecewise(x, [x < 0.4, x >= 0.4], [jnp.sin, jnp.cos]),
    "at set": lambda x: x.at[1].set(x[0] * x[2]),
    "at add": lambda x: x.at[jnp.array([0, 0, 2])].add(x),
    "take along axis": lambda x: jnp.take_along_axis(x, jnp.argsort(x), 0),
    "einsum": lambda x: jnp.einsum("ij,j,i->i", MATRIX, x, x),
    "cross": lambda x: jnp.cross(x, MATRIX[0]),
    "mod": lambda x: jnp.mod(3 * x, 0.7) + jnp.remainder(x, 0.25),
    "sinc and hypot": lambda x: jnp.sinc(x) + jnp.hypot(x, 1.0),
    "solve": lambda x: jnp.linalg.solve(positive(x), x),
    "det": lambda x: jnp.linalg.slogdet(positive(x))[1] * x,
    "norm": lambda x: jnp.linalg.norm(x) * x,
    "qr": lambda x: jnp.linalg.qr(positive(x))[1] @ x,
    "eigh": lambda x: jnp.linalg.eigh(positive(x))[0],
    "svd": lambda x: jnp.linalg.svd(positive(x), compute_uv=False),
    "expm": lambda x: jnp.pad(jsp.linalg.expm(MATRIX[:2, :2] * x[0], max_squarings=1) @ x[:2], (0, 1)),
    "cho_solve": lambda x: jsp.linalg.cho_solve(jsp.linalg.cho_factor(positive(x)), x),
    "solve_triangular": lambda x: jsp.linalg.solve_triangular(positive(x), x),
    "gammaln and digamma": lambda x: jsp.special.gammaln(1 + x) + jsp.special.digamma(1 + x),
    "betainc": lambda x: jsp.special.betainc(2.0, 3.0, x / 3),
    "bessel": lambda x: jsp.special.i0(x) + jsp.special.i1e(x),
    "erf": lambda x: jsp.special.erf(x) + jsp.special.erfinv(x / 3),
    "logsumexp": lambda x: jsp.special.logsumexp(x) * jax.nn.softmax(x),
    "xlogy": lambda x: jsp.special.xlogy(x, x) + jsp.special.entr(x),
    "map_coordinates": lambda x: jsp.ndimage.map_coordinates(TABLE, [x], 1),
    "regular grid": lambda x: RegularGridInterpolator((GRID,), TABLE)(x[:, None]),
    "scan": lambda x: lax.scan(lambda c, y: (c * y + y, c), 0.5, x)[1],
    "map": lambda x: lax.map(jnp.sin, x),
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, y: 0.5 * y + i * x, x),
    "associative_scan": lambda x: lax.associative_scan(jnp.multiply, x),
    "cond": lambda x: lax.cond(x[0] > 0.5, jnp.sin, jnp.cos, x),
    "switch": lambda x: lax.switch(jnp.int32(3 * x[0]), [jnp.sin, jnp.cos, jnp.tanh], x),
    "dynamic_slice": lambda x: lax.dynamic_slice_in_dim(jnp.tile(x, 2), jnp.int32(2 * x[2]), 3),
    "reduce_window": lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "SAME"),
    "top_k": lambda x: lax.top_k(x, 2)[0][1] * x,
    "cumulative": lambda x: lax.cummax(x) + lax.cumlogsumexp(x),
    "custom_root": root,
    "custom_linear_solve": linear,
    "platform_dependent": lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.sin),
    "custom_jvp": with_jvp,
    "custom_vjp": with_vjp,
    "checkpoint": jax.checkpoint(lambda x: jnp.sin(x) * jnp.sum(x)),
    "grad": jax.grad(lambda x: jnp.sum(jnp.sin(x) * x)),
    "jacfwd": lambda x: jax.jacfwd(lambda y: jnp.sin(y) * y[0])(x) @ x,
    "random": lambda x: x * jax.random.normal(jax.random.key(1), (3,)),
    "a constant": lambda x: jnp.concatenate([x[:2], jnp.ones(1)]),
}
FORWARD = {  # loops that JAX does not turn round
    "while_loop": lambda x: lax.while_loop(lambda y: jnp.sum(y) > 0.5, lambda y: 0.5 * y, x),
    "fori_loop of unknown length": lambda x: lax.fori_loop(0, jnp.int32(3 * x[2]), lambda i, y: 0.5 * y + i, x),
}


def plain(f, zs, theta):
    """Take the steps of all lanes by themselves; the first of them stands for the solve that is alone."""

    def step(z, _):
        return z + f(z, 0.0, theta) / STEPS, None

    z1 = jax.vmap(lambda z: lax.scan(step, z, None, STEPS)[0])(zs)
    return z1[0], z1


def solved(f, zs, theta):
    def solve(z):
        return nj.odesolve(f, z, 0.0, 1.0, theta, steps=nj.Fixed(STEPS), method=nj.euler).z1

    return solve(zs[0]), jax.vmap(solve)(zs)


def evaluated(solve, f, gradient):
    """Return the norm of a solve and of two lanes, with their states and if asked the gradient."""

    def norm(zs, theta):
        z1 = solve(f, zs, theta)
        return jnp.sum(jnp.sin(z1[0])) + 2 * jnp.sum(jnp.cos(z1[1])), z1

    return jax.jit(jax.value_and_grad(norm, (0, 1), has_aux=True) if gradient else norm)(ZS, THETA)


@pytest.mark.parametrize("name", [*FIELDS, *FORWARD])
def test_a_field_of(name):
    fn = (FIELDS | FORWARD)[name]

    def f(z, t, theta):
        return theta * fn(z)

    got, want = (evaluated(by, f, name in FIELDS) for by in (solved, plain))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), got, want)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(want))
