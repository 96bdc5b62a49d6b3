"""What a recipe must be, line by line: every refusal with the whole of its message."""

import contextlib
import copy

import pytest

from cgan_jax import recipe as recipes
from cgan_jax import recipe_fields, recipe_files
from cgan_jax.errors import UsageError

MISSING = "(missing)"


def changed(recipe, key, value):
    """A copy of the recipe with `section.field` set, or removed where the value is MISSING."""
    result = copy.deepcopy(recipe)
    *path, last = key.split(".")
    section = result
    for name in path:
        section = section[name]
    if value is MISSING:
        del section[last]
    else:
        section[last] = value
    return result


def test_a_complete_recipe_passes_and_is_not_changed(recipe):
    before = copy.deepcopy(recipe)
    assert recipes.check(recipe) is None
    assert recipe == before


REFUSALS = [
    # keys
    ("archtecture", "dcgan", "the recipe has an unknown key archtecture; did you mean architecture?"),
    ("train.batchsize", 8, "the recipe has an unknown key train.batchsize; did you mean train.batch_size?"),
    ("ema.xyzzy", 1.0, "the recipe has an unknown key ema.xyzzy; there are: halflife_kimg, halflives_kimg, start_kimg"),
    ("loss.terms", {}, "the recipe has an unknown key loss.terms; did you mean loss.g_terms?"),
    ("seed", MISSING, "the recipe lacks seed"),
    ("ema", MISSING, "the recipe lacks ema"),
    ("generator", MISSING, "the recipe lacks generator"),
    ("dataset.flip", MISSING, "the recipe lacks dataset.flip"),
    ("loss.g_terms", MISSING, "the recipe lacks loss.g_terms"),
    # sections
    ("train", 3, "train must be a section, given 3"),
    ("generator", "big", "generator must be a section, given 'big'"),
    ("loss", None, "loss must be a section, given None"),
    ("loss.d_updates", 1.0, "loss.d_updates must be a section, given 1.0"),
    ("loss.d_updates.both", 1.0, "loss.d_updates.both must be a section, given 1.0"),
    ("loss.d_updates.both.bce_real", 1.0, "loss.d_updates.both.bce_real must be a section, given 1.0"),
    ("loss.g_terms.bce", 1.0, "loss.g_terms.bce must be a section, given 1.0"),
    # types
    ("architecture", 3, "architecture must be of type str, given 3"),
    ("seed", 1.0, "seed must be of type int, given 1.0"),
    ("seed", True, "seed must be of type int, given True"),
    ("dataset.flip", 1, "dataset.flip must be of type bool, given 1"),
    ("train.total_kimg", 10, "train.total_kimg must be of type float, given 10"),
    ("train.batch_size", 16.0, "train.batch_size must be of type int, given 16.0"),
    ("train.batch_size", None, "train.batch_size must be of type int, given None"),
    ("g_optimizer.b1", "0.5", "g_optimizer.b1 must be of type float, given '0.5'"),
    ("loss.g_terms.bce.weight", 1, "loss.g_terms.bce.weight must be of type float, given 1"),
    ("loss.g_terms.bce.every", 2.0, "loss.g_terms.bce.every must be of type int, given 2.0"),
    ("generator.width", None, "generator.width must be a number, a text or a truth value, given None"),
    ("generator.width", [4], "generator.width must be a number, a text or a truth value, given [4]"),
    # ranges
    ("seed", -1, "seed must be at least 0 and at most 2147483647, given -1"),
    ("seed", 2**31, "seed must be at least 0 and at most 2147483647, given 2147483648"),
    ("dataset.image_size", 0, "dataset.image_size must be at least 1, given 0"),
    ("train.batch_size", 0, "train.batch_size must be at least 1, given 0"),
    ("train.g_batch_size", -8, "train.g_batch_size must be at least 1, given -8"),
    ("train.d_steps_per_g_step", 0, "train.d_steps_per_g_step must be at least 1, given 0"),
    ("train.steps_per_call", -1, "train.steps_per_call must be at least 0, given -1"),
    ("train.total_kimg", 0.0, "train.total_kimg must be at least 0.001 and at most 4294967.296, given 0.0"),
    ("train.total_kimg", 5e6, "train.total_kimg must be at least 0.001 and at most 4294967.296, given 5000000.0"),
    ("train.log_kimg", 0.0, "train.log_kimg must be at least 1e-06, given 0.0"),
    ("train.sample_kimg", -1.0, "train.sample_kimg must be at least 1e-06, given -1.0"),
    ("checkpoint.every_kimg", 0.0, "checkpoint.every_kimg must be at least 1e-06, given 0.0"),
    ("checkpoint.max_to_keep", 1, "checkpoint.max_to_keep must be at least 2, given 1"),
    ("g_optimizer.learning_rate", 0.0, "g_optimizer.learning_rate must be more than 0, given 0.0"),
    ("d_optimizer.b2", 1.5, "d_optimizer.b2 must be at least 0 and less than 1, given 1.5"),
    ("d_optimizer.b2", 1.0, "d_optimizer.b2 must be at least 0 and less than 1, given 1.0"),
    ("g_optimizer.b1", 1.0, "g_optimizer.b1 must be at least 0 and less than 1, given 1.0"),
    ("ema.halflife_kimg", -0.5, "ema.halflife_kimg must be at least 0, given -0.5"),
    ("ema.halflives_kimg", (1.0,), "ema.halflives_kimg must be of type str, given (1.0,)"),
    ("ema.halflives_kimg", "1,x", "ema.halflives_kimg must be numbers above 0, such as 1,25, given '1,x'"),
    ("ema.halflives_kimg", "0", "ema.halflives_kimg must be numbers above 0, such as 1,25, given '0'"),
    ("ema.halflives_kimg", "1,1.0", "ema.halflives_kimg=1,1.0 lists 1, of which there is an average already"),
    ("ema.halflives_kimg", "0.1", "ema.halflives_kimg=0.1 lists 0.1, of which there is an average already"),
    ("generator.width", 0, "generator.width must be at least 1, given 0"),
    ("generator.latent_dim", -4, "generator.latent_dim must be at least 1, given -4"),
    ("discriminator.dropout", -0.1, "discriminator.dropout must be at least 0, given -0.1"),
    ("loss.d_updates.both.bce_real.every", 0, "loss.d_updates.both.bce_real.every must be at least 1, given 0"),
    ("train.parallelism", "magic", "train.parallelism must be one of shard_map, pmap, given 'magic'"),
    # what is no number at all
    ("train.total_kimg", float("nan"), "train.total_kimg must be a finite number, given nan"),
    ("train.log_kimg", float("inf"), "train.log_kimg must be a finite number, given inf"),
    ("ema.start_kimg", float("nan"), "ema.start_kimg must be a finite number, given nan"),
    ("discriminator.dropout", float("nan"), "discriminator.dropout must be a finite number, given nan"),
    ("loss.g_terms.bce.weight", float("nan"), "loss.g_terms.bce.weight must be a finite number, given nan"),
    ("loss.g_terms.bce.weight", -float("inf"), "loss.g_terms.bce.weight must be a finite number, given -inf"),
    # annealing
    ("augment", MISSING, "the recipe lacks augment"),
    ("augment.probability", 1.5, "augment.probability must be at least 0 and at most 1, given 1.5"),
    ("anneal", 3.0, "anneal must be a section, given 3.0"),
    ("anneal.kimg", -1.0, "anneal.kimg must be at least 0, given -1.0"),
    ("anneal.to", 1.0, "anneal.to must be a section, given 1.0"),
    ("anneal.from", {}, "the recipe has an unknown key anneal.from; there are: kimg, to"),
    (
        "anneal.to",
        {"ema": {"start_kimg": 1.0}},
        "anneal.to.ema.start_kimg cannot be annealed; there are: augment.probability, d_optimizer.b2,"
        " d_optimizer.learning_rate, ema.halflife_kimg, g_optimizer.b2, g_optimizer.learning_rate,"
        " loss.d_updates.both.bce_fake.weight, loss.d_updates.both.bce_real.weight, loss.g_terms.bce.weight",
    ),
    (
        "anneal.to",
        {"d_optimizer": {"b2": 2.0}},
        "anneal.to.d_optimizer.b2 must be at least 0 and less than 1, given 2.0",
    ),
    (
        "anneal.to",
        {"g_optimizer": {"learning_rate": 0.0}},
        "anneal.to.g_optimizer.learning_rate must be more than 0, given 0.0",
    ),
    (
        "anneal.to",
        {"augment": {"probability": 0.5}},
        "anneal.kimg must be more than 0 where anneal.to lists numbers, given 0.0",
    ),
    ("train.max_minutes", -1.0, "train.max_minutes must be at least 0, given -1.0"),
    # losses
    ("loss.g_terms.bce.weight", MISSING, "loss.g_terms.bce lacks its weight"),
    ("loss.d_updates.both.bce_fake.weight", MISSING, "loss.d_updates.both.bce_fake lacks its weight"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSALS, ids=[f"{key}={value}" for key, value, _ in REFUSALS])
def test_a_recipe_that_cannot_work_is_refused_in_one_line(recipe, key, value, message):
    with pytest.raises(UsageError) as caught:
        recipes.check(changed(recipe, key, value))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**31 - 1),
        ("train.steps_per_call", 0),
        ("train.parallelism", "pmap"),
        ("ema.halflife_kimg", 0.0),
        ("d_optimizer.b1", 0.0),
        ("augment.probability", 1.0),
        ("loss.g_terms.bce.weight", -2.5),
        ("loss.g_terms.bce.every", 1),
        ("generator.kind", "deep"),
        ("generator.deep", False),
    ],
)
def test_the_ends_of_a_range_are_allowed(recipe, key, value):
    assert recipes.check(changed(recipe, key, value)) is None


def test_numbers_of_losses_optimizers_averages_and_augmentation_may_be_annealed(recipe):
    to = {
        "loss": {"d_updates": {"both": {"bce_real": {"weight": 0.5}}}, "g_terms": {"bce": {"top": 0.5}}},
        "g_optimizer": {"learning_rate": 1e-5, "b2": 0.9},
        "ema": {"halflife_kimg": 1.0},
        "augment": {"probability": 0.5},
    }
    recipe["loss"]["g_terms"]["bce"]["top"] = 1.0
    recipe["anneal"] = {"kimg": 1.0, "to": to}
    assert recipes.check(recipe) is None


@pytest.mark.parametrize("section", recipe_fields.LATER)
def test_a_stored_recipe_may_lack_sections_that_came_later(recipe, section):
    del recipe[section]
    assert recipes.check(recipe, stored=True) is None
    with pytest.raises(UsageError, match=f"^the recipe lacks {section}$"):
        recipes.check(recipe)


@pytest.mark.parametrize("name", ["batch_size", "g_batch_size"])
def test_a_batch_that_the_devices_cannot_share_is_refused(recipe, name):
    recipe = changed(recipe, f"train.{name}", 12)
    assert recipes.check_devices(recipe, 4) is None
    with pytest.raises(UsageError) as caught:
        recipes.check_devices(recipe, 8)
    assert str(caught.value) == f"train.{name}=12 cannot be shared evenly by 8 devices; give a multiple of 8"


@pytest.mark.parametrize("name", ["batch_size", "g_batch_size"])
def test_parts_that_do_not_divide_the_batch_of_a_device_are_refused(recipe, name):
    recipe = changed(changed(recipe, f"train.{name}", 24), "train.accumulate", 2)
    assert recipes.check_devices(recipe, 4) is None
    with pytest.raises(UsageError) as caught:
        recipes.check_devices(recipe, 8)
    assert str(caught.value) == f"train.accumulate=2 must divide the 3 images of train.{name} on each device"


@pytest.mark.parametrize(
    ("groups", "devices", "line"),
    [
        (1, 8, ""),
        (4, 8, ""),
        (8, 4, ""),
        (5, 1, "5 must divide the 24 images"),
        (12, 8, "12 must divide the 8 devices"),
    ],
)
def test_groups_of_batch_normalisation_share_the_batch_and_the_devices_evenly(recipe, groups, devices, line):
    recipe["train"] |= {"batch_size": 24, "g_batch_size": 24, "batch_norm_groups": groups}
    with pytest.raises(UsageError, match=f"batch_norm_groups={line}") if line else contextlib.nullcontext():
        recipes.check_devices(recipe, devices)


def test_flattening_gives_every_leaf_by_its_dotted_name_in_order():
    nested = {"b": 1, "a": {"y": 2, "x": {"z": "3"}}, "c": {}}
    assert list(recipes.flattened(nested)) == [("b", 1), ("a.y", 2), ("a.x.z", "3")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.total_kimg", 99.0),
        ("train.max_minutes", 9.0),
        ("train.steps_per_call", 7),
        ("train.parallelism", "pmap"),
        ("train.log_kimg", 99.0),
        ("train.sample_kimg", 99.0),
        ("checkpoint.every_kimg", 99.0),
        ("checkpoint.max_to_keep", 9),
        ("evaluate.metrics", "pixel_mse"),
        ("evaluate.every_kimg", 99.0),
        ("evaluate.num_images", 9),
        ("dataset.data_dir", "/elsewhere"),
        ("train.accumulate", 2),
        ("generator.remat", True),
    ],
)
def test_a_resumed_run_may_go_on_longer_elsewhere_and_report_differently(recipe, key, value):
    assert recipes.check_same_run(recipe, changed(recipe, key, value), "runs/a") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("architecture", "biggan"),
        ("train.batch_size", 32),
        ("g_optimizer.learning_rate", 1.0),
        ("ema.start_kimg", 9.0),
        ("dataset.flip", True),
        ("generator.width", 8),
        ("loss.g_terms.bce.weight", 2.0),
        ("loss.g_terms.hinge", {"weight": 1.0}),
        ("loss.d_updates.both.bce_fake", MISSING),
    ],
)
def test_a_resumed_run_may_not_change_its_algorithm(recipe, key, value):
    with pytest.raises(UsageError, match=f"differs in {key}"):
        recipes.check_same_run(recipe, changed(recipe, key, value), "runs/a")


def test_a_refused_resumption_lists_every_key_that_differs_and_no_other(recipe):
    other = changed(changed(changed(recipe, "seed", 5), "generator.width", 8), "train.total_kimg", 9.0)
    with pytest.raises(UsageError) as caught:
        recipes.check_same_run(recipe, changed(other, "loss.g_terms.r", {"weight": 1.0}), "runs/a")
    assert str(caught.value) == (
        "runs/a holds a run of another recipe, which differs in generator.width: 4 -> 8;"
        " loss.g_terms.r.weight: 'absent' -> 1.0; seed: 0 -> 5; use another --workdir"
    )


def test_a_stored_recipe_may_lack_and_hold_what_an_earlier_version_did_in_what_may_change(recipe):
    del recipe["guard"]
    recipe["checkpoint"]["max_to_keep"] = 1
    recipes.check(recipe, stored=True)
    with pytest.raises(UsageError, match=r"^the recipe lacks guard$"):
        recipes.check(recipe)
    recipe["train"]["batch_size"] = 0
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        recipes.check(recipe, stored=True)


@pytest.mark.parametrize("field", ["total_kimg", "max_minutes"])
def test_a_schedule_that_another_length_bends_is_told(recipe, field, capsys):
    given = changed(changed(recipe, f"train.{field}", 7.0), "d_optimizer.schedule", "cosine")
    recipes.warn_of_schedules(recipe, given)
    before = recipe["train"][field]
    assert capsys.readouterr().out == (
        f"note: d_optimizer has a cosine schedule over the whole run; with train.{field} {before:g} -> 7"
        " its learning rate changes at once\n"
    )
    recipes.warn_of_schedules(given, given)
    assert capsys.readouterr().out == ""


def test_a_stored_recipe_has_what_an_earlier_version_did_not_let_choose(recipe):
    before = copy.deepcopy(recipe)
    recipes.complete(recipe)
    assert recipe == before, "nothing is missing"
    recipe["generator"]["dtype"] = "bfloat16"
    del recipe["discriminator"]["dtype"]
    recipes.complete(recipe)
    assert (recipe["generator"]["dtype"], recipe["discriminator"]["dtype"]) == ("bfloat16", "float32")


# What a method is not, until a recipe turns it on.
OFF = {"augment.policy", "augment.probability", "anneal.kimg", "g_optimizer.schedule", "d_optimizer.schedule"}


def test_defaults_hold_no_number_of_a_method():
    for key, _ in recipes.flattened(recipes.defaults().to_dict()):
        section, _, field = key.partition(".")
        value = recipe_fields.SECTIONS.get(section, {}).get(field)
        is_off = key in OFF or (value is not None and value.before is not None)
        assert key == "seed" or is_off or value.may_change, f"{key} belongs into every recipe, not into defaults()"


def test_defaults_hold_all_that_may_change_on_resuming_but_the_length():
    given = dict(recipes.flattened(recipes.defaults().to_dict()))
    may_change = {
        f"{s}.{name}" for s, fields in recipe_fields.SECTIONS.items() for name, v in fields.items() if v.may_change
    }
    assert may_change - given.keys() == {"train.total_kimg"}


def test_two_recipes_share_no_default():
    recipes.defaults().guard.collapse = 0.9
    assert recipes.defaults().guard.collapse == 0.1


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("train.total_kimg", 60, 60.0),
        ("ema.start_kimg", 0, 0.0),
        ("g_optimizer.learning_rate", 1, 1.0),
        ("loss.g_terms.bce.weight", -2, -2.0),
        ("loss.d_updates.both.bce_real.shift", 1, 1.0),
        ("loss.d_updates.both.bce_real.every", 4, 4),
        ("loss.d_updates.both.bce_real.every", 4.0, 4.0),
        ("anneal.kimg", 5, 5.0),
        ("train.batch_size", 16, 16),
        ("train.batch_size", 16.0, 16.0),
        ("dataset.flip", 1, 1),
        ("train.total_kimg", True, True),
        ("train.total_kimg", 10**400, 10**400),
        ("generator.width", 4, 4),
        ("train.anything", 3, 3),
        ("dataset.data_dir", "~/data", "/home/me/data"),
        ("dataset.data_dir", "gs://bucket/~/data", "gs://bucket/~/data"),
        ("dataset.data_dir", 3, 3),
        ("dataset.name", "~/data", "~/data"),
    ],
)
def test_whole_numbers_become_floats_where_a_float_is_meant_and_nothing_else(recipe, monkeypatch, key, given, meant):
    monkeypatch.setenv("HOME", "/home/me")
    recipe = changed(recipe, key, given)
    before = copy.deepcopy(recipe)
    found = dict(recipes.flattened(recipes.widened(recipe)))
    assert recipe == before
    assert repr(found.pop(key)) == repr(meant)
    assert repr(found) == repr({name: value for name, value in recipes.flattened(before) if name != key})


def test_what_annealed_numbers_end_with_is_widened(recipe):
    to = {"loss": {"d_updates": {"both": {"bce_real": {"weight": 0}}}}, "ema": {"halflife_kimg": 3}}
    widened = recipes.widened({**recipe, "anneal": {"kimg": 1, "to": to}})
    assert recipes.check(widened) is None
    assert list(recipes.flattened(widened["anneal"]["to"])) == [
        ("loss.d_updates.both.bce_real.weight", 0.0),
        ("ema.halflife_kimg", 3.0),
    ]


def test_a_run_from_before_a_field_goes_on_with_what_held_then(recipe):
    given = copy.deepcopy(recipe)
    given["dataset"] |= {
        name: value.before for name, value in recipes.SECTIONS["dataset"].items() if value.before is not None
    }
    started = copy.deepcopy(given)
    for field in ("fit", "channels", "background", "classes", "balance"):
        del started["dataset"][field]
    recipes.check(started, stored=True)
    recipes.check(started)
    recipes.check_same_run(started, given, "runs/old")
    recipes.check_same_run(given, started, "runs/old")
    given["dataset"]["balance"] = "sqrt"
    with pytest.raises(UsageError, match=r"dataset\.balance: 'none' -> 'sqrt'"):
        recipes.check_same_run(started, given, "runs/old")


def test_a_run_from_before_an_architecture_had_a_field_goes_on_with_its_recipe():
    given = recipe_files.load("cifar10_cgan_deep").to_dict()
    started = copy.deepcopy(given)
    del started["generator"]["batch_norm_momentum"]
    recipes.check(started, stored=True)
    recipes.check_same_run(started, given, "runs/old")
    given["generator"]["batch_norm_momentum"] = 0.9
    with pytest.raises(UsageError, match=r"generator\.batch_norm_momentum: 0\.0 -> 0\.9"):
        recipes.check_same_run(started, given, "runs/old")
