"""The two ends of a solve in every adjoint: failed lanes, and derivatives with respect to times.

Nodes are constants of the gradient of an adaptive solve, and the times enter at the ends, in the same way for every
adjoint: `dL/dt1 = a(t1) f(z1, t1)`, `dL/dt0 = -a(t0) f(z0, t0)`, `dL/dts_i = g_i f(z_i, t_i)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import axes, tree
from node_jax.engine.each import Each
from node_jax.engine.lane import Outcome, Problem, at_stages
from node_jax.engine.rows import written
from node_jax.methods import rk4
from node_jax.types import Inputs, PyTree


class Cotangents(NamedTuple):
    """Cotangents of the outputs of a solve: the state at `t1`, and the saved rows."""

    z1: PyTree
    rows: PyTree


def unsupported(adjoint: Any, what: str) -> Exception:
    """Return the error for a mode or an option that an adjoint does not support, with its remedy."""
    return NotImplementedError(f"adjoint={adjoint!r} does not support {what}: {adjoint.remedy}")


def moving_times(each: Each) -> Inputs:
    """Say for each leaf whether its derivative enters at the ends of the solve, where nodes are constants.

    It does for `t0`, `t1` and output times, unless the nodes are functions of them.
    """
    shifted = [False] * len(each.leaves) if each.inputs.steps.exact_times else each.shifted
    return each.problem.unflatten(shifted)


class Contribution(NamedTuple):
    """What one lane contributes to the gradient; bools."""

    steps: jax.Array  # whether its steps contribute
    alive: jax.Array  # whether steps or ends do: it succeeded, or a row from before the failure has a cotangent
    asked: jax.Array  # whether any output has a nonzero cotangent
    poison: jax.Array  # whether a lost output has one


def _split(inputs: Inputs, rest: tuple[Outcome, Cotangents]) -> tuple[Cotangents, Contribution]:
    """Separate the cotangents of the outputs that hold values from those of lost ones, for one lane."""
    outcome, bar = rest
    got = _reached(inputs, outcome)
    zeros = tree.full_like(bar, 0.0)
    kept = Cotangents(tree.where(got.z1, bar.z1, zeros.z1), tree.where_rows(got.rows, bar.rows, zeros.rows))
    lost = Cotangents(tree.where(got.z1, zeros.z1, bar.z1), tree.where_rows(got.rows, zeros.rows, bar.rows))
    steps = (outcome.stats.accepted > 0) & (outcome.ok | _any_nonzero(kept.rows))
    return kept, Contribution(steps, steps | outcome.ok, _any_nonzero(bar), _any_nonzero(lost))


def _any_nonzero(bar: PyTree) -> jax.Array:
    return jax.tree.reduce(jnp.logical_or, jax.tree.map(lambda x: jnp.any(x != 0), bar), jnp.array(False))


def with_donors(each: Each, alive: jax.Array) -> Each:
    """Replace the inputs of lanes that are not alive by those of a donor, so that their pullback is finite."""
    return each.replace(leaves=[_donate(x, mask, alive) for x, mask in zip(each.leaves, each.masks, strict=True)])


def _donate(leaf: jax.Array, mask: Sequence[bool], alive: jax.Array) -> jax.Array:
    """Replace those entries of a leaf that no lane that is alive uses."""
    if not any(mask):
        return leaf
    used = axes.any_missing(alive, mask)
    flat = leaf.reshape((*leaf.shape[: leaf.ndim - used.ndim], used.size))
    donor = jnp.expand_dims(flat[..., jnp.argmax(used.reshape(-1))], [*range(flat.ndim - 1, leaf.ndim)])
    return tree.where(used, leaf, jnp.broadcast_to(donor, leaf.shape))


class Reached(NamedTuple):
    """Which outputs of a lane hold values: the state at `t1`, and the saved rows."""

    z1: jax.Array
    rows: jax.Array


def _reached(inputs: Inputs, outcome: Outcome) -> Reached:
    return Reached(outcome.ok, written(inputs, outcome.saved, outcome.stats.accepted, outcome.ok))


def reached(each: Each, outcome: Outcome) -> Reached:
    """Say for every lane which outputs hold values."""
    return each(_reached)(outcome)


def depart(problem: Problem, inputs: Inputs, moves: Inputs) -> PyTree:
    """Return the state of one lane at its first node, a constant, as a function of `t0`."""
    if not moves.t0:
        return inputs.z0
    node = lax.stop_gradient(inputs.t0)
    field = at_stages(problem, inputs, inputs.t0)
    return rk4.replay(field, inputs.t0, inputs.z0, node - inputs.t0, inputs.theta, False)[0]


def arrive(
    problem: Problem, inputs: Inputs, rest: tuple[tuple[PyTree, PyTree], Reached], moves: Inputs, sign=1
) -> Cotangents:
    """Return the outputs of one lane at `t1` and the output times, from the states at nodes, which are constants.

    Node and time are equal. Between them lies a step of size zero of a method of order 4, whose derivatives up to the
    4th are those of the flow. With `sign=-1` the step goes from the times to the nodes: the arguments are the outputs,
    and the states at nodes are returned. Where a time was not reached,
    the step is taken at the start of the solve, since the field might not be finite, and the result is not used.
    """
    (z1, rows), got = rest

    def moved(t, z, got):
        t, z = jnp.where(got, t, inputs.t0), tree.where(got, z, inputs.z0)
        node = lax.stop_gradient(t)
        start, h = (node, t - node) if sign > 0 else (t, node - t)
        field = at_stages(problem, inputs, t, against=True)
        return rk4.replay(field, start, z, h, inputs.theta, False)[0]

    if moves.t1:
        z1 = tree.where(got.z1, moved(inputs.t1, z1, got.z1), z1)
    if moves.save.ts:
        rows = tree.where_rows(got.rows, jax.vmap(moved)(inputs.save.ts, rows, got.rows), rows)
    return Cotangents(z1, rows)


class Ends(NamedTuple):
    """The two ends of a solve in the backward pass: what lanes contribute, and which times move relative to nodes."""

    each: Each  # in which donors replace lanes that are not alive
    outcome: Outcome
    contribution: Contribution
    moves: Inputs

    @classmethod
    def of(cls, each: Each, outcome: Outcome, bar: Cotangents, moves: Inputs) -> tuple[Any, ...]:
        """Return the ends, and the cotangents without those of lost outputs."""
        bar, contribution = each(_split)((outcome, bar))
        return cls(with_donors(each, contribution.alive), outcome, contribution, moves), bar

    def pull_arrival(self, bar: Cotangents) -> tuple[list[Any], Cotangents]:
        """Pull cotangents of the outputs back; return those of the leaves and those at the nodes."""
        each, moves = self.each, self.moves
        if not (moves.t1 or moves.save.ts):
            return each.zeros(), bar
        got = reached(each, self.outcome)

        def at_nodes(inputs, rest):
            outcome, got = rest
            return arrive(each.problem, inputs, ((outcome.z1, outcome.saved.rows), got), moves, sign=-1)

        def arrived(inputs, nodes, got):
            return arrive(each.problem, inputs, (nodes, got), moves)

        return each.vjp(arrived, each(at_nodes)((self.outcome, got)), got)[1](bar)

    def pull_departure(self, bar: Cotangents, z_bar: PyTree) -> list[Any]:
        """Pull the cotangent of the first node, and those of rows that are `z0`, back to the leaves."""
        each = self.each
        z_bar = each(_with_constant)((self.outcome, bar, z_bar))
        return each.vjp(lambda inputs, *_: depart(each.problem, inputs, self.moves))[1](z_bar)[0]

    def total(self, late: list[Any], along: list[Any], early: list[Any]) -> list[Any]:
        """Sum the cotangents of the leaves that move; return None for the others.

        `late` are those from the end of the solve and `early` those from its start, of the moving leaves. `along` holds
        those from the steps for all leaves, None for a leaf without. Entries that no lane uses that is alive and has a
        nonzero cotangent get exactly zero, and entries that a lane with a poison uses get NaN.
        """
        counts, poison = self.contribution.alive & self.contribution.asked, self.contribution.poison

        def one(g, more, mask):
            g = g if more is None else g + more.astype(g.dtype)
            return axes.contributed(g, counts, poison, mask)

        ends = self.each.of_all(tree.add(late, early))
        return [None if g is None else one(g, *rest) for g, *rest in zip(ends, along, self.each.masks, strict=True)]


def _with_constant(inputs: Inputs, rest: tuple[Outcome, Cotangents, PyTree]) -> PyTree:
    """Add the cotangents of outputs that are `z0`, as there was nothing to integrate, to the cotangent of `z0`."""
    outcome, bar, z_bar = rest
    more = inputs.save.constant(bar.rows, inputs.z0)
    return tree.add(z_bar, tree.where(outcome.still, more, tree.full_like(more, 0.0)))
