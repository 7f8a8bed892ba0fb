import pathlib

import pytest

from spatial_smoothing.data import file_names

HIDDEN = (
    *(".DS_Store", "._photo.jpg", ".ipynb_checkpoints", ".hidden.png"),
    *("Thumbs.db", "thumbs.db", "desktop.ini", "__MACOSX"),
)


@pytest.mark.parametrize("name", HIDDEN)
def test_what_systems_leave_behind_is_hidden(name, tmp_path):
    assert file_names.is_hidden(name)
    (tmp_path / name).touch()
    (tmp_path / "b.jpg").touch()
    (tmp_path / "a").mkdir()
    assert [path.name for path in file_names.visible(tmp_path)] == ["a", "b.jpg"]


@pytest.mark.parametrize("name", ["a.jpg", "_a.png", "MACOSX", "thumbs.db.png", "a.b"])
def test_other_names_are_visible(name):
    assert not file_names.is_hidden(name)


SUFFIXES = ("jpg", "JPEG", "jpe", "jfif", "png", "WebP", "bmp", "gif", "TIFF", "pgm")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_suffixes_of_images(suffix):
    assert file_names.has_image_suffix(f"a.{suffix}")
    assert not file_names.has_image_suffix(f"a.{suffix}.txt")
    assert not file_names.has_image_suffix(f"a{suffix}")


def test_names_that_are_not_utf_8_are_refused_in_one_line():
    for good in ("a", "Übung", "猫", "gs://bucket/猫", pathlib.Path("a/b")):
        file_names.check_text(good)
    with pytest.raises(ValueError, match=r"name of /data/cl\\udce9 is not UTF-8") as e:
        file_names.check_text(pathlib.Path("/data/cl\udce9"))
    str(e.value).encode()
    assert "\n" not in str(e.value)


def test_differences_of_names():
    difference = file_names.difference
    assert difference(["b", "a"], ["a", "b"]) == ""
    assert difference(["a"], ["a", "b"]) == "lacks 1 classes: b"
    assert difference(["a", "c"], ["b", "a"]) == (
        "lacks 1 classes: b and also has 1 classes: c"
    )
    assert difference([], list("abcd")) == "lacks 4 classes: a, b, c, ..."
