"""Hooks of MkDocs: pages made of notebooks and of files outside docs/, their links, and references to public names."""

import base64
import json
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}  # file of the repository: page
LATER = (
    "architecture.md",
    "extending.md",
)  # pages for maintainers, shown as soon as they are there
COLAB = "https://colab.research.google.com/github/node-jax/node-jax/blob/main/notebooks"
BADGE = re.compile(r"^\[!\[Colab\]\([^)]*\)\]\([^)]*\)\n*", re.MULTILINE)
MODULES = ("nn", "train", "datasets", "testing")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
REFERENCE = re.compile(
    r"(?<![\[`\w])`nj\.([A-Za-z_][\w.]*)(\([^`\n]*\))?`(?!\])"
)


def notebooks() -> list[Path]:
    """Return the executed notebooks in order of their names."""
    return sorted(
        (ROOT / "notebooks").glob("*.ipynb"),
    )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the notebooks, and the pages that may not be there, to the navigation."""
    sections = {
        title: entries
        for section in config.nav or []
        for title, entries in section.items()
    }
    sections["Notebooks"] += [
        f"notebooks/{path.stem}.md" for path in notebooks()
    ]
    there = [name for name in LATER if (ROOT / "docs" / name).exists()]
    sections["Maintainers"][1:1] = there
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from files outside docs/."""
    for name, page in OUTSIDE.items():
        files.append(
            File.generated(config, page, content=(ROOT / name).read_text())
        )
    for path in notebooks():
        for name, content in converted(path).items():
            files.append(
                File.generated(config, f"notebooks/{name}", content=content)
            )
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Point links at pages of the site, and names of the package at their reference."""
    uri = page.file.src_uri
    sources = {page: name for name, page in OUTSIDE.items()}
    source = (
        f"notebooks/{Path(uri).stem}.ipynb"
        if uri.startswith("notebooks/")
        else sources.get(uri, f"docs/{uri}")
    )

    def relinked(text: str) -> str:
        text = re.sub(
            r"\]\(([^)#:\s]+)(#[^)\s]*)?\)",
            lambda found: link(found, source, uri),
            text,
        )
        return text if uri == "changelog.md" else REFERENCE.sub(reference, text)

    return outside_fences(markdown, relinked)


def outside_fences(markdown: str, change) -> str:
    """Apply a function to everything that is not a fenced block."""
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


def link(found: re.Match, source: str, uri: str) -> str:
    """Return a link to a file of the repository as one to the page that is made of it."""
    target, anchor = found.group(1), found.group(2) or ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    page = OUTSIDE.get(
        path, "index.md" if path == "README.md" else path.removeprefix("docs/")
    )
    if page.endswith(".ipynb"):
        page = f"{page.removesuffix('.ipynb')}.md"
    return (
        f"]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{anchor})"
    )


def reference(found: re.Match) -> str:
    """Return a public name in code as a reference; one that is not in the API reference breaks the build."""
    name = found.group(1)
    return (
        found.group()
        if name in MODULES
        else f"[{found.group()}][node_jax.{name}]"
    )


def converted(path: Path) -> dict[str, str | bytes]:
    """Return the page of an executed notebook, and its pictures, by name."""
    cells = json.loads(path.read_text())["cells"]
    made: dict[str, str | bytes] = {}
    parts: list[str] = []
    for cell in cells:
        text = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            # a picture from elsewhere, and the note has the same link
            parts.append(outside_fences(BADGE.sub("", text), formulas))
        else:
            parts += [
                f"````python\n{text}\n````",
                *outputs(cell.get("outputs", []), path.stem, made),
            ]
    note = (
        f"This page is the executed notebook `notebooks/{path.name}` of the repository."
        f" [Open it in Colab]({COLAB}/{path.name})."
    )
    title, _, rest = "\n\n".join(parts).partition("\n")
    made[f"{path.stem}.md"] = f"{title}\n\n{note}\n{rest}\n"
    return made


def outputs(found: list[dict], stem: str, made: dict) -> list[str]:
    """Return the outputs of one cell as Markdown; pictures go into `made`."""
    parts = []
    for output in found:
        data = output.get("data", {})
        if "image/png" in data:
            number = 1 + sum(name.endswith(".png") for name in made)
            made[f"{stem}-{number}.png"] = base64.b64decode(
                "".join(data["image/png"])
            )
            parts.append(
                f"![Figure {number} of this notebook]({stem}-{number}.png)"
            )
        elif text := "".join(
            output.get("text", data.get("text/plain", ""))
        ).strip("\n"):
            parts.append(f"````text\n{text}\n````")
    return parts


def formulas(text: str) -> str:
    """Return TeX between dollars as MathML, which browsers show without a script; code stays as it is."""
    pieces = re.split(r"(`[^`\n]*`)", text)
    pieces[::2] = [
        re.sub(
            r"\$([^$\n]+)\$",
            lambda x: convert(x.group(1)),
            re.sub(r"\$\$(.+?)\$\$", block, piece, flags=re.DOTALL),
        )
        for piece in pieces[::2]
    ]
    return "".join(pieces)


def block(found: re.Match) -> str:
    """Return a displayed formula."""
    return convert(found.group(1).strip(), display="block")
