import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from spatial_smoothing.ensembles import as_apply, mc_logits, mixtures, temporal
from spatial_smoothing.evaluation import videos
from spatial_smoothing.evaluation.videos import Method, Step
from spatial_smoothing.metrics import histograms, pixels

B, H, W, K = 2, 6, 8, 4
LENGTHS = ((3, 2), (4,))  # videos that each of the two streams shows
DECAY, SIZES = 0.8, (1, 3)
KEY = jax.random.key(7)


def network(variables, images, key):
    """Logits from colours; dropout is noise that depends on the key."""
    logits = 3 * images @ variables["kernel"]
    if key is None:
        return logits
    return logits + 2 * jax.random.normal(key, logits.shape)


SUMS = jax.jit(pixels.pixel_sums)
VARIABLES = {"kernel": jnp.float32(np.random.default_rng(1).standard_normal((3, K)))}


def prepare(images):
    return images / 128 - 1


def steps():
    """Videos of random pixels; the second frame of each is not labelled."""
    rng = np.random.default_rng(0)
    position = [[t for length in lane for t in range(length)] for lane in LENGTHS]
    for step in range(5):
        there = np.array([step < len(lane) for lane in position])
        time = np.array([lane[step] if step < len(lane) else -1 for lane in position])
        yield Step(
            image=rng.integers(0, 256, (B, H, W, 3)).astype(np.uint8),
            label=rng.integers(0, K, (B, H, W)).astype(np.int32),
            mask=rng.random((B, H, W)) < 0.9,
            starts=time == 0,
            scored=there & (time != 1),
        )


@functools.cache
def scores(**options):
    of = functools.partial(
        videos.compile_scores, as_apply(network), prepare=prepare, decay=DECAY
    )
    return of(**{"sizes": SIZES, "dropout": True, **options})(VARIABLES, KEY, steps())


def frame_probs(index, step):
    """Probabilities f64[B, H, W, K] of a step by each number of samples, 0 without."""
    images = jnp.asarray(prepare(np.float32(step.image)))
    alone = network(VARIABLES, images, None)[None]
    key = jax.random.fold_in(KEY, index)
    drawn = mc_logits(key, as_apply(network), VARIABLES, images, num_samples=3)
    softmax = functools.partial(scipy.special.softmax, axis=-1)
    found = {0: softmax(np.float64(alone)).mean(0)}
    return found | {n: softmax(np.float64(drawn[:n])).mean(0) for n in SIZES}


def expected(size, is_temporal):
    """Probabilities, labels and masks of the scored images, and pairs of classes."""
    images, history, same, compared = [], [[] for _ in range(B)], [], []
    for index, step in enumerate(steps()):
        probs = frame_probs(index, step)[size]
        for lane in range(B):
            if step.starts[lane]:
                history[lane] = []
            before = history[lane]
            seen = [one[0] for one in before] + [probs[lane]]
            if is_temporal:
                weights = scipy.special.softmax(DECAY * np.arange(len(seen)))
                smooth = np.tensordot(weights, seen, 1)
            else:
                smooth = probs[lane]
            if step.scored[lane]:
                images.append((smooth, step.label[lane], step.mask[lane]))
                pair = bool(before)
                compared.append(pair * H * W)
                agree = before and (before[-1][1].argmax(-1) == smooth.argmax(-1))
                same.append(np.sum(agree) if pair else 0)
            before.append((probs[lane], smooth))
    return images, same, compared


def methods():
    for is_temporal in (False, True):
        yield Method(False, 1, is_temporal), 0
        for size in SIZES:
            yield Method(True, size, is_temporal), size


def test_every_method_is_scored_in_one_pass_over_frames():
    found = scores()
    assert list(found) == [method for method, _ in methods()]
    for method, size in methods():
        images, same, compared = expected(size, method.temporal)
        probs, labels, mask = (np.stack(parts) for parts in zip(*images, strict=True))
        sums = SUMS(jnp.float32(np.log(probs)), labels, mask)
        scored = found[method]
        assert scored.images.count.tolist() == mask.sum((1, 2)).tolist()
        assert [x.tolist() for x in scored.shares["consistency"]] == [same, compared]
        windows = [sums.good_windows.tolist(), sums.windows.tolist()]
        assert [x.tolist() for x in scored.shares["pavpu"]] == windows
        np.testing.assert_array_equal(scored.histogram.sum(0), sums.histogram.sum(0))
        whole = jax.tree.map(lambda leaf: np.asarray(leaf).sum(0), sums.tally)
        wanted = pixels.pixel_scores(whole, np.asarray(sums.histogram))
        for name, value in pixels.pixel_scores(scored.total, scored.histogram).items():
            np.testing.assert_allclose(
                value, wanted[name], rtol=2e-4, atol=2e-4, err_msg=f"{method} {name}"
            )
        # The images of the bootstrap add up to all of it.
        alone = pixels.image_scores(scored.images, {}, jnp.ones(len(images)))
        np.testing.assert_allclose(alone["nll"], wanted["nll"], rtol=1e-5)
    # Smoothing over time is not for nothing here, and samples are not the mean network.
    values = [found[m].total.nll for m, _ in methods()]
    assert len({round(float(v), 3) for v in values}) == len(values)


def test_images_that_are_no_videos_have_no_temporal_methods():
    found = scores(dropout=False, smooths=False)
    assert list(found) == [Method(False, 1, False)]
    whole = scores()[Method(False, 1, False)]
    np.testing.assert_allclose(
        found[Method(False, 1, False)].total.nll, whole.total.nll, rtol=1e-6
    )


def test_it_is_compiled_once_for_all_steps():
    traces = []

    def counted(variables, images, key):
        traces.append(key)
        return network(variables, images, key)

    of = videos.compile_scores(
        as_apply(counted), prepare=prepare, sizes=(2, 8), dropout=True
    )
    of(VARIABLES, KEY, steps())
    count = len(traces)
    of(VARIABLES, KEY, steps())
    assert len(traces) - count <= 1  # shapes alone
    assert count < 8  # the network is in a loop over samples, whatever N is


def test_nothing_to_score_is_refused():
    blank = (step.replace(scored=np.zeros(B, bool)) for step in steps())
    of = videos.compile_scores(
        as_apply(network), prepare=prepare, sizes=(1,), dropout=False
    )
    with pytest.raises(ValueError, match="no labelled frames"):
        of(VARIABLES, KEY, blank)


def test_readings_are_those_of_mixtures():
    images = jnp.float32(np.random.default_rng(2).standard_normal((B, H, W, 3)))
    sizes = (1, 2, 5)
    given = jnp.arange(3.0)[:, None, None, None, None] * jnp.ones((3, B, H, W, K))
    found = mixtures.mc_readings(
        KEY,
        network,
        VARIABLES,
        images,
        sizes=sizes,
        read=lambda mean, given: mean.log_probs() + given,
        given=given,
        chunk=3,
    )
    whole = mixtures.mc_mixtures(KEY, network, VARIABLES, images, sizes=sizes)
    wanted = jax.vmap(lambda mixture: mixture.log_probs())(whole) + given
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


class Windows:
    """The windows of one example whose video begins one frame before it."""

    def windows(self, batch_size, *, past):
        rng = np.random.default_rng(3)
        there = np.zeros((batch_size, past + 1), bool)
        there[0, -2:] = True
        yield {
            "image": rng.integers(0, 256, (batch_size, past + 1, H, W, 3), np.uint8),
            "label": np.zeros((batch_size, H, W), np.int32),
            "mask": np.ones((batch_size, H, W), bool) & there[:, -1, None, None],
            "frame_mask": there,
        }


def test_windows_begin_where_their_videos_do():
    found = list(videos.window_steps(Windows(), 2, past=3))
    assert [step.scored.tolist() for step in found] == [[False] * 2] * 3 + [
        [True, False]
    ]
    assert [bool(step.starts[0]) for step in found] == [True, True, True, False]
    scored = videos.compile_scores(
        as_apply(network), prepare=prepare, sizes=(1,), dropout=False, decay=DECAY
    )(VARIABLES, KEY, found)[Method(False, 1, True)]
    probs = np.stack([frame_probs(0, step)[0][0] for step in found[-2:]])
    smooth = temporal.temporal_smooth(jnp.float32(probs), past=1, decay=DECAY)[0]
    nll = -np.log(np.asarray(smooth)[..., 0]).sum()
    np.testing.assert_allclose(scored.total.nll, nll, rtol=1e-5)
    assert scored.images.count.tolist() == [H * W]
    assert len(scored.histogram) == histograms.NUM_BINS
