import jax
import pytest

from spatial_smoothing.runtime import compilation

NAMES = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """No directory chosen; restores JAX's settings afterwards."""
    monkeypatch.setenv("SPATIAL_SMOOTHING_CACHE", str(tmp_path / "cache"))
    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.config.update("jax_compilation_cache_dir", None)
    yield lambda: [getattr(jax.config, name) for name in NAMES[:2]]
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_cache_of_the_package(settings, tmp_path):
    compilation.keep_programs()
    assert settings() == [str(tmp_path / "cache" / "jax"), True]
    assert (tmp_path / "cache" / "jax").is_dir()


def test_the_users_own_choice_comes_first(settings, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    compilation.keep_programs()
    assert settings() == [str(tmp_path / "own"), True]


def test_it_can_be_switched_off(settings):
    compilation.forget_programs()
    assert settings() == [None, False]


def test_a_place_that_cannot_be_written_is_no_reason_to_fail(settings, tmp_path):
    (tmp_path / "cache").write_text("a file")
    compilation.keep_programs()
    assert settings() == [None, True]
