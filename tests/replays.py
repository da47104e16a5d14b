"""Solve again with known steps, by code that JAX differentiates plainly: what gradients are held against."""

import jax
import jax.numpy as jnp
import numpy as np

import node_jax as nj


def gap(got, want):
    """Largest difference of two pytrees, relative to the largest entry of each leaf of `want`."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    gaps = [0.0]
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert jnp.shape(x) == jnp.shape(y), (jnp.shape(x), jnp.shape(y))
        x, y = np.asarray(x), np.asarray(y)
        if x.size:
            gaps.append(float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), 1e-30)))
    return max(gaps) if all(np.isfinite(gaps)) else np.inf


def nodes(f, z0, t0, t1, theta, **options):
    """Times of the accepted steps, `t0` first."""
    sol = nj.odesolve(f, z0, t0, t1, theta, save=nj.SaveSteps(256), throw=False, **options)
    return jnp.concatenate([jnp.asarray(t0, sol.ts.dtype)[None], sol.ts[: int(sol.count)]])


def combined(z, h, weights, slopes):
    """`z + h sum_i weights[i] slopes[i]`."""
    return jax.tree.map(lambda x, *ks: x + h * sum(w * k for w, k in zip(weights, ks, strict=False)), z, *slopes)


def replay(f, z0, times, theta, method=nj.tsit5):
    """States at all `times`, starts of the steps, their sizes and slopes."""

    def step(z, ends):
        t, h = ends[0], ends[1] - ends[0]
        slopes = []
        rows = zip((*method.c, *method.c_dense), (*method.a, *method.a_dense), strict=True)
        for c, a in rows:
            at = combined(z, h, a, slopes) if slopes else z
            slopes.append(f(at, t + c * h, theta))
        z1 = combined(z, h, method.b, slopes)
        return z1, (z, z1, slopes)

    z1, (starts, ends, slopes) = jax.lax.scan(step, z0, (times[:-1], times[1:]))
    return z1, starts, ends, slopes


def read(replayed, times, t, method=nj.tsit5):
    """Dense output of a replay at the times `t`, all within its steps."""
    _, starts, _, slopes = replayed
    i = jnp.clip(jnp.searchsorted(times, t, side="left") - 1, 0, times.size - 2)
    h = times[i + 1] - times[i]
    x = (t - times[i]) / h

    def one(i, h, x):
        weights = [sum(number * x ** (j + 1) for j, number in enumerate(row)) for row in method.dense]
        start, ks = jax.tree.map(lambda rows: rows[i], (starts, slopes))
        return combined(start, h, weights, ks)

    return jax.vmap(one)(i, h, x)
