"""When a model is asked, and what it may see: the deployment's settings, and what a workspace wants instead."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from webapp.leads.types import Verdict


class Mode(StrEnum):
    """``CLASSIFY_MODE``, which a workspace may set for itself."""

    RULES = "rules"
    RULES_THEN_LLM = "rules_then_llm"  # the model is asked where the rules are not sure
    LLM = "llm"  # the model is asked every time, and /enrich-lead fails without it


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a workspace wants (``workspaces.settings["classify"]``). ``mode`` None: as the deployment has it.
    ``share_personal``: addresses, numbers and names may leave unmasked. ``daily_*``: what asking models may come to
    in a day (UTC); None: no limit."""

    mode: Mode | None = None
    share_personal: bool = False
    daily_tokens: int | None = None
    daily_usd: float | None = None

    @classmethod
    def of(cls, stored: Any) -> "Preferences":
        """From the stored JSON. What cannot be read counts as not set, since leads must be judged all the same."""
        given: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}
        mode, tokens, usd = given.get("mode"), given.get("daily_tokens"), given.get("daily_usd")
        return cls(
            mode=Mode(mode) if mode in list(Mode) else None,
            share_personal=given.get("share_personal") is True,
            daily_tokens=tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None,
            daily_usd=float(usd) if isinstance(usd, int | float) and not isinstance(usd, bool) and usd >= 0 else None,
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode.value if self.mode else None, "share_personal": self.share_personal,
            "daily_tokens": self.daily_tokens, "daily_usd": self.daily_usd,
        }  # fmt: skip

    @property
    def has_budget(self) -> bool:
        return self.daily_tokens is not None or self.daily_usd is not None


NO_PREFERENCES = Preferences()


@dataclass(frozen=True, slots=True)
class Policy:
    """When a model is asked. ``available``: one is configured and switched on. ``locked``: models are switched off for
    the whole deployment, whatever a workspace wants."""

    mode: Mode = Mode.RULES
    available: bool = False
    locked: bool = False

    def of(self, preferences: Preferences) -> "Policy":
        """The policy of a workspace."""
        if self.locked or preferences.mode is None:
            return self
        return replace(self, mode=preferences.mode)

    @property
    def required(self) -> bool:
        """The caller of /enrich-lead gets the model's verdict or none."""
        return self.mode is Mode.LLM

    @property
    def asks(self) -> bool:
        """Can it happen at all that a model is needed?"""
        return self.required or (self.mode is Mode.RULES_THEN_LLM and self.available)

    def needs_model(self, said: Verdict, message: str, *, auto_from: float) -> bool:
        """Is ``said``, the rules' verdict, not enough? The rules are sure from where the workspace lets leads go out
        by themselves. A message without words is nothing to ask about."""
        if not self.asks or not any(character.isalnum() for character in message):
            return False
        return self.required or said.confidence < auto_from


RULES_ONLY = Policy()


def policy(mode: str, *, use_model: bool, available: bool) -> Policy:
    """From the settings. Switched off, a model is not required either."""
    return Policy(Mode(mode), available) if use_model else Policy(Mode.RULES, available=False, locked=True)
