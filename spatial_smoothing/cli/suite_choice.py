"""Which suites `--suite` asks for, and whether `--ood` and the runs suit them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from spatial_smoothing.cli import evaluate_flags
from spatial_smoothing.evaluation import suites
from spatial_smoothing.lookup import lookup
from spatial_smoothing.runs import recipes
from spatial_smoothing.runs.workdirs import Run
from spatial_smoothing.runtime import processes

# What `--suite` takes in place of a list of all suites.
ALL = "all"
# What is evaluated without `--suite`, by task of the network.
DEFAULT_SUITES = {"classification": "ensemble", "segmentation": "segmentation"}


def chosen_suites(*, task: str = "classification") -> dict[str, suites.Suite]:
    """Returns name -> suite of those in `--suite`.

    Args:
      task: Task of the networks, "classification" or "segmentation".

    Raises:
      ValueError: for an unknown suite, one that is named twice or is for another task,
        or a flag for which none of the suites has a use.
    """
    names, ood = evaluate_flags.SUITE.value, evaluate_flags.OOD.value
    if names is None:
        names = [DEFAULT_SUITES[task]]
    suites.check_list("--suite", names)
    has_sets = suites.ood_sets.has_distances(ood)
    usable = [name for name, suite in suites.SUITES.items() if suite.task == task]
    if names == [ALL]:
        # The suite "ood" cannot do without sets, which nobody can guess.
        names = [name for name in usable if name != "ood" or has_sets]
    if ALL in names:
        raise ValueError(f"--suite={ALL} takes no other names, got {','.join(names)}")
    chosen = {name: lookup(suites.SUITES, name, "suite") for name in names}
    if others := [name for name in chosen if name not in usable]:
        raise ValueError(
            f"the suite {others[0]} is for {chosen[others[0]].task}, and the network "
            f"for {task}; choose among {', '.join(usable)}"
        )
    if "ood" in chosen:
        return chosen
    if evaluate_flags.OOD_VALIDATION.value is not None:
        raise ValueError("--ood_validation is for --suite=ood, which is not evaluated")
    if has_sets:
        raise ValueError(
            f"--ood={ood} is a list for --suite=ood, which is not evaluated; "
            "--suite=ensemble takes the name of one data set"
        )
    if ood and "ensemble" not in chosen:
        raise ValueError(
            "--ood is for --suite=ensemble or --suite=ood, which is not evaluated"
        )
    return chosen


def refusing_members(
    runs: Sequence[Run], chosen: Mapping[str, suites.Suite]
) -> dict[str, str]:
    """Returns the suites that refuse several runs: name -> the reason.

    Args:
      runs: The run, or the members of an ensemble.
      chosen: Name -> suite of those that are to be evaluated.
    """
    names = [name for name, suite in chosen.items() if suite.for_one_run]
    if len(runs) == 1 or not names:
        return {}
    those = (
        f"suites {', '.join(names)} take" if names[1:] else f"suite {names[0]} takes"
    )
    reason = f"the {those} one run, got {len(runs)}; evaluate one by one, then "
    return dict.fromkeys(names, f"{reason}--compare them")


def refusing_networks(
    runs: Sequence[Run],
    setting: suites.Setting,
    chosen: Mapping[str, suites.Suite],
    given: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """Checks all suites, and returns those that refuse the networks: name -> reason.

    Args:
      runs: The run, or the members of the ensemble.
      setting: What all suites share.
      chosen: Name -> suite of those that are to be evaluated.
      given: Name of a suite -> its options.

    Raises:
      ValueError: for options that a suite cannot use.
    """
    found = {}
    for name, suite in chosen.items():
        if suite.check is not None:
            try:
                suite.check(runs, setting, **given[name])
            except suites.UnsuitableError as error:
                found[name] = str(error)
    return found


def without(
    chosen: Mapping[str, suites.Suite], refusing: Mapping[str, str]
) -> dict[str, suites.Suite]:
    """Returns the suites but those that `--suite=all` leaves out.

    Args:
      chosen: Name -> suite of those that are to be evaluated.
      refusing: Name of a suite that refuses the runs -> the reason.

    Raises:
      ValueError: if a suite that refuses was named, or no other suite is left.
    """
    left = {name: suite for name, suite in chosen.items() if name not in refusing}
    if refusing and (evaluate_flags.SUITE.value != [ALL] or not left):
        raise ValueError(next(iter(refusing.values())))
    return left


def show_left_out(refusing: Mapping[str, str]) -> None:
    """Prints in one line which suites `--suite=all` leaves out, and why.

    Args:
      refusing: Name of a suite that refuses the runs -> the reason.
    """
    if refusing and processes.is_first():
        reasons = "; ".join(dict.fromkeys(refusing.values()))
        print(f"--suite={ALL} leaves out {', '.join(refusing)}: {reasons}")


def check_ood(config: Mapping[str, Any], chosen: Collection[str]) -> None:
    """Raises ValueError if `--ood` is the data set that the run classifies.

    Args:
      config: Config of the run.
      chosen: Names of the suites to be evaluated.
    """
    ood = evaluate_flags.OOD.value
    if "ood" in chosen:
        pairs = suites.ood_sets.parse(ood)
        validation = evaluate_flags.OOD_VALIDATION.value
        suites.ood_sets.check_names(pairs, validation, config["dataset"])
    elif ood and recipes.is_same_dataset(ood, config["dataset"]):
        raise ValueError(f"--ood={ood} is what is tested on; choose another")
