"""Background work: runs, deliveries and the workers that hold them."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column, relationship

from webapp.leads.states import (
    DeliveryOperation,
    DeliveryState,
    DestinationKind,
    DestinationMode,
    ReplayState,
    RerunState,
    RunStatus,
    RunTrigger,
    TaskRequestState,
    TextAuthor,
    TextState,
)
from webapp.models.base import JSON, Base, Claimable, Created, Identified, InWorkspace, OfWorkspace, enum_column
from webapp.models.lead import Lead


class Run(Identified, OfWorkspace, Created, Claimable, Base):
    """One passage of a lead through the stages.

    ``payload_json`` is what came in (sensitive values encrypted), ``stages`` one object per stage in order:
    ``{name, status, input, output, evidence, error, started_at, ms}``. ``rank`` orders the backlog (0 first).
    ``model_required``: somebody waits for a model's verdict, and the run fails without one. ``degraded``: the stages
    that went on with less. ``stage``: where a slow run under way is, since when; quick ones do not say. ``rerun_id``:
    the re-run of many leads that asked for it.
    """

    __tablename__ = "runs"
    __table_args__ = (
        sa.Index("ix_runs_lead_id", "lead_id", "created_at"),
        sa.Index("ix_runs_due", "rank", "due_at", postgresql_where=sa.text("status IN ('queued', 'running')")),
        sa.Index("ix_runs_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index(
            "ix_runs_degraded",
            "workspace_id",
            sa.text("created_at DESC"),
            sa.text("id DESC"),
            postgresql_where=sa.text("degraded <> '{}'"),
        ),
        sa.Index(
            "uq_runs_rerun",
            "rerun_id",
            "lead_id",
            unique=True,
            postgresql_where=sa.text("rerun_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_runs_failed",
            "workspace_id",
            sa.text("created_at DESC"),
            postgresql_where=sa.text("status = 'failed'"),
        ),
    )

    lead_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("leads.id"))
    idempotency_key: Mapped[str | None]
    source: Mapped[str]
    trigger: Mapped[RunTrigger] = enum_column(RunTrigger, "trigger", server_default="intake")
    requested_by: Mapped[str | None]
    rank: Mapped[int] = mapped_column(sa.SmallInteger, server_default="2")
    payload_json: Mapped[JSON] = mapped_column(server_default="{}")
    result_json: Mapped[JSON | None]
    stages: Mapped[list[Any]] = mapped_column(server_default="[]")
    model_required: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    status: Mapped[RunStatus] = enum_column(RunStatus, "status", server_default="queued")
    error: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    degraded: Mapped[list[str]] = mapped_column(ARRAY(sa.Text), default=list, server_default="{}")
    stage: Mapped[str | None]
    stage_since: Mapped[datetime | None]
    rerun_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("reruns.id"))

    lead: Mapped[Lead] = relationship(lazy="raise_on_sql")


class Rerun(Identified, InWorkspace, Created, Claimable, Base):
    """Runs of many leads, asked for at once. ``lead_ids``: all of them, fixed when it was confirmed; ``position``: how
    many have been looked at, of whom ``queued`` got a run and ``skipped`` had one waiting already or were gone.
    ``filter``: the query parameters that chose them, for people. ``result``: what came of it, once it is over."""

    __tablename__ = "reruns"
    __table_args__ = (
        sa.Index("ix_reruns_due", "due_at", postgresql_where=sa.text("state IN ('queued', 'running')")),
        sa.Index("ix_reruns_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.CheckConstraint("queued + skipped = position AND position <= total", name="counts"),
        sa.CheckConstraint("(state IN ('done', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"),
    )

    state: Mapped[RerunState] = enum_column(RerunState, "state", server_default="queued")
    lead_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(sa.Uuid))
    total: Mapped[int]
    filter: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    position: Mapped[int] = mapped_column(default=0, server_default="0")
    queued: Mapped[int] = mapped_column(default=0, server_default="0")
    skipped: Mapped[int] = mapped_column(default=0, server_default="0")
    requested_by: Mapped[str]
    cancelled_by: Mapped[str | None]
    finished_at: Mapped[datetime | None]
    result: Mapped[JSON | None]


class TaskText(Identified, InWorkspace, Created, Claimable, Base):
    """What a lead's follow-up task says; one text for all destinations. ``body``: Markdown, NULL until written.

    ``basis``: fingerprint of what it was written from. ``note``: why no model wrote it, in words. ``used_at``: it has
    begun to go out, so a retry sends the same and nothing changes it any more.
    """

    __tablename__ = "task_texts"
    __table_args__ = (
        sa.Index("ix_task_texts_due", "due_at", postgresql_where=sa.text("state IN ('wanted', 'writing')")),
        sa.CheckConstraint("(state = 'written') = (body IS NOT NULL)", name="written"),
        sa.CheckConstraint("(body IS NULL) = (author IS NULL)", name="author_of_body"),
        sa.CheckConstraint("used_at IS NULL OR state = 'written'", name="used"),
    )

    lead_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("leads.id"), unique=True)
    state: Mapped[TextState] = enum_column(TextState, "state", server_default="wanted")
    body: Mapped[str | None]
    author: Mapped[TextAuthor | None] = enum_column(TextAuthor, "author")
    basis: Mapped[str]
    model: Mapped[str | None]
    note: Mapped[str | None]
    edited_by: Mapped[str | None]
    written_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]


class WorkerSlot(Base):
    """A worker's place. A restart takes a new incarnation, which frees its predecessor's claims at once."""

    __tablename__ = "worker_slots"

    slot: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[uuid.UUID]
    started_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())


class Destination(Identified, InWorkspace, Created, Base):
    """Where effects go. ``credentials`` is encrypted. ``managed_by`` ``environment``: made from settings, not editable.

    ``rules``: which leads (webapp.leads.triggers). ``mapping``: target field → template, where it differs from the
    kind's own (webapp.leads.fieldmap). ``options``: rate budget and what follows an unknown outcome
    (webapp.leads.kinds.base.Options).

    The breaker lives here so that all workers agree: ``failures`` in a row, and ``open_until`` while it is open. So
    does the rate budget: when the next call may be made (webapp.leads.pacing).
    """

    __tablename__ = "destinations"
    __table_args__ = (sa.UniqueConstraint("workspace_id", "name"),)

    kind: Mapped[DestinationKind] = enum_column(DestinationKind, "kind")
    name: Mapped[str]
    config: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    credentials: Mapped[str | None]
    mode: Mapped[DestinationMode] = enum_column(
        DestinationMode, "mode", default=DestinationMode.LIVE, server_default="live"
    )
    managed_by: Mapped[str | None]
    rules: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    mapping: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    options: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    second_at: Mapped[datetime | None]
    minute_at: Mapped[datetime | None]
    lookup_at: Mapped[datetime | None]  # when look-ups have their share of the budget again
    tested_at: Mapped[datetime | None]
    test_problem: Mapped[str | None]  # what the last test said; NULL: it worked
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    open_until: Mapped[datetime | None]
    paused_until: Mapped[datetime | None]  # the other side asked us to wait (429)
    problem: Mapped[str | None]  # why it cannot be called as it is set up here; NULL: nothing is known to be wrong


class Delivery(Identified, InWorkspace, Created, Claimable, Base):
    """One effect of one lead on one destination (the outbox row, its id is the idempotency key).

    ``step`` orders the actions of a lead at a destination: a later one waits for the earlier to be delivered.
    ``operation``: what the next call does; ``revision`` grows with each that is asked for after the first.
    ``sent_as``: what the lead was when it was sent, as far as the other side is told of changes. ``edited``: target
    fields that a person has put right for this one delivery. ``deleted_there_at``: somebody has deleted the record on
    the other side; it is not made again.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        sa.UniqueConstraint("lead_id", "destination_id", "action"),
        sa.Index("ix_deliveries_due", "due_at", postgresql_where=sa.text("state IN ('pending', 'sending')")),
        # Which destinations have work, and each one's own in its order: of what a bulk decision made due at the same
        # moment, lead by lead, so that a claim does not read past the later steps of all the others.
        sa.Index(
            "ix_deliveries_due_there",
            "destination_id",
            "due_at",
            "lead_id",
            "step",
            postgresql_where=sa.text("state IN ('pending', 'sending')"),
        ),
        sa.Index("ix_deliveries_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index(
            "ix_deliveries_stuck",
            "workspace_id",
            sa.text("created_at DESC"),
            postgresql_where=sa.text("state IN ('dead', 'uncertain')"),
        ),
        sa.Index("ix_deliveries_state", "workspace_id", "state", sa.text("created_at DESC"), sa.text("id DESC")),
        # Who is in a CRM, in the order of the ids that they have there.
        sa.Index(
            "ix_deliveries_people",
            "destination_id",
            "remote_id",
            postgresql_where=sa.text("action = 'person' AND state = 'delivered'"),
        ),
        # What is read back of a CRM, by its id there; and who has arrived there lately.
        sa.Index(
            "ix_deliveries_there",
            "destination_id",
            "action",
            "remote_id",
            postgresql_where=sa.text("action IN ('person', 'company', 'task') AND remote_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_deliveries_deleted_there",
            "destination_id",
            "action",
            "remote_id",
            postgresql_where=sa.text("deleted_there_at IS NOT NULL"),
        ),
        sa.Index(
            "ix_deliveries_arrived",
            "destination_id",
            "delivered_at",
            "id",
            postgresql_where=sa.text("action IN ('person', 'company') AND delivered_at IS NOT NULL"),
        ),
    )

    lead_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("leads.id"))
    destination_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("destinations.id"))
    decision_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("decisions.id"))
    action: Mapped[str]
    step: Mapped[int] = mapped_column(sa.SmallInteger, server_default="0")
    state: Mapped[DeliveryState] = enum_column(DeliveryState, "state", server_default="pending")
    tries: Mapped[int] = mapped_column(default=0, server_default="0")  # calls made since last queued by a person
    ambiguous: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    operation: Mapped[DeliveryOperation] = enum_column(
        DeliveryOperation, "operation", default=DeliveryOperation.SEND, server_default="send"
    )
    revision: Mapped[int] = mapped_column(default=0, server_default="0")
    sent_as: Mapped[str | None]
    edited: Mapped[JSON | None]
    remote_id: Mapped[str | None]
    payload: Mapped[JSON | None]  # what was last sent
    last_error: Mapped[str | None]
    delivered_at: Mapped[datetime | None]
    deleted_there_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())

    lead: Mapped[Lead] = relationship(lazy="raise_on_sql")
    destination: Mapped[Destination] = relationship(lazy="raise_on_sql")


class DeliveryAttempt(Identified, InWorkspace, Base):
    """One call on the wire for a delivery. ``outcome``: delivered | withdrawn | retry | dead | uncertain | reconciled |
    shadowed."""

    __tablename__ = "delivery_attempts"
    __table_args__ = (sa.Index("ix_delivery_attempts_started_at", "workspace_id", "started_at"),)

    delivery_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("deliveries.id"), index=True)
    attempt: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    ms: Mapped[int | None]
    http_status: Mapped[int | None]
    outcome: Mapped[str]
    error: Mapped[str | None]
    excerpt: Mapped[str | None]  # of the response, redacted


class SyncRequest(Identified, InWorkspace, Created, Base):
    """A ``POST /sync-crm`` that took longer than its caller waited. Where its leads stand is in ``deliveries``;
    ``refused`` are those that could not be sent at all: ``[{lead_id, error}]``."""

    __tablename__ = "sync_requests"
    __table_args__ = (sa.Index("ix_sync_requests_created_at", "created_at"),)

    lead_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(sa.Uuid))
    refused: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    requested_by: Mapped[str]


class TaskRequest(Identified, InWorkspace, Created, Claimable, Base):
    """A ``POST /tasks/auto-assign``; a workspace has one under way at most, which later callers join.

    ``progress``: how far it is and what it has found (webapp.leads.crm_rounds.Progress). ``details``: one object for
    each task made or failed. ``tries``: failed looks at the CRM in a row.
    """

    __tablename__ = "task_requests"
    __table_args__ = (
        sa.Index("ix_task_requests_due", "due_at", postgresql_where=sa.text("state IN ('queued', 'running')")),
        sa.Index(
            "uq_task_requests_open",
            "workspace_id",
            unique=True,
            postgresql_where=sa.text("state IN ('queued', 'running')"),
        ),
        sa.Index("ix_task_requests_created_at", "created_at"),
    )

    state: Mapped[TaskRequestState] = enum_column(TaskRequestState, "state", server_default="queued")
    progress: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    details: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[str | None]
    requested_by: Mapped[str]
    finished_at: Mapped[datetime | None]


class ReplayRequest(Identified, InWorkspace, Created, Claimable, Base):
    """Dead letters that are asked for again together. ``chosen``: which ones, as webapp.leads.replays has it;
    ``after_id``: how far it is, in the order of the deliveries' ids."""

    __tablename__ = "replay_requests"
    __table_args__ = (
        sa.Index("ix_replay_requests_due", "due_at", postgresql_where=sa.text("state IN ('queued', 'running')")),
        sa.Index("ix_replay_requests_newest", "workspace_id", sa.text("created_at DESC")),
    )

    state: Mapped[ReplayState] = enum_column(ReplayState, "state", default=ReplayState.QUEUED, server_default="queued")
    chosen: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    after_id: Mapped[uuid.UUID | None]
    total: Mapped[int] = mapped_column(default=0, server_default="0")
    done: Mapped[int] = mapped_column(default=0, server_default="0")
    requested_by: Mapped[str]
    cancelled_by: Mapped[str | None]
    finished_at: Mapped[datetime | None]
