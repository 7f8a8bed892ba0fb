import jax
import numpy as np
import pytest

from spatial_smoothing.data import shapes
from spatial_smoothing.data.corruption import perturbations, perturbed_sets, transforms
from spatial_smoothing.data.datasets import Dataset

CLEAN = Dataset(*shapes.generate("test", size=5))
NUMBERS = np.array([0, 2, 4])


def sequences(found, name, batch_size=2):
    """Frames u8[T, N, H, W, 3] of the chosen examples, without padding."""
    parts = found.batches(name, NUMBERS, batch_size=batch_size)
    return np.concatenate(
        [np.asarray(frames)[:, mask] for frames, mask in parts], axis=1
    )


def test_sequences_are_made_as_perturbations_make_them():
    found = perturbed_sets.generated(CLEAN)
    key = jax.random.key(transforms.SEED)
    expected = perturbations.sequence(key, CLEAN.images, "gaussian_noise")
    expected = np.asarray(expected)[:, NUMBERS]
    np.testing.assert_array_equal(sequences(found, "gaussian_noise"), expected)
    assert (found.data, found.num_examples) == ("perturbed (generated)", 5)
    assert found.deviations == {"motion_blur": "emulated"}
    with pytest.raises(ValueError, match="unknown perturbation 'fog'"):
        found.check("fog")


def test_sequences_are_read_from_folders(tmp_path):
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (5, 16, 32, 32, 3), np.uint8)
    folder = tmp_path / "CIFAR-10-P"
    folder.mkdir()
    np.save(folder / "translate.npy", stored)
    found = perturbed_sets.read(folder, image_size=32)
    assert (found.data, found.num_examples) == ("perturbed (CIFAR-10-P)", 5)
    expected = stored[NUMBERS].swapaxes(0, 1)
    np.testing.assert_array_equal(sequences(found, "translate"), expected)

    np.save(folder / "rotate.npy", np.zeros((4, 31, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"rotate.npy has 4 sequences, others 5"):
        found.check("rotate")
    with pytest.raises(ValueError, match=r"frames \[32, 32, 3\], not \[64, 64, 3\]"):
        perturbed_sets.read(folder, image_size=64).check("translate")
    with pytest.raises(ValueError, match=r"no file .*tilt.npy \(there: translate, rot"):
        found.check("tilt")
    with pytest.raises(ValueError, match="holds no sequences"):
        perturbed_sets.read(tmp_path, image_size=32)
