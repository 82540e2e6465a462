"""Plain folders: images/ and labels/ with the same file names, and unlabelled/ for more scans."""

from __future__ import annotations

from pathlib import Path

from semiseg.data.dataset import Case, Dataset
from semiseg.data.layouts.listing import add_cases, group_channels, has_suffixes, read_description, scan_files

NAME = "plain"
looks_for = "images/CASE.nii.gz and labels/CASE.nii.gz (and unlabelled/)"


def fits(root: Path) -> bool:
    return (root / "images").is_dir()


def read(root: Path) -> Dataset:
    """Cases of images/ (unlabelled where labels/ has no file) and unlabelled/; dataset.json is optional.

    Several channels are CASE_0000, CASE_0001, ... when all images have such a suffix and the labels have not.
    """
    description = read_description(root)
    images, labels, more = (scan_files(root / name) for name in ("images", "labels", "unlabelled"))
    suffixed = has_suffixes(images, labels)
    notes = list(description.notes)
    left_out: list[Path] = []

    def cases(files: dict[str, Path]) -> dict[str, tuple[Path, ...]]:
        if not suffixed:
            return {name: (path,) for name, path in files.items()}
        grouped, loose = group_channels(files, len(description.channels))
        left_out.extend(loose)
        notes.extend(f"{path}: got no channel suffix, expected CASE_0000.nii.gz; left out" for path in loose)
        return grouped

    named = cases(images)
    unlabelled = (Case(name, files, split="unlabelled") for name, files in cases(more).items())
    return Dataset(
        root=root,
        layout=NAME,
        cases=add_cases((Case(name, named[name], labels.get(name)) for name in named), unlabelled, "unlabelled"),
        channels=description.channels,
        classes=description.classes,
        ignore=description.ignore,
        regions=description.regions,
        channel_suffix=suffixed,
        orphan_labels=tuple(path for name, path in labels.items() if name not in named),
        known=tuple(left_out),
        notes=tuple(notes),
    )
