"""Any network of MONAI by the name of its class."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from monai.networks import nets
from monai.utils import OptionalImportError
from torch import Tensor, nn

from semiseg.errors import MissingExtra, UserError
from semiseg.networks.editable import editable, tried

FROM_ELSEWHERE = ("CellSamWrapper", "Transchex")
"""Networks that fetch or open published weights whenever they are built."""


class MonaiNetwork(nn.Module):
    """A class of `monai.networks.nets` that maps an image to one tensor of logits of the same size, made 32-bit.

    name: of the class. options: its arguments beside the number of axes, channels and classes and the image's size.
    `layers` names what can be edited: `input`, and every module that runs exactly once and returns one tensor.

    Raises UserError for an unknown class, for options that it refuses (with MONAI's message) or that ask for weights
    from elsewhere, and if it cannot segment a patch.
    """

    def __init__(
        self, name: str, options: Mapping[str, Any], channels: int, classes: int, patch: Sequence[int]
    ) -> None:
        super().__init__()
        if name in FROM_ELSEWHERE:
            raise UserError(
                f"network.name: got 'monai:{name}', which reads weights from elsewhere, expected a network that is "
                "made of its options alone; choose another"
            )
        kind = _class_named(name)
        accepted = inspect.signature(kind).parameters
        known = {"spatial_dims": len(patch), "in_channels": channels, "out_channels": classes, "img_size": patch}
        known |= {"pretrained": False}  # or it would download weights whenever the network is built, to predict too
        for key, value in options.items():
            if key.startswith(("pretrained", "use_pretrained", "weights")) and value:
                raise UserError(
                    f"network.options.{key}: got {value!r}, expected none, as nothing is downloaded; "
                    "leave it out, and start from a run or model of yours with --init"
                )
        given = {key: value for key, value in known.items() if key in accepted} | dict(options)
        try:
            network = kind(**given)
        except OptionalImportError as error:
            raise _missing(name, error) from None
        except Exception as error:
            raise UserError(
                f"network.options: got {dict(options)}, expected arguments that monai:{name} accepts "
                f"({', '.join(key for key in accepted if key not in known)}); MONAI says: {_one_line(error)}"
            ) from None
        self.input = nn.Identity()
        self.network = network
        try:
            trial = tried(self, channels, patch)
        except OptionalImportError as error:
            raise _missing(name, error) from None
        except Exception as error:
            raise UserError(
                f"network.name: got monai:{name}, which cannot segment a patch of {tuple(patch)}, expected sides that "
                f"suit it; change plan.patch or network.options; MONAI says: {_one_line(error)}"
            ) from None
        shape = tuple(trial.output.shape)
        if shape[1:] != (classes, *patch):
            raise UserError(
                f"network.name: got monai:{name}, which makes {shape[1:]} of a patch of {tuple(patch)}, expected "
                f"{(classes, *patch)}, one value for each class and voxel; change network.options or plan.patch"
            )
        self.layers = editable(trial)

    def forward(self, image: Float[Tensor, "b c *spatial"]) -> Float[Tensor, "b classes *out"]:
        logits = self.network(self.input(image))
        if not isinstance(logits, Tensor):
            raise TypeError(f"its output is a {type(logits).__name__}, not one tensor of logits")
        return logits.float()


def _class_named(name: str) -> Any:
    classes = [kind for kind in vars(nets).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    by_name = {kind.__name__: kind for kind in classes}
    if name not in by_name:
        lower = {key.lower(): key for key in by_name}
        close = [lower[key] for key in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
        suggestion = " or ".join(f"monai:{key}" for key in close) or "a class of monai.networks.nets"
        raise UserError(f"network.name: got 'monai:{name}', expected {suggestion}; choose one of them")
    return by_name[name]


def _missing(name: str, error: OptionalImportError) -> MissingExtra:
    found = re.search(r"No module named '(\w+)", str(error))
    package = found[1] if found else "the package that MONAI names"
    return MissingExtra(
        f"network.name: got monai:{name}, which needs {package}, expected that to be installed; "
        f"run `pip install {package}`"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
