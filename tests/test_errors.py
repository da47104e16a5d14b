"""Exceptions cross processes: they can be pickled and copied, with all that they carry."""

import copy
import importlib
import pickle
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import node_jax as nj


class InputError(nj.SolveError, ValueError):
    """A subclass with a signature and an attribute of its own."""

    def __init__(self, solution, name):
        super().__init__(solution)
        self.name = name


def square(z, t, theta):
    return theta * z**2


def failed(save=None):
    """Solution of z' = z^2 from 1, which blows up at t = 1."""
    save = nj.SaveAt(jnp.array([0.5, 2.0])) if save is None else save
    return nj.odesolve(square, jnp.ones(1), 0.0, 2.0, 1.0, save=save, throw=False)


def raise_solve_error(_=None):
    nj.odesolve(square, jnp.ones(1), 0.0, 2.0, 1.0, save=nj.SaveAt(jnp.array([0.5, 2.0])))


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


COPIES = [copy.copy, copy.deepcopy] + [
    lambda error, version=version: pickle.loads(pickle.dumps(error, version))
    for version in range(pickle.HIGHEST_PROTOCOL + 1)
]


def every_error():
    """All exceptions that the package defines."""
    modules = [nj, *(importlib.import_module(m.name) for m in pkgutil.walk_packages(nj.__path__, "node_jax."))]
    found = {x for m in modules for x in vars(m).values() if isinstance(x, type) and issubclass(x, BaseException)}
    return sorted((x for x in found if x.__module__.startswith("node_jax.")), key=lambda x: x.__name__)


@pytest.mark.parametrize("duplicate", COPIES)
def test_every_exception_of_the_package_survives_pickle_and_copy(duplicate):
    errors = every_error()
    assert {nj.SolveError, nj.train.CheckpointError} <= set(errors)
    for kind in errors:
        error = kind(failed()) if issubclass(kind, nj.SolveError) else kind("what went wrong")
        again = duplicate(error)
        assert type(again) is kind
        assert str(again) == str(error)
        same(getattr(again, "solution", None), getattr(error, "solution", None))


def test_subclass_with_arguments_of_its_own_survives():
    error = InputError(failed(), "rtol")
    error.add_note("lane 3")
    for duplicate in COPIES:
        again = duplicate(error)
        assert isinstance(again, ValueError)
        assert (str(again), again.name, again.__notes__) == (str(error), "rtol", ["lane 3"])


def test_dense_solution_of_an_error_can_still_be_evaluated():
    error = pickle.loads(pickle.dumps(nj.SolveError(failed(nj.Dense(64)))))
    np.testing.assert_allclose(error.solution.evaluate(0.5), [2.0], rtol=1e-4)
    assert not error.solution.ok


def test_failed_solve_in_a_pool_of_processes_raises_in_the_parent():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        with pytest.raises(nj.SolveError, match=r"NON_FINITE|STEP_UNDERFLOW|MAX_STEPS") as caught:
            pool.submit(raise_solve_error).result(timeout=200)
        np.testing.assert_allclose(caught.value.solution.zs[0], [2.0], rtol=1e-4)
        assert pool.submit(len, "alive").result(timeout=200) == 5
