"""Chips, topologies without devices, and what programs for them cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from spatial_smoothing.runtime import chips, topologies
from spatial_smoothing.runtime.costs import Collective, costs, matrix_flops

needs = {
    platform: pytest.mark.skipif(
        not topologies.is_available(platform), reason=f"no compiler for {platform}"
    )
    for platform in ("tpu", "cuda")
}


def test_chips_have_what_their_makers_say():
    for name, chip in chips.CHIPS.items():
        assert chip.name == name
        assert 15e9 < chip.memory < 200e9
        assert 0.8e12 < chip.bandwidth < 1e13
        assert 1e14 < chip.peak_f32 <= chip.peak_bf16 < 3e15
        assert chip.source
    assert chips.chip("v5e").peak_bf16 == 197e12
    with pytest.raises(ValueError, match=r"unknown chip 'h20'; did you mean 'h200'\?"):
        chips.chip("h20")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v9:2x2", "unknown topology 'v9'; did you mean 'v4'"),
        ("v5e", "no shape of a slice; write it as v5e:2x2"),
        ("v5e:two", "write it as v5e:2x2"),
        ("v5p:4x4", "a slice of v5p has 3 axes, as in v5p:2x2x2, got v5p:4x4"),
        ("v5e:3x3", "there is no slice v5e:3x3: the first two sizes are even"),
        ("v5e:32x32", "v5e has at most 256 chips"),
        ("h200:9", "h200:9 has 9 GPUs; choose 1 to 8"),
        ("h200x", "did you mean 'h200'"),
    ],
)
def test_unknown_topologies(name, message):
    with pytest.raises(ValueError, match=message):
        topologies.topology(name)


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(topologies, "is_available", lambda platform: False)
    with pytest.raises(ValueError, match=r"libtpu, .* 'spatial-smoothing\[tpu\]'$"):
        topologies.topology("v5e:2x2")
    with pytest.raises(ValueError, match=r"plugin, .* 'spatial-smoothing\[gpu\]'$"):
        topologies.topology("h200")


@needs["cuda"]
@pytest.mark.parametrize(
    "message",
    [
        "INTERNAL: libdevice not found at ./libdevice.10.bc",
        "UNAVAILABLE: No PTX compilation provider is available. Neither ptxas/nvlink "
        "nor nvjtlink is available.",
    ],
)
def test_parts_of_cuda_that_are_missing_are_named(monkeypatch, message):
    def compile_(*_):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_)
    remedy = (
        r"needs ptxas and libdevice .* 'spatial-smoothing\[gpu\]', or set CUDA_HOME"
    )
    with pytest.raises(ValueError, match=remedy):
        topologies.topology("h200")


@needs["cuda"]
def test_other_errors_of_the_compiler_are_not_explained_away(monkeypatch):
    def compile_(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        topologies.topology("h200")


def test_a_file_that_is_no_spec_of_a_gpu(tmp_path):
    path = tmp_path / "card.txtpb"
    path.write_text("gpu_device_info { memory_bandwidth: 5 }")
    with pytest.raises(ValueError, match="no field device_memory_size"):
        topologies.topology(str(path))


def test_specs_say_what_the_table_says():
    for path in topologies._SPECS.glob("*.txtpb"):
        found = topologies._chip_of_spec(str(path), path.read_text())
        chip = chips.chip(path.stem)
        assert found.memory == chip.memory
        np.testing.assert_allclose(found.bandwidth, chip.bandwidth, rtol=0.05)


def convolved(images, kernel, **options):
    return jax.lax.conv_general_dilated(
        images, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 3])
def test_flops_of_convolutions_and_their_gradients(stride, groups):
    """They are what XLA counts, which leaves out padding and zeros too."""
    images = jnp.zeros((2, 9, 8, 6))
    kernel = jnp.zeros((3, 3, 6 // groups, 12))

    def forward(images, kernel):
        options = {"window_strides": (stride, stride), "padding": "SAME"}
        return convolved(images, kernel, feature_group_count=groups, **options)

    def of_images(cotangent):
        return jax.linear_transpose(lambda x: forward(x, kernel), images)(cotangent)

    def of_kernel(cotangent):
        return jax.linear_transpose(lambda x: forward(images, x), kernel)(cotangent)

    result = forward(images, kernel)
    for function, arguments in (
        (forward, (images, kernel)),
        (of_images, (result,)),
        (of_kernel, (result,)),
    ):
        traced = jax.jit(function).trace(*arguments)
        counted = traced.lower().cost_analysis()["flops"]
        assert matrix_flops(traced.jaxpr) == counted > 0


def test_flops_of_loops_branches_and_members():
    matrix, one = jnp.zeros((8, 8)), 2 * 8**3

    def repeated(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=5)[0]

    def chosen(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    @jax.custom_jvp
    def given(x):
        return x @ x

    given.defjvp(lambda x, tangent: (x[0], tangent[0]))
    mesh = jax.make_mesh((2, 4), ("member", "data"), axis_types=(AxisType.Auto,) * 2)
    split = jax.shard_map(
        lambda x: x @ x.T,
        mesh=mesh,
        in_specs=PartitionSpec("member"),
        out_specs=PartitionSpec("member"),
        axis_names={"member"},
    )
    for function, flops in (
        (repeated, 5 * one),
        (chosen, 2 * one),
        (jax.checkpoint(repeated), 5 * one),
        (given, one),
        (split, 2 * (2 * 4 * 4 * 8)),
        (lambda x: jax.lax.while_loop(lambda x: x[0, 0] > 0, given, x), one),
    ):
        assert matrix_flops(jax.jit(function).trace(matrix).jaxpr) == flops


def compiled_for(name):
    """Returns a small program for a topology, and its FLOPs: five rounds of a layer."""
    found = topologies.topology(name)
    mesh = jax.make_mesh(
        (len(found.devices),), ("data",), (AxisType.Auto,), devices=found.devices
    )

    def gradient(kernel, images):
        def loss(kernel):
            layer = lambda x, _: (convolved(x, kernel, **options), None)
            options = {"window_strides": (1, 1), "padding": "SAME"}
            return jnp.sum(jax.lax.scan(layer, images, length=5)[0] ** 2)

        return kernel - jax.grad(loss)(kernel)

    def struct(*shape, axes=()):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    jitted = jax.jit(gradient, donate_argnums=0)
    traced = jitted.trace(struct(3, 3, 8, 8), struct(8, 16, 16, 8, axes=("data",)))
    flops = matrix_flops(traced.jaxpr) / len(found.devices)
    return costs(traced.lower().compile(), flops=flops, compile_seconds=1.5)


@pytest.mark.compilers
@pytest.mark.parametrize(
    ("name", "num_devices"),
    [
        pytest.param("v5e:2x2", 4, marks=needs["tpu"]),
        pytest.param("v5e:1x1", 1, marks=needs["tpu"]),
        pytest.param("h200:2", 2, marks=needs["cuda"]),
    ],
)
def test_costs_of_a_program_for_devices_that_are_not_here(name, num_devices):
    found = compiled_for(name)
    kernel, images = 4 * 3 * 3 * 8 * 8, 4 * 8 * 16 * 16 * 8 // num_devices
    # Forward, and two gradients of each layer, less the padding.
    whole = 3 * 5 * 2 * 8 * 16 * 16 * 8 * 3 * 3 * 8 / num_devices
    assert 0.85 * whole < found.flops < whole
    # Each layer reads and writes images three times; the compiler may add copies.
    assert 5 * 3 * images < found.bytes_accessed
    assert found.kernels > 15
    assert kernel + images <= found.arguments
    assert found.aliased >= kernel
    assert found.memory >= found.arguments + found.temporaries
    assert found.compile_seconds == 1.5
    exchanges = () if num_devices == 1 else (Collective("all-reduce", 1, kernel),)
    assert found.collectives == exchanges
