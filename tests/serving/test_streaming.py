import re

import jax
import numpy as np
import PIL.Image
import pytest
import scipy.stats
from random_runs import predict, write_run

import spatial_smoothing as ss
from spatial_smoothing import serving
from spatial_smoothing.cli import command_line
from spatial_smoothing.cli import predict as command
from spatial_smoothing.data import shapes, streams
from spatial_smoothing.runs import workdirs
from spatial_smoothing.serving import streaming

IMAGES, _ = shapes.generate("test", size=11)
FRAMES = np.asarray(streams.moving_crop(IMAGES[:1], num_frames=5)[:, 0])
DECAY = np.exp(-0.8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mcdo"
    return write_run(path, model="resnet_mcdo_smoothing_18", rate=0.9)


@pytest.fixture(scope="module")
def run(workdir):
    return workdirs.load(workdir)


@pytest.fixture(scope="module")
def predictor(workdir):
    return streaming.load_stream(workdir, num_samples=2)


def normalized(images):
    return ((images / 255 - shapes.MEAN) / shapes.STD).astype(np.float32)


def single_frames(run, frames, *, seed=0, num_samples=1):
    """Probabilities of each frame of u8[T, B, H, W, 3], f64[T, B, K]."""
    predict = jax.jit(
        lambda key, images: ss.mc_dropout(
            key, run.model, run.variables, images, num_samples=num_samples
        ).mean(0)
    )
    key = jax.random.key(seed)
    return np.stack(
        [
            np.float64(predict(jax.random.fold_in(key, t), normalized(frame)))
            for t, frame in enumerate(frames)
        ]
    )


def averaged(probs):
    """Exponential averages of all frames so far, one by one."""
    weights = DECAY ** np.arange(len(probs))[::-1]
    return np.stack(
        [
            np.tensordot(weights[-n:], probs[:n], axes=1) / weights[-n:].sum()
            for n in range(1, len(probs) + 1)
        ]
    )


def test_a_stream_is_predicted_by_smoothed_mc_dropout(predictor, run):
    single = single_frames(run, FRAMES[:, None], seed=3, num_samples=2)[:, 0]
    smoothed = averaged(single)
    results = list(predictor(FRAMES, seed=3))
    assert np.ptp(single, axis=0).max() > 0.01
    for result, alone, mean in zip(results, single, smoothed, strict=True):
        np.testing.assert_allclose(result.frame_probs, alone, atol=1e-5)
        np.testing.assert_allclose(result.probs, mean, atol=1e-5)
        np.testing.assert_allclose(result.entropy, scipy.stats.entropy(mean), rtol=1e-4)


def test_frames_are_predicted_as_they_come(predictor):
    taken = []

    def camera():
        while True:
            taken.append(FRAMES[len(taken)])
            yield taken[-1]

    results = predictor(camera())
    first = next(results)
    assert len(taken) == 1
    np.testing.assert_array_equal(first.probs, next(predictor(FRAMES)).probs)


def test_a_stream_is_scanned_as_it_is_looped_over(predictor):
    frames = FRAMES[:, None]
    _, scanned = jax.lax.scan(
        lambda state, frame: predictor.step(state, jax.random.key(0), frame),
        predictor.init(frames[0]),
        frames,
    )
    looped = [result.probs for result in predictor(FRAMES)]
    np.testing.assert_allclose(scanned[:, 0], looped, atol=1e-6)


def test_a_network_without_dropout_makes_one_pass(tmp_path):
    workdir = write_run(tmp_path / "dnn", model="resnet_dnn_18")
    predictor = streaming.load_stream(workdir, num_samples=9)
    assert predictor.description.num_samples == 1
    results = list(predictor(FRAMES[:3]))
    alone = serving.load_predictor(workdir)(FRAMES[:3])
    for result, probs in zip(results, alone.probs, strict=True):
        np.testing.assert_allclose(result.frame_probs, probs, atol=1e-5)


def test_unusable_streams_are_refused(predictor, workdir, tmp_path):
    message = r"frame 1 must be uint8 \[32, 32, 3\], got uint8 \[28, 28, 3\]"
    with pytest.raises(ValueError, match=message):
        list(predictor([FRAMES[0], FRAMES[0, :28, :28]]))
    with pytest.raises(ValueError, match=r"frame 0 must be uint8 .*got float64"):
        list(predictor(FRAMES / 255))
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\^32\), got -1"):
        predictor(FRAMES, seed=-1)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        streaming.load_stream(workdir, num_samples=0)
    with pytest.raises(ValueError, match="decay must be at least 0 and finite, got -1"):
        streaming.load_stream(workdir, decay=-1)
    with pytest.raises(ValueError, match="no run in workdir"):
        streaming.load_stream(tmp_path)


def test_predict_prints_a_line_for_each_frame(workdir, run, tmp_path):
    for number, frame in enumerate(FRAMES, 5):
        PIL.Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
    done = predict(f"--workdir={workdir}", f"--frames={tmp_path}", "--seed=3")
    assert done.returncode == 0, done.stderr
    first, *lines, before, after = done.stdout.splitlines()
    assert first == "resnet_mcdo_smoothing_18 on shapes, 1 sample a frame"
    single = single_frames(run, FRAMES[:, None], seed=3)[:, 0]
    smoothed = averaged(single)
    for number, (line, probs) in enumerate(zip(lines, smoothed, strict=True), 1):
        label = probs.argmax()
        percent, name = 100 * probs[label], shapes.CLASS_NAMES[label]
        entropy = scipy.stats.entropy(probs)
        assert line == (
            f"{number:5}  {percent:5.1f} %  {name}, entropy {entropy:.3f} nats"
        )
    for line, name, probs in (
        (before, "single frames", single),
        (after, "smoothed", smoothed),
    ):
        same = 100 * np.mean(probs.argmax(-1)[1:] == probs.argmax(-1)[:-1])
        cec = -(probs[1:] * np.log(probs[:-1])).mean()
        assert line == f"{name}: consistency {same:.1f} %, CEC {cec:.4f}"


def test_predict_prints_certain_frames(predictor, monkeypatch, tmp_path, capsys):
    """Of probabilities of 0 there are no logarithms, which NumPy would warn of."""
    np.save(tmp_path / "video.npy", FRAMES)
    certain = np.eye(10, dtype=np.float32)[0]
    frame = streaming.FramePrediction(certain, 0.0, certain)
    fake = lambda frames, *, seed: iter([frame] * len(frames))
    fake.description = predictor.description
    monkeypatch.setattr(streaming, "load_stream", lambda *args, **options: fake)
    command.FLAGS.unparse_flags()
    arguments = ["predict.py", "--workdir=x", f"--frames={tmp_path / 'video.npy'}"]
    command.predict(command_line.parse(arguments, command.FLAGS, positional=True))
    assert "smoothed: consistency 100.0 %, CEC 0.0000" in capsys.readouterr().out


def test_predict_refuses_bad_streams_in_one_line(workdir, tmp_path):
    np.save(tmp_path / "video.npy", FRAMES / 255)
    for args, message in [
        ([f"--workdir={workdir}"], "give either at least one IMAGE or --frames"),
        (["--exported=x", "--frames=x"], "--frames needs --workdir=DIR"),
        (
            [f"--workdir={workdir}", f"--frames={tmp_path / 'video.npy'}"],
            "must hold uint8 in 0 to 255, got float64",
        ),
    ]:
        done = predict(*args)
        assert done.returncode == 2
        assert re.fullmatch(f"error: .*{re.escape(message)}.*\n", done.stderr)
