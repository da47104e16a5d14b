"""A method, a policy of steps, a save and an adjoint of a user's own go wherever those of the package go."""

import dataclasses
import inspect
import pathlib
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import jet
from parts import Doubling, Rosenbrock, RunningMaximum, Truncated

import node_jax as nj
from node_jax import extending, protocols
from node_jax.arguments import check_options

BATCH = 70  # with a lane width of 8 these go through the queue


def van_der_pol(z, t, mu):
    return jnp.stack([z[1], mu * (1 - z[0] ** 2) * z[1] - z[0]])


def swing(z, t, rate):
    return jnp.stack([z[1], -rate * jnp.sin(z[0])])


START = jnp.array([2.0, 0.0])


@pytest.mark.parametrize("part", [Rosenbrock, Doubling, RunningMaximum, Truncated])
def test_a_part_takes_at_most_forty_lines(part):
    assert len(inspect.getsourcelines(part)[0]) <= 40


def test_a_rosenbrock_method_solves_a_stiff_problem_in_few_steps():
    sol = nj.odesolve(van_der_pol, START, 0.0, 10.0, 1000.0, method=Rosenbrock())
    exact = nj.odesolve(van_der_pol, START, 0.0, 10.0, 1000.0, method=nj.dopri5, max_steps=100_000)
    assert int(sol.stats.accepted) <= 60
    assert int(exact.stats.accepted) > 9000  # what docs/extending.md says
    assert int(sol.stats.nfe) == 2 + 7 * int(sol.stats.accepted + sol.stats.rejected)
    np.testing.assert_allclose(sol.z1, exact.z1, rtol=1e-5)


def test_gradients_of_a_rosenbrock_method_agree_to_rounding():
    def end(mu, adjoint):
        return nj.odesolve(van_der_pol, START, 0.0, 10.0, mu, method=Rosenbrock(), adjoint=adjoint, max_steps=64).z1[0]

    exact = jax.jacfwd(end)(1000.0, nj.Forward())
    for adjoint in (nj.Checkpointed(), nj.Direct()):
        np.testing.assert_allclose(jax.grad(end)(1000.0, adjoint), exact, rtol=1e-12)


@pytest.mark.parametrize("adjoint", [nj.Interpolated(), nj.Backsolve()], ids=["Interpolated", "Backsolve"])
def test_continuous_adjoints_read_the_dense_output_of_a_rosenbrock_method(adjoint):
    def end(mu, adjoint):
        return nj.odesolve(van_der_pol, START, 0.0, 1.0, mu, method=Rosenbrock(), adjoint=adjoint, max_steps=512).z1[0]

    np.testing.assert_allclose(jax.grad(end)(3.0, adjoint), jax.grad(end)(3.0, nj.Checkpointed()), rtol=1e-4)


def test_a_rosenbrock_method_goes_through_lockstep_and_queue():
    mus = jnp.linspace(0.5, 50.0, BATCH)

    def end(mu, width):
        return nj.odesolve(van_der_pol, START, 0.0, 1.0, mu, method=Rosenbrock(), lane_width=width).z1

    queued, together = (jax.vmap(end, (0, None))(mus, width) for width in (8, None))
    np.testing.assert_allclose(queued, together, rtol=1e-12)  # a library solves the linear systems of all lanes
    np.testing.assert_allclose(queued[-1], end(mus[-1], None), rtol=1e-12)


def test_a_step_without_result_is_tried_again_with_half_its_size():
    class Refusing(Rosenbrock):
        """Refuse steps above a size, as if Newton's method did not converge."""

        def step(self, field, t, z, h, theta, memory):
            step = super().step(field, t, z, h, theta, memory)
            return step._replace(ok=jnp.abs(h) < 0.05, z1=jnp.where(jnp.abs(h) < 0.05, step.z1, jnp.nan))

    sol = nj.odesolve(swing, START, 0.0, 1.0, 1.0, method=Refusing(), steps=nj.Adaptive(1e-3, 1e-3), throw=False)
    assert bool(sol.ok)
    assert int(sol.stats.accepted) >= 20
    assert int(sol.stats.rejected) > 0
    np.testing.assert_allclose(sol.z1, nj.odesolve(swing, START, 0.0, 1.0, 1.0).z1, atol=1e-3)


def test_a_policy_of_steps_solves_maps_and_is_differentiated():
    def end(rate, adjoint=nj.Checkpointed()):
        return nj.odesolve(swing, START, 0.0, 2.0, rate, steps=Doubling(1e-8), adjoint=adjoint, max_steps=256).z1[0]

    exact = jax.value_and_grad(lambda rate: nj.odesolve(swing, START, 0.0, 2.0, rate).z1[0])(1.3)
    np.testing.assert_allclose(jax.value_and_grad(end)(1.3), exact, rtol=1e-5)
    for adjoint in (nj.Direct(), nj.Interpolated(), nj.Backsolve(), nj.Reversible()):
        np.testing.assert_allclose(jax.grad(end)(1.3, adjoint), exact[1], rtol=1e-3)
    rates = jnp.linspace(0.5, 4.0, BATCH)
    np.testing.assert_allclose(jax.vmap(end)(rates)[-1], end(rates[-1]), rtol=1e-12)


def height(z):
    return z[0]


ADJOINTS = [nj.Checkpointed(), nj.Direct(), nj.Interpolated(), nj.Reversible()]


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda a: type(a).__name__)
def test_a_running_maximum_is_saved_and_differentiated(adjoint):
    z0 = jnp.array([0.3, 1.0])

    def largest(rate):
        sol = nj.odesolve(swing, z0, 0.0, 4.0, rate, save=RunningMaximum(height), adjoint=adjoint, max_steps=256)
        return sol.zs[0, 0]

    def among_all(rate):
        zs = nj.odesolve(swing, z0, 0.0, 4.0, rate, save=nj.SaveSteps(256), adjoint=adjoint, max_steps=256).zs
        return jnp.max(jnp.where(jnp.isnan(zs[:, 0]), -jnp.inf, zs[:, 0]))

    found, exact = jax.value_and_grad(largest)(1.1), jax.value_and_grad(among_all)(1.1)
    np.testing.assert_allclose(found, exact, rtol=1e-6 if isinstance(adjoint, nj.Interpolated) else 1e-12)


def test_a_running_maximum_goes_through_lockstep_and_queue():
    rates = jnp.linspace(0.5, 4.0, BATCH)

    def largest(rate, width):
        sol = nj.odesolve(swing, jnp.array([0.3, 1.0]), 0.0, 4.0, rate, save=RunningMaximum(height), lane_width=width)
        return sol.zs[0]

    queued, together = (jax.vmap(largest, (0, None))(rates, width) for width in (8, None))
    np.testing.assert_array_equal(queued, together)
    np.testing.assert_allclose(queued[-1], largest(rates[-1], None), rtol=1e-12)


def test_backsolve_refuses_a_save_that_it_does_not_know():
    def largest(rate):
        return nj.odesolve(swing, START, 0.0, 1.0, rate, save=RunningMaximum(height), adjoint=nj.Backsolve()).zs[0, 0]

    with pytest.raises(NotImplementedError, match=r"does not know at which times save=RunningMaximum"):
        jax.grad(largest)(1.0)


def test_truncated_backpropagation_is_the_gradient_from_a_later_start():
    def end(rate, start, t0, count, adjoint):
        return nj.odesolve(swing, start, t0, 2.0, rate, steps=nj.Fixed(count), adjoint=adjoint).z1[0]

    middle = nj.odesolve(swing, START, 0.0, 1.5, 1.1, steps=nj.Fixed(6)).z1
    exact = jax.grad(end)(1.1, middle, 1.5, 2, nj.Checkpointed())
    np.testing.assert_allclose(jax.grad(end)(1.1, START, 0.0, 8, Truncated(0.5)), exact, rtol=1e-10)
    rates = jnp.full(BATCH, 1.1)
    mapped = jax.vmap(lambda rate: jax.grad(end)(rate, START, 0.0, 8, Truncated(0.5)))(rates)
    np.testing.assert_allclose(mapped, jnp.full(BATCH, exact), rtol=1e-10)


def test_truncated_backpropagation_of_a_solve_backwards_in_time_cuts_off_its_first_steps():
    def end(rate, start, t0, count, adjoint):
        return nj.odesolve(swing, start, t0, 0.0, rate, steps=nj.Fixed(count), adjoint=adjoint).z1[0]

    middle = nj.odesolve(swing, START, 2.0, 0.5, 1.1, steps=nj.Fixed(6)).z1
    exact = jax.grad(end)(1.1, middle, 0.5, 2, nj.Checkpointed())
    np.testing.assert_allclose(jax.grad(end)(1.1, START, 2.0, 8, Truncated(0.5)), exact, rtol=1e-10)


def test_truncated_backpropagation_knows_times_that_the_field_does_not_read():
    def end(rate, start, t0, steps, adjoint):
        return nj.odesolve(swing, start, t0, 2.0, rate, steps=steps, adjoint=adjoint).z1[0]

    tight = nj.Adaptive(1e-10, 1e-10)
    middle = nj.odesolve(swing, START, 0.0, 1.5, 1.1, steps=tight).z1
    exact = jax.grad(end)(1.1, middle, 1.5, tight, nj.Checkpointed())
    split = nj.Adaptive(1e-10, 1e-10, breakpoints=jnp.array([1.5]))  # a step begins there
    np.testing.assert_allclose(jax.grad(end)(1.1, START, 0.0, split, Truncated(0.5)), exact, rtol=1e-6)


class Ruled(Doubling):
    """The policy, with a rule for the steps of a continuous adjoint."""

    def anew(self):
        return nj.Adaptive(rtol=self.tolerance, atol=1e-12)


@pytest.mark.parametrize("adjoint", [nj.Backsolve(), nj.Interpolated()], ids=lambda a: type(a).__name__)
def test_steps_of_a_continuous_adjoint_are_those_that_a_policy_asks_for(adjoint):
    def slope(rate, steps, adjoint):
        return jax.grad(lambda rate: nj.odesolve(swing, START, 0.0, 1.0, rate, steps=steps, adjoint=adjoint).z1[0])(
            rate
        )

    exact = slope(1.1, nj.Adaptive(1e-12, 1e-12), nj.Checkpointed())
    default, ruled = (abs(slope(1.1, kind(1e-11), adjoint) - exact) for kind in (Doubling, Ruled))
    assert ruled < 1e-9
    assert default > 1e-9 or isinstance(adjoint, nj.Interpolated)  # which starts anew with each short step
    given = adjoint.__class__(steps=nj.Adaptive(1e-11, 1e-12))
    assert abs(slope(1.1, Doubling(1e-11), given) - exact) < 1e-9
    rates = jnp.array([0.9, 1.1])
    mapped = jax.vmap(lambda rate: slope(rate, Ruled(1e-11), adjoint))(rates)
    np.testing.assert_allclose(mapped[1], exact, atol=1e-9)


def test_checks_of_parts_pass_for_these():
    nj.testing.assert_method(Rosenbrock())
    nj.testing.assert_steps(Doubling())
    nj.testing.assert_save(RunningMaximum(height))
    nj.testing.assert_adjoint(Truncated(10.0))


def check(method=nj.tsit5, steps=nj.Adaptive(), save=nj.SaveEnd(), adjoint=nj.Checkpointed()):
    """Check options as `odesolve` does, behind its annotations."""
    check_options(swing, method, steps, save, adjoint, 64, None, True)


class Rows(eqx.Module, extending.SaveDefaults):
    """Save the state after each step, scaled, in fewer rows than there may be steps."""

    scale: Any = 1.0

    size = 4

    def blank(self, method, inputs, z, still):
        return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), z)

    def row(self, method, inputs, trial, cursor):
        return inputs.save.scale * trial.z1


@pytest.mark.parametrize("adjoint", [nj.Checkpointed(), nj.Direct(), nj.Reversible()], ids=lambda a: type(a).__name__)
def test_rows_that_do_not_fit_are_left_out_of_a_gradient(adjoint):
    def total(rate, save):
        sol = nj.odesolve(swing, START, 0.0, 1.0, rate, steps=nj.Fixed(8), save=save, adjoint=adjoint)
        return jnp.sum(sol.zs[:4])

    every = jax.grad(total)(1.1, nj.SaveSteps(8))
    np.testing.assert_allclose(jax.grad(total)(1.1, Rows()), every, rtol=1e-10)


def test_what_a_row_reads_besides_its_step_is_a_constant_of_every_derivative():
    def total(scale, adjoint):
        sol = nj.odesolve(swing, START, 0.0, 1.0, 1.1, steps=nj.Fixed(4), save=Rows(scale), adjoint=adjoint)
        return jnp.sum(sol.zs)

    assert float(jax.grad(total)(2.0, nj.Checkpointed())) == 0.0
    assert float(jax.grad(total)(2.0, nj.Direct())) == 0.0
    assert float(jax.jacfwd(total)(2.0, nj.Forward())) == 0.0


def test_rows_that_are_no_floating_arrays_or_no_states_at_given_times_are_refused():
    class Counting(Rows):
        """Save the number of the step."""

        def blank(self, method, inputs, z, still):
            return jnp.int32(0)

    class Halved(nj.SaveAt):
        """Save a part of the state at given times."""

        def blank(self, method, inputs, z, still):
            return z[:1]

    with pytest.raises(TypeError, match="rows must hold real or complex floating arrays"):
        nj.odesolve(swing, START, 0.0, 1.0, 1.1, save=Counting())
    with pytest.raises(TypeError, match="has ts, so its rows must be states"):
        nj.odesolve(swing, START, 0.0, 1.0, 1.1, save=Halved(jnp.array([0.5])))


class Equal(eqx.Module, extending.StepsDefaults):
    """Take equal steps, so many as a value says."""

    n: Any

    exact_times = True

    def first(self, method, field, z0, t0, t1, theta, limit):
        return (), method.start(field, t0, z0, theta)

    def interval(self, i, t0, t1):
        h = (t1 - t0) / self.n
        return t0 + i * h, jnp.where(i + 1 >= self.n, t1, t0 + (i + 1) * h)

    def propose(self, control, t, done, t0, t1):
        start, end = self.interval(done, t0, t1)
        return extending.Proposal(end - start, extending.Time(end, 0 * end), done + 1 >= self.n, jnp.array(False))

    def judge(self, method, step, z, t, proposal, control, t0, t1):
        yes, no = jnp.array(True), jnp.array(False)
        return extending.Verdict(yes, no, no, control, jnp.int32(extending.Status.SUCCESS))


def test_a_number_of_steps_that_is_a_value_is_bounded():
    assert int(nj.odesolve(swing, START, 0.0, 1.0, 1.0, steps=Equal(32.0), max_steps=16, throw=False).status) == (
        nj.Status.MAX_STEPS
    )
    sol = nj.odesolve(swing, START, 0.0, 1.0, 1.0, steps=Equal(8.0), max_steps=16)
    np.testing.assert_allclose(sol.z1, nj.odesolve(swing, START, 0.0, 1.0, 1.0, steps=nj.Fixed(8)).z1, rtol=1e-12)


def test_a_step_without_result_never_counts():
    class Never(Rosenbrock):
        """Fail always."""

        def step(self, field, t, z, h, theta, memory):
            return super().step(field, t, z, h, theta, memory)._replace(ok=jnp.array(False))

    for steps in (Doubling(), Equal(8.0)):
        sol = nj.odesolve(swing, START, 0.0, 1.0, 1.0, method=Never(), steps=steps, max_steps=32, throw=False)
        assert not bool(sol.ok)
        assert int(sol.stats.accepted) == 0


def test_saved_steps_of_an_own_policy_are_differentiated_through_the_queue():
    def ends(rate, width):
        options = {"steps": Doubling(1e-6), "save": nj.SaveSteps(64), "lane_width": width, "max_steps": 64}
        return nj.odesolve(swing, START, 0.0, 1.0, rate, **options).zs[1, 0]

    rates = jnp.linspace(0.5, 2.0, 20)
    queued, together = (jax.vmap(jax.grad(ends), (0, None))(rates, width) for width in (8, None))
    np.testing.assert_allclose(queued, together, rtol=1e-10)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"error": ()}, "Step.error must be a tuple"), ({"work": None}, "Step.work must be a count")],
)
def test_a_step_that_lacks_what_its_method_says_it_has_is_refused(change, complaint):
    class Lacking(Rosenbrock):
        """Leave something out."""

        def step(self, field, t, z, h, theta, memory):
            return super().step(field, t, z, h, theta, memory)._replace(**change)

    with pytest.raises(TypeError, match=complaint):
        nj.odesolve(swing, START, 0.0, 1.0, 1.0, method=Lacking())


def test_a_method_whose_steps_depend_on_what_they_remember_is_found():
    class Remembering(Rosenbrock):
        """Remember the number of steps, and let it change them."""

        def start(self, field, t, z, theta):
            return jnp.zeros(())

        def step(self, field, t, z, h, theta, memory):
            step = super().step(field, t, z, h, theta, memory)
            return step._replace(z1=step.z1 + 1e-3 * memory * h, memory=memory + 1)

    with pytest.raises(AssertionError, match="does not depend on memory"):
        nj.testing.assert_method(Remembering())


class Nothing:
    """A part that has no member."""


@pytest.mark.parametrize("option", ["method", "steps", "save", "adjoint"])
def test_a_part_that_lacks_a_member_is_refused_by_its_name(option):
    protocol = getattr(protocols, option.capitalize())
    names = [name for name in vars(protocol) if not name.startswith("_")]
    kind = type("Almost", (), dict.fromkeys(names[:-1], True))
    with pytest.raises(TypeError, match=rf"{option}=.* lacks {names[-1]} of node_jax.protocols.{protocol.__name__}"):
        check(**{option: kind()})
    with pytest.raises(TypeError, match=rf"{option} must be .* got <test_parts.Nothing"):
        check(**{option: Nothing()})


@dataclasses.dataclass
class PlainMethod(extending.MethodDefaults):
    """A method as a dataclass that is not frozen."""

    order: int = 3

    step = Rosenbrock.step


@dataclasses.dataclass
class PlainSteps(extending.StepsDefaults):
    """A policy as a dataclass that JAX does not know."""

    tolerance: Any = 1e-6
    size: Any = 0.01

    first, propose, judge = Doubling.first, Doubling.propose, Doubling.judge


@dataclasses.dataclass
class PlainSave(extending.SaveDefaults):
    """A save as a dataclass that JAX does not know."""

    scale: Any = 1.0

    size = 4
    blank, row = Rows.blank, Rows.row


@dataclasses.dataclass
class PlainAdjoint(extending.AdjointDefaults):
    """An adjoint as a dataclass that is not frozen."""

    window: float = 1.0

    recorder, stored, backward = Truncated.recorder, Truncated.stored, Truncated.backward


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({"method": PlainMethod()}, r"method=PlainMethod\(order=3\) must be hashable, such as a frozen dataclass"),
        ({"steps": PlainSteps()}, r"steps=PlainSteps\(.*\) must be a pytree, such as an equinox\.Module"),
        ({"save": PlainSave()}, r"save=PlainSave\(.*\) must be a pytree, such as an equinox\.Module"),
        ({"adjoint": PlainAdjoint()}, r"adjoint=PlainAdjoint\(window=1\.0\) must be hashable, such as a frozen"),
    ],
    ids=["method", "steps", "save", "adjoint"],
)
def test_a_plain_dataclass_is_refused_with_what_to_use(part, complaint):
    with pytest.raises(TypeError, match=complaint):
        nj.odesolve(swing, START, 0.0, 1.0, 1.0, **part)


def test_a_dataclass_that_is_registered_with_jax_is_a_policy():
    class Registered(PlainSteps):
        """The same, known to JAX."""

    jax.tree_util.register_dataclass(Registered, ("tolerance", "size"), ())
    sol = nj.odesolve(swing, START, 0.0, 1.0, 1.0, steps=Registered())
    np.testing.assert_array_equal(sol.z1, nj.odesolve(swing, START, 0.0, 1.0, 1.0, steps=Doubling()).z1)


def test_a_method_that_cannot_be_hashed_is_refused():
    class Unhashable(Rosenbrock):
        __hash__ = None  # pyright: ignore[reportAssignmentType]

    with pytest.raises(TypeError, match="must be hashable"):
        nj.odesolve(swing, START, 0.0, 1.0, 1.0, method=Unhashable())


def test_checks_find_what_is_wrong():
    class Wrong(Rosenbrock):
        """Claim a polynomial of another degree."""

        degree: int = 4

    with pytest.raises(AssertionError, match=re.escape("polynomial returns 4 states, degree + 1 is 5")):
        nj.testing.assert_method(Wrong(degree=4))
    with pytest.raises(AssertionError, match="lacks"):
        nj.testing.assert_save(Nothing())


def test_every_name_for_extending_is_what_it_says():
    assert all(hasattr(extending, name) for name in extending.__all__)


@pytest.mark.parametrize("part", [Rosenbrock, Doubling, RunningMaximum, Truncated])
def test_the_page_about_extending_shows_the_part_that_is_tested(part):
    page = pathlib.Path(__file__).parents[2].joinpath("docs", "extending.md").read_text()
    assert inspect.getsource(part) in page


@dataclasses.dataclass(frozen=True)
class Taylor(extending.MethodDefaults):
    """The Taylor method of order 2, with the second derivative of the solution from `jet`."""

    order: int = 2

    def step(self, field, t, z, h, theta, memory):
        slope = field(z, t, theta)
        _, (bend,) = jet.jet(lambda z: field(z, t, theta), (z,), ((slope,),))
        more = h * h / 2 * bend
        return extending.Step(z + h * slope + more, (more,), (), memory, work=jnp.int32(2))


@pytest.mark.parametrize("field", [lambda z, t, p: -p * z, lambda z, t, p: -p * jnp.eye(8, dtype=z.dtype) @ z])
def test_method_takes_taylor_series_of_the_field(field):
    def end(p):
        return nj.odesolve(field, jnp.ones(8), 0.0, 1.0, p, method=Taylor(), steps=nj.Adaptive(1e-4, 1e-6)).z1.sum()

    rates = jnp.array([0.1, 0.5])
    np.testing.assert_allclose(jax.vmap(end)(rates), 8 * jnp.exp(-rates), rtol=1e-3)
    np.testing.assert_allclose(jax.vmap(jax.grad(end))(rates), -8 * jnp.exp(-rates), rtol=1e-3)
