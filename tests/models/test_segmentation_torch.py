"""U-Net and SegNet against PyTorch in float64, with the same weights."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, needs torch

import spatial_smoothing as ss  # noqa: E402

STAGES, WIDTH, CLASSES = (1, 2, 1), 3, 5
EPSILON = 1e-3


def weights(name, **options):
    """Returns a small network, and random variables for it."""
    model = ss.models.build(
        name, num_classes=CLASSES, width=WIDTH, stages=STAGES, **options
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 8, 8, 3)))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        value = 0.4 * rng.standard_normal(leaf.shape)
        return np.abs(value) + 0.5 if path[-1].key in ("var", "scale") else value

    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def numbers(x):
    return torch.from_numpy(np.ascontiguousarray(x))


def convolve(x, module):
    kernel = numbers(module["kernel"].transpose(3, 2, 0, 1))
    padding = kernel.shape[-1] // 2
    return F.conv2d(x, kernel, numbers(module["bias"]), padding=padding)


def normalise(x, params, stats):
    return F.batch_norm(
        x,
        *(numbers(stats[name]) for name in ("mean", "var")),
        *(numbers(params[name]) for name in ("scale", "bias")),
        eps=EPSILON,
    )


def block(x, variables, name, relu_first):
    params, stats = (variables[kind][name] for kind in ("params", "batch_stats"))
    x = convolve(x, params["conv"])
    if relu_first:
        return normalise(x.relu(), params["norm"], stats["norm"])
    return normalise(x, params["norm"], stats["norm"]).relu()


def blocks(x, variables, stage, count, relu_first):
    for number in range(count):
        x = block(x, variables, f"stage{stage}_block{number}", relu_first)
    return x


def smooth(x, squash):
    if squash == "tanh":
        x = (10 * torch.tanh(x / 10)).relu()
    # The kernel [1, 1] looks further down and to the right.
    return F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride=1)


def unet(x, variables, squash):
    skips = []
    for stage, count in enumerate(STAGES, 1):
        x = blocks(x, variables, stage, count, relu_first=True)
        if stage < len(STAGES):
            skips.append(x)
            x = F.max_pool2d(smooth(x, squash), 2, ceil_mode=True)
    for stage, count in ((4, STAGES[2]), (5, STAGES[1])):
        skip = skips.pop()
        name = f"stage{stage}_up"
        # Flax slides the kernel as it is; a transposed convolution mirrors it.
        kernel = variables["params"][name]["conv"]["kernel"][::-1, ::-1]
        x = F.conv_transpose2d(x, numbers(kernel.transpose(2, 3, 0, 1)), stride=2)
        height, width = skip.shape[2:]
        x = normalise(
            x[:, :, :height, :width].relu(),
            variables["params"][name]["norm"],
            variables["batch_stats"][name]["norm"],
        )
        x = blocks(x + skip, variables, stage, count, relu_first=True)
    return convolve(x, variables["params"]["head"])


def segnet(x, variables, squash):
    places = []
    for stage, count in enumerate(STAGES, 1):
        x = blocks(x, variables, stage, count, relu_first=False)
        if stage < len(STAGES):
            size = x.shape[2:]
            x, indices = F.max_pool2d(
                smooth(x, squash), 2, ceil_mode=True, return_indices=True
            )
            places.append((indices, size))
    x = blocks(x, variables, 4, STAGES[2], relu_first=False)
    for stage, count in ((5, STAGES[1]), (6, STAGES[0] - 1)):
        indices, size = places.pop()
        # `max_unpool2d` refuses odd sizes, so that values are scattered by hand.
        flat = x.new_zeros(*x.shape[:2], size.numel())
        x = flat.scatter(2, indices.flatten(2), x.flatten(2)).unflatten(2, size)
        x = blocks(x, variables, stage, count, relu_first=False)
    return convolve(x, variables["params"]["head"])


@pytest.mark.parametrize("squash", ["tanh", "none"])
@pytest.mark.parametrize("network", [unet, segnet])
def test_logits_equal_those_of_pytorch(network, squash):
    name = f"{network.__name__}_dnn_smoothing"
    model, variables = weights(name, squash=squash)
    x = np.random.default_rng(1).standard_normal((2, 13, 10, 3))
    with torch.no_grad():
        expected = network(numbers(x.transpose(0, 3, 1, 2)), variables, squash)
    with jax.enable_x64(True):
        logits = jax.jit(model.apply)(variables, x)
    assert logits.dtype == np.float64
    expected = expected.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(logits, expected, atol=1e-10 * np.abs(expected).max())
