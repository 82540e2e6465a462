"""Batches of patches as a pure function of their number: no sampler state, so resuming is exact by construction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from semiseg.data.plan import Plan
from semiseg.data.prepare import PreparedCase
from semiseg.draws import seed_of
from semiseg.errors import OutOfMemory
from semiseg.transforms.rim import rim
from semiseg.types import IGNORE, Batch

Position = tuple[PreparedCase, tuple[int, ...]]
"""A case and the first voxel of the patch along each prepared axis; negative where the patch begins in padding."""


class Batches(Dataset[Batch]):
    """Batch number n for every n >= 0: which cases, which patches, computed from (seed, n) alone.

    Cases come in shuffled rounds: every case once before any comes again. Number n belongs to step n // slots and
    slot n % slots.
    """

    def __init__(
        self, labelled: Sequence[PreparedCase], unlabelled: Sequence[PreparedCase], plan: Plan, seed: int
    ) -> None:
        self.labelled, self.unlabelled, self.plan, self.seed = list(labelled), list(unlabelled), plan, seed

    def __getitem__(self, number: int) -> Batch:
        plan = self.plan
        labelled = [self._patch(case, first, with_label=True) for case, first in self.positions(number, "labelled")]
        unlabelled = [
            self._patch(case, first, with_label=False) for case, first in self.positions(number, "unlabelled")
        ]
        empty = np.zeros((0, len(plan.channels), *plan.patch), np.float32)
        return Batch(
            image=torch.from_numpy(np.stack([image for image, _ in labelled])),
            label=torch.from_numpy(np.stack([label for _, label in labelled])),
            unlabelled=torch.from_numpy(np.stack([image for image, _ in unlabelled]) if unlabelled else empty),
            inside=torch.from_numpy(np.stack([inside for _, inside in unlabelled]) if unlabelled else empty[:, 0] > 0),
            spacing_mm=plan.patch_spacing_mm,
        )

    def names(self, number: int) -> list[str]:
        """The cases of batch number n, labelled ones first."""
        return [case.name for stream in ("labelled", "unlabelled") for case, _ in self.positions(number, stream)]

    def positions(self, number: int, stream: str) -> Iterator[Position]:
        """Where batch number n takes its patches from."""
        cases, size = (
            (self.labelled, self.plan.batch)
            if stream == "labelled"
            else (self.unlabelled, self.plan.unlabelled_batch if self.unlabelled else 0)
        )
        for sample in range(number * size, (number + 1) * size):
            turn, place = divmod(sample, len(cases))
            case = cases[_order(seed_of(self.seed, "order", stream, turn), len(cases))[place]]
            rng = np.random.default_rng(seed_of(self.seed, "patch", stream, sample))
            yield case, self._first_voxel(case, rng, stream == "labelled")

    def _first_voxel(self, case: PreparedCase, rng: np.random.Generator, labelled: bool) -> tuple[int, ...]:
        size = self._window
        centre = None
        if labelled and rng.random() < self.plan.foreground_share:
            foreground = case.open_foreground()
            if len(foreground):
                present = np.unique(foreground[:, 0])
                of_class = foreground[foreground[:, 0] == present[rng.integers(len(present))]]
                centre = of_class[rng.integers(len(of_class)), 1:]
        first = []
        for axis, (n, window) in enumerate(zip(case.shape, size, strict=True)):
            slack = n - window
            if slack <= 0:  # the scan is smaller: in the middle of the padding
                first.append(slack // 2)
            elif centre is None:
                first.append(int(rng.integers(slack + 1)))
            else:
                first.append(int(np.clip(centre[axis] - window // 2, 0, slack)))
        return tuple(first)

    @property
    def _window(self) -> tuple[int, ...]:
        """Patch size along the three prepared axes."""
        return self.plan.patch if self.plan.dims == 3 else (1, *self.plan.patch)

    def _patch(
        self, case: PreparedCase, first: tuple[int, ...], with_label: bool
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """The image, and its label (IGNORE on padding) or its mask of voxels inside the scan and its picture."""
        source = tuple(slice(max(f, 0), min(f + w, n)) for f, w, n in zip(first, self._window, case.shape, strict=True))
        target = tuple(slice(s.start - f, s.stop - f) for s, f in zip(source, first, strict=True))
        part = np.array(case.open_image()[(slice(None), *source)], np.float32)
        outside = rim(torch.from_numpy(part if self.plan.dims == 3 else part[:, 0])[None])
        image = np.empty((len(self.plan.channels), *self._window), np.float32)
        image[:] = outside.reshape(-1, 1, 1, 1)
        image[(slice(None), *target)] = part
        if with_label:
            second = np.full(self._window, IGNORE, np.int64)
            second[target] = case.open_label()[source]
        else:
            second = np.zeros(self._window, bool)
            second[target] = (image[(slice(None), *target)] != 0).any(axis=0) if self.plan.mask_zeros else True
        return image.reshape(-1, *self.plan.patch), second.reshape(self.plan.patch)


def numbers(start: int, steps: int, rank: int, world: int, accumulation: int) -> list[int]:
    """Batch numbers that one process loads, in order: its own slots of every step from `start`."""
    slots = world * accumulation
    own = range(rank * accumulation, (rank + 1) * accumulation)
    return [step * slots + slot for step in range(start, steps) for slot in own]


def load(batches: Batches, order: Sequence[int], workers: int) -> DataLoader[Batch]:
    """Whole batches in the given order, from `workers` processes (0: this one)."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="forkserver" if workers else None,
    )


@contextmanager
def workers_alive() -> Iterator[None]:
    """Raises OutOfMemory where torch says that a process of `load` is gone, wherever in the block it says so."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise OutOfMemory(
            "training: got a process that reads patches killed (usually for memory), expected it to live; "
            "lower plan.batch or patch, or leave more memory free, and go on with --resume"
        ) from None


@lru_cache(maxsize=8)
def _order(seed: int, count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).permutation(count)
