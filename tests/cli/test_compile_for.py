"""`--compile_for`: what it prints and writes, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import pytest
from command_calls import called
from random_runs import write_run

from spatial_smoothing.cli import compile_for, config_fields, evaluate, start, train
from spatial_smoothing.configs import cifar100
from spatial_smoothing.runtime import chips, sharding, topologies
from spatial_smoothing.runtime.costs import Collective, Costs
from spatial_smoothing.runtime.topologies import Topology

COSTS = Costs(
    flops=3.94e12,
    bytes_accessed=9.19e9,
    kernels=812,
    arguments=2_000_000_000,
    outputs=1_900_000_000,
    aliased=1_800_000_000,
    temporaries=3_000_000_000,
    code=50_000_000,
    collectives=(Collective("all-reduce", 3, 102e6),),
    compile_seconds=245.0,
    once=1e9,
)


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """Leaves JAX as it was: the command switches its cache of programs off."""
    before = jax.config.jax_enable_compilation_cache
    yield
    jax.config.update("jax_enable_compilation_cache", before)


@pytest.fixture
def here(monkeypatch):
    """Puts the eight CPU devices in the place of any topology."""

    def topology(name):
        return Topology(name, chips.chip("v5e"), tuple(jax.devices()))

    monkeypatch.setattr(topologies, "topology", topology)


def work(**fields):
    devices = jax.devices()
    jitted = jax.jit(lambda x: x @ x)
    return compile_for.Work(
        **{
            "what": "a network on images: a training step of 512 images",
            "traced": jitted.trace(jnp.zeros((8, 8))),
            "mesh": sharding.mesh(devices=devices, members=2),
            "config": {"dtype": "bfloat16"},
            "images": 512,
            "parameters": 25_557_032,
            "in_loop": False,
            "remedies": ["a smaller batch_size", "--config.shard_state=True"],
            **fields,
        }
    )


V5E = Topology("v5e:2x4", chips.chip("v5e"), ())


def test_the_table():
    lines = compile_for.lines(work(), V5E, COSTS)
    assert max(map(len, lines)) <= 80
    assert "\n".join(line.rstrip() for line in lines) == "\n".join(
        [
            "a network on images: a training step of 512 images",
            "",
            "  devices              8 x v5e, mesh 2 member x 4 data",
            "  parameters           25,557,032",
            "  computes in          bfloat16",
            "",
            "  memory of a device   5.15 GB of 16.9 GB, 30%",
            "    arguments          2.00 GB",
            "    results            100 MB beside the arguments",
            "    temporaries        3.00 GB",
            "    code               50.0 MB",
            "",
            "  a step, one device   3.94 TFLOP, 9.19 GB moved, 812 kernels",
            "    intensity          429 FLOP a byte; 241 keep it busy",
            "    time by FLOPs      20 ms at least, 25.6 kimages/s at most",
            "    time by bandwidth  11.2 ms at least, 45.6 kimages/s at most",
            "    collectives",
            "      all-reduce       3, 102 MB together",
            "",
            "  compiled in          245 s",
        ]
    )


def test_a_step_of_a_loop_is_what_is_in_the_loop():
    record = compile_for.record(work(in_loop=True), V5E, COSTS)
    assert record["bytes"] == 8.19e9
    assert record["seconds_by_bandwidth"] == pytest.approx(0.01)
    assert record["seconds_by_flops"] == pytest.approx(0.02)
    assert record["images_per_second_by_flops"] == pytest.approx(25_600)
    assert record["memory"]["total"] == 5_150_000_000
    assert record["memory"]["fits"]
    assert record["mesh"] == {"member": 2, "data": 4}
    json.dumps(record)


def test_a_gpu_whose_peak_is_not_known():
    chip = chips.chip("h200")._replace(peak_bf16=None, peak_f32=None)
    where = Topology("card", chip, ())
    lines = compile_for.lines(work(), where, COSTS)
    assert any("the spec of the GPU has no peak" in line for line in lines)
    record = compile_for.record(work(), where, COSTS)
    assert record["images_per_second_by_flops"] is None


@pytest.mark.parametrize(
    ("text", "used", "had"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
            "memory space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by "
            "4.75G.\n\nTotal hbm usage >= 20.7G: reserved 258.00M",
            20.5,
            15.75,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
            "for HLO temporaries (181.15G) exceeds available HBM (31.25G).",
            181.15,
            31.25,
        ),
    ],
)
def test_what_xla_says_of_memory(text, used, had):
    assert compile_for.memory_in(text) == (used * 2**30, had * 2**30)
    assert compile_for.memory_in(text.replace("RESOURCE", "OTHER")) is None


def test_a_program_that_does_not_fit(capsys):
    """The table is printed, and then how much is lacking."""
    flags = start.new_flags()
    compile_for.define(flags, what="this")
    train.flags.DEFINE_string("output", None, "A file.", flag_values=flags)
    flags.mark_as_parsed()
    where = V5E._replace(chip=V5E.chip._replace(memory=100))
    with pytest.raises(ValueError, match=r"it does not fit: it needs \d+ B, \d+ B mor"):
        compile_for.report(flags, work(), where)
    assert "memory of a device" in capsys.readouterr().out


def config(**fields):
    config = cifar100.get_config()
    config.update(
        {"width": 4, "stages": (1,), "eval_batch_size": 8, "batch_size": 16, **fields}
    )
    return config_fields.read(config.to_dict())


def compiled(capsys, tmp_path, **fields):
    """Returns what is printed of a training step, and what is written."""
    path = tmp_path / "costs.json"
    train.FLAGS.unparse_flags()
    train.FLAGS(["train", "--compile_for=v5e:2x4", f"--output={path}"])
    train.compile_step(config(**fields))
    return capsys.readouterr().out, json.loads(path.read_text())


def test_a_training_step(here, capsys, tmp_path):
    """Two members of a network, whose data set is not here."""
    small = {"model": "alexnet_dnn", "head": "gap"}
    out, record = compiled(capsys, tmp_path, members=2, data_dir="/nowhere", **small)
    assert out.startswith("alexnet_dnn on cifar100: a training step of 32 images")
    assert record["mesh"] == {"member": 2, "data": 4}
    assert record["config"]["members"] == 2
    # The images of CIFAR are among the arguments of each device.
    assert 50_000 * 32 * 32 * 3 < record["memory"]["arguments"] < 52_000 * 32 * 32 * 3
    assert "all-reduce" in {one["kind"] for one in record["collectives"]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 12}, "batch_size 12 cannot be divided by 8 devices; use a mul"),
        ({"eval_batch_size": 9}, "eval_batch_size 9 cannot be divided by 8"),
        ({"batch_size": 60_000}, "is more than the 50000 examples"),
        (
            {"dataset": "imagenet", "stem": "imagenet", "members": 2},
            "members are trained at once on data sets in memory only",
        ),
    ],
)
def test_steps_that_training_would_refuse(here, fields, message, tmp_path, capsys):
    with pytest.raises(ValueError, match=message):
        compiled(capsys, tmp_path, **fields)


def test_outputs(tmp_path):
    train.FLAGS.unparse_flags()
    train.FLAGS(["train", "--compile_for=v5e:2x4", "--output=folder"])
    with pytest.raises(ValueError, match=r"--output must be a file FILE.json, got fol"):
        compile_for.is_asked(train.FLAGS)


def test_remedies():
    mesh = sharding.mesh(4)
    found = compile_for.training_remedies(config(dtype="float32"), mesh)
    assert found[0] == "--config.dtype=bfloat16"
    assert found[-1] == "--config.shard_state=True"
    assert len(compile_for.training_remedies(config(dtype="bfloat16"), mesh)) == 3


def test_an_evaluation(here, capsys, tmp_path):
    """It needs a config and no checkpoint."""
    workdir = tmp_path / "run"
    small = {"dtype": "float32"}
    write_run(workdir, model="resnet_mcdo_18", dataset="cifar10", **small)
    (workdir / "checkpoints" / "7").rename(tmp_path / "elsewhere")
    path = tmp_path / "costs.json"
    call = (evaluate, f"--workdir={workdir}", "--compile_for=v5e:2x4")
    numbers = ("--num_samples=4", "--chunk=2", "--batch_size=16")
    called(*call, *numbers, f"--output={path}")
    assert (
        "resnet_mcdo_18 on cifar10: 4 samples of 16 images" in capsys.readouterr().out
    )
    record = json.loads(path.read_text())
    assert (record["num_devices"], record["images"]) == (8, 16)
    with pytest.raises(
        ValueError, match="--suite changes nothing of what --compile_fo"
    ):
        called(*call, "--suite=fourier")
    with pytest.raises(
        ValueError, match="batch_size 12 cannot be divided by 8 devices"
    ):
        called(*call, "--batch_size=12")


@pytest.mark.compilers
@pytest.mark.parametrize(
    ("name", "platform"), [("v5e:2x2", "tpu"), ("h200:2", "cuda")], ids=str
)
def test_a_step_for_an_accelerator(name, platform, capsys, tmp_path):
    if not topologies.is_available(platform):
        pytest.skip(f"no compiler for {platform}")
    train.FLAGS.unparse_flags()
    path = tmp_path / "costs.json"
    train.FLAGS(["train", f"--compile_for={name}", f"--output={path}"])
    train.compile_step(config(model="resnet_dnn_18", dtype="bfloat16"))
    out, record = capsys.readouterr().out, json.loads(path.read_text())
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert record["memory"]["fits"]
    assert record["flops"] > 0 < record["bytes"]
    assert {one["kind"] for one in record["collectives"]} == {"all-reduce"}
