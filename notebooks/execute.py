"""Run every notebook of this folder and write it, with its outputs, as .ipynb, here or into a folder.

python notebooks/execute.py [folder [name ...]]

A kernel works in an empty folder, and finds the installed package, not the sources beside it.
"""

import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
# nothing here that changes from one run or one machine to the next
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(source: Path, target: Path) -> None:
    """Run a notebook in percent format; an error in a cell is raised, and nothing is written."""
    notebook = jupytext.read(source)
    notebook.metadata = nbformat.from_dict(METADATA)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()
    options = {"timeout": 600, "startup_timeout": 300, "record_timing": False, "coalesce_streams": True}
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as sockets:
        # an absolute address: a relative one would be looked for in the folder of the kernel by one side only
        manager = {"transport": "ipc", "ip": f"{sockets}/kernel"}
        place = {"resources": {"metadata": {"path": empty}}}
        NotebookClient(notebook, config=Config(KernelManager=manager), **options, **place).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    nbformat.write(notebook, target)


def refuse_sources() -> None:
    """Exit unless node_jax is a package that was installed into this environment."""
    found = importlib.util.find_spec("node_jax")
    if found is None or not Path(found.origin or "").resolve().is_relative_to(Path(sys.prefix).resolve()):
        sys.exit("node_jax is not installed here as a wheel: use make notebooks")


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # the bar is kept as text, not as a widget
    refuse_sources()
    folder = Path(sys.argv[1]).resolve() if sys.argv[1:] else HERE
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(HERE.glob("[0-9][0-9]_*.py")):
        if sys.argv[2:] and source.stem not in sys.argv[2:]:
            continue
        start, target = time.perf_counter(), folder / f"{source.stem}.ipynb"
        execute(source, target)
        print(f"{source.name}: {time.perf_counter() - start:.0f} s, {target.stat().st_size / 1000:.0f} kB", flush=True)
