import jax
import numpy as np
import pytest

from spatial_smoothing import ensembles
from spatial_smoothing.data import datasets, shapes
from spatial_smoothing.data.corruption import perturbations, transforms
from spatial_smoothing.data.datasets import Dataset
from spatial_smoothing.evaluation import suites
from spatial_smoothing.evaluation.suites.perturbation import perturbation
from spatial_smoothing.runs import recipes, workdirs

CLEAN = Dataset(*shapes.generate("test", size=12))
NUMBERS = datasets.choose(12, 10)
NAMES = ("gaussian_noise", "translate")
CONFIG = {
    "model": "resnet_dnn_18",
    "dataset": "shapes",
    "width": 4,
    "stages": (1,),
    "seed": 5,  # of initial values that take the noise for another class at times
}


@pytest.fixture(scope="module")
def run():
    model = recipes.build_model(CONFIG)
    images = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.jit(model.init)(jax.random.key(CONFIG["seed"]), images)
    return workdirs.Run(workdirs.epath.Path("a"), CONFIG, model, variables, 0)


def setting(output):
    return suites.Setting(CLEAN, batch_size=8, output=output)


def evaluate(run, output):
    return perturbation([run], setting(output), perturbations=NAMES, num_images=10)


@pytest.fixture(scope="module")
def expected(run):
    """Scores by NumPy from the probabilities of all frames."""
    source, found = run.source, {}
    mean, std = (np.array(value, np.float32) for value in (source.mean, source.std))
    apply = jax.jit(lambda images: run.model.apply(run.variables, images, train=False))
    for name in NAMES:
        key = jax.random.key(transforms.SEED)
        frames = np.asarray(perturbations.sequence(key, CLEAN.images, name))
        frames = frames[:, NUMBERS]
        normalized = (frames / np.float32(255) - mean) / std
        logits = np.stack(
            [np.asarray(apply(frame), np.float64) for frame in normalized]
        )
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        classes = logits.argmax(-1)
        entropies = -(np.exp(log_probs[1:]) * log_probs[:-1])
        flips = (classes[1:] != classes[:-1]).mean()
        first = (classes[1:] != classes[:1]).mean()
        found[name] = {
            "consistency": 1 - flips,
            "flip_rate": first if name == "gaussian_noise" else flips,
            "cec": entropies.mean(),
            "cec_sum": entropies.sum(-1).mean(),
        }
    return found


def test_scores_are_those_of_whole_sequences(run, expected, tmp_path):
    noise = expected["gaussian_noise"]
    assert 0 < 1 - noise["consistency"] < noise["flip_rate"]
    *single, mean = evaluate(run, tmp_path)
    assert [row["perturbation"] for row in single] == [*NAMES]
    assert [row["num_frames"] for row in single] == [31, 16]
    for row in single:
        assert (row["num_examples"], row["num_samples"]) == (10, 1)
        for score, value in expected[row["perturbation"]].items():
            assert row[score] == pytest.approx(value, rel=2e-4)
    assert "perturbation" not in mean
    for score in expected["translate"]:
        values = [expected[name][score] for name in NAMES]
        assert mean[score] == pytest.approx(np.mean(values), rel=2e-4)


def test_one_compiled_step_serves_all_lengths(run, tmp_path, monkeypatch):
    traces = []
    real = ensembles.predictor

    def counting(*args, **options):
        predict = real(*args, **options)

        def counted(*inputs):
            traces.append(inputs[-1].shape)
            return predict(*inputs)

        return counted

    monkeypatch.setattr(ensembles, "predictor", counting)
    evaluate(run, tmp_path)
    assert traces == [(8, 32, 32, 3)]


def test_what_is_done_is_not_done_again(run, tmp_path, monkeypatch):
    found = evaluate(run, tmp_path)
    monkeypatch.setattr(perturbations, "sequence", None)
    assert evaluate(run, tmp_path) == found


def test_bad_options_are_refused_at_once(run, tmp_path):
    with pytest.raises(ValueError, match="unknown perturbation 'fog'"):
        perturbation([run], setting(tmp_path), perturbations=("fog",))
    for names, message in (((), "at least one value"), (NAMES[:1] * 2, "each value o")):
        with pytest.raises(ValueError, match=f"perturbations must .*{message}"):
            perturbation([run], setting(tmp_path), perturbations=names)
    with pytest.raises(ValueError, match="no sequences"):
        perturbation([run], setting(tmp_path), perturbed_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())
