"""What a comparison says about the statements of the paper."""

import json
import statistics

import pytest

from benchmarks import commands, statement_page, statements
from benchmarks.statements import AGREES, DISAGREES, OPEN, Comparison, Scores

PLAIN, SMOOTH = statements.MC


def compared(*differences, sign=-1, **others):
    seeds = dict(enumerate(differences))
    return Comparison("NLL", "nll", sign, dict.fromkeys(seeds, 0.0), seeds, **others)


@pytest.mark.parametrize(
    ("differences", "others", "verdict"),
    [
        # Without an interval: the sign of the paper for all seeds.
        ((-0.1, -0.2), {}, AGREES),
        ((0.1, 0.2), {}, DISAGREES),
        ((-0.1, 0.2), {}, OPEN),
        ((0.1, 0.2), {"sign": 1}, AGREES),
        ((-0.1, -0.2), {"sign": 1}, DISAGREES),
        ((-0.1, 0.0), {}, OPEN),
        # With one: the seeds do not decide.
        ((-0.1, 0.2), {"interval": (-0.3, -0.1)}, AGREES),
        ((-0.1, -0.2), {"interval": (-0.3, 0.1)}, OPEN),
        ((-0.1, -0.2), {"interval": (0.1, 0.2)}, DISAGREES),
        # "As well as": zero is enough, and only the worse side disagrees.
        ((-0.1, 0.2), {"interval": (-0.3, 0.1), "allows_zero": True}, AGREES),
        ((-0.1, 0.2), {"interval": (-0.3, -0.1), "allows_zero": True}, AGREES),
        ((0.1, 0.2), {"interval": (0.05, 0.3), "allows_zero": True}, DISAGREES),
    ],
)
def test_the_rule_of_the_statements(differences, others, verdict):
    assert compared(*differences, **others).verdict == verdict


def row(model, suite, seed=1, **values):
    smoothed = " + smoothing" if "smoothing" in model else ""
    name = "MC dropout" if "mcdo" in model else "Deterministic"
    about = {"run": f"runs/{model}-seed{seed}", "label": name + smoothed}
    return {"suite": suite, **about, **values}


def found(rows, differences=()):
    scores = Scores(rows, differences)
    return {each.number: each for each in statements.findings(scores)}


def pair(suite, numbers, **values):
    """Rows of both networks, with a number per seed for each of them.

    Args:
      suite: Name of the suite.
      numbers: Key -> (numbers without smoothing, numbers with it).
      values: What all rows have.
    """
    return [
        row(model, suite, seed, **values, **{k: v[i][seed] for k, v in numbers.items()})
        for i, model in enumerate(statements.MC)
        for seed in range(len(next(iter(numbers.values()))[0]))
    ]


def test_nothing_is_said_without_rows():
    assert all(
        each.verdict == OPEN and not each.comparisons for each in found([]).values()
    )
    # One network alone is no comparison, nor are different seeds.
    rows = [row(PLAIN, "hessian", 1, top_mean=3.0)]
    assert not found(rows)[6].comparisons
    rows += [row(SMOOTH, "hessian", 2, top_mean=1.0)]
    assert not found(rows)[6].comparisons


def test_scores_are_compared_by_the_intervals_of_their_differences():
    def scores(nll, accuracy, ece):
        return {"nll": nll, "accuracy": accuracy, "ece": ece}

    rows = [
        row(model, "ensemble", seed, num_samples=size, **scores(nll, 0.5, 0.1))
        for model, nlls in ((PLAIN, (2.0, 1.5)), (SMOOTH, (1.6, 1.4)))
        for size, nll in zip((2, 50), nlls, strict=True)
        for seed in (1, 2)
    ]
    label = "MC dropout + smoothing"
    differences = [
        {
            "label": f"{label} minus MC dropout",
            "num_samples": 2,
            "values": scores([-0.4, -0.5, -0.3], [0.0, -0.1, 0.1], [0.1, 0.05, 0.2]),
        },
        {
            "label": f"{label}, N = 2, minus MC dropout, N = 50",
            "num_samples": 2,
            "values": scores([0.1, 0.05, 0.15], [0.0, -0.1, 0.1], [0.0, 0.0, 0.0]),
        },
    ]
    findings = found(rows, differences)
    first = {each.key: each for each in findings[1].comparisons}
    assert first["nll"].interval == (0.05, 0.15)
    assert first["nll"].verdict == DISAGREES
    assert first["accuracy"].verdict == AGREES
    assert findings[1].verdict == OPEN
    second = {each.name: each.verdict for each in findings[2].comparisons}
    assert second["NLL at N = 2"] == AGREES
    assert second["accuracy at N = 2"] == OPEN
    assert second["ECE at N = 2"] == DISAGREES
    # No difference was computed for N = 50: the seeds decide.
    assert second["NLL at N = 50"] == AGREES


def test_deterministic_networks_are_compared_with_each_other():
    rows = [
        row(model, "ensemble", num_samples=1, nll=nll, accuracy=0.5, ece=0.1)
        for model, nll in zip(statements.DETERMINISTIC, (2.0, 1.0), strict=True)
    ]
    verdicts = {each.key: each.verdict for each in found(rows)[3].comparisons}
    assert verdicts == {"nll": AGREES, "accuracy": OPEN, "ece": OPEN}
    assert not found(rows)[2].comparisons


def test_means_over_corruptions_are_taken_and_not_single_corruptions():
    means = {
        "mean_nll": ((2.0, 2.1), (1.0, 1.1)),
        "mean_error": ((0.5, 0.5), (0.6,) * 2),
    }
    rows = pair("corruption", means, num_samples=10)
    single = {"mean_nll": ((0.0,), (9.0,)), "mean_error": ((0.0,), (9.0,))}
    rows += pair("corruption", single, num_samples=10, corruption="fog", severity=1)
    verdicts = {each.name: each.verdict for each in found(rows)[4].comparisons}
    assert verdicts == {
        "mean NLL at N = 10": AGREES,
        "mean error at N = 10": DISAGREES,
    }


def test_flatness_is_the_rise_towards_the_border():
    # The smoothed network is worse everywhere, and flatter.
    rows = pair("landscape", {"nll": ([0.1], [1.0]), "border_nll": ([0.9], [1.3])})
    (comparison,) = found(rows)[5].comparisons
    assert comparison.differences == pytest.approx([0.3 - 0.8])
    assert comparison.verdict == AGREES


def test_eigenvalues_are_compared():
    rows = pair("hessian", {"top_mean": ([9.0, 8.0, 7.0], [5.0, 4.0, 3.0])})
    assert found(rows)[6].verdict == AGREES


def test_the_pair_without_dropout_decides_nothing_about_flatness():
    rows = pair("hessian", {"top_mean": ([9.0, 8.0], [5.0, 4.0])})
    rows += [
        row(model, "hessian", top_mean=value)
        for model, value in zip(statements.DETERMINISTIC, (1.0, 2.0), strict=True)
    ]
    finding = found(rows)[6]
    assert finding.verdict == AGREES
    (other,) = finding.others
    assert other.differences == [1.0]
    scores = Scores(rows)
    text = statement_page.text(statements.findings(scores), scores)
    assert "| 6 | mean of the largest eigenvalues | 1 | 1.0 | 2.0 | +1.0 (" in text


def test_layers_are_compared_with_what_enters_them():
    rows = []
    for stage, after in ((1, 0.5), (2, 2.0)):
        for tap, value in ((f"stage{stage}", 1.0), (f"smooth{stage}", after)):
            rows.append(row(SMOOTH, "variance", tap=tap, relative_variance=value))
            for network in ("sample", "mean"):
                rows.append(
                    row(
                        SMOOTH,
                        "fourier",
                        tap=tap,
                        network=network,
                        high_delta=-value if network == "mean" else value,
                    )
                )
    findings = found(rows)
    for number in (7, 8):
        assert [each.verdict for each in findings[number].comparisons] == [
            AGREES,
            DISAGREES,
        ]
        assert findings[number].verdict == OPEN


def test_noise_is_measured_by_what_it_takes_away():
    accuracies = {None: (0.5, 0.6), 0.7: (0.4, 0.55), 0.8: (0.4, 0.5), 0.9: (0.3, 0.3)}
    rows = [
        row(model, "frequency", frequency=frequency, accuracy=both[i])
        for frequency, both in accuracies.items()
        for i, model in enumerate(statements.MC)
    ]
    verdicts = [each.verdict for each in found(rows)[9].comparisons]
    assert verdicts[0] == AGREES
    assert verdicts[2] == DISAGREES


def test_runs_of_one_type_have_it_in_their_names():
    rows = pair("hessian", {"top_mean": ([9.0], [5.0])})
    for each in rows:
        each["run"] = each["run"].replace("-seed", "-bfloat16-seed")
    assert found(rows)[6].verdict == AGREES
    with pytest.raises(ValueError, match="resnet-1 is not named MODEL-seedS"):
        Scores([{"suite": "ensemble", "run": "resnet-1"}])


def test_the_page_has_means_and_ranges_in_units():
    nlls, accuracies = (2.0, 2.2, 2.4), (0.41, 0.43, 0.42)
    rows = [
        row(PLAIN, "ensemble", seed, num_samples=1, nll=nll, accuracy=accuracy, ece=0.1)
        for seed, (nll, accuracy) in enumerate(zip(nlls, accuracies, strict=True))
    ]
    rows += pair("hessian", {"top_mean": ([9.0, 8.0], [5.0, 4.5])})
    scores = Scores(rows)
    text = statement_page.text(statements.findings(scores), scores)
    mean = statistics.fmean(nlls)
    assert (
        f"| MC dropout | 0, 1, 2 | 1 | {mean:.3f} (2.000 to 2.400) | "
        "42.00 (41.00 to 43.00) | 10.00 (10.00 to 10.00) |"
    ) in text
    assert (
        "| 6 | mean of the largest eigenvalues | 0, 1 | 8.5 (8.0 to 9.0) | "
        "4.8 (4.5 to 5.0) | -3.8 (seeds -4.0 to -3.5) | agrees |"
    ) in text
    assert "| 5 | the loss landscape is flatter | not evaluated yet |" in text


def test_the_page_of_the_medium_scale_is_that_of_its_rows():
    """Rows that suites made have the names by which statements find them."""
    folder = commands.ROOT / "results" / "cifar100_medium"
    content = json.loads((folder / "metrics.json").read_text())
    scores = Scores(content["rows"], content["differences"])
    findings = statements.findings(scores)
    assert all(finding.comparisons for finding in findings)
    text = statement_page.text(findings, scores)
    begin, end = statement_page.BEGIN, statement_page.END
    page = (folder / "README.md").read_text()
    assert page.partition(begin)[2].partition(end)[0] == f"\n\n{text}\n\n"


def test_the_page_keeps_what_is_written_by_hand(tmp_path):
    page = tmp_path / "README.md"
    statement_page.write(page, "first")
    page.write_text(f"# Before\n\n{page.read_text()}\n## After\n")
    statement_page.write(page, "second")
    begin, end = statement_page.BEGIN, statement_page.END
    assert page.read_text() == (f"# Before\n\n{begin}\n\nsecond\n\n{end}\n\n## After\n")
    page.write_text("# Another page\n")
    statement_page.write(page, "third")
    assert page.read_text() == f"# Another page\n\n{begin}\n\nthird\n\n{end}\n"
