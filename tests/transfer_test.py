"""Runs that begin with the weights of another model, and layers that training does not change."""

import hashlib
import re
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import models, transfer
from cgan_jax.build import ImageSpec, build
from cgan_jax.errors import UsageError
from cgan_jax.networks import anatomy, heads
from cgan_jax.networks.architectures import stylegan2
from cgan_jax.parallel import make_mesh, replicated
from cgan_jax.run.checkpoint import Checkpoints
from cgan_jax.run.workdir import append_environment, read_environments, read_info
from cgan_jax.sampling import export
from cgan_jax.sampling.sampling import Sampler
from cgan_jax.train import train_and_evaluate
from cgan_jax.train_state import TrainState, create, create_quickly
from tests.conftest import small_recipe
from tests.random_run import write_random_run

NAMES = [str(digit) for digit in range(10)]
GENERATOR_LABELS = ("LabelMap_0", "Embed_0", "embedding")


def state_at(run, step: int) -> TrainState:
    info = read_info(run)
    spec = ImageSpec(info.recipe["dataset"]["image_size"], info.channels, len(info.class_names))
    shapes = jax.eval_shape(lambda: create(build(info.recipe, spec), spec, jax.random.key(0)))
    checkpoints = Checkpoints(run, read_only=True)
    state = checkpoints.restore(step, shapes, replicated(make_mesh(jax.devices()[:1])))
    checkpoints.close()
    typed = jax.dtypes.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    return jax.device_get(state.replace(key=jax.random.key_data(state.key) if typed else state.key))


def begun(recipe, given, names=NAMES) -> TrainState:
    """The state that a run of `recipe` on classes `names` begins with."""
    spec = ImageSpec(recipe["dataset"]["image_size"], 1, len(names))
    algorithm = build(recipe, spec)
    source = transfer.read(str(given), recipe["architecture"], replicated(make_mesh(jax.devices()[:1])))
    return transfer.begun(source, algorithm, names, create_quickly(algorithm, spec, seed=1))


def at(tree, *path: str):
    for name in path:
        tree = tree[name]
    return tree


def same(one, other) -> dict[str, bool]:
    """Whether each array has the same bits, by name."""
    others = anatomy.named(other)
    return {name: np.array_equal(array, others[name]) for name, array in anatomy.named(one).items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run on all digits at 8x8; at step 8 its averages differ from its generator."""
    return write_random_run(tmp_path_factory.mktemp("source") / "run", small_recipe())


@pytest.fixture
def short(recipe):
    """Two steps, each with a checkpoint."""
    recipe["train"] |= {"total_kimg": 0.032, "log_kimg": 0.016, "sample_kimg": 1.0}
    recipe["checkpoint"] |= {"every_kimg": 0.016}
    return recipe


def test_all_of_a_run_on_the_same_classes_is_taken_but_its_optimizers_and_step(recipe, source, capsys):
    began, there = begun(recipe, source), state_at(source, 8)
    for part in ("g_params", "d_params", "ema_params"):
        assert all(same(getattr(began, part), getattr(there, part)).values()), part
    assert not all(same(began.g_params, began.ema_params).values())
    assert began.step == 0 and all(not np.any(x) for x in jax.tree.leaves((began.g_opt_state, began.d_opt_state)))
    out = capsys.readouterr().out
    assert f"from {source} at step 8" in out and "11 of 11 arrays taken\n" in out and "adapted" not in out


def test_the_environment_says_where_the_weights_come_from_and_step_0_is_kept(bare, short, source, tmp_path):
    short["train"]["total_kimg"] = 0.08
    train_and_evaluate(short, tmp_path / "run", init_from=str(source))
    state, digest = state_at(source, 8), hashlib.sha256()
    for params in (state.g_params, state.ema_params, state.d_params):
        for name, array in sorted(anatomy.named(params, "params").items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    start, *_ = read_environments(tmp_path / "run")
    assert start["init_from"] == {"model": str(source), "step": 8, "sha256": digest.hexdigest()}
    assert Checkpoints(tmp_path / "run", read_only=True).steps() == [0, 4, 5]


def test_classes_of_the_same_name_are_taken_and_new_ones_are_the_mean(recipe, tmp_path, capsys):
    names = ["7", "9", "ox", "3"]
    there = state_at(write_random_run(tmp_path / "source", small_recipe(), names), 8)
    here = ["9", "1", "3"]
    began = begun(recipe, tmp_path / "source", here)
    for part in ("g_params", "d_params", "ema_params"):
        theirs, ours = (at(getattr(state, part), *GENERATOR_LABELS) for state in (there, began))
        expected = {"9": theirs[1], "3": theirs[3], "1": theirs.mean(axis=0)}
        np.testing.assert_allclose(ours, np.stack([expected[name] for name in here]), rtol=1e-6)
    assert "1 of 3 begin as the mean of all 4" in capsys.readouterr().out


def fitted(theirs: nn.Module, ours: nn.Module, given: tuple, here: list[str]):
    """The variables of `ours` for the classes `here`, from random ones of `theirs` for 0 to 9, and both sets."""
    shapes = [
        jax.eval_shape(lambda network=network: network.init(jax.random.key(0), *given)) for network in (theirs, ours)
    ]
    rng = np.random.default_rng(0)
    before, begin = (jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), tree) for tree in shapes)
    axes = {name: 0 if name.endswith("linear.kernel") else a.ndim - 1 for name, a in anatomy.named(begin).items()}
    axes = {
        name: axis
        for name, axis in axes.items()
        if anatomy.named(begin)[name].shape != anatomy.named(before)[name].shape
    }
    after, told = transfer._fitted(anatomy.named(before), begin, axes, NAMES, here)
    return before, after, told


def test_a_class_of_stylegan2_keeps_its_vector_whatever_the_number_of_classes():
    class Labelled(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, labels):
            return stylegan2.ClassVector(self.num_classes, 8, name="embedding")(labels)

    before, after, told = fitted(Labelled(10), Labelled(2), (jnp.zeros(1, jnp.int32),), ["7", "3"])
    assert told.adapted == ["params.embedding.linear.kernel"]
    vectors = Labelled(10).apply(before, jnp.int32([7, 3]))
    np.testing.assert_allclose(Labelled(2).apply(after, jnp.int32([0, 1])), vectors, rtol=1e-5)


def test_a_class_keeps_both_logits_of_a_discriminative_classifier():
    theirs, ours = (heads.DiscriminativeClassifier(count) for count in (10, 3))
    features = jnp.float32(np.random.default_rng(1).normal(size=(4, 6)))
    before, after, told = fitted(theirs, ours, (features, jnp.zeros(4, jnp.int32)), ["7", "3", "9"])
    assert told.adapted == ["params.Dense_1.bias", "params.Dense_1.kernel"]
    logits, expected = (
        network.apply(variables, features, None).extras["real_fake_class_logits"]
        for network, variables in ((ours, after), (theirs, before))
    )
    np.testing.assert_allclose(logits, expected[:, np.array([7, 3, 9])], rtol=1e-5)


def test_at_another_image_size_convolutions_are_taken_and_dense_layers_begin_anew(recipe, source, capsys):
    recipe["dataset"]["image_size"] = 16
    began, there = begun(recipe, source), state_at(source, 8)
    for layer in ("ConvTranspose_0", "ConvTranspose_1", "Conv_0"):
        assert all(same(began.g_params[layer], there.g_params[layer]).values())
    assert began.g_params["Dense_0"]["kernel"].shape == (4, 4 * 4 * 4)
    assert not np.any(began.g_params["Dense_0"]["bias"])
    assert "anew: params.Dense_0.bias, params.Dense_0.kernel" in capsys.readouterr().out


def test_of_many_arrays_that_begin_anew_the_first_are_named(recipe, source, capsys):
    recipe["discriminator"]["width"] += 4
    begun(recipe, source)
    assert re.search(r"anew: (params\.[\w.]+, ){3}params\.[\w.]+ and \d more\n", capsys.readouterr().out)


def without_discriminator(kind: str, source, folder) -> str:
    sampler, out = Sampler(source, None), folder / kind
    if kind == "exported":
        out.write_bytes(export.content(sampler, source, "cgan"))
    else:
        export._MOST_WITH_DISCRIMINATOR, limit = 0, export._MOST_WITH_DISCRIMINATOR
        export.pack(sampler, source, out)
        export._MOST_WITH_DISCRIMINATOR = limit
    return str(out)


@pytest.mark.parametrize("kind", ["exported", "packed"])
def test_a_model_without_its_discriminator_gives_the_averaged_generator(recipe, source, tmp_path, capsys, kind):
    given = without_discriminator(kind, source, tmp_path)
    began, there = begun(recipe, given), state_at(source, 8)
    assert f"begins anew, for {given} holds the generator alone" in capsys.readouterr().out
    for params in (began.g_params, began.ema_params):
        for name, array in anatomy.named(params).items():
            np.testing.assert_allclose(array, anatomy.named(there.ema_params)[name], rtol=1e-3, atol=1e-3)
    assert not same(began.d_params, there.d_params)["Conv_0.kernel"]


def test_a_packed_model_of_the_package_gives_both_networks(capsys):
    begun(read_info(models.find("digits")).recipe, "digits", ["5", "ox"])
    out = capsys.readouterr().out
    assert "from digits at step" in out and "discriminator: 8 of 9 arrays taken" in out
    assert "5 by name; 1 of 2 begin as the mean of all 10" in out


def test_a_run_that_goes_on_never_reads_the_source_again(bare, short, source, tmp_path):
    moved = shutil.copytree(source, tmp_path / "source")
    train_and_evaluate(short, tmp_path / "whole", init_from=str(moved))
    short["train"]["total_kimg"] = 0.016
    train_and_evaluate(short, tmp_path / "run", init_from=str(moved))
    shutil.rmtree(moved)
    short["train"]["total_kimg"] = 0.032
    train_and_evaluate(short, tmp_path / "run", init_from=str(moved))
    ends = [vars(state_at(tmp_path / run, 2)) for run in ("whole", "run")]
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, ends), strict=True))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "1")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    train_and_evaluate(short, tmp_path / "run")
    again = jax.tree.leaves(vars(state_at(tmp_path / "run", 2)))
    assert all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(ends[0]), again, strict=True))


def test_a_run_that_began_otherwise_does_not_go_on_from_a_model(tmp_path):
    for name, start in {"plain": {}, "begun": {"init_from": {"model": "digits"}}}.items():
        (tmp_path / name).mkdir()
        append_environment(tmp_path / name, {"command": "cgan train", **start})
    transfer.check_resumed(tmp_path / "begun", "digits")
    with pytest.raises(UsageError, match="began from digits, given --init_from=cifar10; leave it out"):
        transfer.check_resumed(tmp_path / "begun", "cifar10")
    with pytest.raises(UsageError, match="did not begin from another model, given"):
        transfer.check_resumed(tmp_path / "plain", "digits")


FREEZES: dict = {
    "discriminator:2": ({"d": {"LabelMap_0.Dense_0", "Conv_0"}}, "dcgan"),
    "generator:2": ({"g": {"ConvTranspose_1", "Conv_0"}}, "dcgan"),
    "discriminator:1,generator:1": ({"d": {"LabelMap_0.Dense_0"}, "g": {"Conv_0"}}, "dcgan"),
    "generator:4,discriminator:2": (
        {"g": {"GeneratorBlock_1", "GeneratorBlock_2", "BatchNorm_0", "Conv_0"},
         "d": {"DiscriminatorBlock_0", "DiscriminatorBlock_1"}}, "sngan",
    ),
}  # fmt: skip


@pytest.mark.parametrize("freeze", FREEZES)
def test_frozen_layers_keep_their_bits_and_all_others_move(bare, short, tmp_path, freeze):
    layers, architecture = FREEZES[freeze]
    short["train"]["freeze"] = freeze
    if architecture == "sngan":
        short |= {"architecture": "sngan", "generator": {"latent_dim": 4, "width": 1, "dtype": "float32"}}
        short["discriminator"] = {"width": 2, "head": "projection", "dtype": "float32"}
        short["dataset"]["image_size"] = 32
    train_and_evaluate(short, tmp_path / "run")
    before, after = state_at(tmp_path / "run", 1), state_at(tmp_path / "run", 2)
    for player in "gd":
        for part in ("params", "stats"):
            trees = [getattr(state, f"{player}_{part}") for state in (before, after)]
            arrays = anatomy.named(trees[0])
            for name, stays in same(*trees).items():
                if name.endswith(".u") and arrays[name].size == 1:
                    continue  # a unit vector of one number stays 1
                place = name if part == "params" else name.partition(".")[2]
                frozen = any(place.startswith(f"{layer}.") for layer in layers.get(player, ()))
                assert stays == (frozen and arrays[name].shape[0] != len(NAMES)), name


WRONG = [
    ({"freeze": "discriminator:4"}, r"takes 1 to 3 layers of this discriminator, from the image on \(LabelMap_0, Conv"),
    ({"freeze": "generator:0"}, "takes 1 to 4 layers of this generator"),
    ({"freeze": "Conv_0"}, "train.freeze must be like discriminator:3"),
    ({"freeze": "generator:1,generator:2"}, "train.freeze must be like discriminator:3"),
]


@pytest.mark.parametrize(("changed", "told"), WRONG)
def test_a_wrong_freeze_is_refused(recipe, changed, told):
    recipe["train"] |= changed
    with pytest.raises(UsageError, match=told):
        build(recipe, ImageSpec(8, 1, 10))


def test_a_wrong_source_is_refused_before_anything_is_written(short, source, tmp_path):
    wide = small_recipe()
    wide["generator"] |= {"width": 6, "embedding_dim": 5, "latent_dim": 5, "output_kernel_size": 3}
    wide["dataset"]["image_size"] = 16
    write_random_run(tmp_path / "wide", wide, channels=3)
    with pytest.raises(UsageError, match="unknown model 'nowhere'"):
        train_and_evaluate(short, tmp_path / "run", init_from="nowhere")
    with pytest.raises(UsageError, match=r"nothing of .*wide fits the generator"):
        begun(short, tmp_path / "wide")
    short["architecture"], short["generator"] = "dcgan_deep", {"latent_dim": 4, "width": 4, "embedding_dim": 3,
        "kernel_size": 3, "skips": False, "dtype": "float32"}  # fmt: skip
    short["discriminator"] = {**small_recipe()["discriminator"], "kernel_size": 3, "skips": False}
    with pytest.raises(UsageError, match="is of the architecture dcgan, the recipe of dcgan_deep"):
        train_and_evaluate(short, tmp_path / "run", init_from=str(source))
    assert not (tmp_path / "run" / "checkpoints" / "0").exists()
