"""Predictions over their scans, beside the truth and those of another model: PNGs of slices, GIFs of volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from semiseg.colours import Colour, class_colours
from semiseg.data.dataset import Case, Dataset
from semiseg.data.images import ras_spacing, read_label, to_ras
from semiseg.data.label_values import class_values
from semiseg.data.layouts import open_dataset
from semiseg.data.layouts.listing import scan_files
from semiseg.data.plan import Plan
from semiseg.data.prepare import index_map, read_channels
from semiseg.errors import InputError
from semiseg.files import replacing
from semiseg.prediction.look import Look
from semiseg.progress import say, track
from semiseg.sides import pairs, without_side

MARGIN = 2
"""Slices shown on either side of those with a label."""
MOST_SLICES = 120
"""Of one scan; where more have a label, as many are shown, evenly spaced."""
PANEL_PIXELS = (320, 512)
"""Least and most pixels along the longer side of a panel; between them, one pixel a voxel."""
FILM_WIDTH, FILM_FRAMES, FRAME_MS = 800, 60, 120
"""Of the GIF: most pixels, most slices (evenly spaced where there are more), and each one's time."""
TINT = 0.35
"""Share of the class's colour inside an outline that is filled."""

_Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class Layer:
    """A label map to be drawn over the scan, in RAS orientation: class indices, 0 and below are not drawn."""

    title: str
    label: Int[np.ndarray, "x y z"]


@dataclass(frozen=True)
class Truth:
    """A label file, and the dataset that says what its values mean; without one they mean what the plan says."""

    path: Path
    dataset: Dataset | None = None


@dataclass(frozen=True)
class _Entry:
    """Of the legend."""

    text: str
    colours: tuple[Colour, ...]


@dataclass(frozen=True, eq=False)
class Style:
    colours: Float[np.ndarray, "classes 3"]
    """From 0 to 255, by class index."""
    tint: float
    """Share of the class's colour inside its outline."""


def draw_overlays(
    out: Path,
    cases: Sequence[Case],
    plan: Plan,
    title: str,
    truth: Mapping[str, Truth],
    beside: tuple[str, Path] | None = None,
    look: Look = Look(),  # noqa: B008 - frozen
) -> None:
    """Draw what was predicted into `out`, for each case whose prediction is there, in `out/overlays`.

    A volume becomes CASE/slice_NNN.png (NNN counts from 0, from the left, back or bottom) and CASE.gif, a picture of
    one slice CASE.png. Panels from left to right: the scan as `look` says, the truth where
    `truth` has the case's label file, the prediction under `title`, and that of the folder `beside` under its own.
    A case that cannot be drawn is reported and passed over.
    """
    predicted = scan_files(out)
    columns = [("truth", truth), (title, {name: Truth(path) for name, path in predicted.items()})]
    if beside:
        columns.append((beside[0], {name: Truth(path) for name, path in scan_files(beside[1]).items()}))
    for case in track([case for case in cases if case.name in predicted], "Drawing"):
        files = [(name, found[case.name]) for name, found in columns if case.name in found]
        try:
            _draw_case(out / "overlays", case, plan, files, look)
        except InputError as error:
            say(f"{case.name}: no overlay: {error}")


def true_labels(labels: Path | None, scans: Sequence[Path]) -> dict[str, Truth]:
    """The truth of each case: in `labels` (label files, or a dataset); without it, in those `scans` that are datasets.

    Raises InputError for `labels` without any.
    """
    if labels is None:
        return {name: truth for place in scans if place.is_dir() for name, truth in _truth_of_dataset(place).items()}
    found = _truth_of_dataset(labels) or {name: Truth(path) for name, path in scan_files(labels).items()}
    if not found:
        raise InputError(f"--truth {labels}: got no label file, expected CASE.nii.gz, or a dataset; check the path")
    return found


def _truth_of_dataset(place: Path) -> dict[str, Truth]:
    try:
        dataset = open_dataset(place)
    except InputError:  # scans and nothing else
        return {}
    return {case.name: Truth(case.label, dataset) for case in dataset.cases if case.label is not None}


def shown_slices(labels: Sequence[Int[np.ndarray, "x y z"]], axis: int) -> list[int]:
    """Indices along `axis` where any of the maps has a class, with MARGIN more on both sides, at most MOST_SLICES.

    The middle slice where none has.
    """
    others = tuple(other for other in range(3) if other != axis)
    marked = np.flatnonzero(np.any([(label > 0).any(axis=others) for label in labels], axis=0))
    slices = labels[0].shape[axis]
    if not marked.size:
        return [slices // 2]
    first, last = max(0, int(marked[0]) - MARGIN), min(slices - 1, int(marked[-1]) + MARGIN)
    count = min(last - first + 1, MOST_SLICES)
    return [int(index) for index in np.rint(np.linspace(first, last, count))]


def _draw_case(folder: Path, case: Case, plan: Plan, files: Sequence[tuple[str, Truth]], look: Look) -> None:
    channels, scan = read_channels(case, plan)
    shown = look.channel_of(plan)
    grey = to_ras(look.grey(channels[shown], plan.normalisation[shown]), scan.geometry.affine)
    layers = []
    for title, labels in files:
        try:
            layers.append(Layer(title, to_ras(class_indices(labels, channels[0].shape, plan), scan.geometry.affine)))
        except InputError as error:
            say(f"{case.name}: {title} left out of the overlay: {error}")
    if not layers:
        return
    axis = 2 if plan.slice_axis is None else plan.slice_axis
    colours = class_colours(list(plan.classes))
    present = {int(index) for layer in layers for index in np.unique(layer.label) if index > 0}
    legend = _legend({name: colours[name] for index, name in enumerate(plan.classes) if index in present})
    style = Style(np.array([*colours.values()], np.float32), TINT if look.fill else 0.0)
    pages = {
        number: _page(grey, layers, axis, number, ras_spacing(scan.geometry), legend, style)
        for number in shown_slices([layer.label for layer in layers], axis)
    }
    if grey.shape[axis] == 1:
        _save(pages[0], folder / f"{case.name}.png")
        return
    for earlier in (folder / case.name).glob("slice_*.png"):
        earlier.unlink()
    for number, page in pages.items():
        _save(page, folder / case.name / f"slice_{number:03d}.png")
    _save_film(list(pages.values()), [each for entry in legend for each in entry.colours], folder / f"{case.name}.gif")


def _save_film(pages: Sequence[Image.Image], colours: Sequence[Colour], path: Path) -> None:
    """An endless GIF of at most FILM_FRAMES pages, at most FILM_WIDTH wide, in greys and the classes' colours."""
    chosen = pages[:: -(-len(pages) // FILM_FRAMES)]
    scale = min(1.0, FILM_WIDTH / pages[0].width)
    size = (round(pages[0].width * scale), round(pages[0].height * scale))
    palette = _film_palette(colours)
    frames = [
        page.resize(size, Image.Resampling.BOX).quantize(palette=palette, dither=Image.Dither.NONE) for page in chosen
    ]
    with replacing(path) as temporary:
        frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)


def _film_palette(colours: Sequence[Colour]) -> Image.Image:
    """60 greys, yellow, and each colour pure and over as many greys as 256 entries leave room for."""
    entries = [(grey, grey, grey) for grey in np.linspace(0, 255, 60).astype(int).tolist()] + [(255, 255, 0)]
    shades = np.linspace(0, 255, min(12, max(0, 195 // max(1, len(colours)) - 1)))
    for colour in colours:
        entries += [colour, *(tuple(round(s + TINT * (part - s)) for part in colour) for s in shades)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for entry in entries[:256] for part in entry])
    return palette


def _page(
    grey: UInt8[np.ndarray, "x y z"],
    layers: Sequence[Layer],
    axis: int,
    number: int,
    spacing_mm: Sequence[float],
    legend: Sequence[_Entry],
    style: Style,
) -> Image.Image:
    """The panels of one slice beside each other, each under its title, with the legend below."""
    across, up = (other for other in range(3) if other != axis)
    flat = grey.shape[axis] == 1
    size = panel_size((grey.shape[across], grey.shape[up]), (spacing_mm[across], spacing_mm[up]))
    picture = facing(np.take(grey, number, axis))
    panels = [
        ("scan" if flat else f"scan, slice {number}", outlined(picture, np.zeros_like(picture, int), size, style))
    ]
    panels += [
        (layer.title, outlined(picture, facing(np.take(layer.label, number, axis)), size, style)) for layer in layers
    ]
    font, margin = _font(), 4
    line = round(font.size * 1.5)
    width = len(panels) * (size[0] + margin) + margin
    places, rows = _legend_places(legend, width, margin, line)
    page = Image.new("RGB", (width, line + size[1] + rows * line + margin), "black")
    draw = ImageDraw.Draw(page)
    for column, (title, panel) in enumerate(panels):
        left = margin + column * (size[0] + margin)
        draw.text((left + size[0] // 2, line // 2), _shortened(title, size[0]), "white", font, anchor="mm")
        page.paste(Image.fromarray(panel), (left, line))
        if not flat:  # a single picture may come without any orientation
            draw.text((left + 2, line + size[1] // 2), "RA"[across], "yellow", font, anchor="lm")
            draw.text((left + size[0] // 2, line + 2), "AS"[up - 1], "yellow", font, anchor="mt")
    for entry, (x, y) in zip(legend, places, strict=True):
        top = line + size[1] + margin + y
        for colour in entry.colours:
            draw.rectangle((x, top + 3, x + line - 8, top + line - 5), colour)
            x += line - 6
        draw.text((x + 6, top + line // 2), entry.text, "white", font, anchor="lm")
    return page


def panel_size(voxels: tuple[int, int], spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """Width and height in pixels that show these voxels with square millimetres."""
    extent = (voxels[0] * spacing_mm[0], voxels[1] * spacing_mm[1])
    longer = min(max(*voxels, PANEL_PIXELS[0]), PANEL_PIXELS[1])
    return (
        max(1, round(extent[0] * longer / max(extent))),
        max(1, round(extent[1] * longer / max(extent))),
    )


def facing(plane: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows and columns as radiologists look at a slice whose axes run to the right, front or top, in that order.

    The patient's left is on the right, the nose of a sagittal slice on the left, front or top is up.
    """
    return plane.T[::-1, ::-1]


def outlined(
    picture: UInt8[np.ndarray, "h w"], label: Int[np.ndarray, "h w"], size: tuple[int, int], style: Style
) -> _Pixels:
    """The picture scaled to `size` (width, height); every class with a solid edge of one pixel, tinted inside."""
    scaled = Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.repeat(np.asarray(scaled, np.float32)[..., None], 3, axis=-1)
    columns, rows = (
        ((np.arange(n) + 0.5) * side / n).astype(int) for n, side in zip(size, label.shape[::-1], strict=True)
    )
    index = np.maximum(label[np.ix_(rows, columns)], 0)
    wide = np.pad(index, 1, mode="edge")
    neighbours = (wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:])
    edge = np.any([index != other for other in neighbours], axis=0)
    share = np.where(edge, 1.0, style.tint) * (index > 0)
    drawn: _Pixels = np.rint(pixels + share[..., None] * (style.colours[index] - pixels)).astype(np.uint8)
    return drawn


def class_indices(labels: Truth, shape: tuple[int, ...], plan: Plan) -> Int[np.ndarray, "x y z"]:
    """The plan's class indices; a dataset's values go by their names where the plan has them all."""
    values = read_label(labels.path).array
    if values.shape != shape:
        raise InputError(f"{labels.path}: got shape {values.shape}, expected {shape} as the scan has; check its name")
    dataset = labels.dataset
    if dataset is None or not dataset.classes or not set(list(dataset.classes)[1:]) <= set(plan.classes):
        return index_map(labels.path, values, plan)
    meant, order = class_values(values, dataset), list(plan.classes)
    result = np.zeros(shape, np.int16)
    for name, value in list(dataset.classes.items())[1:]:
        result[meant == value] = order.index(name)
    return result


def _legend(colours: Mapping[str, Colour]) -> list[_Entry]:
    """An entry a structure: the two sides of one stand together where both are there."""
    right_of = pairs(colours)
    both = {left: right for right, left in right_of.items()}
    return [
        _Entry(f"{without_side(name)}, L R", (colours[name], colours[both[name]]))
        if name in both
        else _Entry(name, (colours[name],))
        for name in colours
        if name not in right_of
    ]


def _legend_places(legend: Iterable[_Entry], width: int, margin: int, line: int) -> tuple[list[tuple[int, int]], int]:
    """Left and top of each entry, in as many rows as the width asks for; and the number of rows."""
    places: list[tuple[int, int]] = []
    x, row = margin, 0
    for entry in legend:
        length = len(entry.colours) * (line - 6) + 6 + round(_font().getlength(entry.text)) + 3 * margin
        if x > margin and x + length > width:
            x, row = margin, row + 1
        places.append((x, row * line))
        x += length
    return places, row + 1 if places else 0


def _shortened(text: str, width: int) -> str:
    while len(text) > 2 and _font().getlength(text) > width:
        text = f"{text[:-2]}…"
    return text


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib  # its font has Greek and Cyrillic letters too; Pillow's own has not

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 13)


def _save(page: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        page.save(temporary, format="PNG")
