"""Methods by name. Each lives in one file that reads like its paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from semiseg.errors import UserError
from semiseg.methods.bcp import BCP
from semiseg.methods.cps import CPS
from semiseg.methods.equireg import EquiReg
from semiseg.methods.fixmatch import FixMatch
from semiseg.methods.mean_teacher import MeanTeacher
from semiseg.methods.method import Method
from semiseg.methods.roam import Roam
from semiseg.methods.supervised import Supervised
from semiseg.methods.uamt import UAMT
from semiseg.methods.unimatch import UniMatch

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "roam": Roam,
    "equireg": EquiReg,
    "mean_teacher": MeanTeacher,
    "uamt": UAMT,
    "cps": CPS,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "bcp": BCP,
}


def build_method(name: str, network: nn.Module, settings: Mapping[str, Any]) -> Method:
    """The named method around `network`, with its default settings changed by `settings`."""
    if name not in METHODS:
        raise UserError(f"method: got {name!r}, expected one of: {', '.join(METHODS)}")
    chosen = METHODS[name]
    return chosen(network, chosen.Config.parse(settings, where="method"))
