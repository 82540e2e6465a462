"""A method of one's own, in a file as a user writes it."""

from pathlib import Path

SOURCE = """
from __future__ import annotations

from torch.nn.functional import cross_entropy

from semiseg import Batch, Draws, Method, MethodConfig, Objective


class MineConfig(MethodConfig):
    alpha: float = 1.0


class Mine(Method):
    Config = MineConfig
    config: MineConfig

    def objective(self, batch: Batch, draws: Draws, progress: float) -> Objective:
        loss = cross_entropy(self.network(batch.image), batch.label.long(), ignore_index=-100)
        return Objective({"mine": self.config.alpha * loss})
"""


def write_method(folder: Path, source: str = SOURCE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "my_method.py"
    path.write_text(source, encoding="utf-8")
    return path
