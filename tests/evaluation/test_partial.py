import pytest

from spatial_smoothing.evaluation.suites import finish
from spatial_smoothing.evaluation.suites.partial import Partial

ABOUT = {"runs": [["a", 10]], "sizes": (1, 2)}
ROWS = [{"nll": 0.1}, {"nll": 2.5, "label": "b"}]


@pytest.fixture
def path(tmp_path):
    partial = Partial(tmp_path / "new", "landscape", ABOUT)
    for row in ROWS:
        partial.append(row)
    return tmp_path / "new" / "landscape.partial.jsonl"


def test_rows_come_back(path):
    again = Partial(path.parent, "landscape", ABOUT)
    assert again.rows == ROWS
    again.append({"nll": 3.0})
    assert Partial(path.parent, "landscape", ABOUT).rows == [*ROWS, {"nll": 3.0}]


def test_rows_of_another_evaluation_are_dropped(path):
    assert Partial(path.parent, "landscape", {**ABOUT, "runs": []}).rows == []
    assert Partial(path.parent, "landscape", ABOUT).rows == []


@pytest.mark.parametrize("cut", [1, 5, 24])
def test_a_last_line_cut_short_is_made_again(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    partial = Partial(path.parent, "landscape", ABOUT)
    assert partial.rows == (ROWS if cut == 1 else ROWS[:1])
    partial.append({"nll": 4.0})
    assert Partial(path.parent, "landscape", ABOUT).rows[-1] == {"nll": 4.0}


@pytest.mark.parametrize("content", ["", "{", "1\n2\n", '{"a": 1}\nx'])
def test_a_file_of_something_else_is_replaced(path, content):
    path.write_text(content)
    assert Partial(path.parent, "landscape", ABOUT).rows == []


def test_finish_deletes(path):
    finish(path.parent, "landscape")
    assert not path.exists()
    finish(path.parent, "landscape")
