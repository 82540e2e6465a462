"""What a step costs, whatever the machine: images that go forward through a method's networks, counted as they go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from semiseg.methods.method import Method
from semiseg.networks.ensemble import Ensemble


class Passed:
    """images: that went through any network since this was last set to 0."""

    images = 0

    def count(self, _network: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.images += len((*inputs, *named.values())[0])


@contextmanager
def passes_counted(method: Method) -> Iterator[Passed]:
    """Counts in every module of the kind of the method's network: students, averages and each member of an ensemble,
    but neither the parts of a network nor a head of its own."""
    network, passed = method.network, Passed()
    kind = type(network.networks[0] if isinstance(network, Ensemble) else network)
    handles = [
        module.register_forward_pre_hook(passed.count, with_kwargs=True)
        for module in method.modules()
        if type(module) is kind
    ]
    try:
        yield passed
    finally:
        for handle in handles:
            handle.remove()
