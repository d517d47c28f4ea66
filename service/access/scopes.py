"""Scopes: the kinds of calls that a key may make, and the names of models that it may make them for."""

from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final


class Scope(StrEnum):
    """A kind of calls; none includes another."""

    PREDICT = "predict"  # predict, explain and infer, metadata, and lists of models
    FEEDBACK = "feedback"  # teach
    ADMIN = "admin"  # correct, forget and roll back; classes and rules; weights; load and unload


ALL_SCOPES: Final = frozenset(Scope)


def matches_any(model: str, patterns: Iterable[str]) -> bool:
    """Whether a model's name matches one of some patterns, in which `*` stands for any characters."""
    return any(fnmatchcase(model, pattern) for pattern in patterns)
