"""What decides a run: the scans, the method, the plan, the training. Read from recipes, YAML files and flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from semiseg.data.dataset import Dataset
from semiseg.data.label_tables import choose_table, numbered
from semiseg.data.layouts import open_dataset
from semiseg.data.plan import MOST_GB, for_every_channel, merged
from semiseg.data.planning import Dims, requested
from semiseg.data.sizes import Size, sized
from semiseg.errors import InputError, UserError
from semiseg.experiments.recipes import load_recipe
from semiseg.files import read_yaml
from semiseg.methods.own import file_of, method_named
from semiseg.settings import WORD, Settings, shown
from semiseg.training.session import TrainingConfig


class DataConfig(Settings):
    """Which scans, and what part each plays. See `make_splits` for counts, fractions and files."""

    path: str
    layout: str | None = None
    channels: tuple[str, ...] | None = None
    """Names of the channels to use, in this order; all of the dataset's unless told."""
    classes: str | None = None
    """The classes to train on instead of the dataset's own: roam28, or a file, see `apply_table`."""
    unlabelled: str | None = None
    """A folder of more scans without labels."""
    labelled: str | None = None
    val: str | None = None
    test: str | None = None
    fold: str | None = None
    """K/N: instead of `val` and `test`, see `make_splits`."""
    unlabelled_part: str | None = None
    """A count or fraction of the groups of unlabelled scans; all unless told."""
    unlabelled_of: Literal["rest", "all"] = "rest"
    """Whose part: of the groups that are not labelled, or of all training groups, labelled ones among them."""
    reuse_labelled: bool = False
    """Labelled scans, without their labels, are unlabelled scans too."""
    split_seed: int = 0
    draw: int = 0
    transductive: bool = False
    """Accept unlabelled scans that are also test scans; the result says so."""
    strict: bool = False
    """Stop at a broken case instead of leaving it out."""
    declared_splits: bool = False
    """Where the dataset itself says which scans are for validation or test, `val` or `test` draws no more of them."""
    corrected: tuple[str, ...] = ()
    """Folders of `semiseg review`: what was corrected or accepted there is labelled, beside the drawn scans."""

    def open(self, *, labels: bool = True) -> Dataset:
        """The dataset with its classes, without corrections. labels: see `open_dataset`."""
        dataset = open_dataset(self.path, self.layout, self.unlabelled, self.channels, labels=False)
        dataset = choose_table(dataset, self.classes) if self.classes else dataset
        return numbered(dataset) if labels else dataset


class StudentConfig(Settings):
    """Of self-training rounds: which guesses a student learns from, and how."""

    tta: bool = False
    """Guess from several views of each scan, as `predict --tta` does."""
    precision: float = Field(default=0.95, gt=0, le=1)
    """Of the guesses on the validation scans: the smallest threshold that reaches it decides which voxels are kept."""
    precision_of: Literal["all", "foreground"] = "all"
    """Whether all guessed voxels count in the precision, or those that are guessed to be foreground."""
    threshold: float = Field(default=0.9, ge=0, le=1)
    """The probability from which voxels are kept where there are no validation scans."""
    lowest_dice: float = Field(default=0.5, ge=0, le=1)
    """A scan whose equivariance Dice (mean over classes, as `rank` scores it) is lower is left out as unsure."""
    largest_z: float | None = Field(default=3.0, gt=0)
    """A scan with a volume further from those with labels (`volume_z` of `rank`) is left out as implausible."""
    augmentation: float = Field(default=1.5, ge=0, le=10)
    """Factor on every range of the plan's augmentation."""


class RunSettings(Settings):
    """Everything that decides the weights a run ends with. Saved whole as `config.yaml`."""

    recipe: str | None = None
    """The published experiment that these settings began as (`semiseg.recipes`)."""
    data: DataConfig
    method: dict[str, Any] = Field(default_factory=lambda: {"name": "supervised"})
    """`name`, and that method's settings (`semiseg.methods`); `file_sha256` of one's own (`semiseg.methods.own`)."""
    training: TrainingConfig = TrainingConfig()
    plan: dict[str, Any] = Field(default_factory=dict)
    """Changes to the plan that is made, in the plan's own structure."""
    plan_file: str | None = None
    """A plan to use instead of making one."""
    size: Size = "medium"
    """Of network and batch, where the plan is made: `small` decides `dims`, `plan.batch` and `plan.network`, `large`
    `memory_gb`, each where it is not given."""
    dims: Annotated[Dims, WORD] = "auto"
    memory_gb: float = Field(default=8.0, gt=0, le=MOST_GB)
    """Budget that patch and batch are chosen for."""
    unlabelled_ratio: float | None = Field(default=None, gt=0)
    """Unlabelled patches for each labelled one, where the plan is made; 1 unless told."""
    seed: int = 0
    """Initialisation, order and augmentation."""
    init: str | None = None
    """A run or model to take the first weights from."""
    rounds: int = Field(default=0, ge=0)
    """Students after one teacher, each trained on what the one before it guesses; `training.steps` are shared out."""
    student: StudentConfig = StudentConfig()
    pseudo_labels: str | None = None
    """A folder of pseudo-labels of unlabelled scans, to learn from beside the labels: `pseudo` of a round."""
    score: bool = False
    """Segment and score the test scans at the end: `predictions` and `scores` in the run folder."""

    @model_validator(mode="before")
    @classmethod
    def _fill_by_size(cls, values: Any) -> Any:
        return sized(values) if isinstance(values, Mapping) else values

    def resolved(self) -> dict[str, Any]:
        """Plain values, the method's defaults and presets written out.

        Raises UserError for changes to the plan that no plan could take, and for rounds that leave no step to a network
        or that come with pseudo-labels, before any scan is read.
        """
        if self.training.steps <= self.rounds:
            raise UserError(
                f"training.steps: got {self.training.steps} with {self.rounds} rounds, expected at least "
                f"{self.rounds + 1}, one for the teacher and each student; ask for more steps, or fewer rounds"
            )
        if self.rounds and self.pseudo_labels:
            raise UserError(
                f"pseudo_labels: got {self.pseudo_labels} with {self.rounds} rounds that make their own, expected one "
                "of them; leave one out"
            )
        requested(for_every_channel(self.plan, 1))
        values = self.model_dump(mode="json")
        name, config = method_settings(self)
        return {**values, "method": {"name": name, **file_of(name), **config}}


def method_settings(settings: RunSettings) -> tuple[str, dict[str, Any]]:
    given = dict(settings.method)
    name, sha256 = str(given.pop("name", "supervised")), given.pop("file_sha256", None)
    return name, method_named(name, sha256).Config.parse(given, where="method").model_dump(mode="json")


def read_settings(config: Path | None, assignments: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe, if one is named; a YAML file's on top; then `dotted.key: value` assignments.

    A recipe's method settings are dropped where another method is named, its plan where a plan file is.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = read_yaml(config, "a YAML file of settings", "correct it") or {}
        except InputError as error:
            raise UserError(f"--config {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"--config {config}: expected `key: value` lines")
        if isinstance(values.get("method"), str):
            values["method"] = {"name": values["method"]}
        for group in ("data", "method", "plan", "training"):
            if not isinstance(values.get(group, {}), Mapping):
                raise UserError(
                    f"--config {config}: got {shown(values[group])} as {group}, expected `key: value` lines"
                )
    if recipe := assignments.get("recipe", values.get("recipe")):
        values = _on_recipe(load_recipe(str(recipe)).settings, values, assignments)
    for key, value in assignments.items():
        *path, last = ("method.name" if key == "method" else key).split(".")
        at = values
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise UserError(f"--set {key}: {part!r} is a value, not a group of settings")
        at[last] = value
    return values


def _on_recipe(recipe: Mapping[str, Any], values: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    name = assignments.get("method.name") or assignments.get("method") or values.get("method", {}).get("name")
    if name not in (None, recipe["method"]["name"]):
        recipe = {**recipe, "method": {}}
    if "plan_file" in assignments or values.get("plan_file"):
        recipe = {**recipe, "plan": {}}  # a file is a whole plan, made for these scans
    given = {**{f"data.{key}": value for key, value in values.get("data", {}).items()}, **assignments}
    asked = {key.removeprefix("data.") for key, value in given.items() if value is not None}
    replaced = {"val", "test"} if "fold" in asked else {"fold"} if asked & {"val", "test"} else set()
    recipe = {**recipe, "data": {key: value for key, value in recipe["data"].items() if key not in replaced}}
    return merged(recipe, values)
