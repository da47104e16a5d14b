"""Check how far a gradient can be trusted."""

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from node_jax import norms, tree
from node_jax.adjoints.checkpointed import Checkpointed
from node_jax.adjoints.interpolated import Interpolated
from node_jax.control import Adaptive
from node_jax.engine.each import Each
from node_jax.methods import tsit5
from node_jax.odesolve import odesolve, prepare, problem_of
from node_jax.placement import is_traced
from node_jax.save import SaveEnd
from node_jax.types import PyTree, VectorField


class GradientReport(NamedTuple):
    """The result of `check_gradient`; `print` shows it as text.

    Attributes:
        relative_error: estimated norm of the error of the gradient over the norm of the gradient.
        uncertainty: distance between the estimates of the exact gradient, in the same units.
        ok: whether `relative_error + uncertainty` is at most `accept`.
        accept: the error that was accepted.
        needed_rtol: the largest tried `rtol` with which, and with a tenth of which, the same strategy would be accepted
            (one success alone may be luck); None if none was, or under prescribed steps.
        forward_nfe: field evaluations of the solve.
        backward_nfe: those of the backward pass, not counting vector-Jacobian products and, with `Checkpointed`,
            replays between checkpoints; None for strategies that do not count them.
        reconstruction_error: relative error of `z(t0)` as reconstructed by the backward pass of `Backsolve` and
            `Reversible`; else None.
        limited: share of the accepted steps at the limit of stability; None for methods that cannot detect it.
        unseen: share of the accepted steps whose error estimate carries no information (`Stats.unseen`); None under
            prescribed steps.
        adjoint: the strategy.

    Example:
        >>> import node_jax as nj
        >>> print(nj.check_gradient(nj.testing.decay, 1.0, 0.0, 1.0, 2.0))
        The gradient by Checkpointed can be trusted: its relative error is ...
    """

    relative_error: float
    uncertainty: float
    ok: bool
    accept: float
    needed_rtol: float | None
    forward_nfe: int
    backward_nfe: int | None
    reconstruction_error: float | None
    limited: float | None
    unseen: float | None
    adjoint: Any

    def __str__(self) -> str:
        """Return the report as a short paragraph."""
        verdict = "can be trusted" if self.ok else "cannot be trusted"
        text = (
            f"The gradient by {type(self.adjoint).__name__} {verdict}: its relative error is "
            f"{self.relative_error:.1e}, give or take {self.uncertainty:.1e}; up to {self.accept:.0e} is accepted."
        )
        if not self.ok and self.needed_rtol is not None:
            text += f" With rtol={self.needed_rtol:.0e} it would be accepted."
        if not self.ok and self.needed_rtol is None:
            other = "another method" if isinstance(self.adjoint, Checkpointed) else "Checkpointed or another method"
            prescribed = self.unseen is None
            none = "More steps are needed, or" if prescribed else "No smaller tolerance that was tried would do: try"
            text += f" {none} {other}."
        if self.reconstruction_error is not None:
            text += f" The way back missed z(t0) by {self.reconstruction_error:.1e} of its size."
        if self.limited is not None and self.limited > 0.2:
            text += f" {self.limited:.0%} of the steps were at the limit of stability: the problem is stiff."
        if self.unseen is not None and self.unseen > 0.5:
            text += f" For {self.unseen:.0%} of the steps the error estimate said nothing: with_tangent controls more."
        back = "" if self.backward_nfe is None else f", {self.backward_nfe:,} back"
        return f"{text} {self.forward_nfe:,} field evaluations forward{back}."


def check_gradient(
    f: VectorField,
    z0: PyTree,
    t0: Any,
    t1: Any,
    theta: PyTree = None,
    *,
    cotangent: PyTree = None,
    accept: float = 1e-2,
    method=tsit5,
    steps=Adaptive(),
    adjoint: Any = Checkpointed(),
    max_steps: int = 4096,
) -> GradientReport:
    """Estimate the error of the gradient of `<cotangent, z1>` that a strategy gives with these options.

    The gradient with respect to `z0`, `theta` and the leaves of `f` is compared with that of `Interpolated`, whose
    adjoint has its own error control, at a hundredth and a ten-thousandth of the tolerance (under prescribed steps: of
    an adaptive solve). This reference is compared in turn with the variational equation along one direction, solved
    with state and tangent under error control, or, where forward mode does not apply (a `jax.custom_vjp`), with a
    finite difference. No reference uses the steps that are judged.

    Args:
        f: vector field; this and the following arguments as in `odesolve`, with concrete values of one solve.
        z0: initial state.
        t0: initial time.
        t1: final time.
        theta: parameters.
        cotangent: pytree like `z0`; default: ones.
        accept: the relative error to accept.
        method: an explicit Runge-Kutta method.
        steps: how steps are chosen.
        adjoint: the strategy to check.
        max_steps: largest number of trials; the references may take 16 times as many.

    Returns:
        A `GradientReport`.

    Raises:
        ValueError: if the values are traced, `max_steps` is None, or the solve itself fails.

    Example:
        >>> import node_jax as nj
        >>> report = nj.check_gradient(nj.testing.decay, 1.0, 0.0, 1.0, 2.0)
        >>> report.ok, report.relative_error < 1e-5
        (True, True)
    """
    if max_steps is None or is_traced((f, z0, t0, t1, theta)):
        raise ValueError(f"check_gradient needs concrete values and a finite max_steps, got max_steps={max_steps}")
    cotangent = jax.tree.map(jnp.ones_like, z0) if cotangent is None else cotangent
    problem = _Problem(f, z0, t0, t1, theta, cotangent, max_steps)
    sol = odesolve(f, z0, t0, t1, theta, method=method, steps=steps, adjoint=adjoint, max_steps=max_steps)

    exact, rougher = (problem.gradient(*_reference(method, steps, k)) for k in (4, 2))
    uncertainty = max(_gap(rougher, exact), problem.misfit(exact, _reference(method, steps, 4)))
    error = _gap(problem.gradient(method, steps, adjoint), exact)
    ok = error + uncertainty <= accept
    needed = None
    if not ok and isinstance(steps, Adaptive):  # others have no `rtol` to report
        needed = problem.needed(method, steps, adjoint, exact, accept - uncertainty)
    replayed, missed = adjoint.replayed(method), None
    nfe = None if replayed is None else int(sol.stats.accepted) * replayed
    options = {"method": method, "steps": steps, "adjoint": adjoint, "save": SaveEnd(), "max_steps": max_steps}
    back = _back_at_t0(*prepare(f, z0, t0, t1, theta, **options), cotangent)
    if back is not None:
        nfe, missed = int(back[1]), _gap(back[0], z0)
    limited = None if int(sol.stats.limited) < 0 else int(sol.stats.limited) / max(1, int(sol.stats.accepted))
    unseen = None if int(sol.stats.unseen) < 0 else int(sol.stats.unseen) / max(1, int(sol.stats.accepted))
    counts = (int(sol.stats.nfe), nfe, missed, limited, unseen)
    return GradientReport(error, uncertainty, ok, accept, needed, *counts, adjoint)


class _Problem(NamedTuple):
    """The arguments of the solve whose gradient is checked."""

    f: Any
    z0: PyTree
    t0: Any
    t1: Any
    theta: PyTree
    cotangent: PyTree
    max_steps: int

    def value(self, moving: tuple[Any, ...], fixed: tuple[Any, ...], options: tuple[Any, ...]) -> jax.Array:
        """Return the real part of `<cotangent, z1>`."""
        f, z0, theta = eqx.combine(moving, fixed)
        method, steps, adjoint, factor = options
        limit = factor * self.max_steps
        sol = odesolve(f, z0, self.t0, self.t1, theta, method=method, steps=steps, adjoint=adjoint, max_steps=limit)
        return tree.dot(self.cotangent, sol.z1, tree.real_dtype(z0))

    def split(self) -> tuple[Any, ...]:
        """Separate the inexact arrays, which are differentiated, from the rest."""
        values = jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_inexact_array_like(x) else x, (self.z0, self.theta))
        return eqx.partition((self.f, *values), eqx.is_inexact_array)

    def gradient(self, method, steps, adjoint, factor: int = 1) -> PyTree:
        """Return the gradient with respect to every inexact leaf."""
        moving, fixed = self.split()
        return jax.grad(self.value)(moving, fixed, (method, steps, adjoint, factor))

    def misfit(self, gradient: PyTree, options: tuple[Any, ...]) -> float:
        """Compare a gradient with the derivative along one random direction; return the relative difference."""
        moving, _ = self.split()
        leaves, structure = jax.tree.flatten(moving)
        keys = jax.random.split(jax.random.key(0), max(1, len(leaves)))
        scales = [_scale(x) for x in leaves]
        signs = [jax.random.rademacher(k, x.shape).astype(x.dtype) for k, x in zip(keys, leaves, strict=False)]
        direction = jax.tree.unflatten(structure, [s * x for s, x in zip(signs, scales, strict=True)])
        try:
            wanted = self.pushed(direction, options)
        except TypeError:  # the field has a custom_vjp
            wanted = self.difference(direction, options)
        slope = float(tree.dot(gradient, direction, tree.real_dtype(self.z0)))
        pairs = zip(*map(jax.tree.leaves, (gradient, direction)), strict=True)
        size = sum(float(jnp.sum(jnp.abs(g * v))) for g, v in pairs)
        return abs(slope - wanted) / max(size, 1e-30)

    def pushed(self, direction: PyTree, options: tuple[Any, ...]) -> float:
        """Return the derivative along a direction, by the variational equation solved together with the state."""
        (f, z0, theta), (rigid, _, other) = self.split()
        push_f, v0, push_theta = direction
        method, steps, _, factor = options

        def field(zv, t, parts):
            def slope(z, values):
                f, theta = eqx.combine(values, (rigid, other))
                return f(z, t, theta)

            return jax.jvp(slope, (zv[0], parts[0]), (zv[1], parts[1]))

        parts = ((f, theta), (push_f, push_theta))
        limit = factor * self.max_steps
        sol = odesolve(field, (z0, v0), self.t0, self.t1, parts, method=method, steps=steps.paired(), max_steps=limit)
        return float(tree.dot(self.cotangent, sol.z1[1], tree.real_dtype(z0)))

    def difference(self, direction: PyTree, options: tuple[Any, ...]) -> float:
        """Return the derivative along a direction by central differences with Richardson extrapolation."""
        moving, fixed = self.split()

        def moved(h: float) -> jax.Array:
            there = jax.tree.map(lambda x, v: x + h * v, moving, direction)
            return self.value(there, fixed, options)

        def along(h: float) -> float:
            high, low = (float(moved(s * h)) for s in (1.0, -1.0))
            return (high - low) / (2 * h)

        h = float(jnp.finfo(tree.real_dtype(self.z0)).eps) ** 0.2
        return (4 * along(h / 2) - along(h)) / 3

    def needed(self, method, steps, adjoint, exact: PyTree, accept: float) -> float | None:
        """Return the largest tried relative tolerance that is accepted and whose tenth is accepted too."""
        smallest, fits = 4 * float(jnp.finfo(tree.real_dtype(self.z0)).eps), None
        for k in range(1, 9):
            tighter, back = steps.tighter(10.0**-k), adjoint.tighter(10.0**-k)
            rtol = float(np.max([np.max(x) for x in jax.tree.leaves(tighter.rtol)]))
            accepted = rtol >= smallest and _gap(self.gradient(method, tighter, back, 16), exact) <= accept
            if accepted and fits:
                return fits
            fits = rtol if accepted else None
        return None


def _scale(x: jax.Array) -> jax.Array:
    """Return a size of change for each element: its modulus, or a part of the largest; 1 if all are zero."""
    most = jnp.max(jnp.abs(x), initial=0.0)
    return jnp.where(most > 0, jnp.maximum(jnp.abs(x), 1e-3 * most), 1.0)


def _reference(method, steps, k: int) -> tuple[Any, ...]:
    """Return options of a reference: a tolerance smaller by `10**k`, and an adjoint with its own error control."""
    method = method if method.has_error and method.degree and method.order > 2 else tsit5
    tight = steps if isinstance(steps, Adaptive) else Adaptive()
    return method, dataclasses.replace(tight.tighter(10.0**-k), first_step=None), Interpolated(), 16


def _gap(got: PyTree, want: PyTree) -> float:
    """Return the norm of the difference over the norm of `want`; infinite if it is not a number."""
    difference, size = (norms.rms(x) for x in (tree.subtract(got, want), want))
    gap = float(difference / jnp.maximum(size, 1e-30))
    return gap if np.isfinite(gap) else np.inf


@functools.partial(jax.jit, static_argnums=0)
def _back_at_t0(static, values: list[Any], cotangent: PyTree) -> tuple[PyTree, jax.Array] | None:
    """Return `z(t0)` as the backward pass reconstructs it, and its field evaluations; None if it does not."""
    problem, leaves, _ = problem_of(static, values)
    return static.adjoint.reconstruct(Each(problem, leaves, [()] * len(leaves), ()), cotangent)
