import math

import pytest
from report_rows import curve, demo, make_row, scored, with_intervals
from rich.console import Console

from spatial_smoothing import report


def printed(rows, **options):
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(report.table(rows, **options))
    return capture.get().splitlines()


def test_table_fits_80_columns():
    rows = [row for name in "abcdef" for row in curve((name + " name") * 7)]
    lines = printed(rows)
    assert max(map(len, lines)) <= 80
    for row in rows:
        numbers = f"{row['nll']:.3f} {100 * row['accuracy']:.2f} {100 * row['ece']:.2f}"
        found = [line.split()[-4:-1] for line in lines]
        assert numbers.split() in found
    header = "Model N NLL Accuracy % ECE % Brier"
    assert header in [" ".join(line.split()) for line in lines]


def test_table_shows_each_label_once_and_marks_the_best():
    rows = demo()
    lines = printed(rows)
    assert sum("MC dropout + smoothing" in line for line in lines) == 1
    nll = list(report.table(rows).columns[2].cells)
    bold = [cell.plain for cell in nll if cell.style == "bold"]
    assert bold == [f"{min(row['nll'] for row in rows):.3f}"] * 2  # a tie
    single = report.table(rows[:1]).columns[2].cells
    assert [cell.style for cell in single] == [""]


def test_table_takes_markup_as_text_and_other_columns():
    rows = curve("[bold]a[/]")
    assert any("[bold]a[/]" in line for line in printed(rows))
    rows[0]["signed_ece"] = -1e-9
    lines = printed(rows, columns=("label", "signed_ece", "split"))
    assert any(line.split()[-2:] == ["0.00", "test"] for line in lines)
    assert any(line.split() == ["-1.10", "test"] for line in lines)
    with pytest.raises(ValueError, match="unknown column 'nil'; did you mean 'nll'"):
        report.table(rows, columns=("nil",))


def test_print_table_prints_it(capsys):
    report.print_table(demo())
    assert "MC dropout + smoothing" in capsys.readouterr().out


def test_table_with_intervals_fits_80_columns():
    names = ("MC dropout + smoothing", "Deterministic + smoothing")
    rows = [with_intervals(row, half=0.0111) for n in names for row in curve(n)]
    lines = printed([*rows, *curve("Deterministic", sizes=(1,))])
    assert max(map(len, lines)) <= 80
    assert all(any(f" {name} " in line for line in lines) for name in names)
    row = rows[0]
    expected = [
        f"{row['nll']:.3f}±0.011",
        f"{100 * row['accuracy']:.2f}±1.11",
        f"{100 * row['ece']:.2f}±1.11",
        f"{row['brier']:.3f}±0.011",
    ]
    assert [*names[0].split(), "1", *expected] in [line.split() for line in lines]
    assert "±: half of the 95 % bootstrap interval over the test images" in (
        line.strip() for line in lines
    )


def test_values_stand_below_each_other_with_and_without_intervals():
    rows = [with_intervals(make_row("a", 1)), make_row("b", 1)]
    rows += [make_row("c", 1, nll=10.5), with_intervals(make_row("d", 1, accuracy=1.0))]
    lines = [
        line for line in printed(rows) if line.split() and line.split()[0] in "abcd"
    ]
    for number in range(2, 6):
        values = [line.split()[number].split("±")[0] for line in lines]
        points = [line.index(v) + len(v) for line, v in zip(lines, values, strict=True)]
        assert len(set(points)) == 1


def test_table_averages_runs():
    rows = [make_row("a", 1, nll=nll, run=str(nll)) for nll in (0.7, 0.8, 1.2)]
    lines = printed(rows, columns=("label", "nll"))
    assert ["a", "3", "0.900↕0.250"] in [line.split() for line in lines]
    assert "↕: half of the range over 3 runs" in " ".join(" ".join(lines).split())


def test_seeds_and_intervals_have_signs_of_their_own_and_runs_are_counted():
    rows = [make_row("a", 1, nll=nll, run=str(nll)) for nll in (0.7, 0.8)]
    rows.append(with_intervals(make_row("b", 1, nll=0.6, run="b"), keys=["nll"]))
    lines = printed(rows, columns=("label", "num_samples", "nll"))
    words = [line.split() for line in lines]
    assert ["Model", "N", "Runs", "NLL"] in words
    assert ["a", "1", "2", "0.750↕0.050"] in words
    assert ["b", "1", "1", "0.600±0.010"] in words
    # One run is not the best beside a mean of two.
    cells = list(report.table(rows).columns[3].cells)
    assert [cell.style for cell in cells] == ["", ""]
    alone = printed([rows[0]])
    assert "1 run each" in [line.strip() for line in alone]
    assert "Runs" not in " ".join(alone)


def test_what_is_undefined_is_a_dash():
    rows = [make_row("a", 1), make_row("b", 1, accuracy_90=math.nan)]
    rows[1]["nll"] = None
    table = report.table(rows, columns=("label", "nll", "accuracy_90"))
    nll, share = (list(column.cells) for column in table.columns[1:])
    assert [cell.plain.strip() for cell in nll] == ["0.833", "–"]
    assert [cell.plain.strip() for cell in share] == ["91.00", "–"]
    assert {cell.style for cell in (*nll, *share)} == {""}


def test_detection_is_printed_too(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [scored("MC dropout + smoothing", n, shift=n / 100) for n in (1, 5)]
    report.print_rows([*rows, make_row("b", 1)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (title,) = [index for index, line in enumerate(lines) if "Out-of-dist" in line]
    assert "against noise" in lines[title]
    found = [line.split() for line in lines[title:]]
    assert ["Model", "N", "Confidence", "Entropy", "Mutual", "Energy"] in found
    assert ["MC", "dropout", "+", "smoothing", "1", *["81.00"] * 2, "–", "81.00"] in (
        found
    )
    assert ["5", "85.00", "85.00", "85.00", "85.00"] in found
    report.print_rows(demo())
    assert "Out-of-dist" not in capsys.readouterr().out


def test_names_with_brackets_are_no_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    name = "MC dropout (runs/[lr=0.1] [/b])"
    rows = [{**scored(name, 1), "run": "[a]"}]
    about = {"suite": "frequency", "label": name, "num_samples": 1, "accuracy": 0.5}
    noisy = [{**about, "frequency": 0.1, "run": run} for run in ("x/[a]", "x/[b]")]
    report.print_rows([*rows, *noisy])
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("[lr=0.1] [/b])") == 4
    assert f"{name} ([a])" in text
    assert f"{name} ([b])" in text
