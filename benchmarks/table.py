"""Write the table of a stored result of `benchmarks.first` into the README, between its two markers.

python -m benchmarks.table
"""

import json
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
STORED = ROOT / "benchmarks" / "results" / "first.json"
BEGIN, END = "<!-- benchmarks/results/first.json -->", "<!-- end -->"


def table(stored: dict) -> str:
    """Return the Markdown table of a stored result."""
    about = stored["machine"]
    packages = ("jax", "diffrax", "tinydiffeq")
    versions = ", ".join(f"{name} {about[name]}" for name in packages)
    lines = [
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}, {versions}. Time of node_jax divided by"
        " that of the peer, median over interleaved runs; below 1 node_jax is faster.",
        "",
        "| | dtype | node_jax, ms | ratio | trace and compile, ratio |",
        "| --- | --- | ---: | --- | --- |",
    ]
    for row in stored["results"]:
        ours = row["packages"]["node_jax"]
        ratios = ", ".join(f"{ratio:.2f} of {name}" for name, ratio in row["ratios"].items())
        compiles = ", ".join(
            f"{ours['compile_s'] / row['packages'][name]['compile_s']:.2f} of {name}" for name in row["ratios"]
        )
        lines.append(f"| {row['row']} | {row['dtype']} | {ours['median_ms']:.3g} | {ratios} | {compiles} |")
    return "\n".join(lines)


def filled(readme: str, stored: dict) -> str:
    """Return the README with the table put between the markers."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(stored)}\n{END}{after}"


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(), json.loads(STORED.read_text())))
