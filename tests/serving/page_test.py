"""The page as text: what is served stands in it, foreign text is text, and nothing is asked of any other place."""

import json
import re

import pytest

from cgan_jax.serving import page

ABOUT = {
    "run": "digits",
    "step": 313,
    "generator_weights": "averaged",
    "architecture": "dcgan",
    "image_size": 32,
    "scores": {"fid": 12.34567},
}
TOLD = {"conditional": True, "has_report": True, "most_images": 256}


def text_of(title: str = "digits", about: dict = ABOUT, names=("cat", "dog")) -> str:
    return page.build(title, about, names, **TOLD)["/"].content.decode()


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def test_which_model_which_step_and_its_scores_are_said_at_the_top():
    top = text_of().partition("</header>")[0]
    assert "<h1>digits</h1>" in top and "step 313 · averaged · dcgan · 32 by 32 pixels" in top
    assert "<dt>fid</dt><dd>12.35</dd>" in top
    assert "not scored" in text_of(about={"step": 1})


def test_the_script_is_told_the_classes():
    assert data_of(text_of()) == {"class_names": ["cat", "dog"], **TOLD}


FOREIGN = ["<script>alert(1)</script>", "</title>", "<b onload=a>", "@DATA@ @FACTS@", "a & b", "\\1"]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_foreign_text_is_text(foreign):
    plain, text = text_of(), text_of(foreign, {**ABOUT, "architecture": foreign}, [foreign])
    assert re.findall("<[^!>]+>", text) == re.findall("<[^!>]+>", plain)
    assert data_of(text)["class_names"] == [foreign]


def test_there_are_three_files_and_none_names_another_place():
    files = page.build("digits", ABOUT, ["cat"], **TOLD)
    assert {path: file.kind for path, file in files.items()} == {
        "/": "text/html",
        "/page.js": "text/javascript",
        "/page.css": "text/css",
    }
    for file in files.values():
        text = file.content.decode()
        assert not re.findall(r"https?:|//\w|@import|url\(|\beval\b|innerHTML|style=|\bon\w+=", text)
        assert not re.findall(r"@[A-Z]+@", text)


def test_all_controls_have_labels():
    text = text_of()
    for tag in re.findall(r"<(?:input|select)[^>]*>", text):
        before = text[: text.index(tag)]
        is_inside = before.rfind("<label") > before.rfind("</label")
        assert is_inside or "aria-label=" in tag, tag
    script = page.build("digits", ABOUT, ["cat"], **TOLD)["/page.js"].content.decode()
    named = set(re.findall(r'\bid="([\w-]+)"', text))
    assert set(re.findall(r'\bat\("([\w-]+)"\)', script)) <= named
    assert set(re.findall(r'(?:for|aria-controls|aria-labelledby|aria-describedby)="([\w-]+)"', text)) <= named
