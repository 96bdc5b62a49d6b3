"""The page of `cgan serve`, made with Gradio: classes to pick, two ends to morph between, the story of the training.

Pictures travel inside the page as data URLs: no file is written, and no path is served.
"""

import html
import os
from urllib.parse import urlencode

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

import gradio as gr

from cgan_jax.errors import UsageError
from cgan_jax.serving.studio import Busy, Studio

_FONT = ["system-ui", "sans-serif"]  # of the reader's own machine
_STYLE = """
.picture img { max-width: 100%; image-rendering: pixelated; background: #fff; border-radius: 6px }
.wrong { color: #c0392b; font-weight: 600 }
.story { width: 100%; height: 80vh; border: 0 }
footer { display: none !important }
"""
_MANY_CLASSES = 20
_MORE_HIDDEN = {"api_visibility": "private"}  # the documented interface is /api


def build(studio: Studio, title: str, has_story: bool) -> gr.Blocks:
    """The page; `mount` puts it on a server."""
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(f"## {html.escape(title)}")
        with gr.Tab("Draw"):
            _draw_tab(studio)
        with gr.Tab("Morph"):
            _morph_tab(studio)
        if has_story:
            with gr.Tab("Training"):
                gr.HTML('<iframe class="story" src="report" title="the training story" loading="lazy"></iframe>')
        gr.Markdown("For programs: `GET /api` says how to ask.")
    page.queue(max_size=64, default_concurrency_limit=4)
    return page


def mount(app, page: gr.Blocks):
    """`app` with the page at its root."""
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=gr.themes.Default(font=_FONT, font_mono=["monospace"]),
        css=_STYLE,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=1,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
    )


def _draw_tab(studio: Studio) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            names = studio.class_names
            some = names[:10]
            many = max(16, 4 * len(some))
            kind = gr.CheckboxGroup if len(names) <= _MANY_CLASSES else gr.Dropdown
            more = {} if kind is gr.CheckboxGroup else {"multiselect": True}
            classes = kind(names, value=some, label="classes", visible=studio.conditional, **more)
            count = gr.Slider(1, studio.MOST_IMAGES, value=many, step=1, label="images")
            seed = gr.Number(0, precision=0, label="seed")
            truncation = gr.Slider(0, 3, value=0, step=0.1, label="truncation", info="0: none. Small: typical images.")
            button = gr.Button("Draw", variant="primary")
        with gr.Column(scale=3):
            first = drawn(studio, some, many, 0, 0)
            picture = gr.HTML(first, elem_classes="picture")
    inputs = [classes, count, seed, truncation]
    button.click(lambda *given: drawn(studio, *given), inputs, picture, **_MORE_HIDDEN)


def _morph_tab(studio: Studio) -> None:
    names, last = studio.class_names, studio.class_names[min(1, len(studio.class_names) - 1)]
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            with gr.Row():
                start_class = gr.Dropdown(names, value=names[0], label="from class", visible=studio.conditional)
                start_seed = gr.Number(0, precision=0, label="from seed")
            with gr.Row():
                end_class = gr.Dropdown(names, value=last, label="to class", visible=studio.conditional)
                end_seed = gr.Number(0 if studio.conditional else 1, precision=0, label="to seed")
            share = gr.Slider(0, 1, value=0.5, step=0.01, label="how far")
        with gr.Column(scale=3):
            picture = gr.HTML(morphed(studio, names[0], 0, last, 0, 0.5), elem_classes="picture")
    inputs = [start_class, start_seed, end_class, end_seed, share]
    for control in inputs:
        control.change(lambda *given: morphed(studio, *given), inputs, picture, show_progress="hidden", **_MORE_HIDDEN)


def drawn(studio: Studio, classes: list[str], count: int, seed: int, truncation: float) -> str:
    """The HTML of a labelled grid with its downloads, or of what is wrong."""
    given = {"count": count, "seed": seed, "truncation": truncation}
    given |= {"classes": classes} if studio.conditional else {}
    try:
        png = studio.grid_png(studio, studio.draw(studio.request(given)))
    except (UsageError, Busy) as error:
        return _wrong(error)
    numbers = ",".join(str(studio.class_names.index(name)) for name in classes)
    query = html.escape(urlencode({**given, "classes": numbers} if studio.conditional else given))
    links = (
        f'<p><a href="api/grid.png?{query}" download="grid.png">PNG</a> · <a href="api/images.zip?{query}">ZIP</a></p>'
    )
    return f'<img src="{studio.data_url(png)}" alt="{int(count)} generated images">{links}'


def morphed(studio: Studio, start_class, start_seed, end_class, end_seed, share) -> str:
    """The HTML of one image between two, or of what is wrong."""
    try:
        ends = {"class": start_class, "seed": start_seed}, {"class": end_class, "seed": end_seed}
        image = studio.morph(ends, share)
    except (UsageError, Busy) as error:
        return _wrong(error)
    return f'<img src="{studio.data_url(studio.image_png(image))}" alt="between the two" style="width: 384px">'


def _wrong(error: Exception) -> str:
    return f'<p class="wrong" role="alert">{html.escape(str(error))}</p>'
