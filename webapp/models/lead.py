"""The lead, its person, its repeat touches, and what people decided."""

import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from webapp.leads.states import (
    WAITING_STATUSES,
    DecisionAction,
    Door,
    Intent,
    LeadStatus,
    NextAction,
    Priority,
    QuarantineState,
    RejectReason,
    RouteState,
)
from webapp.models.account import User
from webapp.models.base import JSON, Base, Created, Identified, InWorkspace, OfWorkspace, enum_column

_WAITING = f"status IN ({', '.join(repr(status.value) for status in sorted(WAITING_STATUSES))})"
_OPEN = "status IN ('new_auto', 'new_draft', 'new_escalate')"
_FACETS = ["intent", "source", "assignee_id"]
#: ``sla_due_at`` for sorting: what has none comes last.
_NEVER = "'9999-12-31 00:00:00+00'::timestamptz"
DUE = f"coalesce(sla_due_at, {_NEVER})"


class Person(Identified, OfWorkspace, Created, Base):
    """Who wrote. ``identity_key``: normalised e-mail, else E.164 phone, else ``platform:author id``; NULL when
    nobody can be told, which never links to anyone. The key's e-mail is folded as its provider does (dots, plus), so
    that it matches; ``email`` is not.

    ``merged_into``: a person said that this is somebody else's second identity; leads go there.
    ``looked_at``: when look-alikes were last searched; NULL asks for it. ``match_keys``: what they are found by.
    """

    __tablename__ = "people"
    __table_args__ = (
        sa.UniqueConstraint("workspace_id", "identity_key"),
        # Written in the background and searched right after: a pending list would be scanned by every search.
        sa.Index("ix_people_match_keys", "match_keys", postgresql_using="gin", postgresql_with={"fastupdate": "off"}),
        sa.Index("ix_people_not_looked_at", "id", postgresql_where=sa.text("looked_at IS NULL")),
        sa.Index("ix_people_merged_into", "merged_into", postgresql_where=sa.text("merged_into IS NOT NULL")),
    )

    identity_key: Mapped[str | None]
    name: Mapped[str | None]
    email: Mapped[str | None]  # normalised
    phone: Mapped[str | None]  # E.164
    company: Mapped[str | None]
    merged_into: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("people.id"))
    match_keys: Mapped[list[str] | None] = mapped_column(ARRAY(sa.Text))
    looked_at: Mapped[datetime | None]
    if TYPE_CHECKING:
        do_not_contact: Mapped[bool]  # see below Lead
    updated_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())


class Lead(Identified, InWorkspace, Created, Base):
    """One request from a person, as sent, with the verdict that stands now.

    ``intent, priority, next_action, confidence`` are what stands (a person's, once one has decided); ``verdict`` is
    the machine's own with its evidence. ``version`` grows whenever something that a decision rests on changes.
    """

    __tablename__ = "leads"
    __table_args__ = (
        sa.CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
        sa.CheckConstraint("score BETWEEN 0 AND 100", name="score"),
        sa.Index(
            "uq_leads_external_id",
            "workspace_id",
            "external_id",
            unique=True,
            postgresql_where=sa.text("external_id IS NOT NULL"),
        ),
        sa.UniqueConstraint("workspace_id", "dedupe_key"),
        sa.Index(
            "uq_leads_message",
            "workspace_id",
            "platform",
            "external_message_id",
            unique=True,
            postgresql_where=sa.text("external_message_id IS NOT NULL"),
        ),
        # Read in place of the wide table: to find a part of a word (webapp.leads.crm), to count over a period
        # (webapp.leads.figures).
        sa.Index(
            "ix_leads_contact",
            "workspace_id",
            sa.text("created_at DESC"),
            sa.text("id DESC"),
            postgresql_include=["contact", "status", "intent", "priority"],
        ),
        sa.Index("ix_leads_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index("ix_leads_status", "workspace_id", "status", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index(
            "ix_leads_waiting",
            "workspace_id",
            "priority",
            "created_at",
            "id",
            postgresql_where=sa.text(f"{_WAITING} AND suppression_id IS NULL"),
        ),
        # Counts per tab and rare filters are answered from this index alone; deduplication keeps it small.
        sa.Index(
            "ix_leads_facets", "workspace_id", "status", "priority", "intent", "source", "assignee_id", "suppression_id"
        ),
        sa.Index(
            "ix_leads_suppressed",
            "workspace_id",
            "suppression_id",
            "status",
            sa.text("created_at DESC"),
            sa.text("id DESC"),
            postgresql_where=sa.text("suppression_id IS NOT NULL"),
        ),
        sa.Index(
            "ix_leads_rescore_at", "rescore_at", postgresql_where=sa.text(f"{_WAITING} AND rescore_at IS NOT NULL")
        ),
        sa.Index("ix_leads_person_id", "person_id"),
        sa.Index("ix_leads_assignee", "assignee_id", "status", postgresql_where=sa.text("assignee_id IS NOT NULL")),
        sa.Index("ix_leads_search", "search", postgresql_using="gin"),
        sa.Index(
            "ix_leads_attribution",
            "attribution",
            postgresql_using="gin",
            postgresql_where=sa.text("attribution <> '{}'::jsonb"),
        ),
        sa.Index("ix_leads_import", "import_id", "id", postgresql_where=sa.text("import_id IS NOT NULL")),
        # What has no due time comes last; as an expression, since keysets cannot compare NULL. The column itself is in
        # it as well: PostgreSQL reads an index alone only where it holds the columns, not what is made of them. What a
        # list may be narrowed by is in this and the next two so that they count without the table.
        sa.Index(
            "ix_leads_sla",
            "workspace_id",
            sa.text(DUE),
            "id",
            postgresql_include=["sla_due_at", "priority", *_FACETS],
            postgresql_where=sa.text(f"{_WAITING} AND suppression_id IS NULL"),
        ),
        sa.Index(
            "ix_leads_unrouted",
            "workspace_id",
            "route_state",
            "priority",
            "created_at",
            "id",
            postgresql_include=_FACETS,
            postgresql_where=sa.text(f"route_state IS NOT NULL AND {_OPEN} AND suppression_id IS NULL"),
        ),
        sa.Index(
            "ix_leads_backlog",
            "workspace_id",
            "team_id",
            "created_at",
            "id",
            postgresql_include=["priority", *_FACETS],
            postgresql_where=sa.text(f"route_state = 'backlog' AND {_OPEN} AND suppression_id IS NULL"),
        ),
        # Who had a person's last lead.
        sa.Index(
            "ix_leads_owned",
            "person_id",
            sa.text("created_at DESC"),
            postgresql_where=sa.text("assignee_id IS NOT NULL"),
        ),
        sa.Index("ix_leads_source_id", "source_id", "created_at", postgresql_where=sa.text("source_id IS NOT NULL")),
    )

    person_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("people.id"))
    door: Mapped[Door] = enum_column(Door, "door")
    source: Mapped[str] = mapped_column(server_default="unknown")
    external_id: Mapped[str | None]
    dedupe_key: Mapped[str | None]  # person and normalised message; NULL once the duplicate window has passed

    # As sent, with the normalised forms beside
    name: Mapped[str | None]
    email: Mapped[str | None]
    email_normalized: Mapped[str | None]
    phone: Mapped[str | None]
    phone_e164: Mapped[str | None]
    company: Mapped[str | None]
    message: Mapped[str]
    content_hash: Mapped[str]  # sha256 hex of the message as sent
    lang: Mapped[str]
    budget: Mapped[float | None]
    attributes: Mapped[JSON] = mapped_column(server_default="{}")  # other known fields; sensitive ones encrypted
    attribution: Mapped[JSON] = mapped_column(server_default="{}")
    consent: Mapped[str | None]
    consent_at: Mapped[datetime | None]
    # webapp.leads.cleansing: name (shown instead of the one sent), email_suggestion, phone_region, phone_region_from
    cleaned: Mapped[JSON] = mapped_column(server_default="{}")
    import_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)  # no foreign key: see OfWorkspace
    source_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)  # the inbound webhook it came by

    # Social signals
    platform: Mapped[str | None]
    source_type: Mapped[str | None]
    source_subtype: Mapped[str | None]
    external_post_id: Mapped[str | None]
    external_thread_id: Mapped[str | None]
    external_message_id: Mapped[str | None]
    author_name: Mapped[str | None]
    author_id: Mapped[str | None]

    # What stands now
    status: Mapped[LeadStatus] = enum_column(LeadStatus, "status")
    intent: Mapped[Intent] = enum_column(Intent, "intent")
    priority: Mapped[Priority] = enum_column(Priority, "priority")
    next_action: Mapped[NextAction] = enum_column(NextAction, "next_action")
    confidence: Mapped[float]
    verdict: Mapped[JSON]
    score: Mapped[int | None]
    score_parts: Mapped[list[JSON] | None] = mapped_column(JSONB)
    qualified: Mapped[bool | None]
    rescore_at: Mapped[datetime | None]  # when age takes the next point off the score (webapp.leads.rescoring)
    # The entry of the suppression list that holds it back. No foreign key: intake would wait for who changes the entry.
    suppression_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)
    callback_url: Mapped[str | None]  # where whoever sent it wants its result posted, once
    version: Mapped[int] = mapped_column(server_default="1")
    # What the last run learned (webapp.leads.knowledge): name, value, provider, confidence, note, at
    facts: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")

    # Work on it
    assignee_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("users.id"))
    # The team that has it, and why nobody has it though somebody should (webapp.leads.backlog); no foreign key, since
    # a team may go while its leads stay.
    team_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)
    route_state: Mapped[RouteState | None] = enum_column(RouteState, "route_state")
    route_reason: Mapped[str | None]
    sla_due_at: Mapped[datetime | None]  # when a person should have decided (webapp.leads.sla)
    if TYPE_CHECKING:
        due_key: Mapped[datetime]  # see below
    sla_since: Mapped[datetime | None]  # from when that was counted; NULL: from its arrival
    assignment_reason: Mapped[str | None]
    touches: Mapped[int] = mapped_column(server_default="1")
    last_contact_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    follow_up_at: Mapped[datetime | None]
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None]  # as shown to people: a user's name or a key's
    settled_at: Mapped[datetime | None]  # when a first run has gone through all stages
    updated_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    search: Mapped[str] = mapped_column(TSVECTOR)
    # Four lines, made by the database: folded name, folded e-mail, digits of the phone as sent and in E.164, source.
    contact: Mapped[str] = mapped_column(
        sa.Computed("lead_contact(name, author_name, email, phone, phone_e164, source)", persisted=True), deferred=True
    )

    @hybrid_property
    def shown_name(self) -> str | None:
        """The name as people see it: put in order by cleansing, unless somebody took that back."""
        return self.cleaned.get("name") or self.name

    @shown_name.inplace.expression
    @classmethod
    def _shown_name(cls) -> sa.ColumnElement[str | None]:
        return sa.func.coalesce(cls.cleaned["name"].astext, cls.name)

    person: Mapped[Person | None] = relationship(lazy="raise_on_sql")
    assignee: Mapped[User | None] = relationship(lazy="raise_on_sql")


#: ``sla_due_at`` for sorting, as ix_leads_sla spells it: what has none comes last.
Lead.due_key = column_property(
    sa.func.coalesce(Lead.sla_due_at, sa.literal_column(_NEVER, sa.DateTime(timezone=True))), deferred=True
)

# Derived, so that it cannot disagree with what people decided: somebody asked for no more messages, and no reviewer
# found that this was not meant (by overriding or rejecting that lead).
Person.do_not_contact = column_property(
    sa.exists()
    .where(Lead.person_id == Person.id, Lead.intent == Intent.UNSUBSCRIBE, Lead.status != LeadStatus.REJECTED)
    .correlate_except(Lead)
)


class Touch(Identified, InWorkspace, Created, Base):
    """The same request come again: counted on its lead, kept as it came."""

    __tablename__ = "touches"
    __table_args__ = (
        sa.Index(
            "ix_touches_content_hash",
            "lead_id",
            "content_hash",
            postgresql_where=sa.text("content_hash IS NOT NULL"),
        ),
    )

    lead_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("leads.id"), index=True)
    door: Mapped[Door] = enum_column(Door, "door")
    key: Mapped[str | None]
    message: Mapped[str]
    payload: Mapped[JSON]
    import_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)
    content_hash: Mapped[str | None]  # of the message as ``qualify.words_hash`` takes it; NULL: not looked for


class Decision(Identified, InWorkspace, Created, Base):
    """What a person did about a lead, with before and after; ``undone_at`` when taken back."""

    __tablename__ = "decisions"
    __table_args__ = (
        sa.CheckConstraint("(action = 'reject') = (reject_reason IS NOT NULL)", name="reject_reason"),
        sa.Index("ix_decisions_lead_id", "lead_id", "created_at"),
    )

    lead_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("leads.id"))
    user_id: Mapped[uuid.UUID | None] = mapped_column(sa.ForeignKey("users.id"))
    actor: Mapped[str]
    action: Mapped[DecisionAction] = enum_column(DecisionAction, "action")
    before: Mapped[JSON]
    after: Mapped[JSON]
    reject_reason: Mapped[RejectReason | None] = enum_column(RejectReason, "reject_reason_value")
    reason: Mapped[str | None]
    undo_until: Mapped[datetime]
    undone_at: Mapped[datetime | None]


class Presence(Base):
    """Who has a lead open; a heartbeat keeps the row fresh, and old rows mean nothing."""

    __tablename__ = "lead_presence"

    lead_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("leads.id"), primary_key=True)
    user_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("users.id"), primary_key=True)
    since: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=sa.func.now())


class IdempotencyKey(OfWorkspace, Created, Base):
    """A caller's key, per workspace and door, with the answer it was given."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (sa.Index("ix_idempotency_keys_expires_at", "expires_at"),)

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.Uuid, primary_key=True)
    door: Mapped[Door] = enum_column(Door, "door", primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]  # sha256 hex of the parsed body in canonical JSON
    lead_id: Mapped[uuid.UUID | None]
    response: Mapped[str | None]  # the first answer's body, byte for byte
    lease_until: Mapped[datetime | None]
    expires_at: Mapped[datetime]


class Quarantined(Identified, Created, Base):
    """A provider's entry that could not be digested, kept raw with the reason. ``dialect``: which reader a replay
    takes (facebook | whatsapp | leadgen | hook). ``fixed``: the JSON that a person made of it. ``lead_ids``: what a
    replay made of it. ``content_hash``: by which the same entry is known again while it is held (None: it came before
    there was one); then it is counted (``times``, ``last_at``). ``request_id``: what the request was called that brought
    it, for the retries of it."""

    __tablename__ = "quarantine"
    __table_args__ = (
        sa.Index("ix_quarantine_newest", "workspace_id", "state", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index("uq_quarantine_content_hash", "content_hash", unique=True, postgresql_where=sa.text("state = 'held'")),
    )

    workspace_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("workspaces.id"), index=True)
    door: Mapped[Door] = enum_column(Door, "door")
    dialect: Mapped[str] = mapped_column(default="facebook", server_default="facebook")
    source_id: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)
    fixed: Mapped[str | None]
    lead_ids: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    decided_by: Mapped[str | None]
    decided_at: Mapped[datetime | None]
    reason: Mapped[str]
    raw: Mapped[str]  # JSON text as received: it may hold what JSONB cannot
    content_hash: Mapped[str | None]
    times: Mapped[int] = mapped_column(default=1, server_default="1")
    last_at: Mapped[datetime | None]
    request_id: Mapped[str | None]
    state: Mapped[QuarantineState] = enum_column(
        QuarantineState, "state", default=QuarantineState.HELD, server_default="held"
    )


class AuditEvent(Identified, OfWorkspace, Created, Base):
    """Append-only (a trigger refuses UPDATE and DELETE). ``xid`` orders events for sealing: ids are not in commit
    order, transactions older than ``pg_snapshot_xmin`` are final."""

    __tablename__ = "audit_events"
    __table_args__ = (
        sa.Index("ix_audit_events_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index("ix_audit_events_lead_id", "lead_id"),
    )

    lead_id: Mapped[uuid.UUID | None]
    event_type: Mapped[str]
    actor: Mapped[str]
    details: Mapped[JSON] = mapped_column(server_default="{}")
    xid: Mapped[int] = mapped_column(sa.BigInteger, server_default=sa.text("pg_current_xact_id()::text::bigint"))
