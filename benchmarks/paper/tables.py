"""Tables of the experiments: functions of all stored results of one, by name, that return Markdown by name."""

import math
import statistics
from collections.abc import Callable

from benchmarks.report import markdown

TABLE_1 = {"ODE-Net": 0.0042, "RK-Net": 0.0047, "ResNet": 0.0041}  # Chen et al., 2018: error on MNIST
TABLE_2 = {  # Chen et al., 2018: root mean square error of the extrapolation
    "latent": {30: 0.1642, 50: 0.1502, 100: 0.1346},
    "rnn": {30: 0.3937, 50: 0.3202, 100: 0.1813},
}


def table(head: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Return a table as one text."""
    return "\n".join(markdown(head, rows, left))


def grouped(results: dict[str, dict], *names: str) -> dict[tuple, list[dict]]:
    """Return results by the values of some of their entries, sorted."""
    groups: dict = {}
    for result in results.values():
        groups.setdefault(tuple(result[name] for name in names), []).append(result)
    return dict(sorted(groups.items()))


def mean(some: list[dict], value: Callable[[dict], float]) -> float:
    """Return the mean of a number over results."""
    return statistics.mean(value(x) for x in some)


def spread(some: list[dict], value: Callable[[dict], float], form: str) -> str:
    """Return the mean of a number over results, and its range where there are several."""
    values = [value(x) for x in some]
    text = f"{statistics.mean(values):{form}}"
    return text if len(values) == 1 else f"{text} ({min(values):{form}} to {max(values):{form}})"


def derivations(found: dict[str, dict]) -> dict[str, str]:
    """Return the tables of the derivations."""
    deep, back, system = found["residual_network"], found["backpropagation"], found["linear_system"]
    memory, tolerance = found["memory"], found["tolerance"]
    checks = [
        ["one step of Euler's method is the residual block, bit for bit", "yes",
         "yes" if deep["one_step_is_the_block"] else "no"],
        ["slope of the error of residual blocks, in the number of layers", "-1", f"{deep['slope']:.3f}"],
        ["slope of the error of their gradient", "-1", f"{back['slope']:.3f}"],
        ["gradient in {weights} weights by one transposed system of {states} states, against reverse mode, relative"
         .format(**system), "0", f"{system['transposed_against_reverse']:.0e}"],
        ["the same by one system for each weight", "0", f"{system['forward_against_reverse']:.0e}"],
    ]  # fmt: skip
    sizes = [[name, *(f"{x:,}" for x in of), f"{of[-1] / of[0]:.3g}"] for name, of in memory["bytes"].items()]
    errors = [[name, *(f"{x:.0e}" for x in values)] for name, values in tolerance["errors"].items()]
    return {
        "checks": table(["", "derived", "found"], checks),
        "memory": table(["", *(f"{n:,} steps" for n in memory["steps"]), "last over first"], sizes),
        "errors": table(["", *(f"{x:.0e}" for x in tolerance["tolerances"])], errors),
    }


def known(value: float | None) -> bool:
    """Whether there is such a number of a model."""
    return value is not None and math.isfinite(value)


def latent(results: dict[str, dict]) -> dict[str, str]:
    """Return the table of the spirals."""
    rows = []
    for (noise, points, model), some in grouped(results, "noise", "points", "model").items():
        paper = TABLE_2["latent" if model == "latent" else "rnn"][points] if noise == 0.1 else ""
        others = (
            f"{mean(some, lambda x, name=name: x[name]):.3f}" if known(some[0][name]) else ""
            for name in ("each_time", "standardized", "noisy", "inside")
        )
        rows.append([
            f"{noise}", f"{points}", model, f"{len(some)}", spread(some, lambda x: x["beyond"], ".3f"), f"{paper}",
            *others, f"{mean(some, lambda x: x['seconds']):.0f}",
        ])  # fmt: skip
    head = ["noise", "points", "model", "seeds", "error beyond", "paper", "a prediction for each time", "standardized",
            "noisy target", "inside", "processor seconds"]  # fmt: skip
    return {"spirals": table(head, rows, 3)}


def images(results: dict[str, dict], name: str = "images") -> dict[str, str]:
    """Return the table of the nets on images."""
    rows = []
    for (channels, kind), some in grouped(results, "channels", "kind").items():
        nfe = mean(some, lambda x: x["nfe"])
        rows.append([
            f"{channels}", kind, f"{len(some)}", spread(some, lambda x: 100 * x["error"], ".2f"),
            f"{100 * TABLE_1[kind]:.2f}" if channels == 64 else "", f"{some[0]['parameters']:,}",
            f"{some[0]['memory'] / 2**20:,.0f}", f"{nfe:.1f}" if nfe else "",
            f"{mean(some, lambda x: x['nfe_back']):.1f}" if "nfe_back" in some[0] else "",
            f"{mean(some, lambda x: x['seconds_an_epoch']):.0f}",
        ])  # fmt: skip
    head = ["channels", "net", "seeds", "test error, %", "paper, %", "parameters", "memory of a gradient, MiB",
            "NFE forward", "NFE backward", "processor seconds an epoch"]  # fmt: skip
    return {name: table(head, rows, 2)} | {f"{name}-pairs": pairs(results)}


def pairs(results: dict[str, dict]) -> str:
    """Return differences of the errors of two nets on the same images, with intervals of 95 %."""
    by, rows = {(x["channels"], x["kind"], x["seed"]): x for x in results.values()}, []
    for channels in sorted({channels for channels, _, _ in by}):
        for a, b in (("ODE-Net", "RK-Net"), ("ODE-Net", "ResNet"), ("RK-Net", "ResNet")):
            both = [(x, by[channels, b, seed]) for (width, kind, seed), x in by.items()
                    if (width, kind) == (channels, a) and (channels, b, seed) in by]  # fmt: skip
            if both:
                value, half = difference(both)
                rows.append([f"{channels}", f"{a} less {b}", f"{len(both)}", f"{value:+.2f} ± {half:.2f}"])
    return table(["channels", "nets", "seeds", "difference of the test error, points of %"], rows, 2)


def difference(both: list[tuple[dict, dict]]) -> tuple[float, float]:
    """Return the mean difference of two nets' errors over images and seeds, and half its interval of 95 %, in percent.

    The images are the units: of each, the difference is averaged over the seeds, which share it.
    """
    count = both[0][0]["images"]
    changes = [0.0] * count
    for first, second in both:
        for sign, result in ((1.0, first), (-1.0, second)):
            for i in result["wrong"]:
                changes[i] += sign / len(both)
    return 100 * statistics.mean(changes), 100 * 1.96 * statistics.stdev(changes) / count**0.5


def accuracy(results: dict[str, dict]) -> dict[str, str]:
    """Return the tables of figure 3."""
    found = results["figure-3"]
    fits = [[name, f"{1e3 * x['slope']:.1f}", f"{x['r2']:.4f}"] for name, x in found["fits"].items()]
    back = [
        [x["method"], x["adjoint"], f"{x['tolerance']:g}", f"{x['forward']:.1f}", f"{x['back']:.1f}",
         f"{x['pulled']:.1f}", f"{x['pulled'] / x['forward']:.2f}"] for x in found["back"]
    ]  # fmt: skip
    head = ["method", "adjoint", "tolerance", "evaluations forward", "evaluations back", "pullbacks",
            "pullbacks over forward"]  # fmt: skip
    return {"fits": table(["method", "milliseconds an evaluation", "R²"], fits), "back": table(head, back, 2)}


def matching(results: dict[str, dict]) -> dict[str, str]:
    """Return the table of density matching."""
    rows, kinds = [], ("cnf", "hyper", "gated", "planar")
    for (energy, width), some in grouped(results, "energy", "width").items():
        by = {x["kind"]: x for x in some}
        kl = [f"{by[kind]['kl']:.4f} ± {2 * by[kind]['kl_error']:.4f}" for kind in kinds]
        seconds = [f"{by[kind]['seconds']:.0f}" for kind in kinds]
        rows.append([energy, f"{width}", *kl, "yes" if by["cnf"]["kl"] <= by["planar"]["kl"] else "no", *seconds])
    names = ["polynomials", "network", "gates", "planar layers"]
    head = ["density", "units or layers", *(f"KL, {name}" for name in names), "polynomials are ahead",
            *(f"seconds, {name}" for name in names)]  # fmt: skip
    return {"matching": table(head, rows)}


def likelihood(results: dict[str, dict]) -> dict[str, str]:
    """Return the table of maximum likelihood, with the time to come within a tenth of a nat of the entropy."""
    rows = []
    for (density, kind), (x,) in grouped(results, "density", "kind").items():
        near = [seconds for _, seconds, nats in x["marks"] if nats < x["entropy"] + 0.1]
        rows.append([density, kind, f"{x['nats']:.3f}", f"{x['entropy']:.3f}", f"{x['nats'] - x['entropy']:+.3f}",
                     f"{near[0]:.0f}" if near else "not reached", f"{x['seconds']:.0f}"])  # fmt: skip
    head = ["density", "model", "nats", "entropy", "above the entropy", "processor seconds to 0.1 nats above",
            "of the run"]  # fmt: skip
    return {"likelihood": table(head, rows, 2)}


def cheaper(results: dict[str, dict]) -> dict[str, str]:
    """Return the table of the regularizers."""
    groups = grouped(results, "regularizer", "weight")
    plain = mean(groups["none", 0.0], lambda x: x["test"]["nfe"])
    rows = [
        [name, f"{weight:g}" if weight else "", spread(some, lambda x: x["test"]["nfe"], ".0f"),
         f"{mean(some, lambda x: x['test']['nfe']) / plain:.2f}",
         spread(some, lambda x: 100 * x["test"]["accuracy"], ".1f"), f"{mean(some, lambda x: x['test']['loss']):.3f}",
         f"{mean(some, lambda x: x['seconds']):.0f}"] for (name, weight), some in groups.items()
    ]  # fmt: skip
    head = ["regularizer", "weight", "NFE", "over none", "test accuracy, %", "test loss", "processor seconds"]
    return {"cheaper": table(head, rows)}


def spheres(results: dict[str, dict]) -> dict[str, str]:
    """Return the table of the nested spheres."""
    rows = [
        [kind, spread(some, lambda x: 100 * x["accuracy"], ".1f"), f"{mean(some, lambda x: x['loss']):.4f}",
         spread(some, lambda x: x["nfe"], ".0f"), f"{mean(some, lambda x: x['seconds']):.0f}"]
        for (kind,), some in grouped(results, "kind").items()
    ]  # fmt: skip
    return {"spheres": table(["state", "test accuracy, %", "test loss", "NFE", "processor seconds"], rows)}
