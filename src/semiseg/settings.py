"""The base of every configuration: frozen, no unknown keys, and a suggestion when a key is misspelt."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from semiseg.errors import InputError, UserError

WORD = BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value)
"""For a choice among words of which some look like numbers: YAML reads `dims: 2` as a number."""


_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple = 2, 8, 8, 8
_SHORT.maxstring = _SHORT.maxother = 200

MOST_WRITTEN_OUT = 10**5
"""Values in one that YAML's aliases repeat: ten nested levels of them are ten thousand million values."""


class Settings(BaseModel):
    """A frozen set of named values. Change one with `model_copy(update=...)` or build it anew with `parse`."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _complete_groups(cls, values: Any) -> Any:
        """A group given in part keeps the rest of this field's default, which may differ from that of the group."""
        if not isinstance(values, Mapping):
            return values
        defaults = {name: field.default for name, field in cls.model_fields.items()}
        return {name: overlaid(defaults.get(name), value) for name, value in values.items()}

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate `values`; a mistake becomes one UserError that names the key as `where.key`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError("; ".join(_sentence(cls, problem, where) for problem in error.errors())) from None


class ReadBack(BaseModel):
    """Of the values in a file of ours those that something asks for; versions may write others beside them."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def of(cls, values: Any, where: str, expected: str, action: str) -> Self:
        """Raises InputError, which names the place, for values that are missing or of another kind."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            if first["type"] == "missing":
                found = f"no value {key!r}"
            else:
                found = shown(first["input"]) + (f" as {key!r}" if key else "")
            raise InputError(f"{where}: got {found}, expected {expected}; {action}") from None


def shown(value: Any) -> str:
    """A value in a message, cut short."""
    return _SHORT.repr(value)


def is_text(text: str) -> bool:
    """Whether it can be written: names on disk need not be UTF-8, and JSON can hold halves of characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def unusual(values: Any) -> str:
    """What among values from a JSON or YAML file no file of ours can hold, in words: text that is no Unicode, numbers
    that are not finite, values that hold themselves or would be endless if YAML's aliases were written out. Empty where
    there is nothing of the kind."""
    waiting, above, written = [(values, False)], set[int](), dict[int, int]()
    while waiting:
        one, left = waiting.pop()
        if isinstance(one, str) and not is_text(one):
            return f"the text {shown(one)}, which is not Unicode"
        if isinstance(one, float) and not math.isfinite(one):
            return f"the number {one}"
        if not isinstance(one, Mapping | list | tuple | set):
            continue
        parts = [*one, *one.values()] if isinstance(one, Mapping) else list(one)
        if left:
            above.remove(id(one))
            written[id(one)] = 1 + sum(written.get(id(part), 1) for part in parts)
        elif id(one) in above:
            return "a value that holds itself"
        elif id(one) not in written:
            above.add(id(one))
            waiting += [(one, True), *((part, False) for part in parts)]
        elif written[id(one)] > MOST_WRITTEN_OUT:
            return f"a value that is repeated and holds {written[id(one)]} others"
    return ""


def _plain(name: str) -> str:
    plain = name.isprintable() and len(name.encode()) < 256 and "\\" not in name  # half a character is not printable
    if not plain or name in ("", ".", "..") or Path(name).name != name:
        raise ValueError(f"got {name!r:.300}, expected the plain name of a file; correct it")
    return name


PlainName = Annotated[str, AfterValidator(_plain)]
"""Of a file in the folder where it is read: no path leads out of that folder."""


def overlaid(default: Any, given: Any) -> Any:
    """A mapping on top of a group of settings, group by group; anything else as it is."""
    if not isinstance(default, Settings) or not isinstance(given, Mapping):
        return given
    values = {name: getattr(default, name) for name in type(default).model_fields}
    return values | {name: overlaid(values.get(name), value) for name, value in given.items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `dotted.key: value`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return result


def _sentence(model: type[BaseModel], problem: Any, where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    key = ".".join([where, *path]) if where else ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
        return f"{key}: unknown setting; {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":  # a rule of our own, which says what it got
        return f"{key}: {message}"
    return f"{key}: got {shown(problem.get('input'))}, {message[:1].lower()}{message[1:]}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        field = model.model_fields.get(name)
        if field is None or not isinstance(field.annotation, type):
            return []
        if not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
