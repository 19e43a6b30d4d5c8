"""The domain's error tree; ``webapp.errors`` turns each into HTTP once."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field of what a caller sent."""

    field: str
    reason: str


class LeadError(Exception):
    """Base of all domain errors. ``code`` is one of the envelope's codes (docs/api.md)."""

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, details: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code


class Transient(LeadError):
    """May work when tried again. ``retry_after``: seconds the other side asked us to wait, if it did."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: float | None = None, **kwargs: Any) -> None:
        super().__init__(message, **kwargs)
        self.retry_after = retry_after


class Ambiguous(Transient):
    """The request was sent and its outcome is not known: reconcile before sending again."""


class Permanent(LeadError):
    """Will fail the same way however often it is tried."""

    code = "upstream_failed"


class Invalid(LeadError):
    """What the caller sent cannot be accepted; ``details`` name every problem at once."""

    code = "invalid_param"


class NotFound(LeadError):
    code = "not_found"


class Conflict(LeadError):
    """The request is well-formed but the thing is not in the state that it assumes."""

    code = "version_conflict"


class Forbidden(LeadError):
    code = "insufficient_scope"
