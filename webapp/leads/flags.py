"""Features that a workspace's admin can switch off: what each does, what holds, and what switching costs.

A workspace's own choice (``Workspace.settings["flags"]``: name → bool) goes before the deployment's default, which
whoever reads the environment hands in once per process (:func:`use_defaults`): the app factory and ``jobs.wiring``.
"""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import audit, workspaces
from webapp.leads.states import DeliveryOperation, DeliveryState, DestinationKind
from webapp.models.account import Workspace
from webapp.models.work import Delivery, Destination


class Flag(StrEnum):
    """By the names under which they are stored."""

    ENRICHMENT = "enableEnrichment"
    ML_SCORING = "enableMLScoring"
    AUTO_ROUTING = "enableAutoRouting"
    WEBHOOKS = "enableWebhooks"
    LLM_COPYWRITING = "enableLLMCopywriting"


@dataclass(frozen=True, slots=True)
class Flags:
    """What is on. The fields are the members of :class:`Flag`, in their order."""

    enrichment: bool = True
    ml_scoring: bool = True
    auto_routing: bool = True
    webhooks: bool = True
    llm_copywriting: bool = False

    def on(self, flag: Flag) -> bool:
        return bool(asdict(self)[flag.name.lower()])


#: What a stage's record, a delivery that waits or a preview says of a feature that is off.
OFF_BECAUSE = {
    Flag.ENRICHMENT: "enrichment is switched off in this workspace",
    Flag.ML_SCORING: "learned scoring is switched off in this workspace; the plain rule score counts",
    Flag.AUTO_ROUTING: "automatic routing is switched off in this workspace",
    Flag.WEBHOOKS: "outgoing webhooks are switched off in this workspace",
    Flag.LLM_COPYWRITING: "the model writes no tasks in this workspace",
}
#: Destinations that are webhooks.
WEBHOOK_KINDS = (DestinationKind.WEBHOOK, DestinationKind.N8N, DestinationKind.CALLBACK)

#: As shipped.
SHIPPED = Flags()
_defaults = [SHIPPED]


class FlagSettings(Protocol):
    """The part of ``webapp.config.Settings`` that gives the defaults."""

    @property
    def enable_enrichment(self) -> bool: ...
    @property
    def enable_ml_scoring(self) -> bool: ...
    @property
    def enable_auto_routing(self) -> bool: ...
    @property
    def enable_webhooks(self) -> bool: ...
    @property
    def enable_llm_copywriting(self) -> bool: ...


def use_defaults(settings: FlagSettings) -> None:
    """What holds in workspaces that have not chosen; for this process."""
    _defaults[0] = Flags(
        settings.enable_enrichment,
        settings.enable_ml_scoring,
        settings.enable_auto_routing,
        settings.enable_webhooks,
        settings.enable_llm_copywriting,
    )


def defaults() -> Flags:
    return _defaults[0]


def of(stored: Mapping[str, Any] | None) -> Flags:
    """From ``Workspace.settings["flags"]``. What is not a plain yes or no there counts as not chosen."""
    chosen = {flag.name.lower(): (stored or {}).get(flag.value) for flag in Flag}
    return Flags(**asdict(defaults()) | {name: value for name, value in chosen.items() if isinstance(value, bool)})


def of_workspace(session: Session, workspace_id: uuid.UUID) -> Flags:
    return of(session.scalar(sa.select(Workspace.settings["flags"]).where(Workspace.id == workspace_id)))


def is_on(flag: Flag) -> sa.ColumnElement[bool]:
    """:func:`of` in SQL, for statements that have ``Workspace`` in them."""
    chosen = Workspace.settings["flags"][flag.value]
    said = sa.case((chosen == sa.text("'true'::jsonb"), sa.true()), (chosen == sa.text("'false'::jsonb"), sa.false()))
    # Asked when a statement is executed, so that statements can be built once.
    by_default = sa.bindparam(None, callable_=lambda: defaults().on(flag), type_=sa.Boolean(), unique=True)
    return sa.func.coalesce(said, by_default)


def without_webhooks(session: Session, workspace_ids: set[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the workspaces for which no outgoing webhook is planned."""
    off = sa.select(Workspace.id).where(Workspace.id.in_(workspace_ids), ~is_on(Flag.WEBHOOKS))
    return set(session.scalars(off)) if workspace_ids else set()


@cache
def released() -> sa.ColumnElement[bool]:
    """Deliveries that are not held because outgoing webhooks are off where they come from."""
    # Two small sets, each found once for a statement, so that rows are still read in the order of an index.
    webhooks = sa.select(Destination.id).where(Destination.kind.in_(WEBHOOK_KINDS))
    on = sa.select(Workspace.id).where(is_on(Flag.WEBHOOKS))
    return sa.or_(Delivery.destination_id.not_in(webhooks), Delivery.workspace_id.in_(on))


def choose(session: Session, workspace_id: uuid.UUID, flag: Flag, on: bool | None, *, actor: str) -> None:
    """Set the workspace's own choice; None goes back to the default. The caller commits."""
    workspace = workspaces.locked(session, workspace_id)
    before = workspace.settings.get("flags") or {}
    after = {name: value for name, value in before.items() if name != flag.value}
    after |= {} if on is None else {flag.value: on}
    if after == before:
        return
    workspace.settings = workspace.settings | {"flags": after}
    audit.record(
        session, workspace_id, "FLAG_CHANGED", actor=actor, flag=flag.value, on=on, before=before.get(flag.value)
    )
    session.flush()


def _webhooks_of(workspace_id: uuid.UUID) -> list[sa.ColumnElement[bool]]:
    hooks = sa.select(Destination.id).where(Destination.kind.in_(WEBHOOK_KINDS))
    return [
        Delivery.workspace_id == workspace_id,
        Delivery.state == DeliveryState.PENDING,
        Delivery.destination_id.in_(hooks),
    ]


def waiting_webhooks(session: Session, workspace_id: uuid.UUID) -> int:
    """How many of the workspace's outgoing webhooks wait."""
    count = sa.select(sa.func.count()).select_from(Delivery).where(*_webhooks_of(workspace_id))
    return session.scalar(count) or 0


def discard_webhooks(session: Session, workspace_id: uuid.UUID, *, actor: str) -> int:
    """Cancel the outgoing webhooks that wait to be sent. Returns how many. What is owed for one that was sent before (it is
    to be taken back, changed or brought back) still goes out."""
    rows = session.execute(
        sa.update(Delivery)
        .where(*_webhooks_of(workspace_id), Delivery.operation == DeliveryOperation.SEND)
        .values(
            state=DeliveryState.CANCELLED,
            last_error="discarded when outgoing webhooks were switched on again",
            updated_at=sa.func.now(),
        )
        .returning(Delivery.id, Delivery.lead_id)
        .execution_options(synchronize_session=False)
    ).all()
    for row in rows:
        audit.record(
            session, workspace_id, "DELIVERY_CANCELLED", actor=actor, lead_id=row.lead_id, deliveries=[str(row.id)],
            reason="discarded when outgoing webhooks were switched on again",
        )  # fmt: skip
    return len(rows)
