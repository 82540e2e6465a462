"""Changing what a layer puts out, for one forward pass, without touching the network's code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def edited(network: nn.Module, edits: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Pass the output of the named layers through functions, for the one forward pass in the block.

    Raises ValueError if a layer does not exist (naming those that do) or did not run exactly once: an edit that
    silently did nothing would turn a method into its baseline.
    """
    layers = dict(network.named_modules())
    unknown = [name for name in edits if name not in layers]
    if unknown:
        known = ", ".join(getattr(network, "layers", None) or [name for name in layers if name])
        raise ValueError(f"layer: got {', '.join(map(repr, unknown))}, expected one of: {known}")
    runs: Counter[str] = Counter()

    def hook_of(name: str, edit: Callable[[Any], Any]) -> Callable[..., Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            runs[name] += 1
            return edit(output)

        return hook

    handles = [layers[name].register_forward_hook(hook_of(name, edit)) for name, edit in edits.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    wrong = {name: runs[name] for name in edits if runs[name] != 1}
    if wrong:
        counts = ", ".join(f"{name!r} ran {count} times" for name, count in wrong.items())
        raise ValueError(f"edited layers must run exactly once in the block: {counts}")
