"""Error messages that translate names of other packages into those of this one."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_TOLERANCES = "steps=nj.Adaptive(rtol=..., atol=...)"
_STEP_SIZES = "steps=nj.Adaptive(first_step=..., min_step=..., max_step=...), or steps=nj.Fixed(n)"
_OUTPUT = "save=nj.SaveAt(ts), or save=nj.SaveSteps(n), or save=nj.Dense() and sol.evaluate(t)"
_METHODS = "method=nj.tsit5, nj.dopri5, nj.dopri8, nj.bosh3, ..."
_ADJOINTS = "adjoint=nj.Checkpointed(), nj.Backsolve(), nj.Direct(), ..."
_TURNED = "f(z, t, theta) itself, or nj.from_diffrax(f) for f(t, z, args)"

KEYWORDS = {
    **dict.fromkeys(("rtol", "atol", "reltol", "abstol", "tol", "stepsize_controller"), _TOLERANCES),
    **dict.fromkeys(
        ("dt0", "dt", "h0", "hmin", "hmax", "first_step", "min_step", "max_step", "step_size"), _STEP_SIZES
    ),
    **dict.fromkeys(("mxstep", "maxiters", "max_num_steps"), "max_steps"),
    **dict.fromkeys(("args", "p", "params", "parameters"), "theta, which follows t1 (in odeint: what follows ts)"),
    **dict.fromkeys(("terms", "term", "func", "fun", "vector_field"), "f, the first argument"),
    **dict.fromkeys(("y0", "x0", "u0", "initial"), "z0, the second argument"),
    **dict.fromkeys(("ts", "t", "t_eval", "saveat", "save_at", "dense_output", "dense"), _OUTPUT),
    **dict.fromkeys(("t_span", "tspan"), "t0 and t1, the third and fourth argument"),
    **dict.fromkeys(("solver", "alg", "method_name"), _METHODS),
    **dict.fromkeys(("adjoint_method", "adjoint_rtol", "adjoint_atol", "adjoint_params", "sensealg"), _ADJOINTS),
    **dict.fromkeys(
        ("breakpoints", "tcrit", "tstops", "jump_ts", "d_discontinuities"), "steps=nj.Adaptive(breakpoints=...)"
    ),
    **dict.fromkeys(("events", "event", "event_fn", "callback"), "there are no events yet"),
    "order": "expected_cost",
    "options": f"{_TOLERANCES}, with its other arguments",
}

ATTRIBUTES = {
    **dict.fromkeys(("ys", "xs", "us"), "zs, with a leading axis of times"),
    **dict.fromkeys(("y", "x", "u"), "zs, with a leading axis of times (the first, not the last), or z1"),
    **dict.fromkeys(("t", "times"), "ts"),
    **dict.fromkeys(("y1", "yf", "final_state"), "z1"),
    **dict.fromkeys(("t1", "t_final"), "t_reached"),
    **dict.fromkeys(("success", "successful"), "ok"),
    **dict.fromkeys(("result", "results", "message", "retcode"), "status, a nj.Status for each lane"),
    **dict.fromkeys(("nfev", "nfe"), "stats.nfe"),
    **dict.fromkeys(("num_steps", "num_accepted_steps"), "stats.accepted"),
    "num_rejected_steps": "stats.rejected",
    **dict.fromkeys(("sol", "interpolation", "interp"), "evaluate(t), with save=nj.Dense()"),
}

COUNTS = {
    **dict.fromkeys(("num_steps",), "accepted + rejected"),
    **dict.fromkeys(("num_accepted_steps", "naccept", "n_accepted"), "accepted"),
    **dict.fromkeys(("num_rejected_steps", "nreject"), "rejected"),
    **dict.fromkeys(("nfev", "nf", "n_f_evals", "num_function_evaluations"), "nfe"),
}

NAMES = {
    **dict.fromkeys(("diffeqsolve", "solve_ivp", "solve", "ODEProblem", "IVP"), "nj.odesolve(f, z0, t0, t1, theta)"),
    **dict.fromkeys(("ODETerm", "MultiTerm"), _TURNED),
    **dict.fromkeys(("ControlTerm", "WeaklyDiagonalControlTerm"), "there are no stochastic equations yet"),
    "Tsit5": "nj.tsit5",
    **dict.fromkeys(("Dopri5", "RK45", "DormandPrince", "DP5"), "nj.dopri5"),
    **dict.fromkeys(("Dopri8", "DOP853"), "nj.dopri8"),
    **dict.fromkeys(("Bosh3", "RK23", "BS3"), "nj.bosh3"),
    **{name.capitalize(): f"nj.{name}" for name in ("euler", "heun", "midpoint", "ralston", "rk4")},
    "RK4": "nj.rk4",
    **dict.fromkeys(("PIDController", "IController", "AdaptiveStepSize"), "nj.Adaptive(rtol=..., atol=...)"),
    **dict.fromkeys(("ConstantStepSize",), "nj.Fixed(n)"),
    "StepTo": "nj.Grid(ts)",
    "ClipStepSizeController": "nj.Adaptive(breakpoints=...)",
    **dict.fromkeys(("odeint_adjoint",), "nj.odeint(f, z0, ts, ..., adjoint=nj.Backsolve())"),
    **dict.fromkeys(("RecursiveCheckpointAdjoint",), "nj.Checkpointed()"),
    "BacksolveAdjoint": "nj.Backsolve()",
    **dict.fromkeys(("DirectAdjoint", "ForwardMode"), "nj.Direct() or nj.Forward()"),
    "ReversibleHeun": "adjoint=nj.Reversible()",
    "RESULTS": "nj.Status",
    **dict.fromkeys(("Event", "odeint_event", "DiscreteTerminatingEvent"), "there are no events yet"),
    **dict.fromkeys(
        (
            "ImplicitEuler",
            "KenCarp3",
            "KenCarp4",
            "KenCarp5",
            "Kvaerno3",
            "Kvaerno4",
            "Kvaerno5",
            "Radau",
            "BDF",
            "LSODA",
        ),
        "there are no implicit methods yet (docs/stiff.md says what to do)",
    ),
}


def method_named(name: Any) -> str:
    """Return the hint for a method that is given as text; empty if there is none."""
    return _said(name, NAMES) if isinstance(name, str) else ""


def missing(owner: str, name: str, hints: dict[str, str], known: Iterable[str] = ()) -> NoReturn:
    """Raise AttributeError for a name that `owner` does not have, with a hint if there is one."""
    said = "" if name.startswith("_") else _said(name, hints, known)  # libraries often probe for such names
    raise AttributeError(f"{owner} has no attribute {name!r}{said}")


def _said(name: str, hints: dict[str, str], known: Iterable[str] = ()) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.75)
    any_case = {key.lower(): hint for key, hint in hints.items()}
    hint = hints.get(name) or any_case.get(name.lower()) or (near[0] if near else None)
    if hint is None:
        return ""
    return f": {hint}" if hint.startswith("there are") else f": use {hint}"


def refuses_by_name(*others: Callable) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Raise TypeError, with a hint, for keywords that a function does not have.

    Args:
        *others: functions to which it passes its keywords on.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        parameters = [x for each in (fn, *others) for x in inspect.signature(each).parameters.values()]
        known = {x.name for x in parameters if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)}

        @functools.wraps(fn)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            for name in options:
                if name not in known:
                    said = _said(name, KEYWORDS, known)
                    raise TypeError(f"{fn.__name__}() got an unexpected keyword argument {name!r}{said}")
            return fn(*args, **options)

        return checked

    return decorate
