"""What every adjoint does at its two ends: failures, and derivatives with respect to times.

Nodes are constants of the gradient of an adaptive solve; the times enter at the ends, the same for every adjoint:
`dL/dt1 = a(t1) f(z1, t1)`, `dL/dt0 = -a(t0) f(z0, t0)`, `dL/dts_i = g_i f(z_i, t_i)`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from node_jax import axes, tree
from node_jax.engine.each import Each
from node_jax.engine.lane import Inputs, Outcome, Problem, visible
from node_jax.methods import rk4
from node_jax.types import PyTree


class Cotangents(NamedTuple):
    """Cotangents of what a solve returns: the state at `t1`, and the saved rows."""

    z1: PyTree
    rows: PyTree


def unsupported(adjoint, what: str) -> Exception:
    """Return the error for a mode or an option that a strategy does not have; it names one that has."""
    return NotImplementedError(f"adjoint={adjoint!r} does not support {what}: {adjoint.remedy}")


class Contribution(NamedTuple):
    """What one lane adds to the gradient; bools."""

    steps: jax.Array  # its steps
    alive: jax.Array  # its steps or its ends: it succeeded, or a row that it wrote before it failed has a cotangent
    asked: jax.Array  # any output has a cotangent that is not zero
    poison: jax.Array  # an output that is NaN has one


def split(each: Each, outcome: Outcome, bar: Cotangents) -> tuple[Each, Cotangents, Contribution]:
    """Separate what a failed lane may contribute from what it may not.

    Returns the engine with the inputs of lanes that failed and add nothing replaced by those of a lane that does (its
    pullback is known to be finite), the cotangents without those of NaN outputs, and what each lane contributes.
    """
    bar, lane = each(_split)((outcome, bar))
    return with_donors(each, lane.alive), bar, lane


def with_donors(each: Each, alive: jax.Array) -> Each:
    """Replace the inputs of lanes that are not alive by those of one that is."""
    return each._replace(leaves=[_donate(x, mask, alive) for x, mask in zip(each.leaves, each.masks, strict=True)])


def _split(inputs: Inputs, rest: tuple[Outcome, Cotangents]) -> tuple[Cotangents, Contribution]:
    outcome, bar = rest
    ok = outcome.ok
    written = inputs.save.written(outcome.out, outcome.stats.accepted, ok)
    zeros = tree.full_like(bar, 0.0)
    kept = Cotangents(tree.where(ok, bar.z1, zeros.z1), tree.where_rows(written, bar.rows, zeros.rows))
    lost = Cotangents(tree.where(ok, zeros.z1, bar.z1), tree.where_rows(written, zeros.rows, bar.rows))
    steps = (outcome.stats.accepted > 0) & (ok | _any_nonzero(kept.rows))
    return kept, Contribution(steps, steps | ok, _any_nonzero(bar), _any_nonzero(lost))


def _any_nonzero(bar: PyTree) -> jax.Array:
    return jax.tree.reduce(jnp.logical_or, jax.tree.map(lambda x: jnp.any(x != 0), bar), jnp.array(False))


def _donate(leaf: jax.Array, mask, counts: jax.Array) -> jax.Array:
    """Replace the entries of a leaf that only idle lanes use by one that another lane uses."""
    if not any(mask):
        return leaf
    used = axes.any_missing(counts, mask)
    flat = leaf.reshape((*leaf.shape[: leaf.ndim - used.ndim], used.size))
    donor = jnp.expand_dims(flat[..., jnp.argmax(used.reshape(-1))], [*range(flat.ndim - 1, leaf.ndim)])
    return tree.where(used, leaf, jnp.broadcast_to(donor, leaf.shape))


def moving_times(each: Each, shifted) -> Inputs:
    """Say which times move against the nodes: none where the nodes follow them."""
    exact = each.inputs.steps.exact_times
    return each.problem.unflatten([False] * len(each.leaves) if exact else shifted)


def depart(problem: Problem, inputs: Inputs, moves: Inputs) -> PyTree:
    """Return the state of one lane at its first node, which does not move with `t0`."""
    if not moves.t0:
        return inputs.z0
    node = lax.stop_gradient(inputs.t0)
    field = visible(problem.field, inputs.steps, inputs.t0, inputs.sign)
    return rk4.advance(field, inputs.t0, inputs.z0, node - inputs.t0, inputs.theta)


class Reached(NamedTuple):
    """Which outputs of a lane hold values: the state at `t1`, and the saved rows."""

    z1: jax.Array
    rows: jax.Array


def reached(each: Each, outcome: Outcome) -> Reached:
    """Return what every lane reached."""

    def one(inputs, outcome):
        return Reached(outcome.ok, inputs.save.written(outcome.out, outcome.stats.accepted, outcome.ok))

    return each(one)(outcome)


def arrive(
    problem: Problem, inputs: Inputs, rest: tuple[tuple[PyTree, PyTree], Reached], moves: Inputs, sign=1
) -> Cotangents:
    """Return what one lane returns at `t1` and the output times, from the states at nodes that do not move with them.

    Between a node and the time, which are equal, lies a step of size zero of a 4th-order method: its derivatives up to
    the 4th are those of the flow. With `sign=-1` it goes from the times to the nodes. At a time that was not reached
    the field may not be finite: there the start of the solve stands for it, and nothing moves.
    """
    (z1, rows), got = rest

    def moved(t, z, got):
        t, z = jnp.where(got, t, inputs.t0), tree.where(got, z, inputs.z0)
        node = lax.stop_gradient(t)
        start, h = (node, t - node) if sign > 0 else (t, node - t)
        field = visible(problem.field, inputs.steps, t, -inputs.sign)
        return rk4.advance(field, start, z, h, inputs.theta)

    if moves.t1:
        z1 = tree.where(got.z1, moved(inputs.t1, z1, got.z1), z1)
    if _at_times(moves):
        rows = tree.where_rows(got.rows, jax.vmap(moved)(inputs.save.ts, rows, got.rows), rows)
    return Cotangents(z1, rows)


def crossing(each: Each, moving: Sequence[bool]) -> tuple[Each, list[bool]]:
    """Let steps know if breakpoints move; say also which leaves are such breakpoints."""
    at = getattr(each.places.steps, "breakpoints", None)
    points = [i == at and moves for i, moves in enumerate(moving)]
    return each._replace(problem=each.problem._replace(crosses=any(points))), points


def cross(problem: Problem, inputs: Inputs, node: jax.Array, h: jax.Array, z: PyTree) -> PyTree:
    """Return the state of one lane at a node behind a breakpoint; the node does not move with the breakpoint.

    Between the two lie a step of size zero with the field before the breakpoint, and one back with the field after it:
    `dL/dtau = a (f(z, tau-) - f(z, tau+))`. At other nodes nothing happens.
    """
    points, sign = inputs.steps.breakpoints, inputs.sign
    inside = ((points - inputs.t0) * sign > 0) & ((inputs.t1 - points) * sign > 0)
    near = jnp.abs(points - node) <= 8 * jnp.finfo(node.dtype).eps * jnp.maximum(jnp.abs(node), jnp.abs(h))
    ahead = (points - (node - h)) * sign  # a step ends at the first that lies ahead, also of two that are both near
    here = inside & near & (h != 0) & (ahead > 0)
    moved = jnp.where(
        jnp.any(here), points[jnp.argmin(jnp.where(here, ahead, jnp.inf))], node
    )  # others may be infinite
    fixed = lax.stop_gradient(moved)
    before, after = (visible(problem.field, inputs.steps, fixed, side) for side in (-sign, sign))
    there = rk4.advance(before, fixed, z, moved - fixed, inputs.theta)
    return tree.where(jnp.any(here), rk4.advance(after, moved, there, fixed - moved, inputs.theta), z)


def pull_crossing(each: Each, chosen: Sequence[bool], node: jax.Array, h: jax.Array, z: PyTree, bar: PyTree) -> list:
    """Pull the cotangent of the state behind a node back to the breakpoints among the chosen leaves."""

    def crossed(some):
        put = each.put(chosen, some)
        return put(lambda inputs, rest: cross(each.problem, inputs, *rest))((node, h, z))

    return jax.vjp(crossed, tree.picked(each.leaves, chosen))[1](bar)[0]


class Ends(NamedTuple):
    """The two ends of a solve on the way back: leaves that move, and times that move against the nodes."""

    each: Each
    moving: Sequence[bool]
    moves: Inputs

    def pull_arrival(self, outcome: Outcome, bar: Cotangents) -> tuple[list, Cotangents]:
        """Pull cotangents of what a solve returns back: return those of the leaves, and those at the nodes."""
        each, moves, some = self.each, self.moves, tree.picked(self.each.leaves, self.moving)

        got = reached(each, outcome)

        def at_nodes(inputs, rest):
            outcome, got = rest
            ends = (outcome.z1, inputs.save.rows(outcome.out))
            return arrive(each.problem, inputs, (ends, got), moves, sign=-1)

        def arrived(some, nodes):
            put = each.put(self.moving, some)
            return put(lambda inputs, rest: arrive(each.problem, inputs, rest, moves))((nodes, got))

        if not (moves.t1 or _at_times(moves)):
            return tree.full_like(some, 0.0), bar
        _, vjp = jax.vjp(arrived, some, each(at_nodes)((outcome, got)))
        return vjp(bar)

    def pull_departure(self, z_bar: PyTree) -> list:
        """Pull the cotangent of the first node back to the leaves."""

        def departed(some):
            return self.each.put(self.moving, some)(lambda inputs, _: depart(self.each.problem, inputs, self.moves))()

        return jax.vjp(departed, tree.picked(self.each.leaves, self.moving))[1](z_bar)[0]


def pull_solve(each: Each, outcome: Outcome, bar: Cotangents, moving, moves: Inputs, between) -> list:
    """Return cotangents of the leaves that are `moving`, None for the others.

    `between(each, bar, lane_ok)` goes back from the last node to the first; it returns the cotangent of the state there
    and, for each leaf, that of the steps in between (None where there is none).
    """
    each, bar, lane = split(each, outcome, bar)
    ends = Ends(each, moving, moves)
    late, bar = ends.pull_arrival(outcome, bar)
    z_bar, looped = between(each, bar, lane.steps)
    early = ends.pull_departure(each(_constant)((outcome, bar, z_bar)))
    return _total(each, tree.add(late, early), looped, moving, lane)


def _constant(inputs: Inputs, rest: tuple[Outcome, Cotangents, PyTree]) -> PyTree:
    """Add to the cotangent of `z0` that of outputs which are `z0` because there was nothing to integrate."""
    outcome, bar, z_bar = rest
    more = inputs.save.constant(bar.rows, z_bar)
    return tree.add(z_bar, tree.where(outcome.still, more, tree.full_like(more, 0.0)))


def _total(each: Each, ends: list, looped: list, moving, lane: Contribution) -> list:
    """Add up the cotangents from both ends (of the leaves that move) and from the loop (None where there is none).

    Entries of a leaf that only lanes without a contribution use are exactly zero, whatever was computed for them.
    """
    counts = lane.alive & lane.asked
    late, result = iter(ends), []
    for mask, moves, more in zip(each.masks, moving, looped, strict=True):
        g = next(late) if moves else None
        if g is not None:
            g = g if more is None else g + more.astype(g.dtype)
            g = tree.where(axes.any_missing(counts, mask), g, jnp.zeros_like(g))
            g = tree.where(axes.any_missing(lane.poison, mask), jnp.full_like(g, jnp.nan), g)
        result.append(g)
    return result


def _at_times(moves: Inputs) -> bool:
    return hasattr(moves.save, "ts") and bool(moves.save.ts)
