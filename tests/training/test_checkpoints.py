import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from disks import make_read_only

from spatial_smoothing.training.checkpoints import Checkpoints, abstract, fingerprint


def tree(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.standard_normal((3, 5)), jnp.float32),
        "half": jnp.asarray(rng.standard_normal(7), jnp.bfloat16),
        "step": jnp.int32(seed),
        "flag": jnp.bool_(True),
    }


def shapes():
    return abstract(
        tree(), sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    )


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


def test_only_damaged_ones_is_an_error_and_moves_nothing(tmp_path):
    save(tmp_path / "c", [1, 2])
    for step in (1, 2):
        for path in files(tmp_path / "c", step):
            path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no usable checkpoint in .*: 2 damaged"):
        restore(tmp_path / "c")
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("x64", [False, True])
def test_types_that_were_saved_are_converted_and_not_called_damage(x64, tmp_path):
    """Saved with or without 64-bit types, and read the other way."""
    with jax.enable_x64(x64):
        third, count = jnp.ones(3) / 3, jnp.arange(4)  # of the widest types
        kind = jnp.asarray(1.0).dtype
        assert kind == (jnp.float64 if x64 else jnp.float32)
        with Checkpoints(tmp_path / "c") as checkpoints:
            checkpoints.save(1, {"state": {"a": third, "b": (count,)}}, {})
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with jax.enable_x64(not x64):
        wanted = {
            "a": jax.ShapeDtypeStruct((3,), jnp.asarray(1.0).dtype),
            "b": (jax.ShapeDtypeStruct((4,), jnp.float32),),  # counts of older versions
        }
        with Checkpoints(tmp_path / "c") as checkpoints:
            found = checkpoints.restore(state=abstract(wanted, sharding=device))
        state = found.items["state"]
        assert state["a"].dtype == jnp.asarray(1.0).dtype
        np.testing.assert_allclose(state["a"], np.ones(3) / 3, rtol=1e-7)
        assert state["b"][0].dtype == jnp.float32
        np.testing.assert_array_equal(state["b"][0], np.arange(4))
    assert not (tmp_path / "damaged_checkpoints").exists()


def test_damage_of_a_checkpoint_with_other_types_is_found(tmp_path):
    save(tmp_path / "c", [1, 2])
    path = tmp_path / "c" / "2" / "metadata" / "metadata"
    record = json.loads(path.read_text())
    record["fingerprints"]["state"][0] ^= 1
    path.write_text(json.dumps(record))
    wanted = {**shapes(), "step": jax.ShapeDtypeStruct((), jnp.float32)}
    wanted = abstract(
        wanted, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    )
    with Checkpoints(tmp_path / "c") as checkpoints:
        found = checkpoints.restore(state=wanted)
    assert found.step == 1
    assert found.items["state"]["step"].dtype == jnp.float32


def test_asked_for_something_else_moves_nothing(tmp_path):
    save(tmp_path / "c", [1, 2])
    one = {"kernel": shapes()["kernel"]}
    with Checkpoints(tmp_path / "c") as checkpoints:
        with pytest.raises(ValueError, match="no usable checkpoint"):
            checkpoints.restore(state=one)
        assert checkpoints.steps() == [1, 2]


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_removed(tmp_path):
    save(tmp_path / "c", [1])
    half = tmp_path / "c" / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "c" / "1", half)
    assert restore(tmp_path / "c", read_only=True).step == 1
    assert half.exists()
    save(tmp_path / "c", [2])
    assert not half.exists()
    assert restore(tmp_path / "c").step == 2


def filling(step):
    """An item of which 8 MiB hold two."""
    rng = np.random.default_rng(step)
    return {"state": {"w": jnp.asarray(rng.standard_normal(900_000), jnp.float32)}}


FULL = (
    r"cannot save checkpoint 3 in .*/c: No space left on device, [\d.]+ of 8.4 MB are "
    r"free; 2 is complete; put that right, and the same command continues"
)


def looks(checkpoints):
    while True:
        checkpoints.check()


NOTICED = {
    "by the next save": lambda checkpoints: checkpoints.save(4, filling(4), {}),
    "by a look": looks,
    "at the end": Checkpoints.close,
}


@pytest.mark.parametrize("noticed", NOTICED)
def test_full_disk_loses_nothing(noticed, small_disk):
    checkpoints = Checkpoints(small_disk / "c", max_to_keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, filling(step), {})
    with pytest.raises(OSError, match=FULL):
        NOTICED[noticed](checkpoints)
    checkpoints.close()
    with Checkpoints(small_disk / "c", max_to_keep=1) as checkpoints:
        like = abstract(
            filling(2), sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
        )
        step, items, _ = checkpoints.restore(**like)
        assert step == 2
        assert same(items, filling(2))
        shutil.rmtree(small_disk / "c" / "1")  # makes space
        checkpoints.save(3, filling(3), {})
    assert [path.name for path in (small_disk / "c").iterdir()] == ["3"]


def test_read_only_disk(small_disk):
    save(small_disk / "c", [1])
    make_read_only(small_disk)
    assert restore(small_disk / "c", read_only=True).step == 1
    checkpoints = Checkpoints(small_disk / "c")
    assert checkpoints.restore(state=shapes()).step == 1
    message = "cannot save checkpoint 2 in .*: Read-only file system; 1 is complete"
    with pytest.raises(OSError, match=message):
        checkpoints.save(2, {"state": tree()}, {})
    checkpoints.close()


@pytest.mark.parametrize("is_open", [True, False])
def test_deleted_below_a_writer(is_open, tmp_path):
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "c", [1])
    checkpoints = Checkpoints(tmp_path / "run" / "c")
    if is_open:
        checkpoints.restore(state=shapes())
    shutil.rmtree(tmp_path / "run")
    message = r"cannot save checkpoint 2 in .*/run/c: .*/run is gone; there is none"
    with pytest.raises(OSError, match=message):
        checkpoints.save(2, {"state": tree()}, {})
    checkpoints.close()
    assert not (tmp_path / "run").exists()


def test_back_and_forth_between_topologies(tmp_path):
    """Saved on eight devices, split and whole; read on one; and the other way round."""
    many = jax.make_mesh((8,), ("data",))
    one = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    values = {"split": jnp.arange(64.0).reshape(16, 4), "whole": jnp.arange(3.0)}
    specs = {"split": jax.P("data"), "whole": jax.P()}
    on = lambda mesh: {n: jax.NamedSharding(mesh, spec) for n, spec in specs.items()}
    placed = jax.device_put(values, on(many))
    for step, mesh in enumerate((one, many, one)):
        with Checkpoints(tmp_path / "c") as checkpoints:
            checkpoints.save(step, {"state": placed}, {})
            checkpoints.close()
            like = jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                values,
                on(mesh),
            )
            placed = checkpoints.restore(state=like).items["state"]
        assert {n: x.sharding for n, x in placed.items()} == on(mesh)
        assert same(placed, values)


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
