"""Exported models: sampling without the rest of the package; damaged or foreign files are refused."""

import hashlib
import json
import os
import re
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax import exported
from cgan_jax.errors import UsageError
from tests.command_line import cgan
from tests.conftest import small_recipe
from tests.random_run import write_random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_random_run(tmp_path_factory.mktemp("exported") / "run", small_recipe())


@pytest.fixture(scope="module")
def path(run):
    path = run.parent / "model.cgan"
    assert cgan("export", f"--workdir={run}", f"--out={path}") == 0
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda info: {**info, "extra": 1},
        lambda info: [1],
        lambda info: {**info, "recipe": {}},
        lambda info: {**info, "recipe": {**info["recipe"], "dataset": {**info["recipe"]["dataset"], "image_size": 16}}},
        lambda info: {**info, "class_names": info["class_names"][:3]},
        lambda info: {**info, "channels": 3},
    ],
    ids=["a field of another version", "a list", "no recipe", "another size", "other classes", "other channels"],
)
def test_a_file_whose_run_cannot_be_is_refused_in_one_line(path, tmp_path, capsys, change):
    content, altered = path.read_bytes(), tmp_path / "altered.cgan"
    arrays, texts = exported.unpack_arrays(content[40:])
    described = json.loads(texts["model"])
    described["info"] = change(described["info"])
    inside = exported.pack_arrays(arrays, {**texts, "model": json.dumps(described)})
    altered.write_bytes(content[:8] + hashlib.sha256(inside).digest() + inside)
    assert cgan("sample", f"--model={altered}", f"--out={tmp_path / 'a.png'}") == 2
    assert "altered.cgan: what it says of its run cannot be used: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(path):
    return exported.load(path)


def sampled(run, tmp_path, *options) -> np.ndarray:
    assert cgan("sample", f"--workdir={run}", *options, f"--out={tmp_path / 'a.npz'}") == 0
    with np.load(tmp_path / "a.npz") as archive:
        return archive["images"].astype(int)


def off_by(images, expected) -> int:
    assert images.dtype == np.uint8 and images.shape == expected.shape
    assert expected.std() > 5, "an image with nothing on it proves nothing"
    return np.abs(images - expected).max()


@pytest.mark.parametrize("truncation", [None, 0.4])
def test_the_images_are_those_of_sample(run, model, tmp_path, truncation):
    options = [] if truncation is None else [f"--truncation={truncation}"]
    expected = sampled(run, tmp_path, "--labels=3,7", "--num_images=5", "--seed=9", *options)
    assert off_by(model([3, 3, 3, 7, 7], seed=9, truncation=truncation), expected) <= 1
    if truncation:
        assert off_by(model([3, 3, 3, 7, 7], seed=9), expected) > 1


PROGRAM = """
import sys

ABSENT = ("flax", "orbax", "clu", "optax", "ml_collections", "absl", "tensorflow_datasets", "PIL")

class Absent:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ABSENT:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Absent())
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from cgan_jax import exported
model = exported.load(sys.argv[1])
np.save(sys.argv[2], model([3, 3, 3, 7, 7], seed=9))
print(sorted(name for name in sys.modules if name.startswith("cgan_jax")))
"""


def test_neither_the_networks_nor_their_libraries_are_needed(run, path, tmp_path):
    command = [sys.executable, "-c", PROGRAM, path, tmp_path / "images.npy"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_NUM_CPU_DEVICES": "1"})
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == ["cgan_jax", "cgan_jax.errors", "cgan_jax.exported"]
    expected = sampled(run, tmp_path, "--labels=3,7", "--num_images=5", "--seed=9")
    assert off_by(np.load(tmp_path / "images.npy"), expected) <= 1


def test_it_is_for_three_platforms_and_any_batch(path):
    from jax import export

    from cgan_jax import exported

    arrays, _ = exported.unpack_arrays(path.read_bytes()[40:])
    for name in ("latents", "images"):
        program = export.deserialize(bytearray(arrays[f"program/{name}"].tobytes()))
        assert program.platforms == ("cpu", "cuda", "tpu")
        assert str(program.out_avals[0].shape[0]) == "n"


def test_latents_of_ones_own_and_images_by_number(model):
    latents = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    images = model([1, 2, 3], latents=latents)
    np.testing.assert_array_equal(images[1:2], model([2], latents=latents[1:2]))
    assert np.any(images[1] != model([1], latents=latents[1:2])[0]), "the class matters"
    many = model([5] * 300, seed=1)
    assert off_by(model([5, 5], seed=1, indices=[299, 0]), many[[299, 0]].astype(int)) <= 1


def test_it_says_what_it_is(model):
    assert model.class_names == [str(digit) for digit in range(10)]
    assert (model.latent_dim, model.image_shape) == (4, (8, 8, 1))
    assert (model.metadata["step"], model.metadata["architecture"], model.metadata["metrics"]) == (8, "dcgan", {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [3]}, "give either a seed or latents"),
        ({"labels": [3], "seed": 0, "latents": np.zeros((1, 4))}, "and not both"),
        ({"labels": [10], "seed": 0}, "labels must be 0 to 9, given 10 to 10"),
        ({"labels": [-1], "seed": 0}, "given -1"),
        ({"labels": [], "seed": 0}, "labels must be a list of class numbers"),
        ({"labels": ["3"], "seed": 0}, "labels must be a list of class numbers"),
        ({"labels": 3, "seed": 0}, "labels must be a list of class numbers"),
        ({"labels": [3], "seed": -1}, "seed must be 0 to 4294967295, given -1"),
        ({"labels": [3], "seed": 0, "truncation": 0.0}, "truncation must be a number above 0, given 0.0"),
        ({"labels": [3], "latents": np.zeros((1, 5))}, r"latents must be \[1, 4\], given \[1, 5\]"),
        ({"labels": [3], "latents": np.zeros((1, 4)), "truncation": 1.0}, "need a seed"),
        ({"labels": [3], "seed": 0, "indices": [-1]}, "indices must be 1 whole numbers from 0"),
        ({"labels": [3], "seed": 0, "indices": [0, 1]}, "indices must be 1 whole numbers from 0"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_that_says_why(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_a_file_that_was_altered_or_cut_short_is_refused(path, tmp_path):
    content, other = path.read_bytes(), tmp_path / "other.cgan"
    for place in np.random.default_rng(0).integers(8, len(content), 50).tolist():
        other.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UsageError, match=r"other.cgan is damaged: it was cut short or altered"):
            exported.load(other)
    for length in (8, 20, 40, 41, 1000, len(content) - 1):
        other.write_bytes(content[:length])
        with pytest.raises(UsageError, match="is damaged"):
            exported.load(other)
    for text in (b"", b"cgan", b"PK\x03\x04" + content):
        other.write_bytes(text)
        with pytest.raises(UsageError, match="is no exported model"):
            exported.load(other)


def test_a_file_with_a_right_checksum_but_no_model_is_refused(tmp_path):
    from cgan_jax import exported

    for inside in (b"", b"junk", exported.pack_arrays({}, {}), exported.pack_arrays({}, {"model": json.dumps({})})):
        (tmp_path / "a.cgan").write_bytes(exported._MAGIC + hashlib.sha256(inside).digest() + inside)
        with pytest.raises(UsageError):
            exported.load(tmp_path / "a.cgan")


@pytest.mark.parametrize("which", ["latents", "images"])
def test_a_program_that_calls_something_outside_is_refused_before_it_is_compiled(which, tmp_path):
    def latents(seed, labels, indices, truncation):
        return jnp.zeros((1, 4)) + truncation

    def images(weights, latents, labels):
        return jnp.zeros((1, 2, 2, 1), jnp.uint8)

    def calling(function):
        def called(*arguments):
            result = function(*arguments)
            return jax.ffi.ffi_call("anything", jax.ShapeDtypeStruct(result.shape, result.dtype))(result)

        return called

    one, some = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    given = {
        "latents": (latents, (jax.ShapeDtypeStruct((), jnp.uint32), one, one, some)),
        "images": (images, ([jax.ShapeDtypeStruct((1,), jnp.float32)], jax.ShapeDtypeStruct((1, 4), jnp.float32), one)),
    }
    unchecked = [jax.export.DisabledSafetyCheck.custom_call("anything")]
    programs = {
        name: bytes(
            jax.export.export(jax.jit(calling(function) if name == which else function), disabled_checks=unchecked)(
                *arguments
            ).serialize()
        )
        for name, (function, arguments) in given.items()
    }
    described = {"class_names": ["a"], "latent_dim": 4, "image_shape": [2, 2, 1]}
    (tmp_path / "a.cgan").write_bytes(exported.packed(programs, {"w": np.zeros(1, np.float32)}, described))
    with pytest.raises(UsageError, match=r"a.cgan is refused: a program in it does more than arithmetic: anything"):
        exported.load(tmp_path / "a.cgan")


def programs_of(latents=None, images=None) -> dict[str, bytes]:
    """Programs of any batch size for latents [N, 4] and images [N, 2, 2, 1] without weights but one."""
    (n,) = jax.export.symbolic_shape("n")
    whole, some = jax.ShapeDtypeStruct((n,), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    weight, z = [jax.ShapeDtypeStruct((1,), jnp.float32)], jax.ShapeDtypeStruct((n, 4), jnp.float32)
    latents = latents or (lambda seed, labels, indices, truncation: jnp.zeros((labels.shape[0], 4)) + truncation)
    images = images or (lambda weights, latents, labels: jnp.zeros((labels.shape[0], 2, 2, 1), jnp.uint8))
    given = {
        "latents": (latents, (jax.ShapeDtypeStruct((), jnp.uint32), whole, whole, some)),
        "images": (images, (weight, z, whole)),
    }
    return {
        name: bytes(jax.export.export(jax.jit(f))(*arguments).serialize()) for name, (f, arguments) in given.items()
    }


DESCRIBED = {"class_names": ["a", "b"], "latent_dim": 4, "image_shape": [2, 2, 1]}


def packed(programs: dict[str, bytes], **described) -> bytes:
    return exported.packed(programs, {"w": np.zeros(1, np.float32)}, {**DESCRIBED, **described})


def counting_to(turns: int):
    """Images after a loop of so many turns, which a constant bounds."""

    def images(weights, latents, labels):
        total = jax.lax.fori_loop(0, turns, lambda i, x: x * 3 + i, jnp.sum(labels))
        return jnp.zeros((labels.shape[0], 2, 2, 1), jnp.uint8) + total.astype(jnp.uint8)

    return images


def looping(condition, change=lambda i: i + 1):
    def images(weights, latents, labels):
        total = jax.lax.while_loop(condition(labels), change, 0)
        return jnp.zeros((labels.shape[0], 2, 2, 1), jnp.uint8) + total.astype(jnp.uint8)

    return images


def test_a_loop_that_counts_is_no_reason_to_refuse(tmp_path):
    (tmp_path / "a.cgan").write_bytes(packed(programs_of(images=counting_to(5))))
    image = exported.load(tmp_path / "a.cgan")([1], seed=0)[0, 0, 0, 0]
    value = 1
    for i in range(5):
        value = value * 3 + i
    assert image == value % 256


ENDLESS = {
    "true": looping(lambda labels: lambda i: i >= 0, lambda i: i * 0),
    "a label decides": looping(lambda labels: lambda i: i < labels[0]),
    "it counts not": looping(lambda labels: lambda i: i < 5, lambda i: i * 1),
    "it counts down": looping(lambda labels: lambda i: i < 5, lambda i: i - 1),
    "too many turns": counting_to(2**31 - 1),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_program_that_may_not_end_is_refused_before_it_runs(name, tmp_path):
    (tmp_path / "a.cgan").write_bytes(packed(programs_of(images=ENDLESS[name])))
    with pytest.raises(UsageError, match=r"a.cgan is refused: a program in it holds a loop that may not end"):
        exported.load(tmp_path / "a.cgan")


def test_a_program_that_calls_in_a_tree_without_end_is_refused(tmp_path):
    def images(weights, latents, labels):
        function = jnp.sin
        for _ in range(24):  # each level calls the one below twice: 2^24 calls
            function = jax.jit(lambda x, below=function: below(below(x)))
        return jnp.zeros((labels.shape[0], 2, 2, 1), jnp.uint8) + function(jnp.sum(labels) * 1.0).astype(jnp.uint8)

    (tmp_path / "a.cgan").write_bytes(packed(programs_of(images=images)))
    with pytest.raises(UsageError, match=r"a.cgan is refused: a program in it calls its functions without end"):
        exported.load(tmp_path / "a.cgan")


def test_a_program_that_fills_the_memory_is_refused(tmp_path):
    def images(weights, latents, labels):
        large = jnp.zeros((labels.shape[0], 1 << 18, 1 << 18), jnp.uint8) + labels[:, None, None].astype(jnp.uint8)
        return large[:, :2, :2, None]

    (tmp_path / "a.cgan").write_bytes(packed(programs_of(images=images)))
    with pytest.raises(UsageError, match=r"makes an array of .*262144x262144 numbers, which fills the memory"):
        exported.load(tmp_path / "a.cgan")


@pytest.mark.parametrize(
    "described",
    [
        {"latent_dim": float("inf")},
        {"latent_dim": 5},
        {"latent_dim": 10**400},
        {"latent_dim": "4"},
        {"image_shape": [1 << 18, 1 << 18, 1]},
        {"image_shape": [2, 2]},
        {"image_shape": [2, 2, -1]},
        {"image_shape": None},
        {"class_names": []},
        {"class_names": "ab"},
        {"class_names": ["\ud800"]},
        {"metrics": [1]},
        {"metrics": {"fid": "low"}},
        {"step": "last"},
        {"architecture": 3},
    ],
    ids=str,
)
def test_a_description_that_no_model_has_is_refused_in_a_line(described, tmp_path):
    (tmp_path / "a.cgan").write_bytes(packed(programs_of(), **described))
    with pytest.raises(UsageError, match=r"a.cgan is refused: ") as caught:
        exported.load(tmp_path / "a.cgan")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", "null", '{"weights": ["w", "v"]}'])
def test_a_description_that_is_none_is_refused_in_a_line(text, tmp_path):
    inside = exported.pack_arrays({}, {"model": text})
    (tmp_path / "a.cgan").write_bytes(b"cganjax1" + hashlib.sha256(inside).digest() + inside)
    with pytest.raises(UsageError, match=r"a.cgan is refused: "):
        exported.load(tmp_path / "a.cgan")


def test_a_model_of_a_newer_jax_is_refused_in_a_line(path, tmp_path):
    """Its programs begin with a version of MLIR's bytecode, which is raised here to 127."""
    content = path.read_bytes()
    inside = re.sub(rb"ML\xefR.", b"ML\xefR\xff", content[40:])
    assert inside != content[40:]
    (tmp_path / "newer.cgan").write_bytes(content[:8] + hashlib.sha256(inside).digest() + inside)
    with pytest.raises(
        UsageError, match=f"was exported by jax {jax.__version__} and opens with that version or a newer"
    ):
        exported.load(tmp_path / "newer.cgan")
