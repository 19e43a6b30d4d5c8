"""Destinations: where effects go. Made from the environment by the operator, or in the browser by an admin.

Credentials are encrypted before they reach a row. Nothing here commits.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.orm import Session, object_session

from webapp.leads import alerting, audit, fieldmap, kinds, outbox, triggers
from webapp.leads.digests import Digest
from webapp.leads.errors import Conflict, Invalid, NotFound, Problem
from webapp.leads.kinds import webhook
from webapp.leads.kinds.base import ASK_A_PERSON, SEND_AGAIN, WHEN_UNCERTAIN, Field, Kind, Unknown, origin
from webapp.leads.states import DeliveryState, DestinationKind, DestinationMode
from webapp.models.account import Workspace
from webapp.models.base import scoped
from webapp.models.crm import CrmPull
from webapp.models.work import Delivery, Destination

#: ``managed_by`` of the destinations that settings make; pages show them and cannot change them.
ENVIRONMENT = "environment"
DEFAULT_WORKSPACE = "default"
TWENTY_NAME, FOLLOW_UP_NAME, SLACK_NAME = "Twenty", "n8n follow-up", "Slack"

#: The rate budget that all workers share (webapp.leads.pacing); empty: none.
LIMITS = (
    Field("per_second", "Calls a second", "number", "Empty: no limit", required=False, bounds=(0.01, 10_000)),
    Field("per_minute", "Calls a minute", "number", "Empty: no limit", required=False, bounds=(1, 600_000)),
)
ON_UNCERTAIN = Field(
    WHEN_UNCERTAIN,
    "When nobody can tell whether it arrived",
    "choice",
    required=False,
    choices=((ASK_A_PERSON, "wait for a person"), (SEND_AGAIN, "send again: it may arrive twice")),
)


class Cipher(Protocol):
    """Field encryption, as ``webapp.security.fields`` has it."""

    def encrypt(self, value: Any) -> str: ...
    def decrypt(self, token: str) -> Any:
        """ValueError when no key fits."""
        ...


class OutboundSettings(Protocol):
    """The part of ``webapp.config.Settings`` that makes destinations."""

    @property
    def twenty_rest_url(self) -> str | None: ...
    @property
    def twenty_rest_token(self) -> SecretStr | None: ...
    @property
    def twenty_task_target_field(self) -> Any: ...
    @property
    def webhook_url(self) -> str | None: ...
    @property
    def slack_bot_token(self) -> SecretStr | None: ...
    @property
    def slack_channel(self) -> str | None: ...


def sync_environment(session: Session, settings: OutboundSettings, cipher: Cipher) -> None:
    """Make the environment's destinations of the workspace ``default`` what ``settings`` say; idempotent.

    A variable that is gone switches its destination off: its deliveries stay to be seen. Without a workspace of that
    name nothing is done. Several processes may call it at once: the first locks the workspace, the others wait.
    """
    workspace_id = session.scalar(
        sa.select(Workspace.id).where(Workspace.name == DEFAULT_WORKSPACE).with_for_update(key_share=True)
    )
    if workspace_id is None:
        return
    token = settings.twenty_rest_token
    _sync(
        session,
        cipher,
        workspace_id,
        DestinationKind.TWENTY,
        TWENTY_NAME,
        {"url": settings.twenty_rest_url, "task_target_field": settings.twenty_task_target_field},
        {"token": token.get_secret_value()} if token else None,
    )
    bot = settings.slack_bot_token
    _sync(
        session,
        cipher,
        workspace_id,
        DestinationKind.SLACK,
        SLACK_NAME,
        {"channel": settings.slack_channel},
        {"token": bot.get_secret_value()} if bot else None,
    )
    # The whole URL is a credential: whoever knows it can start the workflow.
    url = settings.webhook_url
    _sync(
        session,
        cipher,
        workspace_id,
        DestinationKind.N8N,
        FOLLOW_UP_NAME,
        {"url": origin(url) if url else None},
        {"url": url} if url else None,
    )


def _sync(
    session: Session,
    cipher: Cipher,
    workspace_id: uuid.UUID,
    kind: DestinationKind,
    name: str,
    config: dict[str, Any],
    credentials: dict[str, str] | None,
) -> None:
    here = scoped(Destination, workspace_id)
    row = session.scalar(here.where(Destination.kind == kind, Destination.managed_by == ENVIRONMENT))
    if credentials is None or not all(config.values()):
        if row is not None and row.mode is not DestinationMode.OFF:
            row.mode = DestinationMode.OFF
            audit.record(session, workspace_id, "DESTINATION_OFF", destination=row.name, reason="not configured")
        return
    if row is None:
        row = Destination(
            workspace_id=workspace_id,
            kind=kind,
            name=_free_name(session, workspace_id, name),
            managed_by=ENVIRONMENT,
            config={},
            options=dict(kinds.of(kind).limits),
            rules=dict(kinds.of(kind).rules or {}),
        )
        session.add(row)
    unchanged = row.config == config and _reads_as(cipher, row.credentials, credentials)
    if unchanged and row.mode is DestinationMode.LIVE:
        return
    if not unchanged:
        row.config, row.credentials = config, cipher.encrypt(credentials)
    row.mode = DestinationMode.LIVE
    _give_another_chance(row)
    session.flush()
    audit.record(session, workspace_id, "DESTINATION_SET", destination=row.name, url=kinds.of(kind).where(config))


def _give_another_chance(row: Destination) -> None:
    """Whatever was wrong may be right now: it is called again at once, and read back."""
    row.failures, row.open_until, row.paused_until, row.problem = 0, None, None, None
    if session := object_session(row):
        here = sa.update(CrmPull).where(CrmPull.destination_id == row.id)
        session.execute(here.values(due_at=sa.func.now(), tries=0))


def _reads_as(cipher: Cipher, stored: str | None, credentials: dict[str, str]) -> bool:
    """Encryption is salted, so only the clear values can be compared. A value no key opens is simply replaced."""
    try:
        return stored is not None and bool(cipher.decrypt(stored) == credentials)
    except ValueError:
        return False


def _free_name(session: Session, workspace_id: uuid.UUID, name: str) -> str:
    """``name``, or a numbered one when an admin has given it to a destination of their own."""
    taken = set(session.scalars(sa.select(Destination.name).where(Destination.workspace_id == workspace_id)))
    return next(n for i in range(1, len(taken) + 2) if (n := name if i == 1 else f"{name} {i}") not in taken)


def listing(session: Session, workspace_id: uuid.UUID) -> Sequence[Destination]:
    """The workspace's destinations by name, for the settings page."""
    return session.scalars(scoped(Destination, workspace_id).order_by(Destination.name)).all()


def find(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID) -> Destination:
    """NotFound outside the workspace."""
    row: Destination | None = session.scalar(scoped(Destination, workspace_id).where(Destination.id == destination_id))
    if row is None:
        raise NotFound("There is no such destination.")
    return row


@dataclass(frozen=True, slots=True)
class Wanted:
    """A destination as a form has it: all values as text. A limit that a new one's form leaves out is the kind's own. ``rules`` and ``mapping`` None: left as they are."""

    name: str
    values: Mapping[str, str]
    options: Mapping[str, str]
    rules: Mapping[str, Any] | None = None
    mapping: Mapping[str, str] | None = None


def create(
    session: Session,
    workspace_id: uuid.UUID,
    kind: DestinationKind,
    wanted: Wanted,
    *,
    cipher: Cipher,
    actor: str = audit.SYSTEM,
    mode: DestinationMode = DestinationMode.LIVE,
) -> tuple[Destination, dict[str, str]]:
    """Returns it with the secrets that were made for it, to be shown once.

    Invalid names every bad field, Conflict a name that is taken.
    """
    known = kinds.of(kind)
    config, secrets, problems = known.read(wanted.values)
    name = wanted.name.strip()
    proposed = {name: str(limit) for name, limit in known.limits.items()}
    options, more = _options(known, {**proposed, **wanted.options})
    rules, wrong = _rules(known, wanted.rules)
    mapping = _mapping(wanted.mapping or {}, known)
    _refuse([_name_problem(name), *problems, *more, *wrong, *_mapping_problems(mapping, known)])
    _free(session, workspace_id, name)
    made = {
        field.name: secrets[field.name]
        for field in known.fields
        if field.made is not None and not wanted.values.get(field.name, "").strip()
    }
    row = Destination(
        workspace_id=workspace_id,
        kind=kind,
        name=name,
        config=config,
        credentials=cipher.encrypt(secrets) if secrets else None,
        rules=rules,
        mapping=mapping,
        options=options,
        mode=mode,
    )
    session.add(row)
    session.flush()
    audit.record(session, workspace_id, "DESTINATION_SET", actor=actor, destination=name, kind=kind.value)
    return row, made


def change(
    session: Session,
    workspace_id: uuid.UUID,
    destination_id: uuid.UUID,
    wanted: Wanted,
    *,
    cipher: Cipher,
    actor: str,
) -> Destination:
    """The same for one that is there; a secret that is left empty stays, unless it would go to another
    address than before (:meth:`Kind.read`). What waits goes out by the new settings.

    Of one that the environment manages only rules, mapping and options are taken.
    """
    row = _locked(session, workspace_id, destination_id)
    known = kinds.of(row.kind)
    operators = row.managed_by == ENVIRONMENT
    stored = {} if operators or not row.credentials else _readable(cipher, row.credentials)
    config, secrets, problems = (row.config, stored, ()) if operators else known.read(wanted.values, stored, row.config)
    if row.config.get("rotating"):
        config = {**config, "rotating": True}
    name = row.name if operators else wanted.name.strip()
    options, more = _options(known, wanted.options)
    rules, wrong = (row.rules, ()) if wanted.rules is None else _rules(known, wanted.rules)
    mapping = row.mapping if wanted.mapping is None else _mapping(wanted.mapping, known)
    _refuse([_name_problem(name), *problems, *more, *wrong, *_mapping_problems(mapping, known)])
    if name != row.name:
        _free(session, workspace_id, name)
    changed = [
        words
        for words, before, after in (
            ("name", row.name, name),
            ("settings", row.config, config),
            ("credentials", stored, secrets),
            ("rules", row.rules, rules),
            ("fields", row.mapping, mapping),
            ("limits", row.options, options),
        )
        if before != after
    ]
    if not changed:
        return row
    if secrets != stored:
        row.credentials = cipher.encrypt(secrets)
    if config != row.config or secrets != stored:  # whatever was wrong with the other side may be right now
        _give_another_chance(row)
        row.tested_at, row.test_problem = None, None
    if options != row.options:
        row.second_at = row.minute_at = row.lookup_at = None
    digest = known.digest(config)
    if digest != known.digest(row.config):
        _retime(session, row, digest)
    row.name, row.config, row.rules, row.mapping, row.options = name, config, rules, mapping, options
    session.flush()
    audit.record(session, workspace_id, "DESTINATION_CHANGED", actor=actor, destination=name, changed=changed)
    return row


#: What waits for a digest that is no more is left the undo window.
_SOON = timedelta(minutes=1)


def _retime(session: Session, row: Destination, digest: Digest | None) -> None:
    """What waits for the next digest waits for the new one, or goes by itself."""
    soon = datetime.now(UTC) + _SOON
    session.execute(
        sa.update(Delivery)
        .where(
            Delivery.destination_id == row.id,
            Delivery.state == DeliveryState.PENDING,
            Delivery.tries == 0,
            Delivery.due_at > soon,
        )
        .values(due_at=digest.next(soon) if digest else soon)
        .execution_options(synchronize_session=False)
    )


def rotate_secret(
    session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID, *, cipher: Cipher, actor: str
) -> tuple[Destination, str | None]:
    """Begin or end a rotation of a webhook's signing secret. Returns the new one, to be shown once, or None when the old
    one has just been given up: until then each post carries the signatures of both."""
    row = _editable(session, workspace_id, destination_id)
    if not kinds.of(row.kind).signs:
        raise Conflict("Nothing is signed there.")
    secrets = _readable(cipher, row.credentials or "")
    if "old_secret" in secrets:
        del secrets["old_secret"]
        fresh = None
    else:
        fresh = webhook.new_secret()
        old = {"old_secret": secrets["secret"]} if "secret" in secrets else {}  # it cannot be read any more
        secrets = {"secret": fresh, **old}
    row.credentials = cipher.encrypt(secrets)
    settled = {name: value for name, value in row.config.items() if name != "rotating"}
    row.config = settled | ({"rotating": True} if "old_secret" in secrets else {})
    if row.problem is not None:
        _give_another_chance(row)
    session.flush()
    event = "DESTINATION_SECRET_NEW" if fresh else "DESTINATION_SECRET_OLD_GONE"
    audit.record(session, workspace_id, event, actor=actor, destination=row.name)
    return row, fresh


def remove(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID, *, actor: str) -> str:
    """Delete one that nothing was ever queued for; returns its name. Conflict otherwise: its history is kept, switch it
    off."""
    row = _editable(session, workspace_id, destination_id)
    if session.scalar(sa.select(sa.exists().where(Delivery.destination_id == row.id))):
        raise Conflict("Leads have gone there, and what happened to them is kept. Switch it off instead.")
    name = row.name
    session.execute(sa.delete(CrmPull).where(CrmPull.destination_id == row.id))
    session.delete(row)
    session.flush()
    audit.record(session, workspace_id, "DESTINATION_REMOVED", actor=actor, destination=name)
    return name


def tested(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID, problem: str | None) -> None:
    """Keep what a test found."""
    row = find(session, workspace_id, destination_id)
    row.tested_at, row.test_problem = sa.func.now(), problem[:500] if problem else None
    session.flush()


#: For kinds that reach people.
ALERTS = Field(alerting.OPTION, "Also tell of trouble in the console (alerts)", "switch", required=False)


def _options(kind: Kind, given: Mapping[str, str]) -> tuple[dict[str, Any], list[Problem]]:
    fields = list(LIMITS)
    if kind.unknown is not Unknown.ASKS:
        fields.append(ON_UNCERTAIN)
    if kind.tells_alerts:
        fields.append(ALERTS)
    found: dict[str, Any] = {}
    problems = []
    for field in fields:
        try:
            value = field.read(given.get(field.name, ""))
        except ValueError as error:
            problems.append(Problem(field.name, str(error)))
            continue
        if value is not None and value is not False:
            found[field.name] = value
    return found, problems


def _rules(kind: Kind, given: Mapping[str, Any] | None) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    if kind.own_rules:
        refused = Problem("on", f"is not up to rules here: there go {kind.own_rules}")
        return {}, (refused,) if given and any(given.values()) else ()
    return (dict(kind.rules or {}), ()) if given is None else triggers.checked(given)


def _mapping(given: Mapping[str, str], kind: Kind) -> dict[str, str]:
    """As it is stored: only what differs from the kind's own; an emptied field is left out on purpose."""
    own = {field.name: field.template for field in kind.mapping}
    cleaned = {name.strip(): template.strip() for name, template in given.items() if name.strip()}
    return {name: text for name, text in cleaned.items() if text != own.get(name, "")}


def _mapping_problems(mapping: Mapping[str, str], kind: Kind) -> tuple[Problem, ...]:
    taken = [name for name in mapping if name.casefold() in kind.reserved]
    return (
        *fieldmap.problems_of(mapping, kind.mapping, open_fields=kind.open_fields),
        *(Problem(name, "is filled by the console itself") for name in taken),
    )


def _refuse(problems: Sequence[Problem | None]) -> None:
    if found := tuple(problem for problem in problems if problem is not None):
        raise Invalid("The destination cannot be saved.", details=found)


def _free(session: Session, workspace_id: uuid.UUID, name: str) -> None:
    if session.scalar(scoped(Destination, workspace_id).where(Destination.name == name)) is not None:
        raise Conflict(f"There is already a destination called {name}.", code="resource_exists")


def _readable(cipher: Cipher, stored: str) -> dict[str, Any]:
    """Credentials in the clear; none when no key opens them any more, so that they are asked for anew."""
    try:
        return dict(cipher.decrypt(stored))
    except ValueError:
        return {}


def _name_problem(name: str) -> Problem | None:
    return None if 1 <= len(name) <= 80 else Problem("name", "must have 1 to 80 characters")


def set_mode(
    session: Session,
    workspace_id: uuid.UUID,
    destination_id: uuid.UUID,
    mode: DestinationMode,
    *,
    actor: str,
    send_shadowed: bool = False,
) -> Destination:
    """Switch on, off, or to watching only. Off: nothing new is queued and what waits stays waiting; on again also closes
    the breaker, and sends what was only recorded if ``send_shadowed`` says so.

    NotFound outside the workspace; Conflict for one that the environment manages.
    """
    row = _editable(session, workspace_id, destination_id)
    if row.mode is not mode:
        row.mode = mode
        if mode is DestinationMode.LIVE:
            _give_another_chance(row)
        audit.record(session, workspace_id, _SWITCHED[mode], actor=actor, destination=row.name)
    if mode is DestinationMode.LIVE and send_shadowed:
        outbox.settle_recorded(session, row, send=True, actor=actor)
    session.flush()
    return row


_SWITCHED = {
    DestinationMode.LIVE: "DESTINATION_ON",
    DestinationMode.SHADOW: "DESTINATION_SHADOW",
    DestinationMode.OFF: "DESTINATION_OFF",
}


def waiting(session: Session, workspace_id: uuid.UUID) -> dict[uuid.UUID, dict[DeliveryState, int]]:
    """How many deliveries stand where, by destination (what is over and done with left out)."""
    counts: dict[uuid.UUID, dict[DeliveryState, int]] = {}
    over = (DeliveryState.DELIVERED, DeliveryState.CANCELLED, DeliveryState.WITHDRAWN)
    # Named, not left out: so ix_deliveries_state finds the few among all that were ever delivered.
    standing = [state for state in DeliveryState if state not in over]
    for destination_id, state, count in session.execute(
        sa.select(Delivery.destination_id, Delivery.state, sa.func.count())
        .where(Delivery.workspace_id == workspace_id, Delivery.state.in_(standing))
        .group_by(Delivery.destination_id, Delivery.state)
    ):
        counts.setdefault(destination_id, {})[state] = count
    return counts


def _locked(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID) -> Destination:
    row: Destination | None = session.scalar(
        scoped(Destination, workspace_id).where(Destination.id == destination_id).with_for_update()
    )
    if row is None:
        raise NotFound("There is no such destination.")
    return row


def _editable(session: Session, workspace_id: uuid.UUID, destination_id: uuid.UUID) -> Destination:
    row = _locked(session, workspace_id, destination_id)
    if row.managed_by == ENVIRONMENT:
        raise Conflict("This destination is managed by the environment; change its variables there.")
    return row
