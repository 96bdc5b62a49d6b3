"""What the pages show works: links, pictures, commands, flags and recipes that they name exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags

from cgan_jax.lookup import names_in
from cgan_jax.losses.terms import Pass
from cgan_jax.networks.heads import Output

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
GUIDES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks").glob("*.md")), ROOT / "launch" / "README.md"]
RECIPES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if not path.stem.startswith("_"))

# Keys that a recipe may lack: a loss that it does not list may be added whole, another architecture has other numbers,
# and some numbers of a network are optional.
OPEN = ("loss.", "anneal.to.", "generator.remat", "discriminator.remat", "discriminator.rectified_shortcuts")
POSITIONAL = ("import", "models", "recipes")


def fences(text: str, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands_in(text: str) -> list[list[str]]:
    """The simple commands of all bash blocks, each a list of words without assignments before it."""
    found = []
    for block in fences(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars=";&|")
            words.whitespace_split = True
            command: list[str] = []
            for word in [*words, ";"]:
                if set(word) <= set(";&|"):
                    found += [command] if command else []
                    command = []
                elif command or not re.match(r"\w+=", word):
                    command.append(word)
    return found


def cgan_lines(text: str) -> list[list[str]]:
    """What follows `cgan`, or `python -m cgan_jax`, in the commands of a page."""
    lines = []
    for command in commands_in(text):
        if Path(command[0]).name == "cgan":
            lines.append(command[1:])
        elif command[1:3] == ["-m", "cgan_jax"]:
            lines.append(command[3:])
    return lines


def recipe_named(given: str) -> dict:
    """The values of a recipe, by the name or by the path that --config takes. Raises AssertionError for another."""
    name = Path(given).stem
    assert given in (name, f"configs/{name}.py") and name in RECIPES, f"no recipe {given}"
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().to_dict()


def check_key(recipe: dict, key: str, replaced: tuple[str, ...] = ()) -> None:
    """Raises AssertionError for a key that the recipe lacks and that cannot be added."""
    node = recipe
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            assert key.startswith(OPEN) or key.partition(".")[0] in replaced, f"no recipe key {key}"
            return
        node = node[part]


def check_cgan(words: list[str]) -> None:
    """Raises AssertionError for a command line that names a command, a flag or a recipe's key that is not there."""
    name, *arguments = words
    if name == "recipes" and "recipes" not in names_in("cgan_jax.commands"):
        return  # a page may be ahead of the command by one branch
    assert name.replace("-", "_") in names_in("cgan_jax.commands"), f"no command {name}"
    command = importlib.import_module(f"cgan_jax.commands.{name.replace('-', '_')}")
    flags = absl_flags.FlagValues()
    command.define_flags(flags, [])
    others = [argument for argument in arguments if not argument.startswith("--config")]
    try:
        rest = flags([name, *others])[1:]
    except absl_flags.Error as error:
        raise AssertionError(f"cgan {' '.join(words)}: {error}") from error
    assert not rest or name in POSITIONAL, f"cgan {' '.join(words)}: unexpected {rest}"

    given = dict(argument[2:].split("=", 1) for argument in arguments if argument.startswith("--config"))
    assert not given or "config" in flags, f"cgan {name} takes no recipe"
    if given:
        recipe = recipe_named(given.pop("config"))
        whole = tuple(key.removeprefix("config.") for key in given if key.count(".") == 1)
        for key in given:
            check_key(recipe, key.removeprefix("config."), whole)
        for varied in [value for value in others if value.startswith("--vary=")]:
            for field in varied.split("=")[1].split("+"):
                check_key(recipe, field)


def with_includes(path: Path) -> str:
    """A page's text with the files that it includes."""

    def included(match: re.Match) -> str:
        return (path.parent / match[1]).read_text()

    return re.sub(r"```\{include\} (\S+)\n.*?```", included, path.read_text(), flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names by which GitHub and MyST link to a page's headings."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def check_links(text: str, page: Path) -> None:
    """Raises AssertionError for a relative link or picture whose file or heading is not there."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} links to {target}, and there is no {name}"
        assert not anchor or anchor in anchors(with_includes(path)), f"{page.name}: no heading for {target}"


def check_files(text: str) -> None:
    """Raises AssertionError for a file of this repository that a page names and that is not there."""
    files = re.findall(
        r"(?<![\w./])((?:tests|benchmarks|launch|configs|cgan_jax)/[\w/]+\.(?:py|sh|md|yaml|sbatch))", text
    )
    modules = [f"benchmarks/{name}.py" for name in re.findall(r"-m benchmarks\.(\w+)", text)]
    for name in [*files, *modules]:
        assert (ROOT / name).is_file(), f"no file {name}"


def table_of_recipes(text: str) -> list[str]:
    """The recipes in the README's table."""
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_the_readme_is_a_first_page():
    assert len(README.read_text().splitlines()) <= 250


def test_the_readme_lists_every_recipe_once():
    assert sorted(table_of_recipes(README.read_text())) == RECIPES


@pytest.mark.parametrize(
    ("page", "heading"),
    [("fits.md", "Hours at the peak"), ("scaling.md", "Predicted, for machines")],
)
def test_tables_of_all_recipes_have_those_that_need_no_folder_of_yours(page, heading):
    section = re.split(rf"^## {heading}", (ROOT / "docs" / page).read_text(), maxsplit=1, flags=re.MULTILINE)[1]
    assert set(table_of_recipes(section)) >= {*RECIPES} - {"images"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page):
    check_links(page.read_text(), page)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    check_files(page.read_text())


def test_every_picture_is_on_a_page():
    text = "".join(page.read_text() for page in PAGES)
    unused = [path.name for path in (ROOT / "docs" / "pictures").iterdir() if f"pictures/{path.name}" not in text]
    assert not unused


SHOWN = [(page, words) for page in GUIDES for words in cgan_lines(page.read_text())]


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[f"{page.stem}: {' '.join(words)}" for page, words in SHOWN])
def test_commands_that_a_page_shows_exist(page, words):
    check_cgan(words)


def test_commands_that_prose_names_exist():
    commands = {name.replace("_", "-") for name in names_in("cgan_jax.commands")} | {"recipes"}
    for page in GUIDES:
        named = set(re.findall(r"`cgan ([a-z][a-z-]*)", page.read_text()))
        assert named <= commands, page


def test_overrides_that_prose_names_exist():
    recipes = [recipe_named(name) for name in RECIPES]
    everywhere = {section: {} for recipe in recipes for section in recipe}
    for recipe in recipes:
        for section, values in recipe.items():
            if isinstance(values, dict):
                everywhere[section] |= values
    for page in GUIDES:
        for key in re.findall(r"`--config\.([a-z_.]+)=", page.read_text()):
            check_key(everywhere, key)


@pytest.mark.parametrize(
    "line",
    [
        "cgan trane --config=digits",
        "cgan train --config=digits --wrkdir=runs/digits",
        "cgan train --config=digit --workdir=runs/digits",
        "cgan train --config=configs/digit.py --workdir=runs/digits",
        "cgan train --config=digits --workdir=runs/digits --config.train.total_kmig=1.0",
        "cgan train --config=digits --workdir=runs/digits --config.generator.depth=3",
        "cgan train --config=digits runs/digits",
        "cgan sample --workdir=runs/digits --num_images=many",
        "cgan sample --workdir=runs/digits --interpolate=colours",
        "cgan sample --workdir=runs/digits --config=digits",
        "cgan sweep --config=digits --workdir=runs/s --vary=generator.depth=3,5",
        "pip install . && X=1 .venv/bin/cgan \\\n  trane",
        "python -m cgan_jax trane",
    ],
)
def test_a_wrong_command_is_found(line):
    (words,) = cgan_lines(f"```bash\n{line}  # a comment\n```\n")
    with pytest.raises(AssertionError):
        check_cgan(words)


@pytest.mark.parametrize(
    "text",
    ["[a](docs/absent.md)", "![a](docs/pictures/absent.png)", "[a](README.md#absent)", "[a](docs/tutorial.md#absent)"],
)
def test_a_broken_link_is_found(text):
    with pytest.raises(AssertionError):
        check_links(text, README)


@pytest.mark.parametrize("text", ["`tests/absent_test.py`", "python -m benchmarks.absent", "launch/absent.sh train"])
def test_an_absent_file_is_found(text):
    with pytest.raises(AssertionError):
        check_files(text)


def test_a_recipe_that_the_table_lacks_is_found():
    assert table_of_recipes("| recipe |\n|---|\n| `digits` | d |\n| digits_sngan | d |\n") == ["digits"]


def test_the_loss_of_the_page_on_the_code_is_one():
    """It runs as it stands there, in the file that the page names."""
    from cgan_jax.losses import adversarial

    code = (ROOT / "docs" / "house.md").read_text().split("## Add a loss")[1].split("```python\n")[1].split("```")[0]
    names = dict(vars(adversarial))
    exec(code.replace("    ...\n", ""), names)
    term = names["DISCRIMINATOR"]["bce_real_smoothed"](smoothing=0.1)
    passed = Pass({}, {"real": Output(np.float32([0.0, 2.0]), {})}, *[None] * 5)
    values, _ = term.value(passed)
    np.testing.assert_allclose(values, np.logaddexp(0, [0.0, -2.0]) + np.array([0.0, 0.2]), rtol=1e-5)
