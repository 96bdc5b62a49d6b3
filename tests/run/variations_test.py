"""The recipes of a sweep, counted and named by hand."""

import copy

import pytest

from cgan_jax.errors import UsageError
from cgan_jax.run.variations import NamedRecipe, expand, parse


def changed(recipe: dict, **values) -> dict:
    """A changed copy, as in `changed(recipe, generator__width=5)`."""
    recipe = copy.deepcopy(recipe)
    for field, value in values.items():
        section, _, name = field.partition("__")
        recipe[section][name] = value
    return recipe


def test_values_have_the_types_of_the_recipe(recipe):
    assert parse("generator.width=2, 8", recipe).settings == ({"generator.width": 2}, {"generator.width": 8})
    assert parse("d_optimizer.b1=0,1e-1", recipe).settings == ({"d_optimizer.b1": 0.0}, {"d_optimizer.b1": 0.1})
    assert parse("dataset.flip=true,False", recipe).settings == ({"dataset.flip": True}, {"dataset.flip": False})
    assert parse("g_optimizer.schedule=linear", recipe).settings == ({"g_optimizer.schedule": "linear"},)
    assert parse("loss.g_terms.bce.weight=2", recipe).settings == ({"loss.g_terms.bce.weight": 2.0},)
    assert parse("seed=1", recipe).settings == ({"seed": 1},)
    assert all(type(setting["d_optimizer.b1"]) is float for setting in parse("d_optimizer.b1=0,1", recipe).settings)


def test_fields_joined_by_a_plus_change_together(recipe):
    variation = parse("train.batch_size+train.g_batch_size=8,32", recipe)
    assert variation.fields == ("train.batch_size", "train.g_batch_size")
    assert variation.settings == (
        {"train.batch_size": 8, "train.g_batch_size": 8},
        {"train.batch_size": 32, "train.g_batch_size": 32},
    )


def test_one_change_at_a_time_around_the_recipe(recipe):
    before = copy.deepcopy(recipe)
    texts = ("generator.width=2,8", "train.batch_size+train.g_batch_size=32", "g_optimizer.learning_rate=1e-5")
    runs = expand(recipe, [parse(text, recipe) for text in texts], grid=False)
    assert runs == [
        NamedRecipe("baseline", recipe),
        NamedRecipe("generator.width=2", changed(recipe, generator__width=2)),
        NamedRecipe("generator.width=8", changed(recipe, generator__width=8)),
        NamedRecipe(
            "train.batch_size+train.g_batch_size=32", changed(recipe, train__batch_size=32, train__g_batch_size=32)
        ),
        NamedRecipe("g_optimizer.learning_rate=1e-05", changed(recipe, g_optimizer__learning_rate=1e-5)),
    ]
    assert recipe == before, "expand must not change the recipe"


def test_a_grid_is_the_product(recipe):
    variations = [parse(text, recipe) for text in ("generator.width=2,4", "discriminator.dropout=0.1,0.2,0.5")]
    runs = expand(recipe, variations, grid=True)
    assert [run.name for run in runs] == [
        f"generator.width={width}__discriminator.dropout={dropout}" for width in (2, 4) for dropout in (0.1, 0.2, 0.5)
    ]
    assert runs[4].recipe == changed(recipe, generator__width=4, discriminator__dropout=0.2)


def test_settings_equal_to_the_recipe_are_the_baseline(recipe):
    variations = [parse(text, recipe) for text in ("generator.width=2,4", "generator.width+discriminator.width=4,2")]
    names = [run.name for run in expand(recipe, variations, grid=False)]
    assert names == ["baseline", "generator.width=2", "generator.width+discriminator.width=2"]


def test_names_have_safe_characters_only(recipe):
    (run,) = expand(recipe, [parse("dataset.data_dir=/tmp/a b:c*", recipe)], grid=True)
    assert run.name == "dataset.data_dir=_tmp_a_b_c_" and run.recipe["dataset"]["data_dir"] == "/tmp/a b:c*"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("generator.wdith=3", "the recipe has no field generator.wdith; did you mean generator.width?"),
        ("generator=3", "generator is a section; vary a field of it: generator.dtype, generator.embedding_dim"),
        ("loss.g_terms.hinge.weight=1.0", "the recipe has no field loss.g_terms.hinge.weight"),
        ("generator.width=wide", "generator.width must be of type int, given 'wide'"),
        ("generator.width=3.5", "generator.width must be of type int, given '3.5'"),
        ("g_optimizer.b1=half", "g_optimizer.b1 must be of type float, given 'half'"),
        ("dataset.flip=1", "dataset.flip must be of type bool, given '1'"),
        ("g_optimizer.b1+generator.width=0.5", "generator.width must be of type int, given '0.5'"),
        ("generator.width=", "give a field and at least one value"),
        ("generator.width", "give a field and at least one value"),
        ("generator.width=3,,5", "give a field and at least one value"),
        ("=3", "give a field and at least one value"),
        ("generator.width+=3", "give a field and at least one value"),
        ("generator.width=3,5,3", "the value 3 is given twice"),
        ("g_optimizer.b1=1e-1,0.1", "the value 0.1 is given twice"),
    ],
)
def test_what_cannot_be_varied_is_refused(recipe, text, complaint):
    with pytest.raises(UsageError) as error:
        parse(text, recipe)
    assert complaint in str(error.value) and "\n" not in str(error.value)


def test_a_grid_sets_a_field_once(recipe):
    variations = [parse(text, recipe) for text in ("generator.width=2", "discriminator.width+generator.width=3")]
    with pytest.raises(UsageError, match=r"--grid: generator\.width is varied twice"):
        expand(recipe, variations, grid=True)


def test_two_variations_never_share_a_folder(recipe):
    with pytest.raises(UsageError, match=r"two variations would have the folder dataset\.name=a_b"):
        expand(recipe, [parse("dataset.name=a/b,a b", recipe)], grid=False)


def test_a_name_that_is_too_long_for_a_folder_is_refused(recipe):
    with pytest.raises(UsageError, match="is longer than a folder's name may be"):
        expand(recipe, [parse("dataset.name=" + 300 * "a", recipe)], grid=False)
