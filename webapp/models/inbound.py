"""What brings leads in besides a request that holds them: files, announced answers, web pages, configured webhooks."""

import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from webapp.leads.states import FetchKind, FetchState, ImportState, Verification
from webapp.models.base import JSON, Base, Claimable, Created, Identified, InWorkspace, enum_column


class Import(Identified, InWorkspace, Created, Claimable, Base):
    """A file of leads on its way in.

    ``stored_as``: its name in the imports folder. ``position``: the byte at which the next chunk begins (0: the file's
    beginning), written in the transaction that writes the chunk's leads, so that a crash repeats nothing.
    ``mapping``: column → field. Counts are rows. ``tries``: claims since it last got on.
    """

    __tablename__ = "imports"
    __table_args__ = (
        sa.Index("ix_imports_newest", "workspace_id", sa.text("created_at DESC"), sa.text("id DESC")),
        sa.Index(
            "ix_imports_due",
            "due_at",
            postgresql_where=sa.text("state IN ('queued', 'running', 'undo_queued', 'undoing')"),
        ),
    )

    filename: Mapped[str]
    stored_as: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger, server_default="0")
    format: Mapped[str]  # csv | ndjson | json
    encoding: Mapped[str | None]
    delimiter: Mapped[str | None]
    has_header: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    columns: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    mapping: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    source: Mapped[str] = mapped_column(default="import", server_default="import")
    dry_run: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    state: Mapped[ImportState] = enum_column(ImportState, "state", server_default="uploaded")
    position: Mapped[int] = mapped_column(sa.BigInteger, default=0, server_default="0")
    rows_total: Mapped[int | None]
    rows_done: Mapped[int] = mapped_column(default=0, server_default="0")
    created_count: Mapped[int] = mapped_column(default=0, server_default="0")
    touched_count: Mapped[int] = mapped_column(default=0, server_default="0")
    failed_count: Mapped[int] = mapped_column(default=0, server_default="0")
    undo_removed: Mapped[int] = mapped_column(default=0, server_default="0")
    undo_kept: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[str | None]
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    created_by: Mapped[str]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    undone_at: Mapped[datetime | None]
    undone_by: Mapped[str | None]


class ImportProblem(Base):
    """Why a row of an import is no lead: one line of its errors file. ``row_number`` counts data rows from 1."""

    __tablename__ = "import_problems"

    import_id: Mapped[uuid.UUID] = mapped_column(sa.ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True)
    row_number: Mapped[int] = mapped_column(primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]


class Fetch(Identified, InWorkspace, Created, Claimable, Base):
    """Something to be fetched from outside that becomes leads. ``target``: the leadgen id, or the page's URL; one row
    for each. ``payload``: what announced it; ``result``: what was found, without the leads."""

    __tablename__ = "fetches"
    __table_args__ = (
        sa.UniqueConstraint("workspace_id", "kind", "target"),
        sa.Index("ix_fetches_due", "due_at", postgresql_where=sa.text("state IN ('pending', 'fetching')")),
        sa.Index("ix_fetches_newest", "workspace_id", "kind", sa.text("created_at DESC"), sa.text("id DESC")),
    )

    kind: Mapped[FetchKind] = enum_column(FetchKind, "kind")
    target: Mapped[str]
    payload: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    state: Mapped[FetchState] = enum_column(FetchState, "state", server_default="pending")
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    last_error: Mapped[str | None]
    result: Mapped[JSON | None]
    leads_made: Mapped[int] = mapped_column(default=0, server_default="0")
    requested_by: Mapped[str | None]
    finished_at: Mapped[datetime | None]


class InboundSource(Identified, InWorkspace, Created, Base):
    """A generic inbound webhook: ``POST /hooks/{token}``. ``token`` (encrypted, to show the address again) is found by
    ``token_hash``. ``mapping``: field of a lead → path in the body. ``last_sample``: the last body received, as text."""

    __tablename__ = "inbound_sources"
    __table_args__ = (sa.UniqueConstraint("workspace_id", "name"),)

    name: Mapped[str]
    token: Mapped[str]
    token_hash: Mapped[bytes] = mapped_column(unique=True)
    enabled: Mapped[bool] = mapped_column(default=True, server_default=sa.true())
    mapping: Mapped[JSON] = mapped_column(default=dict, server_default="{}")
    verification: Mapped[Verification] = enum_column(
        Verification, "verification", default=Verification.NONE, server_default="none"
    )
    secret: Mapped[str | None]  # encrypted
    signature_header: Mapped[str | None]  # with ``body``: the path of the secret in the body
    signature_prefix: Mapped[str | None]
    last_sample: Mapped[str | None]
    last_received_at: Mapped[datetime | None]
    limit_max: Mapped[int | None]
    limit_burst: Mapped[int | None]
    limit_day: Mapped[int | None]
