"""Rendered text lines, pages, tables and puzzle gaps, as 8-bit RGB pictures: seeded, and with Pillow's own font.

Pillow carries one TrueType font; size, stretch, slant, colours, noise and blur make the variety.
"""

from __future__ import annotations

import string
from bisect import bisect_right
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Picture = Image.Image
Floats = npt.NDArray[np.float32]

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WORDS = """
    invoice total amount date receipt delivery number street order balance account station window paper letter
    morning quiet market garden river engine signal valley winter harbour bridge copper yellow silver planet museum
    ticket platform kitchen battery camera library journey mountain service address customer payment reference
    measure quantity article discount shipping warranty language chapter exercise minister council report budget
""".split()  # noqa: SIM905


def font(size: float) -> ImageFont.FreeTypeFont:
    """Pillow's own TrueType font."""
    found = ImageFont.load_default(size)
    if not isinstance(found, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, which the example pictures need")
    return found


def phrase(rng: np.random.Generator, words: int) -> str:
    """Words, numbers, prices and dates in mixed case."""
    parts = []
    for _ in range(words):
        kind = rng.random()
        word = str(rng.choice(_WORDS))
        if kind < 0.15:
            parts.append(f"{rng.integers(1, 9999)}")
        elif kind < 0.25:
            parts.append(f"{rng.integers(1, 999)}.{rng.integers(0, 100):02d}")
        elif kind < 0.35:
            parts.append(f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/{rng.integers(1990, 2030)}")
        elif kind < 0.45:
            parts.append("".join(rng.choice(list(string.ascii_uppercase + string.digits), 5)))
        elif kind < 0.6:
            parts.append(word.upper())
        else:
            parts.append(word.capitalize() if kind < 0.8 else word)
    return " ".join(parts)


def text_line(rng: np.random.Generator) -> tuple[Picture, str]:
    """One line of text as a detector would cut it out, 28 to 64 px high, and what it says."""
    text = phrase(rng, int(rng.integers(1, 4)))
    size = float(rng.uniform(20, 44))
    face = font(size)
    left, top, right, bottom = face.getbbox(text)
    pad = float(rng.uniform(0.08, 0.25)) * size
    paper, ink = _paper_and_ink(rng)
    picture = Image.new("RGB", (round(right - left + 2 * pad), round(bottom - top + 2 * pad)), paper)
    ImageDraw.Draw(picture).text((pad - left, pad - top), text, fill=ink, font=face)
    slant, stretch = float(rng.uniform(-0.25, 0.25)), float(rng.uniform(0.85, 1.2))
    wide = round(picture.width * stretch)
    picture = picture.transform(
        (wide, picture.height),
        Image.Transform.AFFINE,
        (1 / stretch, slant / 2, -slant * picture.height / 4, 0, 1, 0),
        Image.Resampling.BILINEAR,
        fillcolor=paper,
    )
    return _weathered(picture, rng), text


def page(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A page: a heading, paragraphs in one or two columns, now and then a ruled table or a grey figure."""
    paper, ink = _paper_and_ink(rng, light=True)
    picture = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(picture)
    margin = round(width * float(rng.uniform(0.05, 0.12)))
    y = float(margin)
    heading = font(height * float(rng.uniform(0.04, 0.06)))
    draw.text((margin, y), phrase(rng, 3)[: max(8, width // 18)], fill=ink, font=heading)
    y += heading.size * 1.8
    columns = int(rng.integers(1, 3))
    gap = round(width * 0.04)
    column_width = (width - 2 * margin - (columns - 1) * gap) // columns
    body = font(height * float(rng.uniform(0.02, 0.032)))
    start = y
    for column in range(columns):
        x, y = margin + column * (column_width + gap), start
        while y < height - margin:
            block = rng.random()
            if block < 0.18 and y < height * 0.7:
                tall = round(height * float(rng.uniform(0.12, 0.22)))
                _figure(picture, rng, (x, round(y), x + column_width, round(y) + tall))
                y += tall + body.size
            elif block < 0.36 and y < height * 0.7:
                y = _table(draw, rng, (x, round(y)), column_width, body, ink, ruled=True) + body.size
            else:
                for _ in range(int(rng.integers(3, 8))):
                    if y > height - margin:
                        break
                    draw.text((x, y), _fitting(rng, body, column_width), fill=ink, font=body)
                    y += body.size * 1.35
                y += body.size * 0.9
    return _weathered(picture, rng)


def table(rng: np.random.Generator, width: int, height: int, *, ruled: bool) -> Picture:
    """A cut-out table, with all its rules drawn or with none."""
    paper, ink = _paper_and_ink(rng, light=True)
    picture = Image.new("RGB", (width, height), paper)
    face = font(height * float(rng.uniform(0.035, 0.05)))
    draw, corner = ImageDraw.Draw(picture), (width // 40, height // 40)
    _table(draw, rng, corner, width - width // 20, face, ink, ruled=ruled, rows=20)
    return _weathered(picture, rng)


def puzzle(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A piece of a photograph with a darkened jigsaw-shaped gap, as sliding puzzles show it."""
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image(str(rng.choice(["china.jpg", "flower.jpg"]))))
    x, y = int(rng.integers(0, photo.width - width)), int(rng.integers(0, photo.height - height))
    picture = photo.crop((x, y, x + width, y + height))
    side = int(rng.integers(38, 60))
    gx, gy = int(rng.integers(side, width - 2 * side)), int(rng.integers(side // 2, height - 2 * side))
    shape = Image.new("L", picture.size, 0)
    draw = ImageDraw.Draw(shape)
    draw.rectangle((gx, gy, gx + side, gy + side), fill=255)
    knob = side // 5
    draw.ellipse((gx + side // 2 - knob, gy - knob, gx + side // 2 + knob, gy + knob), fill=255)
    draw.ellipse((gx + side - knob, gy + side // 2 - knob, gx + side + knob, gy + side // 2 + knob), fill=255)
    dark = picture.point(lambda v: v * 0.35)
    picture.paste(dark, mask=shape.filter(ImageFilter.GaussianBlur(0.7)))
    return picture


def to_tensor(
    picture: Picture,
    *,
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
    std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    order: Literal["RGB", "BGR"] = "BGR",
) -> Floats:
    """(value / 255 - mean) / std as float32 [1, 3, height, width]."""
    array = np.asarray(picture.convert("RGB"), np.float32) / 255
    if order == "BGR":
        array = array[..., ::-1]
    array = (array - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1)[None], np.float32)


def imagenet_tensor(picture: Picture, order: Literal["RGB", "BGR"] = "BGR") -> Floats:
    """With ImageNet's mean and standard deviation, float32 [1, 3, height, width]."""
    return to_tensor(picture, mean=_IMAGENET_MEAN, std=_IMAGENET_STD, order=order)


def line_tensor(picture: Picture, width: int, height: int = 48) -> Floats:
    """A text line as RapidOCR feeds it: height fixed, width in proportion, zeros to its right; values in -1..1, BGR."""
    scaled = min(width, int(np.ceil(height * picture.width / picture.height)))
    tensor = np.zeros((1, 3, height, width), np.float32)
    tensor[..., :scaled] = to_tensor(picture.resize((scaled, height), Image.Resampling.BILINEAR))
    return tensor


def _paper_and_ink(rng: np.random.Generator, *, light: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    paper = tuple(int(v) for v in rng.integers(205, 256, 3))
    ink = tuple(int(v) for v in rng.integers(0, 90, 3))
    return (paper, ink) if light or rng.random() < 0.8 else (ink, paper)


def _weathered(picture: Picture, rng: np.random.Generator) -> Picture:
    if rng.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9))))
    array = np.asarray(picture, np.float64)
    shade = np.linspace(1, float(rng.uniform(0.85, 1.05)), array.shape[1])[None, :, None]
    array = array * shade + rng.normal(0, float(rng.uniform(1, 8)), array.shape)
    return Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))


def _fitting(rng: np.random.Generator, face: ImageFont.FreeTypeFont, width: int) -> str:
    text = phrase(rng, 9)
    return text[: bisect_right(range(1, len(text) + 1), width, key=lambda count: ceil(face.getlength(text[:count])))]


def _figure(picture: Picture, rng: np.random.Generator, box: tuple[int, int, int, int]) -> None:
    tall, wide = box[3] - box[1], box[2] - box[0]
    waves = np.add.outer(
        np.sin(np.linspace(0, float(rng.uniform(3, 12)), tall)), np.cos(np.linspace(0, float(rng.uniform(3, 12)), wide))
    )
    grey = np.clip(128 + 50 * waves + rng.normal(0, 12, (tall, wide)), 0, 255).astype(np.uint8)
    picture.paste(Image.fromarray(grey).convert("RGB"), box[:2])


def _table(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    corner: tuple[int, int],
    width: int,
    face: ImageFont.FreeTypeFont,
    ink: tuple[int, ...],
    *,
    ruled: bool,
    rows: int = 6,
) -> float:
    columns, rows = int(rng.integers(3, 6)), int(rng.integers(3, rows))
    row_height, column_width = face.size * 1.7, width / columns
    (x, y), bottom = corner, corner[1] + rows * row_height
    for row in range(rows):
        for column in range(columns):
            text = _fitting(rng, face, round(column_width * 0.8))
            draw.text((x + column * column_width + 4, y + row * row_height + 3), text, fill=ink, font=face)
    if ruled:
        for row in range(rows + 1):
            draw.line((x, y + row * row_height, x + width, y + row * row_height), fill=ink)
        for column in range(columns + 1):
            draw.line((x + column * column_width, y, x + column * column_width, bottom), fill=ink)
    return bottom
