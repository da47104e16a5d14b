"""Operations of JAX by their names: each is taken by the compiled loop or refused, and every name taken is made.

JAX renames operations, and puts one in the place of several: what the loop then does not know costs speed in silence.
"""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.xla_metadata import set_xla_metadata

from node_jax import jaxprs
from node_jax.backends import cpu
from node_jax.protocols import Backend

X, N = jnp.array([0.3, 0.5, 0.2, 0.7]), jnp.array([3, 1, 2, 5])
MATRIX = jnp.eye(3)


def by_vjp(**options):
    fn = jax.custom_vjp(lambda x: jnp.sin(x))
    fn.defvjp(lambda x: (jnp.sin(x), x), lambda x, bar: (jnp.cos(x) * bar,), **options)
    return fn


def of_two(fn):
    return lambda x: fn(x, x[::-1])


def slope(fn):
    return jax.grad(lambda x: jnp.sum(fn(x)))


def summed(x):
    return lax.scan(lambda c, y: (c * jnp.sin(y), jnp.cos(c)), 1.0, x)[0]


def by_platform(x):
    return lax.platform_dependent(x, cpu=jnp.sin, cuda=jnp.cos, default=jnp.cos)


def switched(x):
    return lax.switch(jnp.int32(3 * x[0]), [jnp.sin, lambda x: x * x, jnp.tanh], x)


UNARY = """
abs acos acosh asin asinh atan atanh cbrt ceil cos cosh erf erf_inv erfc exp exp2 expm1 floor is_finite log log1p
logistic neg round rsqrt sign sin sinh sqrt square stop_gradient tan tanh
"""
BINARY = "add atan2 complex div eq ge gt le lt max min mul ne nextafter pow rem sub"
TAKEN = {
    **{name: getattr(lax, name) for name in UNARY.split()},
    **{name: of_two(getattr(lax, name)) for name in BINARY.split()},
    "add_any": slope(lambda x: x * jnp.sin(x)),
    "and": lambda x: (x > 0.3) & (x < 0.6),
    "argmax": jnp.argmax,
    "argmin": jnp.argmin,
    "bitcast_convert_type": lambda x: jnp.copysign(x, -1.0),
    "broadcast_in_dim": lambda x: x[:, None],
    "clamp": lambda x: lax.clamp(0.1, x, 0.4),
    "concatenate": lambda x: jnp.concatenate([x, x]),
    "cond": switched,
    "conj": lambda x: jnp.conj(x + 1j),
    "convert_element_type": jnp.int32,
    "copy": jnp.copy,
    "custom_jvp_call": jax.nn.relu,
    "custom_vjp_call": by_vjp(),
    "dot_general": lambda x: MATRIX @ x[:3],
    "dynamic_slice": lambda x: lax.dynamic_slice_in_dim(x, jnp.int32(x[0]), 2),
    "dynamic_update_slice": lambda x: lax.dynamic_update_slice_in_dim(x, x[:2], jnp.int32(x[0]), 0),
    "empty": lambda x: x + lax.empty((4,), x.dtype),
    "gather": lambda x: x[N[:2]],
    "imag": lambda x: jnp.imag(jnp.exp(1j * x)),
    "integer_pow": lambda x: x**3,
    "iota": lambda x: x * jnp.arange(4.0),
    "jit": jax.jit(jnp.sin),
    "le_to": lambda x: jnp.searchsorted(x, 0.4),
    "lt_to": lambda x: jnp.interp(x, X, X),
    "name": lambda x: checkpoint_name(x, "here"),
    "not": lambda x: ~(x > 0.3),
    "optimization_barrier": lax.optimization_barrier,
    "or": lambda x: (x > 0.3) | (x < 0.6),
    "pad": lambda x: jnp.pad(x, 1),
    "platform_index": by_platform,
    "real": lambda x: jnp.real(jnp.exp(1j * x)),
    "reduce_and": lambda x: jnp.all(x > 0),
    "reduce_max": jnp.max,
    "reduce_min": jnp.min,
    "reduce_or": lambda x: jnp.any(x > 0),
    "reduce_prod": jnp.prod,
    "reduce_sum": jnp.sum,
    "remat2": jax.checkpoint(jnp.sin),
    "remat_opt": slope(by_vjp(optimize_remat=True)),
    "reshape": lambda x: x.reshape(2, 2),
    "rev": lambda x: x[::-1],
    "scan": summed,
    "select_n": lambda x: jnp.where(x > 0.3, x, 0.0),
    "shift_left": lambda x: jnp.int32(x) << 1,
    "shift_right_arithmetic": lambda x: jnp.int32(x) >> 1,
    "shift_right_logical": lambda x: lax.shift_right_logical(jnp.int32(x), jnp.int32(1)),
    "slice": lambda x: x[1:3],
    "split": lambda x: lax.split(x, (1, 3)),
    "squeeze": lambda x: x[1],
    "tile": lambda x: jnp.tile(x, 2),
    "transpose": lambda x: jnp.outer(x, x + 1).T,
    "while": lambda x: lax.while_loop(lambda y: y[0] > 0.1, lambda y: 0.5 * y, x),
    "xla_metadata_value": lambda x: set_xla_metadata(x, key="value"),
    "xor": lambda x: (x > 0.3) ^ (x < 0.6),
}
LATER = {  # by the first version of JAX that makes them
    "stack": ((0, 10, 1), lambda x: jnp.stack([x, x])),
    "unstack": ((0, 10, 1), lambda x: lax.unstack(x)),
    "eval_jaxpr": ((0, 11, 1), slope(jax.checkpoint(lambda x: summed(x) * x))),
    "log2": ((0, 11, 2), jnp.log2),
    "one_minus_square": ((0, 11, 2), slope(jnp.tanh)),
    "empty2": ((0, 11, 2), slope(switched)),
    "polynomial": ((0, 12, 0), lambda x: jnp.polyval(X, x)),
}
EARLIER = {  # by the first version that does not make them any more
    "closed_call": ((0, 11, 1), LATER["eval_jaxpr"][1]),
}
OURS = {"once", "spread"}
KNOWN = cpu._TAKEN | {"dot_general"}  # the smallest products of matrices, by their size
REFUSED = {
    "bessel_i0e": jnp.i0,
    "cholesky": lambda x: lax.linalg.cholesky(MATRIX * x[0]),
    "clz": lambda x: lax.clz(jnp.int32(x)),
    "conv_general_dilated": lambda x: jnp.convolve(x, x),
    "cumlogsumexp": lax.cumlogsumexp,
    "cummax": lax.cummax,
    "cumprod": jnp.cumprod,
    "cumsum": jnp.cumsum,
    "custom_linear_solve": lambda x: lax.custom_linear_solve(lambda y: 2 * y, x, lambda f, b: b / 2),
    "digamma": lax.digamma,
    "eigh": lambda x: jnp.linalg.eigh(MATRIX * x[0]),
    "fft": jnp.fft.fft,
    "igamma": lambda x: lax.igamma(x, x),
    "lgamma": lax.lgamma,
    "lu": lambda x: jnp.linalg.det(jnp.outer(x, x)),
    "population_count": lambda x: lax.population_count(jnp.int32(x)),
    "random_bits": lambda x: jax.random.normal(jax.random.key(1), (4,)),
    "reduce_window": lambda x: lax.reduce_window(x, 1.0, lax.mul, (2,), (1,), "SAME"),
    "reduce_window_sum": lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "SAME"),
    "regularized_incomplete_beta": lambda x: lax.betainc(x, x, x),
    "scatter": lambda x: x.at[N[0]].set(1.0),
    "scatter-add": slope(lambda x: x[N[:2]]),
    "sort": jnp.sort,
    "svd": lambda x: jnp.linalg.svd(jnp.outer(x, x)),
    "top_k": lambda x: lax.top_k(x, 2),
    "triangular_solve": lambda x: jax.scipy.linalg.solve_triangular(MATRIX, x[:3]),
}
ONE_WAY = {"custom_vjp_call", "remat_opt", "nextafter", "while"}  # JAX does not differentiate these both ways


def is_made(name):
    first, end = LATER.get(name, [(0,)])[0], EARLIER.get(name, [(99,)])[0]
    return first <= jax.__version_info__ < end


EXAMPLES = TAKEN | {name: fn for name, (_, fn) in (LATER | EARLIER).items() if is_made(name)}


def names(fn, *args):
    return {eqn.primitive.name for eqn in jaxprs.equations(jax.make_jaxpr(fn)(*args).jaxpr)}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_operation_is_made_and_taken(name):
    assert name in names(EXAMPLES[name], X)
    assert cpu.is_emitted(EXAMPLES[name], X) == cpu.tried()


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_is_made_and_refused(name):
    found = names(REFUSED[name], X)
    assert name in found
    assert name not in cpu._TAKEN
    assert not cpu.is_emitted(REFUSED[name], X)


def test_every_name_that_is_taken_has_an_example():
    assert TAKEN.keys() | LATER.keys() | EARLIER.keys() == KNOWN - OURS


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ONE_WAY])
def test_derivatives_of_what_is_taken_are_taken(name):
    """`tanh` has had an operation of its own for its derivative since jax 0.11.2."""

    def back(x):
        y, pull = jax.vjp(EXAMPLES[name], x)
        return pull(jax.tree.map(jnp.ones_like, y))

    def forth(x):
        return jax.jvp(EXAMPLES[name], (x,), (x,))

    assert names(forth, X) <= KNOWN
    assert names(back, X) - KNOWN == ({"scatter-add"} if name == "gather" else set())


def test_the_back_end_for_cpus_has_what_one_is_asked_for():
    assert isinstance(cpu, Backend)
