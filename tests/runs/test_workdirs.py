import errno
import functools
import json
import os
import shutil
import subprocess

import jax
import jpeg_images
import numpy as np
import pytest

from spatial_smoothing.configs import common
from spatial_smoothing.evaluation.suites import settings
from spatial_smoothing.runs import provenance, recipes, workdirs
from spatial_smoothing.training.checkpoints import Checkpoints

CONFIG = {
    "model": "resnet_mcdo_smoothing_18",
    "dataset": "shapes",
    "width": 4,
    "stages": (1,),
    "seed": 0,
    "epochs": 2,
    "eval_every": 1,
}


def trained(path, **changes):
    """A workdir with initial values for a checkpoint."""
    config = {**CONFIG, **changes}
    workdirs.claim(path, config)
    model = recipes.build_model(config)
    images = np.zeros((1, 32, 32, 3), np.float32)
    variables = jax.jit(model.init)(jax.random.key(config["seed"]), images)
    if config.get("members", 1) > 1:
        variables = jax.tree.map(lambda x: np.stack([x, x + 1]), variables)
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(5, {"variables": variables}, {})
    return variables


def test_loads_what_was_saved(tmp_path):
    variables = trained(tmp_path / "run")
    run = workdirs.load(tmp_path / "run")
    assert (run.step, run.config["model"]) == (5, CONFIG["model"])
    assert run.model.stages == (1,)
    jax.tree.map(np.testing.assert_array_equal, run.variables, variables)


def test_same_config_may_claim_again_and_free_fields_may_change(tmp_path):
    workdirs.claim(tmp_path / "run", CONFIG)
    before = (tmp_path / "run" / "config.json").read_bytes()
    workdirs.claim(tmp_path / "run", {**CONFIG, "eval_every": 7})
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_field_that_an_older_config_lacks_has_its_default(tmp_path):
    workdirs.claim(tmp_path / "run", CONFIG)
    path = tmp_path / "run" / "config.json"
    held = json.loads(path.read_text())
    del held["members"]
    path.write_text(json.dumps(held))
    workdirs.claim(tmp_path / "run", {**CONFIG, "members": 1})
    with pytest.raises(ValueError, match="members is 1 there and 2 here"):
        workdirs.claim(tmp_path / "run", {**CONFIG, "members": 2})


def test_members_are_loaded_as_runs(tmp_path):
    variables = trained(tmp_path / "run", seed=3, members=2)
    runs = workdirs.load_members(tmp_path / "run")
    assert [run.config["seed"] for run in runs] == [3, 4]
    assert [run.name for run in runs] == [f"{tmp_path}/run #{m}" for m in range(2)]
    for member, run in enumerate(runs):
        jax.tree.map(
            lambda a, b, m=member: np.testing.assert_array_equal(a, b[m]),
            run.variables,
            variables,
        )
    with pytest.raises(ValueError, match="holds the 2 members of a deep ensemble"):
        workdirs.load(tmp_path / "run")


def test_other_config_may_not(tmp_path):
    workdirs.claim(tmp_path / "run", CONFIG)
    message = r"another config: seed is 0 there and 1 here; width is 4 there and 8 here"
    with pytest.raises(ValueError, match=message):
        workdirs.claim(tmp_path / "run", {**CONFIG, "seed": 1, "width": 8})


@pytest.mark.parametrize("links", [True, False])
def test_of_two_that_claim_at_the_same_moment_one_has_the_workdir(
    links, tmp_path, monkeypatch
):
    """The first one writes its config after the second one has looked for it."""
    first = {**CONFIG, "seed": 1}

    def claimed_meanwhile(path, *args, **options):
        monkeypatch.undo()
        if not links:
            no = OSError(errno.EPERM, "Operation not permitted")
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(no))
        workdirs.claim(path, first)

    monkeypatch.setattr(type(workdirs.epath.Path(tmp_path)), "mkdir", claimed_meanwhile)
    with pytest.raises(ValueError, match="another config: seed is 1 there and 0 here"):
        workdirs.claim(tmp_path / "run", CONFIG)
    assert workdirs.read_config(tmp_path / "run")["seed"] == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "provenance.json"}


def test_a_workdir_whose_path_is_not_utf_8_is_refused_before_it_is_made(tmp_path):
    run = tmp_path / os.fsdecode(b"caf\xe9") / "run"
    for function in (workdirs.read_config, lambda path: workdirs.claim(path, CONFIG)):
        with pytest.raises(ValueError, match=r"caf\\udce9/run is not UTF-8, .* rename"):
            function(run)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["stages=[2,2]", "a*b", "a?", "a\\b"])
def test_a_workdir_in_which_checkpoints_would_be_lost_is_refused(name, tmp_path):
    message = r"its path has the character .; choose a path without \*, \?, \[ and"
    with pytest.raises(ValueError, match=message):
        workdirs.claim(tmp_path / name / "run", CONFIG)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=message):
        Checkpoints(tmp_path / name / "checkpoints")


def test_a_run_that_was_moved_there_can_still_be_read(tmp_path):
    trained(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "width=[4]")
    assert workdirs.load(tmp_path / "width=[4]").step == 5


def test_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no"):
        workdirs.claim(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("learning_rate", -0.1, "learning_rate must be at least 0, got -0.1"),
        ("learning_rate", float("nan"), "learning_rate must be at least 0, got nan"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(
    field, value, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        workdirs.claim(tmp_path / "run", {**CONFIG, field: value})
    assert not (tmp_path / "run").exists()


def test_members_on_imagenet_are_refused_before_anything_is_written(tmp_path):
    config = {**CONFIG, "dataset": "imagenet", "members": 2}
    with pytest.raises(ValueError, match="members are trained at once on data sets in"):
        workdirs.claim(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_classes_of_a_folder_stay_with_the_run(tmp_path):
    root = jpeg_images.write_folder(tmp_path / "pets", count=1)
    config = {**CONFIG, "dataset": f"folder:{root}", "image_size": 32}
    held = workdirs.read_config(workdirs.claim(tmp_path / "run", config))
    assert held["class_names"] == ["ant", "bee"]
    shutil.rmtree(root)
    assert recipes.build_model(held).num_classes == 2
    assert recipes.source(held).class_names == ("ant", "bee")


def test_a_folder_is_the_same_wherever_a_run_is_continued(tmp_path, monkeypatch):
    root = jpeg_images.write_folder(tmp_path / "pets", count=1)
    config = {**CONFIG, "image_size": 32}
    names = ("pets/", "./pets", f"{root}/", "~/pets")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in names:
        workdirs.claim(tmp_path / "run", {**config, "dataset": f"folder:{name}"})
    held = workdirs.read_config(tmp_path / "run")
    assert held["dataset"] == f"folder:{root}"
    # A config of an older version has the name as it was given.
    older = json.dumps({**held, "dataset": "folder:pets"})
    (tmp_path / "run" / "config.json").write_text(older)
    workdirs.claim(tmp_path / "run", {**config, "dataset": f"folder:{root}"})
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match=r"no folder .*pets/pets"):
        workdirs.claim(tmp_path / "run", {**config, "dataset": "folder:pets"})
    held["class_names"] = None
    assert recipes.loader(held)(held["dataset"], "test").num_examples == 2


def test_a_folder_that_was_moved_is_found_in_data_dir(tmp_path):
    root = jpeg_images.write_folder(tmp_path / "pets", count=1)
    other = jpeg_images.write_folder(tmp_path / "other", count=3)
    config = {**CONFIG, "dataset": f"folder:{root}", "image_size": 32}
    held = workdirs.read_config(workdirs.claim(tmp_path / "run", config))
    moved = root.rename(tmp_path / "moved")
    name = held["dataset"]
    with pytest.raises(ValueError, match=f"no folder {root}"):
        recipes.loader(held)(name, "test")
    for load in (
        recipes.loader(held, data_dir=moved),
        recipes.loader({**held, "data_dir": str(moved)}),
    ):
        assert str(load(name, "test").records.folder) == str(moved / "test")
        # Another data set, such as one out of the distribution, is where it says.
        assert load(f"folder:{other}", "test").num_examples == 6
    with pytest.raises(ValueError, match=f"no folder {root}"):
        recipes.loader(held, data_dir=tmp_path)(name, "test")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dataset", "shape", "unknown data set 'shape'; did you mean 'shapes'"),
        ("dtype", "float16", "unknown dtype 'float16'"),
        ("temperature", -1.0, "temperature must be positive"),
        ("padding", "sam", "unknown padding 'sam'"),
        ("head", "gapp", "unknown head 'gapp'; did you mean 'gap'"),
        ("smoothing", (1, 1), "one entry for each of the stages"),
    ],
)
def test_networks_that_cannot_be(field, value, message):
    with pytest.raises(ValueError, match=message):
        recipes.build_model({**CONFIG, field: value})


def test_no_run_and_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="no run in"):
        workdirs.load(tmp_path)
    workdirs.claim(tmp_path / "run", CONFIG)
    with pytest.raises(ValueError, match=r"no checkpoint in .* yet"):
        workdirs.load(tmp_path / "run")
    with pytest.raises(ValueError, match="is not evaluated yet"):
        workdirs.evaluation_path(tmp_path / "run")


def test_provenance_has_every_start_that_differs(tmp_path, monkeypatch):
    run = workdirs.claim(tmp_path / "run", CONFIG)
    path = tmp_path / "run" / "provenance.json"
    first = json.loads(path.read_text())  # as older runs have it, too
    assert first["libraries"]["jax"] == jax.__version__
    workdirs.sign(run)
    assert json.loads(path.read_text()) == first
    for version in ("0.1", "0.2", "0.2"):
        now = {**first, "libraries": {"jax": version}, "time": "later"}
        monkeypatch.setattr(workdirs, "provenance", lambda now=now: now)
        workdirs.sign(run)
    held = json.loads(path.read_text())
    continued = held.pop("continued")
    assert held == first
    assert [start["libraries"]["jax"] for start in continued] == ["0.1", "0.2"]
    path.write_text("{")
    with pytest.raises(ValueError, match=r"provenance\.json is not JSON"):
        workdirs.sign(run)


def test_config_that_is_not_json(tmp_path):
    for content, message in (
        (b"{", r"config\.json is not JSON"),
        (b"\xff", r"config\.json is not JSON"),
        (b"[]", r"config\.json is no JSON object, but list"),
        # Of a folder of another project, such as the Hugging Face Hub.
        (b'{"architectures": []}', r"no run in .* has no model and no dataset"),
    ):
        (tmp_path / "config.json").write_bytes(content)
        for function in (workdirs.read_config, workdirs.load, workdirs.task):
            with pytest.raises(ValueError, match=message):
                function(tmp_path)
        with pytest.raises(ValueError, match=message):
            workdirs.claim(tmp_path, CONFIG)


def test_json_is_complete_or_not_there(tmp_path):
    path = workdirs.epath.Path(tmp_path / "a.json")
    workdirs.write_json(path, {"a": [1]})
    assert json.loads(path.read_text()) == {"a": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("seed", "members", "message"),
    [
        (-1, 1, "seed must be at least 0, got -1"),
        (2**32, 1, r"seed must be in \[0, 4294967296\), got 4294967296"),
        (2**32 - 1, 2, r"seed \+ members - 1 must be in .*, got 4294967296"),
    ],
)
def test_seeds_that_would_wrap_are_refused(seed, members, message, tmp_path):
    config = {**CONFIG, "seed": seed, "members": members}
    with pytest.raises(ValueError, match=message):
        workdirs.claim(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_a_config_keeps_absolute_paths(tmp_path, monkeypatch):
    root = jpeg_images.write_folder(tmp_path / "pets", count=1)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = {**CONFIG, "image_size": 32}
    first = {**config, "dataset": "folder:pets/", "data_dir": "~/tfds"}
    run = workdirs.claim("run/", first)
    assert run == workdirs.epath.Path(tmp_path / "run")
    held = workdirs.read_config(run)
    assert held["dataset"] == f"folder:{tmp_path}/pets"
    assert held["data_dir"] == f"{tmp_path}/home/tfds"
    # The same folder, by any name, from anywhere.
    monkeypatch.chdir("/")
    for name in (f"{tmp_path}/pets", f"{tmp_path}/home/../pets", "~/link"):
        workdirs.claim(run, {**first, "dataset": f"folder:{name}"})
    other = jpeg_images.write_folder(tmp_path / "others", count=1)
    with pytest.raises(ValueError, match=r"dataset is 'folder:.*pets' there"):
        workdirs.claim(run, {**first, "dataset": f"folder:{other}"})


def test_a_folder_of_images_that_has_moved_is_found_where_it_is_said_to_be(tmp_path):
    root = jpeg_images.write_folder(tmp_path / "pets", count=1)
    config = {**CONFIG, "dataset": f"folder:{root}", "image_size": 32}
    held = workdirs.read_config(workdirs.claim(tmp_path / "run", config))
    # While it is there, a directory of TFDS is for other data sets.
    there = recipes.loader(held, data_dir=tmp_path / "tfds")
    before = there(held["dataset"], "test").checksum()
    shutil.move(root, tmp_path / "moved")
    with pytest.raises(ValueError, match=f"no folder {root}"):
        recipes.loader(held)(held["dataset"], "test")
    load = recipes.loader(held, data_dir=tmp_path / "moved")
    assert load(held["dataset"], "test").checksum() == before


def test_a_file_of_numpy_that_has_moved_is_found_where_it_is_said_to_be(tmp_path):
    arrays = {"test_images": np.full((2, 4, 4, 3), 7, np.uint8), "test_labels": [0, 1]}
    arrays |= {f"train_{name}": arrays[f"test_{name}"] for name in ("images", "labels")}
    np.savez(tmp_path / "a.npz", **arrays)
    config = {**CONFIG, "dataset": f"npz:{tmp_path}/a.npz"}
    held = workdirs.read_config(workdirs.claim(tmp_path / "run", config))
    (tmp_path / "moved").mkdir()
    file = (tmp_path / "a.npz").rename(tmp_path / "moved" / "a.npz")
    with pytest.raises(ValueError, match=r"no file .*/a\.npz"):
        recipes.loader(held, data_dir=tmp_path)(held["dataset"], "test")
    for place in (tmp_path / "moved", file):
        load = recipes.loader(held, data_dir=place)
        assert load(held["dataset"], "test").images.max() == 7


def test_a_run_may_be_copied_and_reached_by_a_link(tmp_path):
    variables = trained(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    runs = [workdirs.load(tmp_path / name) for name in ("run", "copy", "link/")]
    assert len({run.fingerprint for run in runs}) == 1
    other = trained(tmp_path / "other", seed=1)
    assert workdirs.load(tmp_path / "other").fingerprint != runs[0].fingerprint
    assert jax.tree.structure(other) == jax.tree.structure(variables)


@pytest.mark.parametrize("x64", [False, True])
def test_a_run_loads_where_64_bit_types_are_otherwise(x64, tmp_path):
    with jax.enable_x64(x64):
        expected = trained(tmp_path / "run")
    with jax.enable_x64(not x64):
        run = workdirs.load(tmp_path / "run")
    for leaf in jax.tree.leaves(run.variables):
        assert leaf.dtype == np.float32
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        run.variables,
        expected,
    )


def test_a_package_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    git = functools.partial(subprocess.run, check=True, cwd=tmp_path)
    git(["git", "init", "-q"])
    (tmp_path / "venv").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "venv" / "a.py"))
    (tmp_path / "venv" / "a.py").write_text("")
    (tmp_path / "b.py").write_text("")
    git(["git", "add", "b.py"])
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    git(["git", *who, "commit", "-qm", "another project"])
    assert provenance.provenance()["commit"] is None
    git(["git", "add", "-A"])
    git(["git", *who, "commit", "-qm", "with the package"])
    commit = provenance.provenance()["commit"]
    assert len(commit) == 40
    (tmp_path / "venv" / "a.py").write_text("changed")
    assert provenance.provenance()["commit"] == f"{commit}-dirty"


def test_a_cpu_is_named_by_its_processor():
    about = provenance.provenance()
    cores = len(os.sched_getaffinity(0))
    assert about["processor"].endswith(f"{cores} core{'s' * (cores > 1)}")
    about |= {"num_devices": 2, "device": "cpu", "processor": "AMD EPYC, 4 cores"}
    assert provenance.device_name(about) == "2 x cpu (AMD EPYC, 4 cores)"
    assert provenance.device_name(about | {"device": "TPU v5e"}) == "2 x TPU v5e"
    del about["processor"]  # of an older version
    assert provenance.device_name(about) == "2 x cpu"


def test_what_older_runs_lack_has_a_meaning():
    """An old run and an equal new one have the same recipe: they are seeds of one."""
    first = [
        *("augment", "batch_size", "checkpoint_every", "checkpoint_minutes"),
        *("data_dir", "dataset", "download", "dtype", "epochs"),
        *("eval_batch_size", "eval_every", "factor", "head"),
        *("head_temperature", "image_size", "learning_rate", "max_to_keep"),
        *("mc_stages", "milestones", "model", "momentum", "num_workers"),
        *("padding", "rate", "seed", "smoothing", "smoothing_norm", "squash"),
        *("stages", "stem", "taps", "temperature", "val_fraction"),
        *("warmup_epochs", "weight_decay", "width"),
    ]
    given = common.get_config().to_dict()
    assert set(given) == {*first, *workdirs.SINCE}
    for name, value in workdirs.SINCE.items():
        assert given[name] == value, name
    older = {name: given[name] for name in first}
    assert settings.recipe(older) == settings.recipe(given)
