"""The pages of the documentation, and the code and the commands that they show."""

import re
import shlex
from typing import NamedTuple

from checkout import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [path for path in PAGES if "_build" not in path.parts]


class Command(NamedTuple):
    """A command of a page: its name, such as "train" or "make", and what follows."""

    name: str
    arguments: list[str]


def name_of(path):
    """Returns how tests call a page: "README", "notebooks/1_smoothing"."""
    docs = ROOT / "docs"
    path = path.relative_to(docs) if docs in path.parents else path.relative_to(ROOT)
    return str(path.with_suffix(""))


def blocks(path):
    """Returns the blocks of Python of a page, those of a notebook's cells too."""
    found = re.findall(
        r"^```(?:python|\{code-cell\} python)\n(.*?)^```", path.read_text(), re.M | re.S
    )
    return [re.sub(r"^:.*\n", "", block, flags=re.M) for block in found]


def run(path, names=None, *, replace=()):
    """Executes the blocks of a page in one namespace, as a reader would paste them.

    Args:
      path: The page.
      names: What a reader has before the first block; None for nothing.
      replace: Pairs of text, such as a large number and a small one.

    Returns:
      The namespace after the last block.
    """
    names = {"__name__": "page"} if names is None else names
    for block in blocks(path):
        for old, new in replace:
            assert any(old in other for other in blocks(path))
            block = block.replace(old, new)
        exec(compile(block, str(path), "exec"), names)
    return names


# How a command begins, and its name.
_STARTS = (
    (r"(?:srun )?\S*python3? (train|evaluate|predict|corrupt)\.py\b", r"\1"),
    (r"spatial-smoothing (\w+)", r"\1"),
    (r"\S*python3? -m spatial_smoothing\.(convert)\b", r"\1"),
    (r"\S*python3? -m (benchmarks\.\w+)", r"\1"),
)


def commands(path):
    """Returns the commands of this project in the blocks of a page."""
    text = path.read_text()
    # Blocks of a shell, those of no language, and indented ones.
    parts = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, re.M | re.S)
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    parts += re.findall(r"(?:^\n|\A)((?:^    .*\n)+)", text, re.M)
    for part in parts:
        for line in part.replace("\\\n", " ").splitlines():
            line = re.sub(r"[\[\]]", "", line) if "[--" in line else line
            if line.strip().startswith("make "):
                yield Command("make", line.partition("#")[0].split()[1:])
                continue
            for pattern, name in _STARTS:
                found = re.search(rf"(?:^|[\s'\"]){pattern}(.*)", line)
                if found:
                    words = shlex.shlex(found.groups()[-1], posix=True)
                    words.whitespace_split, words.commenters = True, "#"
                    yield Command(found.expand(name), _until_the_next(words))
                    break


def _until_the_next(words):
    """The arguments of a command, up to what ends it in a shell."""
    found = []
    try:
        for word in words:
            if word in ("|", "&", "&&", ";", ">", "done"):
                break
            found.append(word.rstrip(";"))
    except ValueError:  # a quote that the command itself is in
        pass
    return found
