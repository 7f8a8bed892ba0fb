import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from spatial_smoothing.runtime import cache


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def arrays():
    return np.arange(12, dtype=np.uint8).reshape(3, 4), np.float32([0.5])


def assert_cached(key, *, made):
    calls = []
    result = cache.cached("label", key, lambda: calls.append(1) or arrays())
    assert len(calls) == made
    for array, expected in zip(result, arrays(), strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def test_cache_is_made_once_per_key(own_cache):
    assert_cached(("a", 1, ["b"]), made=1)
    assert_cached(("a", 1, ["b"]), made=0)
    assert_cached(("a", 1, ["c"]), made=1)
    assert len(list(own_cache.iterdir())) == 2


def flip(data):
    return data[:130] + bytes([data[130] ^ 1]) + data[131:]


def pickled(_):
    buffer = io.BytesIO()
    np.savez(buffer, np.array([{}], dtype=object), *arrays())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-50], lambda data: b"", lambda data: b"junk", flip, pickled],
    ids=["truncated", "empty", "junk", "flipped bit", "pickled"],
)
def test_damaged_cache_is_made_again(damage, own_cache):
    assert_cached("key", made=1)
    (path,) = own_cache.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert_cached("key", made=1)
    assert path.read_bytes() == good
    assert_cached("key", made=0)


def test_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "file/cache"))
    assert_cached("key", made=1)
    assert_cached("key", made=1)


def test_failed_write_leaves_nothing(own_cache):
    code = (
        "import resource, numpy as np\nfrom spatial_smoothing.runtime import cache\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"  # as a full disk
        "(array,) = cache.cached('label', 'key', lambda: (np.arange(1000),))\n"
        "assert array.sum() == 499500"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert own_cache.is_dir()
    assert not list(own_cache.iterdir())


def test_cache_directory(monkeypatch):
    assert cache.cache_dir() == pathlib.Path(os.environ["SPATIAL_SMOOTHING_CACHE"])
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_dir() == pathlib.Path("/xdg/spatial_smoothing")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.cache_dir() == pathlib.Path("/home/someone/.cache/spatial_smoothing")
