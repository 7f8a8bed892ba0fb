import pytest

from spatial_smoothing.cli import folders


@pytest.fixture(autouse=True)
def _there(tmp_path, monkeypatch):
    for name in ("a", "b", "lr=0.1,bs=16", "lr=0.1,bs=16,wd=1", "x,y", "x", "y"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a"], ["a"]),
        (["a,b"], ["a", "b"]),
        (["a", "b"], ["a", "b"]),
        (["none,a"], ["none", "a"]),
        (["lr=0.1,bs=16"], ["lr=0.1,bs=16"]),
        (["a,lr=0.1,bs=16,b"], ["a", "lr=0.1,bs=16", "b"]),
        (["lr=0.1,bs=16,wd=1"], ["lr=0.1,bs=16,wd=1"]),
        (["lr=0.1,bs=32"], ["lr=0.1", "bs=32"]),
        (["gs://bucket/a"], ["gs://bucket/a"]),
    ],
)
def test_commas_separate_folders_and_may_be_in_a_name(values, expected):
    assert folders.split("workdir", values) == expected


def test_what_can_be_read_in_two_ways_is_refused():
    message = "--workdir=x,y can be one folder or 2, for all of them are there"
    with pytest.raises(ValueError, match=message):
        folders.split("workdir", ["x,y"])
    assert folders.split("workdir", ["x", "y"]) == ["x", "y"]


@pytest.mark.parametrize("values", [["a,b,a"], ["a", "./b/../a"]])
def test_a_folder_twice_is_refused(values):
    with pytest.raises(ValueError, match="--compare must name each value once, got /"):
        folders.split("compare", values)
