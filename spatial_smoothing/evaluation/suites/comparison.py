"""Evaluations that are there: kept by later ones, and compared side by side."""

import contextlib
import io
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from spatial_smoothing import report
from spatial_smoothing.evaluation.rows import Row
from spatial_smoothing.evaluation.suites.settings import LAPLACE, SMOOTHED, recipe
from spatial_smoothing.metrics import Examples
from spatial_smoothing.runs import workdirs
from spatial_smoothing.runs.provenance import device_name
from spatial_smoothing.runs.workdirs import FREE, SINCE
from spatial_smoothing.runtime import paths

_FILE = "examples.npz"
# What tells the rows of a label, run and number of samples apart.
_KINDS = (
    *("suite", "dataset", "split", "data", "corruption", "severity"),
    *("perturbation", "frequency", "network", "tap"),
    *("ood", "distance", "confidence", "average"),
)


def distinct_labels(
    groups: Mapping[str, Sequence[Row]], configs: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    """Joins the rows of several workdirs, telling apart those of one label.

    Args:
      groups: Workdir -> its rows.
      configs: Workdir -> the config of its run.

    Returns:
      All rows, of those that are in several workdirs the first. Where deep ensembles of
      one label have different numbers of members M, these follow the label: they are
      no seeds of one thing. Where workdirs share a label and differ in more than the
      seed, or share it but for smoothing and differ in more than that, the label is
      followed by the workdir's name.
    """
    same, alike = {}, {}
    members: dict[str, dict[str, int]] = {}  # label -> workdir -> M
    for workdir, rows in groups.items():
        config = configs[workdir]
        for row in rows:
            plain = row["label"].replace(SMOOTHED, "")
            same.setdefault(row["label"], set()).add(recipe(config))
            alike.setdefault(plain, set()).add(recipe(config, smoothing=False))
            of_label = members.setdefault(plain, {})
            # Rows of older versions do not say it.
            if count := row.get("num_members"):
                of_label[workdir] = max(count, of_label.get(workdir, 1))
    found: dict[tuple, Row] = {}
    for workdir, rows in groups.items():
        for row in rows:
            name = label = row["label"]
            plain = name.replace(SMOOTHED, "")
            counts = members[plain]
            if len(set(counts.values())) > 1 and workdir in counts:
                name = label = f"{name} (M = {counts[workdir]})"
            if len(same[row["label"]]) > 1 or len(alike[plain]) > 1:
                label = f"{name} ({workdir})"
            kind = (name, row.get("run", workdir), row.get("num_samples"))
            kind += tuple(row.get(key) for key in _KINDS)
            found.setdefault(kind, {**row, "label": label})
    return list(found.values())


def pack_examples(rows: Sequence[Row]) -> tuple[list[Row], dict[str, bytes]]:
    """Returns the rows without their `examples`, and a file for these.

    The file is to be written with the report of the rows: it tells them by number. Rows
    with examples come first, because a report has those of ensembles first.
    """
    rows = [dict(row) for row in sorted(rows, key=lambda row: "examples" not in row)]
    found = [row.pop("examples", None) for row in rows]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        **{
            f"{index}/{name}": value
            for index, examples in enumerate(found)
            if examples is not None
            for name, value in vars(examples).items()
        },
    )
    return rows, {_FILE: buffer.getvalue()}


def read(workdir: epath.PathLike) -> tuple[list[Row], dict[str, Any]]:
    """Returns the rows of an evaluation, with examples, and their provenance.

    Args:
      workdir: A run that was evaluated, or the directory of an evaluation.

    Raises:
      ValueError: if it is not evaluated, or was by a version that wrote less.
    """
    path = paths.absolute(workdir) / "metrics.json"
    if not path.exists():
        path = workdirs.evaluation_path(workdir)
    rows, where = report.read(path)
    rows = load_examples(path.parent, rows)
    if "config" not in where or not all(map(_can_be_compared, rows)):
        raise ValueError(f"{path} lacks what is compared; evaluate {workdir} anew")
    return [_renamed(_with_device(row, where)) for row in rows], where


def _can_be_compared(row: Row) -> bool:
    """Whether a row has what tells it apart from other rows, which older ones lack."""
    needed = {"label", "split"} | ({"num_samples"} if "examples" in row else set())
    return needed <= row.keys()


def _renamed(row: Row) -> Row:
    """Returns a row with the label that the present version gives it.

    Rows of the suite "laplace" were once called after the dropout of their network,
    which their passes do not have.
    """
    before, plus, after = str(row.get("label")).partition(LAPLACE)
    if row.get("suite") != "laplace" or not plus:
        return row
    text = "Deep ensemble" if before.startswith("Deep ensemble") else "Deterministic"
    return {**row, "label": text + plus + after}


def _with_device(row: Row, where: Mapping[str, Any]) -> Row:
    """Returns a row that says where its time was measured, if it has one."""
    about = {**where, **where.get("evaluations", {}).get(row.get("suite"), {})}
    if "milliseconds" not in row or not {"device", "num_devices"} <= about.keys():
        return row
    return {**row, "device": device_name(about)}


def load_examples(output: epath.PathLike, rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of a report with the `examples` that were saved with them.

    Raises:
      ValueError: if what was saved is damaged, or of an older version.
    """
    path = epath.Path(output) / _FILE
    if not path.exists():
        return list(rows)
    fields: dict[int, dict[str, np.ndarray]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in arrays.files:
                index, name = key.split("/")
                fields.setdefault(int(index), {})[name] = arrays[key]
        examples = {index: Examples(**values) for index, values in fields.items()}
    except (TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is damaged or of an older version; evaluate anew"
        ) from error
    return [
        {**row, "examples": examples[index]} if index in examples else row
        for index, row in enumerate(rows)
    ]


def default_output(
    names: Sequence[epath.PathLike], *, dataset: str | None = None
) -> epath.Path:
    """Returns the directory of an evaluation of workdirs, in the first of them.

    An ensemble of several has a directory beside that of the first workdir alone.

    Args:
      names: The workdirs.
      dataset: Name of another data set that is scored; None for that of the runs.
    """
    several = f"-of-{len(names)}" if len(names) > 1 else ""
    other = ""
    if dataset is not None:
        kind, colon, place = dataset.partition(":")
        if not colon:
            kind, place = "", dataset
        # Of a path the last part is enough; names of TFDS and the Hub are short.
        if kind not in ("tfds", "hf"):
            place = place.rstrip("/").rpartition("/")[2]
        name = re.sub(r"[^A-Za-z0-9._]+", "-", f"{kind}{colon}{place}")
        other = f"-on-{name.strip('-')}"
    return paths.absolute(names[0]) / f"evaluation{several}{other}"


def earlier(
    output: epath.PathLike, where: Mapping[str, Any], *, without: Collection[str]
) -> tuple[list[Row], dict[str, Any]]:
    """Returns what a report already says of the same runs by other suites.

    Args:
      output: Directory of the report, if there is one.
      where: What the new rows are of: `runs`, `split` and `config`. What the report
        says of other steps of the same runs is out of date, and left out.
      without: Suites that are evaluated anew.

    Returns:
      Rows, and suite -> numbers and provenance of its evaluation.

    Raises:
      ValueError: if the report is of other runs, or of another split, which would be
        lost.
    """
    path = epath.Path(output) / "metrics.json"
    try:
        rows, before = report.read(path, with_arrays=False)
    except (OSError, ValueError):
        return [], {}
    where = report.plain(dict(where))
    there, here = (_subject(about) for about in (before, where))
    if there != here and not _has_moved(before, where):
        raise ValueError(
            f"{output} holds an evaluation of {there}, which one of {here} would "
            "replace; choose another --output=DIR"
        )
    # Reports of older versions lack the newer fields of a config.
    old_config, new_config = ({**SINCE, **each["config"]} for each in (before, where))
    different = [
        name
        for name in sorted({*old_config, *new_config} - FREE)
        if old_config.get(name) != new_config.get(name)
    ]
    if different:
        raise ValueError(
            f"{output} holds an evaluation of {there} as trained with another "
            f"{', '.join(different)}; choose another --output=DIR"
        )
    # Reports of older versions have no fingerprints.
    same = all(
        old["step"] == new["step"]
        and old.get("fingerprint", new.get("fingerprint")) == new.get("fingerprint")
        for old, new in zip(before["runs"], where["runs"], strict=True)
    )
    if not same:
        return [], {}
    # The scores are good without arrays and examples, should these be damaged.
    with contextlib.suppress(OSError, ValueError):
        rows, _ = report.read(path)
    with contextlib.suppress(OSError, ValueError):
        rows = load_examples(output, rows)
    shared = {name: before[name] for name in before.keys() - where.keys()}
    evaluations = shared.pop("evaluations", {})
    kept = {
        name: {**shared, **value}
        for name, value in evaluations.items()
        if name not in without
    }
    names = _new_names(before["runs"], where["runs"])
    return [
        _renamed(
            {**row, "run": names.get(row["run"], row["run"])} if "run" in row else row
        )
        for row in rows
        if row.get("suite") in kept
    ], kept


def check_comparison(output: epath.PathLike) -> None:
    """Raises ValueError if a comparison would replace the evaluation of runs."""
    try:
        path = epath.Path(output) / "metrics.json"
        _, before = report.read(path, with_arrays=False)
    except (OSError, ValueError):
        return
    if "runs" in before:
        raise ValueError(
            f"{output} holds an evaluation of {_subject(before)}, which a comparison "
            "would replace; choose another --output=DIR"
        )


def _has_moved(before: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether two reports are of the same runs, whose workdirs have other names now.

    A workdir may have been copied or renamed, or be reached by a link.
    """
    if not {"runs", "split", "config"} <= before.keys():
        return False
    if before["split"] != where["split"] or len(before["runs"]) != len(where["runs"]):
        return False
    pairs = list(zip(before["runs"], where["runs"], strict=True))
    if len(pairs) == 1:
        # The caller compares the configs next, which contain the seed: a single run is
        # known by its config.
        return True
    return all(
        "fingerprint" in old and old["fingerprint"] == new.get("fingerprint")
        for old, new in pairs
    )


def _new_names(
    before: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Returns what rows call runs, and all of them together -> what they are to say."""
    old, new = ([run["workdir"] for run in each] for each in (before, runs))
    names = dict(zip(old, new, strict=True))
    names[", ".join(old)] = ", ".join(new)
    # Some rows name the workdir of a member without its number.
    for name, other in list(names.items()):
        names.setdefault(name.partition(" #")[0], other.partition(" #")[0])
    return names


def _subject(where: Mapping[str, Any]) -> str:
    """What a report is of, in words."""
    if not {"runs", "split", "config"} <= where.keys():
        return "something else"
    names = ", ".join(run["workdir"] for run in where["runs"])
    return f"{names} on the split {where['split']}"
