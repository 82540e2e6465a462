"""Published experiments as settings, one YAML file each: source, data, published score, and what to run."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from semiseg.errors import UserError
from semiseg.settings import Settings

FOLDER = Path(__file__).parent


class About(Settings):
    """What a recipe is a recipe of."""

    title: str
    source: str
    """Paper, section and table."""
    data: str
    """What has to be in the folder, and where it can be had."""
    run_time: str
    """On one GPU, and how that number was come by."""
    published: str
    """The score in the paper: context, never a claim of this project."""
    differs: tuple[str, ...] = ()
    """What is done in another way than in the published system, and why."""


class Recipe(Settings):
    """`settings` are those of a run (`semiseg.experiments.run_settings.RunSettings`), without the data's path."""

    name: str
    about: About
    settings: dict[str, Any]

    def text(self) -> str:
        """`about` as comment lines, to stand above printed settings."""
        facts = self.about
        lines = [
            f"{self.name}: {facts.title}",
            f"source: {facts.source}",
            f"data: {facts.data}",
            f"run time: {facts.run_time}",
            f"published: {facts.published}",
            *(f"differs: {difference}" for difference in facts.differs),
        ]
        return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def recipe_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> Recipe:
    """Raises UserError, naming the recipes that exist, for any other name."""
    names = recipe_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "choose one of them"
        raise UserError(f"--recipe: got {name!r}, expected one of {', '.join(names)}; {hint}")
    path = FOLDER / f"{name}.yaml"
    return Recipe.parse({"name": name, **yaml.safe_load(path.read_text(encoding="utf-8"))}, where=str(path))
