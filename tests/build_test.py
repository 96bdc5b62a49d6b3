"""A recipe turned into an Algorithm: networks, optimizers, terms and numbers."""

import copy

import pytest

from cgan_jax import build, recipe_files
from cgan_jax.errors import UsageError
from cgan_jax.networks import anatomy
from cgan_jax.networks.architectures import dcgan

SPEC = build.ImageSpec(image_size=8, channels=1, num_classes=10)


def changed(recipe, **sections):
    result = copy.deepcopy(recipe)
    for section, values in sections.items():
        result[section].update(values)
    return result


@pytest.mark.parametrize(
    ("kimg", "batch_size", "d_steps", "steps"),
    [
        (0.0, 16, 1, 0),
        (0.016, 16, 1, 1),
        (0.017, 16, 1, 2),  # at least that many images
        (0.128, 16, 1, 8),
        (0.128, 16, 3, 3),
        (1.1, 100, 1, 11),  # 1.1 * 1000 is a little more than 1100 in floats
        (0.3, 100, 1, 3),  # and 0.1 + 0.2 more than 0.3
        (0.1 + 0.2, 100, 1, 3),
        (10_000.0, 128, 1, 78_125),
        (25_600.0, 256, 5, 20_000),
    ],
)
def test_a_length_is_the_fewest_steps_that_show_so_many_images(recipe, kimg, batch_size, d_steps, steps):
    config = changed(recipe, train={"batch_size": batch_size, "d_steps_per_g_step": d_steps})
    assert build.steps_for(config, kimg) == steps


def test_a_step_shows_the_real_images_of_all_its_discriminator_updates(recipe):
    config = changed(recipe, train={"batch_size": 16, "g_batch_size": 64, "d_steps_per_g_step": 5})
    assert build.images_per_step(config) == 80


def test_a_recipe_gives_its_networks_terms_and_numbers(recipe):
    config = changed(recipe, dataset={"flip": True}, train={"g_batch_size": 32, "d_steps_per_g_step": 2})
    config["loss"] = {
        "d_updates": {
            "first": {"hinge_real": {"weight": 1.0}},
            "idle": {"bce_real": {"weight": 0.0}},
            "second": {"hinge_fake": {"weight": 0.5}, "r1": {"weight": 10.0, "every": 4}},
        },
        "g_terms": {"hinge": {"weight": 1.0}, "l2": {"weight": 2.0}},
    }
    built = build.build(config, SPEC)
    assert built.generator == dcgan.Generator(
        8, 1, 10, latent_dim=4, width=4, embedding_dim=3, output_kernel_size=4, dtype="float32"
    )
    assert built.discriminator == dcgan.Discriminator(8, 1, 10, width=4, embedding_dim=3, dropout=0.3, dtype="float32")
    listed = {name: [(term.name, term.weight) for term in terms] for name, terms in built.d_updates.items()}
    assert listed == {"first": [("hinge_real", 1.0)], "second": [("hinge_fake", 0.5), ("r1", 10.0)]}
    assert [(term.name, term.weight) for term in built.g_terms] == [("hinge", 1.0), ("l2", 2.0)]
    assert (built.batch_size, built.g_batch_size, built.d_steps_per_g_step, built.flip) == (16, 32, 2, True)


def test_an_unconditional_recipe_gives_networks_of_no_classes(recipe):
    built = build.build(changed(recipe, dataset={"conditional": False}), SPEC)
    assert (built.generator.num_classes, built.discriminator.num_classes) == (0, 0)


def test_the_average_keeps_half_of_itself_over_its_halflife(recipe):
    config = changed(recipe, ema={"halflife_kimg": 0.8, "start_kimg": 0.1})
    built = build.build(config, SPEC)
    # 16 images a step, so 50 steps are 800 images.
    assert built.ema_decay(0.0) ** 50 == pytest.approx(0.5, rel=1e-12)
    assert built.ema_start_step == 7
    assert build.build(changed(recipe, ema={"halflife_kimg": 0.0}), SPEC).ema_decay(0.0) == 0.0


def test_the_schedules_end_with_the_run(recipe):
    """8 steps of 2 discriminator updates each are 8 generator and 32 discriminator updates of two entries."""
    config = changed(recipe, train={"total_kimg": 0.256, "d_steps_per_g_step": 2})
    config["loss"]["d_updates"] = {"a": {"bce_real": {"weight": 1.0}}, "b": {"bce_fake": {"weight": 1.0}}}
    for player in ("g_optimizer", "d_optimizer"):
        config[player].update(schedule="linear", b1=0.0, b2=0.0, learning_rate=1.0)
    built = build.build(config, SPEC)
    for optimizer, updates in ((built.g_optimizer, 8), (built.d_optimizer, 32)):
        state, rates = optimizer.init(0.0), []
        for _ in range(updates + 1):
            update, state = optimizer.update(1.0, state)
            rates.append(-float(update))
        assert rates[1] == pytest.approx(1 - 1 / updates, rel=1e-6)
        assert rates[-2] == pytest.approx(1 / updates, rel=1e-5) and rates[-1] == pytest.approx(0.0, abs=1e-6)


def test_a_lazy_update_counts_where_it_is_made(recipe):
    """16 discriminator steps: 16 updates of the first entry and 4 of the second."""
    config = changed(recipe, train={"total_kimg": 0.256, "d_steps_per_g_step": 1})
    config["loss"]["d_updates"] = {"a": {"bce_real": {"weight": 1.0}}, "b": {"r1": {"weight": 1.0, "every": 4}}}
    config["d_optimizer"].update(schedule="linear", b1=0.0, b2=0.0, learning_rate=1.0)
    optimizer = build.build(config, SPEC).d_optimizer
    state, rates = optimizer.init(0.0), []
    for _ in range(21):
        update, state = optimizer.update(1.0, state)
        rates.append(-float(update))
    assert rates[-2] == pytest.approx(1 / 20, rel=1e-5) and rates[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", ["cifar10_stylegan2_ada", "cifar10_stylegan2_d2dce", "digits_stylegan2"])
def test_updates_run_in_the_order_of_their_names(name):
    config = recipe_files.load(name).to_dict()
    assert list(build.build(config, spec_of(config)).d_updates) == ["lazy", "main"]


def spec_of(config):
    return build.ImageSpec(config["dataset"]["image_size"], channels=3, num_classes=10)


def a_recipe_of_each_architecture():
    recipes = {}
    for name in recipe_files.names():
        config = recipe_files.load(name).to_dict()
        recipes.setdefault(config["architecture"], config)
    return recipes


@pytest.mark.parametrize("dtype", ["float16", "bflot16", "int32"])
@pytest.mark.parametrize("config", [pytest.param(c, id=name) for name, c in a_recipe_of_each_architecture().items()])
def test_every_network_computes_in_float32_or_bfloat16(config, dtype):
    for player in build.PLAYERS:
        network = build.network(changed(config, **{player: {"dtype": dtype}}), player, spec_of(config))
        with pytest.raises(UsageError, match=f"unknown dtype '{dtype}'; there are: float32, bfloat16"):
            anatomy.named(anatomy._initial(network)[0])


@pytest.mark.parametrize("penalty", ["gradient_penalty", "dragan"])
def test_a_penalty_of_each_samples_gradient_is_refused_where_samples_are_coupled(recipe, penalty):
    config = recipe_files.load("digits_stylegan2").to_dict()
    config["loss"]["d_updates"]["main"][penalty] = {"weight": 10.0}
    with pytest.raises(UsageError, match=f"^{penalty} is of each sample's gradient, and the .* of stylegan2 couples"):
        build.build(config, spec_of(config))
    recipe["loss"]["d_updates"]["both"][penalty] = {"weight": 10.0}
    build.build(recipe, SPEC)


def test_groups_of_a_normalisation_that_is_not_there_are_refused(recipe):
    with pytest.raises(UsageError, match=r"^train.batch_norm_groups=4: the generator has no batch normalisation$"):
        build.build(changed(recipe, train={"batch_norm_groups": 4}), SPEC)
    config = changed(recipe_files.load("digits_sngan").to_dict(), train={"batch_norm_groups": 4})
    assert build.build(config, spec_of(config)).batch_norm_groups == 4


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"generator": {"depth": 3}},
            "generator of dcgan takes dtype, embedding_dim, latent_dim, output_kernel_size, width;"
            " the recipe gives depth, dtype, embedding_dim, latent_dim, output_kernel_size, width",
        ),
        (
            {"discriminator": {"image_size": 8}},
            "discriminator of dcgan takes dropout, dtype, embedding_dim, width;"
            " the recipe gives dropout, dtype, embedding_dim, image_size, width",
        ),
        ({"generator": {"width": 4.0}}, "generator.width must be of type int, given 4.0"),
        ({"generator": {"width": True}}, "generator.width must be of type int, given True"),
        ({"discriminator": {"dropout": 0}}, "discriminator.dropout must be of type float, given 0"),
    ],
)
def test_numbers_that_a_network_does_not_take_are_one_line(recipe, sections, message):
    with pytest.raises(UsageError) as caught:
        build.build(changed(recipe, **sections), SPEC)
    assert str(caught.value) == message


def test_a_network_without_any_of_its_numbers_is_one_line(recipe):
    recipe["generator"] = {}
    with pytest.raises(
        UsageError,
        match=r"takes dtype, embedding_dim, latent_dim, output_kernel_size, width; the recipe gives nothing$",
    ):
        build.build(recipe, SPEC)


def test_an_unknown_architecture_is_one_line(recipe):
    recipe["architecture"] = "dcgam"
    with pytest.raises(UsageError, match=r"^unknown architecture 'dcgam'; there are: .*dcgan"):
        build.build(recipe, SPEC)


@pytest.mark.parametrize("player", ["d_updates", "g_terms"])
def test_a_player_without_a_loss_is_one_line(recipe, player):
    loss = recipe["loss"]
    listing = loss["g_terms"] if player == "g_terms" else loss["d_updates"]["both"]
    for entry in listing.values():
        entry["weight"] = 0.0
    with pytest.raises(UsageError, match="must each list at least one loss of weight other than 0"):
        build.build(recipe, SPEC)


def test_an_unknown_loss_is_one_line(recipe):
    recipe["loss"]["g_terms"] = {"bce_real": {"weight": 1.0}}
    with pytest.raises(UsageError, match=r"^unknown loss 'bce_real'; there are: bce, .*, l2, ssim, latent_.*$"):
        build.build(recipe, SPEC)
