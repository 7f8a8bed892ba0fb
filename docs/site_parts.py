"""What the documentation site adds to Sphinx: equations, links, and docstrings."""

import configparser
import functools
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml

# Patterns of files of the repository -> the pages of the site that show them.
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    r"results/\w+/README.md": "results.md",
}


def setup(app: Any) -> None:
    """Connects the functions of this file with Sphinx."""
    app.add_html_math_renderer("mathml", (_math, None), (_displayed_math, None))
    app.connect("source-read", _drop_missing_pages)
    app.connect("source-read", _include_root_file)
    # Before napoleon, whose priority is 500, reads the sections.
    app.connect("autodoc-process-docstring", _escape_docstring, priority=100)


def version(settings: Path) -> str:
    """Returns the version of the package.

    Args:
      settings: setup.cfg.
    """
    parser = configparser.ConfigParser()
    parser.read(settings)
    return parser["metadata"]["version"]


def _drop_missing_pages(app: Any, page: str, source: list[str]) -> None:
    """Takes lines such as `segmentation*` off the contents while there is no such page.

    Guides that are written elsewhere have their place before they come.
    """
    if page == "index":
        source[0] = "\n".join(
            line
            for line in source[0].split("\n")
            if not OPTIONAL.match(line) or any(Path(app.srcdir).glob(f"{line}.md"))
        )


OPTIONAL = re.compile(r"^[\w/]+\*$")


def _include_root_file(app: Any, page: str, source: list[str]) -> None:
    """Replaces a line `<!-- include: ../FILE -->` by these files of the repository.

    Links of the file are relative to its folder. Here they become relative to docs/,
    and a link to a file that is a page of the site becomes a link to this page.
    """

    def included(match: re.Match) -> str:
        texts = []
        for path in sorted(Path(app.srcdir).glob(match[1])):
            # If only the file changes, the next build would leave the page as it is.
            app.env.note_dependency(str(path.resolve()))
            folder = path.resolve().parent
            moved = functools.partial(_moved, app, folder)
            text = LINK.sub(moved, path.read_text())
            # Several files are sections of the page that has them.
            texts.append(
                re.sub("^#", "##", text, flags=re.M) if "*" in match[1] else text
            )
        return "\n".join(texts)

    text = INCLUDE.sub(included, source[0])
    for name, target in PAGES.items():
        text = re.sub(rf"\]\(\.\./{name}", f"]({target}", text)
    source[0] = text


INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.M)
LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)")


def _moved(app: Any, folder: Path, link: re.Match) -> str:
    """Returns a link of a file of `folder`, relative to docs/."""
    return f"]({os.path.relpath(folder / link[1], app.srcdir)}"


def _escape_docstring(
    app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Makes reStructuredText of a docstring, in which only backticks are markup."""
    parts = CODE.split("\n".join(lines))
    for place, part in enumerate(parts):
        if not place % 2:  # text between two pieces of code
            parts[place] = re.sub(r"[*|]|_(?!\w)", r"\\\g<0>", part)
        elif part.startswith("`"):
            # The backslash ends the code where a word goes on, as in `Tally`s.
            ends = "\\ " if re.match(r"\w", parts[place + 1]) else ""
            parts[place] = f"``{part.strip('`')}``{ends}"
    lines[:] = "".join(parts).split("\n")


# Code in a docstring: between backticks, or a line of an example.
CODE = re.compile(r"(``[^`]+``|`[^`]+`|^ *(?:>>>|\.\.\.).*$)", re.M)


def _math(self: Any, node: nodes.math) -> None:
    """Writes an equation within a line as MathML, which needs no script."""
    self.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def _displayed_math(self: Any, node: nodes.math_block) -> None:
    """Writes an equation on its own line as MathML."""
    math = latex2mathml.tex2mathml(node.astext(), as_block=True)
    self.body.append(f'<div class="math">{math}</div>\n')
    raise nodes.SkipNode
