"""Draw signs in the fonts of matplotlib, in class folders: `python -m benchmarks.letters --signs=ABC --out=letters`.

They have the form of the recipe digits: 8 pixels a side, each repeated 4x4. OUT/train has 50 of each sign, OUT/val 300.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_COUNTS = {"train": 50, "val": 300}
_FAMILIES = ("DejaVu", "STIXGeneral")


def drawn(sign: str, fonts: list[Path], rng: np.random.Generator) -> Image.Image:
    """The sign in white on black, in a font, size, place and turn by chance."""
    font = ImageFont.truetype(str(fonts[rng.integers(len(fonts))]), int(rng.integers(96, 124)))
    image = Image.new("L", (128, 128))
    middle = (64 + rng.uniform(-4, 4), 64 + rng.uniform(-4, 4))
    ImageDraw.Draw(image).text(middle, sign, font=font, fill=255, anchor="mm")
    image = image.rotate(rng.uniform(-12, 12), resample=Image.Resampling.BICUBIC).crop((20, 20, 108, 108))
    return image.resize((8, 8), Image.Resampling.BOX).resize((32, 32), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--signs", default="0123456789", help="one class each")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    there = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf"))
    fonts = [path for path in there if path.name.startswith(_FAMILIES) and "Display" not in path.name]
    rng = np.random.default_rng(0)
    for split, count in _COUNTS.items():
        for sign in options.signs:
            folder = options.out / split / sign
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                drawn(sign, fonts, rng).save(folder / f"{i:04d}.png")


if __name__ == "__main__":
    main()
