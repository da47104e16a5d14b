"""Run every notebook of this folder and write it, with its outputs, as .ipynb, here or into a folder.

python notebooks/execute.py [folder]
"""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

HERE = Path(__file__).parent
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
    options = {"timeout": 600, "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, config=Config(KernelManager={"transport": "ipc"}), **options).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    nbformat.write(notebook, target)


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # the bar is kept as text, not as a widget
    folder = Path(sys.argv[1]) if sys.argv[1:] else HERE
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(set(HERE.glob("*.py")) - {Path(__file__)}):
        start, target = time.perf_counter(), folder / f"{source.stem}.ipynb"
        execute(source, target)
        print(f"{source.name}: {time.perf_counter() - start:.0f} s, {target.stat().st_size / 1000:.0f} kB in {target}")
