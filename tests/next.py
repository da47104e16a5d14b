"""Solves and gradients against closed forms on a JAX that is newer than those tried: `make test-next` runs it.

It prints one line, of what is off if anything is, and exits with 1 if a number is wrong or could not be computed.
"""

import sys
import warnings

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

warnings.simplefilter("ignore")  # of a newer jaxlib the line says the same
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)

RATE, STARTS = 0.7, np.array([0.3, 0.5, 1.2])
STEPS = {"rtol": 1e-10, "atol": 1e-12}
TIMES = np.array([0.0, 0.4, 1.1, 2.0])
CHECKS = {}


def check(fn):
    """Let a function that returns what was found and what it should be count."""
    CHECKS[fn.__name__.replace("_", " ")] = fn
    return fn


def end(nj, field=None, z0=1.0, t1=1.0, theta=RATE, steps=STEPS, **options):
    steps = nj.Adaptive(**steps) if isinstance(steps, dict) else steps
    return nj.odesolve(field or nj.testing.decay, z0, 0.0, t1, theta, steps=steps, **options).z1


@check
def adaptive_steps(nj):
    return jax.value_and_grad(lambda k: end(nj, theta=k))(RATE), (np.exp(-RATE), -np.exp(-RATE))


@check
def equal_steps_and_an_oscillator(nj):
    def turning(z, t, w):
        return jnp.stack([z[1], -w * w * z[0]])

    def solve(w):
        return end(nj, turning, jnp.array([1.0, 0.0]), theta=w, steps=nj.Fixed(400), method=nj.rk4)[0]

    return jax.value_and_grad(solve)(2.0), (np.cos(2.0), -np.sin(2.0))


@check
def the_gradient_with_respect_to_times(nj):
    return jax.grad(lambda t1: end(nj, t1=t1))(1.0), -RATE * np.exp(-RATE)


@check
def saved_times(nj):
    def rows(k):
        steps, save = nj.Adaptive(**STEPS), nj.SaveAt(jnp.asarray(TIMES))
        return nj.odesolve(nj.testing.decay, 1.0, 0.0, 2.0, k, steps=steps, save=save).zs

    want = np.exp(-RATE * TIMES)
    return (rows(RATE), jax.grad(lambda k: jnp.sum(rows(k)))(RATE)), (want, -np.sum(TIMES * want))


@check
def dense_output(nj):
    steps = nj.Adaptive(**STEPS)
    sol = nj.odesolve(nj.testing.decay, 1.0, 0.0, 2.0, RATE, steps=steps, save=nj.Dense(512), method=nj.dopri8)
    return sol.evaluate(jnp.asarray(TIMES)), np.exp(-RATE * TIMES)


@check
def lanes(nj):
    solve = jax.vmap(jax.value_and_grad(lambda z0: end(nj, logistic, z0)))
    return jax.jit(solve)(jnp.asarray(STARTS)), logistic_end(STARTS)


@check
def the_work_queue(nj):
    def total(z0s):
        return jnp.sum(jax.vmap(lambda z0: end(nj, logistic, z0, lane_width=2))(z0s))

    values, slopes = logistic_end(STARTS)
    return jax.value_and_grad(total)(jnp.asarray(STARTS)), (np.sum(values), slopes)


@check
def a_table_that_is_searched(nj):
    """The slope is t until 1, then 1."""

    def field(z, t, k):
        return k * jnp.interp(t, jnp.array([0.0, 1.0, 3.0]), jnp.array([0.0, 1.0, 1.0]))

    steps = nj.Adaptive(breakpoints=jnp.array([1.0]), **STEPS)
    return jax.value_and_grad(lambda k: end(nj, field, 0.0, 2.0, k, steps))(RATE), (1.5 * RATE, 1.5)


@check
def other_adjoints(nj):
    adjoints = nj.Backsolve(), nj.Interpolated(), nj.Direct(), nj.Reversible()
    slopes = [jax.grad(lambda k, adjoint=adjoint: end(nj, theta=k, adjoint=adjoint))(RATE) for adjoint in adjoints]
    return slopes, [-np.exp(-RATE)] * len(adjoints)


@check
def forward_mode_and_a_second_derivative(nj):
    forward = jax.jacfwd(lambda k: end(nj, theta=k, adjoint=nj.Forward()))(RATE)
    return (forward, jax.hessian(lambda k: end(nj, theta=k))(RATE)), (-np.exp(-RATE), np.exp(-RATE))


def logistic(z, t, k):
    return k * z * (1.0 - z)


def logistic_end(z0):
    grown = np.exp(RATE)
    return z0 * grown / (1 + z0 * (grown - 1)), grown / (1 + z0 * (grown - 1)) ** 2


def fault(nj, fn):
    """Return what is wrong with one check, or nothing."""
    try:
        got, want = fn(nj)
        got, want = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(values)]) for values in (got, want))
        gap = np.max(np.abs(got - want))
        return "" if gap <= 1e-6 else f"off by {gap:.1e}"
    except Exception as error:  # whatever it is, it is what is off
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}" if str(error) else repr(error)


def small_loops(nj):
    """Say whether small loops are one compiled function."""
    if why := nj.backends.cpu.why_not():
        return f"small loops are not compiled as one: {why}"
    text = jax.jit(lambda z: end(nj, z0=z)).lower(1.0).compile().as_text()
    return "" if "xla_cpu_small_call" in text else "small loops are not compiled as one, though this jaxlib was tried"


def main():
    print(f"jax {jax.__version__}, jaxlib {jaxlib.__version__}", end=": ")
    try:
        import node_jax as nj  # noqa: PLC0415  (that it can be imported is the first check)
    except Exception as error:
        print(f"node_jax cannot be imported: {error!r}")
        return 1
    wrong = [f"{name}: {found}" for name, fn in CHECKS.items() if (found := fault(nj, fn))]
    off = small_loops(nj)
    print("; ".join([*(wrong or [f"all {len(CHECKS)} checks pass"]), *([off] if off else [])]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
