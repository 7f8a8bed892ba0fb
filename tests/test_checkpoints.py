import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spatial_smoothing.checkpoints import Checkpoints, abstract, fingerprint


def tree(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.standard_normal((3, 5)), jnp.float32),
        "half": jnp.asarray(rng.standard_normal(7), jnp.bfloat16),
        "step": jnp.int32(seed),
        "flag": jnp.bool_(True),
    }


def shapes():
    return abstract(tree(), jax.sharding.SingleDeviceSharding(jax.devices()[0]))


def save(directory, steps, **options):
    with Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"state": tree(step)}, {"note": step})


def restore(directory, **options):
    with Checkpoints(directory, **options) as checkpoints:
        return checkpoints.restore(state=shapes())


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def files(directory, step):
    """Files of a checkpoint that hold its numbers, largest first."""
    found = [path for path in (directory / str(step)).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: -path.stat().st_size)


def test_what_comes_back_is_what_was_saved(tmp_path):
    save(tmp_path / "c", [3, 7])
    step, items, metadata = restore(tmp_path / "c")
    assert (step, metadata) == (7, {"note": 7})
    assert same(items["state"], tree(7))


def test_nothing_saved_is_none(tmp_path):
    assert restore(tmp_path / "c") is None
    assert restore(tmp_path / "c", read_only=True) is None


def test_old_ones_are_deleted_and_a_step_is_saved_once(tmp_path):
    save(tmp_path / "c", [1, 2, 2, 3], max_to_keep=2)
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.steps() == [2, 3]


@pytest.mark.parametrize("damage", ["truncated", "deleted", "flipped"])
def test_damaged_newest_gives_way_to_the_one_before(damage, tmp_path, caplog):
    save(tmp_path / "c", [1, 2])
    for path in files(tmp_path / "c", 2):
        content = path.read_bytes()
        if damage == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "deleted":
            path.unlink()
        elif path.parent.name == "d":  # the files of values
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )
    with caplog.at_level(logging.WARNING, "spatial_smoothing"):
        step, items, _ = restore(tmp_path / "c")
    assert step == 1
    assert same(items["state"], tree(1))
    assert "c/2 is damaged" in caplog.text
    # It is moved, not deleted, so that step 2 can be saved again.
    assert (tmp_path / "damaged_checkpoints" / "2").exists()
    save(tmp_path / "c", [2])
    assert restore(tmp_path / "c").step == 2


def test_bits_that_orbax_reads_without_complaint_are_checked(tmp_path):
    save(tmp_path / "c", [1, 2])
    path = tmp_path / "c" / "2" / "metadata" / "metadata"
    record = json.loads(path.read_text())
    record["fingerprints"]["state"][0] ^= 1
    path.write_text(json.dumps(record))
    assert restore(tmp_path / "c").step == 1


def test_reader_moves_nothing(tmp_path):
    save(tmp_path / "c", [1, 2])
    for path in files(tmp_path / "c", 2):
        path.write_bytes(b"")
    assert restore(tmp_path / "c", read_only=True).step == 1
    assert (tmp_path / "c" / "2").exists()


def test_only_damaged_ones_is_an_error(tmp_path):
    save(tmp_path / "c", [1])
    for path in files(tmp_path / "c", 1):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no usable checkpoint in .*: 1 damaged"):
        restore(tmp_path / "c")


def test_fingerprint_changes_with_every_bit():
    before = fingerprint(tree())
    assert before == fingerprint(tree())
    kernel = np.asarray(tree()["kernel"])
    for position in range(kernel.size):
        for bit in (0, 15, 31):
            words = kernel.view(np.uint32).copy().ravel()
            words[position] ^= np.uint32(1) << np.uint32(bit)
            changed = words.view(np.float32).reshape(kernel.shape)
            assert fingerprint({**tree(), "kernel": jnp.asarray(changed)}) != before


def test_fingerprint_is_that_of_shards():
    mesh = jax.make_mesh((len(jax.devices()),), ("data",))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    values = jnp.arange(64.0).reshape(16, 4)
    assert fingerprint(values) == fingerprint(jax.device_put(values, spec))
