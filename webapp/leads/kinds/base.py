"""What a kind of destination is: its settings, its steps, its fields, its promises. A kind is one module beside this.

The settings page, the outbox and the clients' registry all read it from here, so that a new kind is one description, one
client (``webapp.clients``), one stand-in (``tests/fakes``) and one row of the table in docs/deliveries.md.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from webapp.leads.digests import Digest
from webapp.leads.errors import Problem
from webapp.leads.states import DestinationKind, Trigger

MAX_TEXT = 2_000

#: Standard Webhooks: a secret has 24 to 64 random bytes.
_SECRET_BYTES = (24, 64)


class Unknown(StrEnum):
    """What follows a call whose outcome is unknown (a timeout, a reset, a 5xx)."""

    ASKS = "asks"  # the other side can be asked, or knows the record by our id: never twice
    REPEATS = "repeats"  # it is sent again under the same id, by which the receiver can tell
    STOPS = "stops"  # nobody can tell: marked uncertain, and not sent again without a person or the setting


#: Settings that say where a secret goes, by kind and by name, unless a field says otherwise.
_ADDRESS_KINDS, _ADDRESS_NAMES = frozenset({"url"}), frozenset({"host", "port", "security"})
#: Said of a secret that is not sent to another place than it was entered for.
ENTER_AGAIN = "has to be entered again, since it would be sent to another address than before"

#: The setting of a destination whose kind does not ask, and its two answers.
WHEN_UNCERTAIN = "when_uncertain"
SEND_AGAIN, ASK_A_PERSON = "send_again", "ask"


@dataclass(frozen=True, slots=True)
class Field:
    """One setting. ``kind``: text | url | number | choice | switch | long. ``secret``: stored encrypted, never shown.
    ``check``: what is wrong with a value, in words that follow the label, or None. ``choices``: (value, words).
    ``bounds``: of a number. ``made``: makes a secret that was left empty, to be shown once. ``tidy``: how a value is
    stored, before it is checked. ``needed_for``: a setting and the value of it with which this one is needed too.
    ``receives_secret``: it is a part of the address that the kind's secrets are sent to (None: addresses and servers are)."""

    name: str
    label: str
    kind: str = "text"
    help: str = ""
    required: bool = True
    default: Any = None
    secret: bool = False
    choices: tuple[tuple[str, str], ...] = ()
    bounds: tuple[float, float] = (0, 1e9)
    check: Callable[[str], str | None] | None = None
    made: Callable[[], str] | None = None
    tidy: Callable[[str], str] = str
    needed_for: tuple[str, str] | None = None
    receives_secret: bool | None = None

    @property
    def leads_secret(self) -> bool:
        """Do the secrets go somewhere else when it changes?"""
        if self.secret or self.receives_secret is not None:
            return bool(self.receives_secret)
        return self.kind in _ADDRESS_KINDS or self.name in _ADDRESS_NAMES

    def read(self, text: str) -> Any:
        """The value that is stored. ValueError with what is wrong."""
        text = text.strip()
        if self.kind == "switch":
            return text.lower() in ("on", "true", "1", "yes")
        if not text:
            if self.required and self.made is None:
                raise ValueError("is needed")
            return None
        if self.kind == "number":
            return self._number(text)
        if self.kind == "choice" and text not in dict(self.choices):
            raise ValueError("is not one of the choices")
        if self.kind == "url" and (wrong := url_problem(text)):
            raise ValueError(wrong)
        if len(text) > (20_000 if self.kind == "long" else MAX_TEXT):
            raise ValueError("is too long")
        text = self.tidy(text)
        if self.check is not None and (wrong := self.check(text)):
            raise ValueError(wrong)
        return text

    def _number(self, text: str) -> float | int:
        low, high = self.bounds
        try:
            number = float(text)
        except ValueError:
            raise ValueError("must be a number") from None
        if not low <= number <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return int(number) if number.is_integer() else number


@dataclass(frozen=True, slots=True)
class Step:
    """One action of a lead at a destination; ``step`` is its place in the order there.

    ``trigger``: only where this is what made the destination want the lead (the events of a webhook). ``switch``: only
    where the setting of this name is on. ``updates``: a later decision changes what is there; ``withdraws``: it can be
    taken back there, where the setting ``withdraws_if`` is on if there is one.
    """

    action: str
    step: int
    label: str
    trigger: Trigger | None = None
    switch: str | None = None
    updates: bool = False
    withdraws: bool = False
    withdraws_if: str | None = None

    def taken_back(self, config: Mapping[str, Any]) -> bool:
        """Can it be taken back at a destination with these settings?"""
        return self.withdraws and (self.withdraws_if is None or bool(config.get(self.withdraws_if)))


@dataclass(frozen=True, slots=True)
class Mapped:
    """A field on the other side and what fills it unless the destination says otherwise (webapp.leads.fieldmap).
    ``needed``: without it there is nothing to send."""

    name: str
    label: str
    template: str = ""
    needed: bool = False


def message_mapping(title: str) -> tuple[Mapped, ...]:
    """What a message to people says of a lead. ``title``: what its first line is called there."""
    return (
        Mapped("title", title, "{priority} · {words.intent}: {display_name}", needed=True),
        Mapped("text", "Message", "message"),
        Mapped("Company", "Company", "company | facts.company_name"),
        Mapped("E-mail", "E-mail", "email"),
        Mapped("Phone", "Phone", "phone"),
        Mapped("Source", "Source", "words.source"),
        Mapped("Score", "Score", "score"),
        Mapped("Assigned to", "Assigned to", "assignee.name"),
    )


@dataclass(frozen=True, slots=True)
class Guarantee:
    """A row of the table in docs/deliveries.md, also shown beside the form."""

    effect: str
    promise: str
    why: str


@dataclass(frozen=True, slots=True)
class Kind:
    """``open_fields``: people may add target fields of their own. ``in_browser``: can be made on the settings page.
    ``rules``: which leads, unless the destination says otherwise. ``per_second``, ``per_minute``: the rate budget that
    it gets unless somebody sets another (None: no limit). ``tells_alerts``: its client is a :class:`~webapp.leads.ports.TellsAlerts`.
    ``one_at_a_time``: settings that name together what takes one delivery at a time, from whichever worker and
    destination it comes. ``reserved``: names that the other side's own fields have, so that no mapped field may.
    ``shown``: what of the secrets may be shown, as settings; ``note``: what is left to do there, for people.
    ``check``: what is wrong with settings together (config, secrets). ``digest``: when it takes leads together, if it
    does (webapp.leads.digests); its client is a :class:`~webapp.leads.ports.SendsTogether` then.
    ``testable``: its client has a harmless call. ``own_rules``: which leads go there, in words, where that is not up to a
    destination's rules."""

    kind: DestinationKind
    label: str
    about: str
    fields: tuple[Field, ...]
    steps: tuple[Step, ...]
    unknown: Unknown
    guarantees: tuple[Guarantee, ...]
    mapping: tuple[Mapped, ...] = ()
    open_fields: bool = False
    rules: Mapping[str, Any] | None = None
    per_second: float | None = None
    per_minute: float | None = None
    in_browser: bool = True
    tells_alerts: bool = False
    testable: bool = True
    own_rules: str = ""
    where: Callable[[Mapping[str, Any]], str] = lambda config: str(config.get("url") or "")
    one_at_a_time: tuple[str, ...] = ()
    reserved: frozenset[str] = frozenset()
    shown: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda secrets: {}
    note: Callable[[Mapping[str, Any]], str | None] = lambda config: None
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], Sequence[Problem]] = lambda config, secrets: ()
    digest: Callable[[Mapping[str, Any]], Digest | None] = lambda config: None

    def steps_for(self, matched: frozenset[Trigger], config: Mapping[str, Any]) -> tuple[Step, ...]:
        """What a lead brings about there that is wanted because of ``matched``; empty when nothing is matched."""
        if not matched:
            return ()
        return tuple(
            step
            for step in self.steps
            if (step.trigger is None or step.trigger in matched) and (step.switch is None or config.get(step.switch))
        )

    @property
    def limits(self) -> dict[str, float]:
        """The rate budget as it is stored with a destination."""
        own = {"per_second": self.per_second, "per_minute": self.per_minute}
        return {name: limit for name, limit in own.items() if limit is not None}

    @property
    def signs(self) -> bool:
        """Is what it posts signed, with a secret that can be changed?"""
        return any(field.name == "secret" and field.made is not None for field in self.fields)

    def step_of(self, action: str) -> Step | None:
        return next((step for step in self.steps if step.action == action), None)

    def sends_again(self, options: Mapping[str, Any]) -> bool:
        """May a call whose outcome is unknown be repeated where the other side cannot be asked?"""
        chosen = options.get(WHEN_UNCERTAIN)
        return chosen == SEND_AGAIN if chosen else self.unknown is Unknown.REPEATS

    def read(
        self,
        given: Mapping[str, str],
        stored: Mapping[str, Any] | None = None,
        before: Mapping[str, Any] | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], tuple[Problem, ...]]:
        """(config, secrets, what is wrong) of a form. With ``stored`` secrets, one that was left empty stays, unless it
        would go to another place than by the settings ``before``: whoever may change an address need not know the secret."""
        config: dict[str, Any] = {}
        secrets: dict[str, Any] = dict(stored or {})
        problems = []
        if before is not None and self._leads_elsewhere(given, before):
            secrets = {}
        for field in self.fields:
            text = given.get(field.name, "")
            if field.secret and not text.strip() and (secrets.get(field.name) or field.made is not None):
                if not secrets.get(field.name) and field.made is not None:
                    secrets[field.name] = field.made()
                continue
            try:
                value = field.read(text)
            except ValueError as error:
                problems.append(Problem(field.name, str(error)))
                continue
            if value is not None and value is not False:
                (secrets if field.secret else config)[field.name] = value
        problems += [
            Problem(field.name, "is needed")
            for field in self.fields
            if field.needed_for
            and config.get(field.needed_for[0]) == field.needed_for[1]
            and not (config | secrets).get(field.name)
        ]
        if not problems:
            config |= self.shown(secrets)
            problems = list(self.check(config, secrets))
        let_go = {name for name in stored or {} if name not in secrets}
        again = [Problem(one.field, ENTER_AGAIN) if one.field in let_go else one for one in problems]
        return config, secrets, tuple(again)

    def _leads_elsewhere(self, given: Mapping[str, str], before: Mapping[str, Any]) -> bool:
        for field in self.fields:
            if not field.leads_secret:
                continue
            try:
                if field.read(given.get(field.name, "")) != before.get(field.name):
                    return True
            except ValueError:
                continue  # which is told, and nothing is stored
        return False


def url_problem(url: str) -> str | None:
    """What is wrong with an address that somebody entered. Where it leads is checked when it is called, since names may
    resolve to anything later."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if good and not parts.username and not parts.password and len(url) <= MAX_TEXT:
        return None
    return "must be an http:// or https:// URL without a user name"


def signing_secret_problem(secret: str) -> str | None:
    """Of a Standard Webhooks secret."""
    try:
        size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    low, high = _SECRET_BYTES
    return None if low <= size <= high else f"must be whsec_ and {low} to {high} bytes in base64"


def origin(url: str) -> str:
    """Of an address that is itself a credential: as much as may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
