"""What methods are compared with, and which comparisons are judged together: to be named before scores are seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from semiseg.bench.statistics import least_p
from semiseg.bench.verdict import ALPHA
from semiseg.errors import UserError
from semiseg.settings import Settings

EVERYONE = ("all",)
"""The family of every method that is compared."""


def _names(family: Any) -> Any:
    return [word.strip() for word in family.split(",")] if isinstance(family, str) else family


Family = Annotated[tuple[str, ...], BeforeValidator(_names)]


class Choice(Settings):
    """What decides verdicts, beside scores."""

    against: str
    """The method that every other one is compared with, pair by pair."""
    family: Family = EVERYONE
    """Methods whose comparisons are corrected together (Holm) and judged; of others there are intervals alone."""

    def compares(self, method: str) -> bool:
        return method != self.against

    def judges(self, method: str) -> bool:
        return self.compares(method) and (self.family == EVERYONE or method in self.family)

    def text(self) -> str:
        return f"against {self.against}, family: {', '.join(self.family)}"


def refuse_unknown(choice: Choice, methods: Iterable[str]) -> None:
    """Raises UserError for names of methods that are not compared."""
    known = list(methods)
    if choice.against not in known:
        raise UserError(
            f"--against: got {choice.against!r}, expected one of: {', '.join(known)}; or add it to --methods"
        )
    others = [name for name in known if choice.compares(name)]
    wrong = [name for name in choice.family if name not in others] if choice.family != EVERYONE else []
    if wrong or not choice.family:
        raise UserError(
            f"--family: got {', '.join(map(repr, wrong)) or 'nobody'}, expected some of: {', '.join(others) or 'none'} "
            f"(compared with {choice.against}), or all; correct it"
        )


def runs_needed(comparisons: int) -> int:
    """The fewest replicates with which one of so many comparisons can be significant after Holm's correction."""
    return math.ceil(math.log2(2 * comparisons / ALPHA))


def comparisons_carried(replicates: int) -> int:
    """The most comparisons of which one can be significant after Holm's correction."""
    return int(ALPHA / least_p(replicates))


def too_many(pairs: Sequence[int]) -> str | None:
    """A sentence, where no comparison can be significant; pairs: replicates of each."""
    carried = comparisons_carried(max(pairs, default=0))
    if len(pairs) <= carried:
        return None
    several = len(pairs) > 1
    fewer = f"name at most {carried} with --family before scores are there, or " if several and carried else ""
    return (
        f"no verdict is possible: {len(pairs)} comparison{'s are corrected together' if several else ''}, "
        f"{max(pairs)} replicates carry {carried or 'none'}; {fewer}use --runs {runs_needed(len(pairs))}"
    )
