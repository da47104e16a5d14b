"""The record of a structure: all that a compilation depends on; and what may be combined."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

import node_jax as nj

from .fields import FIELDS, Field

VALUES = 10  # draws that share a structure

METHODS = {method.name: method for method in nj.methods.METHODS}
MIXED = ("float32", "float64")  # dtypes of the leaves of the tree "mixed"

# A state: a tree of the numbers of its leaves, in the order of JAX, and the shape of each leaf.
TREES: dict[str, tuple[Any, tuple]] = {
    "scalar": (0, ((),)),
    "vector": (0, ((3,),)),
    "matrix": (0, ((2, 2),)),
    "dict": ({"a": 0, "b": 1}, ((2,), ())),
    "tuple": ((0, (1, 2)), ((2,), (3, 2), ())),
    "empty leaf": ({"a": 0, "none": 1}, ((2,), (0,))),
    "mixed": ({"a": 0, "b": 1}, ((2,), (3,))),
    "pair": (0, ((2,),)),
    "pairs": ({"a": 0, "b": 1}, ((2,), (3, 2))),
}
PAIRS = ("matrix", "pair", "pairs")

FIRST = ("grad", "vmap_grad", "jacrev")
ANY = (*FIRST, "jvp", "vmap_jvp", "jacfwd", "hvp_fr", "vmap_hvp", "hvp_ff")


class Strategy(NamedTuple):
    """An adjoint, the derivatives it has, and what they are derivatives of: the steps, the flow, or its own scheme."""

    adjoint: Any
    derivatives: tuple[str, ...]
    of: str


ADJOINTS = {
    "nj.Checkpointed()": Strategy(nj.Checkpointed(), ANY, "steps"),
    "nj.Checkpointed(checkpoints=2)": Strategy(nj.Checkpointed(checkpoints=2), ANY, "steps"),
    "nj.Direct()": Strategy(nj.Direct(), (*ANY, "hvp_rr"), "steps"),
    "nj.Forward()": Strategy(nj.Forward(), ("jvp", "vmap_jvp", "jacfwd", "hvp_ff"), "steps"),
    "nj.Backsolve()": Strategy(nj.Backsolve(), FIRST, "flow"),
    "nj.Interpolated()": Strategy(nj.Interpolated(), FIRST, "flow"),
    "nj.Reversible()": Strategy(nj.Reversible(), FIRST, "scheme"),
}
CONTROLS: dict[str, dict] = {
    "": {},
    "pid": {"p": 0.3, "i": 0.4, "d": 0.1},
    "integral": {"p": 0.0, "i": 1.0},
    "small steps": {"max_step": 0.21},
    "first step": {"first_step": 1e-3},
    "to the limit": {"stay_stable": False},
}
SECOND = ("hvp_fr", "vmap_hvp", "hvp_ff", "hvp_rr")


@dataclasses.dataclass(frozen=True)
class Structure:
    """All that a compilation depends on. Names are keys of the tables above.

    Arguments of a solve are a flat dict of arrays; `masks` says which lane axes each has (none if it is not there).
    """

    field: str
    tree: str = "scalar"
    dtype: str = "float64"  # of the state; that of its parameters is the real one
    time_dtype: str = "float64"
    home: str = "theta"  # where the field finds its parameters: theta, module, closure
    method: str = "tsit5"
    steps: str = "adaptive"  # adaptive, leaf (tolerances for each leaf), breakpoints, fixed, grid
    control: str = ""  # a key of CONTROLS
    n: int = 8  # steps that are fixed
    points: int = 0  # breakpoints
    tau: int = 0  # which of them is the jump
    save: str = "end"  # end, at, fn (at times, a function of the state), steps, dense
    rows: int = 3
    adjoint: str = "nj.Checkpointed()"
    lanes: tuple[int, ...] = ()
    masks: tuple[tuple[str, tuple[bool, ...]], ...] = ()
    derivative: str = "grad"
    wrt: tuple[str, ...] = ("z0", "p")  # groups of arguments
    wrapper: str = "plain"  # plain, jit, scan, cond, checkpoint
    compiled: bool = True
    uses: str = "both"  # what the loss reads: z1, rows, both
    switch: str = ""  # one of JAX's
    max_steps: int = 600
    width: int | None = None  # lanes that step together
    alone: bool = False  # compare with each lane solved alone
    partner: str = ""  # compare with this adjoint

    def replace(self, **changes) -> "Structure":
        """Return a structure with other entries."""
        return dataclasses.replace(self, **changes)

    @property
    def of(self) -> Field:
        """The record of the field."""
        return FIELDS[self.field]

    @property
    def strategy(self) -> Strategy:
        """The record of the adjoint."""
        return ADJOINTS[self.adjoint]

    @property
    def adaptive(self) -> bool:
        """Whether steps are chosen."""
        return self.steps in ("adaptive", "leaf", "breakpoints")

    @property
    def shapes(self) -> tuple:
        """The shapes of the leaves."""
        return TREES[self.tree][1]

    def state(self, leaves: Any) -> Any:
        """Put leaves into the tree of a state."""
        return jax.tree.map(lambda i: leaves[i], TREES[self.tree][0])

    def leaf_dtype(self, i: int) -> np.dtype:
        """The dtype of a leaf."""
        return np.dtype(MIXED[i] if self.tree == "mixed" else self.dtype)

    @property
    def real(self) -> np.dtype:
        """The real dtype of the state."""
        return np.dtype({"complex128": "float64", "complex64": "float32"}.get(self.dtype, self.dtype))

    @property
    def single(self) -> bool:
        """Whether something has single precision only."""
        return self.real == np.float32 or self.time_dtype == "float32" or self.tree == "mixed"

    def mask(self, key: str) -> tuple[bool, ...]:
        """The lane axes of an argument."""
        return dict(self.masks).get(key, (False,) * len(self.lanes))

    def lane_shape(self, key: str) -> tuple[int, ...]:
        """The lane axes of an argument, as a shape."""
        return tuple(n for n, yes in zip(self.lanes, self.mask(key), strict=True) if yes)

    @property
    def times(self) -> tuple[str, ...]:
        """The names of the arguments that are times."""
        own = {"at": ("ts",), "fn": ("ts",), "dense": ("tq",)}.get(self.save, ())
        ends = ("grid",) if self.steps == "grid" else ("t0", "t1")
        return (*ends, *own, *(("points",) if self.points else ()))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of what a solve depends on by value."""
        leaves = range(len(self.shapes))
        names = ("rtol", "atol") if self.adaptive else ()
        tolerances = tuple(f"{n}.{i}" for n in names for i in leaves) if self.steps == "leaf" else names
        return (*(f"z0.{i}" for i in leaves), *(f"p.{name}" for name in self.of.params), *self.times, *tolerances)

    @property
    def differentiated(self) -> tuple[str, ...]:
        """The arguments that derivatives are taken with respect to."""
        groups = {
            "z0": tuple(f"z0.{i}" for i in range(len(self.shapes))),
            "p": tuple(f"p.{name}" for name in self.of.params),
            "times": self.times,
        }
        return tuple(key for group in self.wrt for key in groups.get(group, (group,)))

    @property
    def capacity(self) -> int:
        """Rows of `SaveSteps` and `Dense`."""
        return 256 if self.adaptive else self.n

    @property
    def reads_rows(self) -> bool:
        """Whether the loss reads saved rows."""
        return self.save != "end" and self.uses != "z1"

    @property
    def reads_end(self) -> bool:
        """Whether the loss reads the state at `t1`."""
        return self.save == "end" or self.uses != "rows"
