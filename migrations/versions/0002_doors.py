"""every door: imports, fetches, inbound webhooks, look-alikes, the view lead_signals

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_DOORS_BEFORE = ("triage", "social", "v1", "enrich", "crm")
_DOORS = (*_DOORS_BEFORE, "hook", "import", "web")
_WITH_DOOR = ("idempotency_keys", "quarantine", "leads", "touches")

#: Labels and priorities of the signals API (webapp.leads.states: LABEL_VIEW, PRIORITY_VIEW), as SQL that clients run.
_LEAD_SIGNALS = """
CREATE VIEW lead_signals AS
SELECT l.id, l.workspace_id AS tenant_id, coalesce(l.platform, l.source) AS platform, l.source_type, l.source_subtype,
       coalesce(l.external_message_id, l.external_id, l.id::text) AS content_id, l.external_post_id,
       l.external_thread_id, l.external_message_id, coalesce(l.author_name, l.name) AS author_name, l.author_id,
       l.message AS content_text,
       CASE l.intent WHEN 'support' THEN 'inquiry' WHEN 'job' THEN 'inquiry' WHEN 'partnership' THEN 'contact_request'
            WHEN 'vendor_pitch' THEN 'unknown' WHEN 'spam' THEN 'unknown' WHEN 'unsubscribe' THEN 'unknown'
            ELSE l.intent END AS intent_label,
       CASE l.priority WHEN 'P0' THEN 'high' WHEN 'P1' THEN 'high' WHEN 'P2' THEN 'medium' ELSE 'low' END AS priority,
       l.confidence AS confidence_score, l.status, u.name AS assignee, l.follow_up_at, l.last_contact_at,
       l.created_at, l.updated_at
FROM leads l LEFT JOIN users u ON u.id = l.assignee_id
"""

# Mailboxes that their provider reads as one (webapp.leads.dedupe.folded_email, spelt in SQL), so that people of before
# match. Of several people with one mailbox the first keeps it; the others are merged into them as a reviewer would do it
# (webapp.leads.merging), and can be unmerged. A lead's dedupe_key stays as it was: a repeat of theirs within the
# duplicate window is a new lead of the same person, once.
_FOLDED = r"""
CREATE TEMPORARY TABLE folded_people ON COMMIT DROP AS
SELECT id, workspace_id, identity_key, folded,
       first_value(id) OVER (PARTITION BY workspace_id, folded
                             ORDER BY identity_key = folded DESC, created_at, id) AS kept_id
FROM (
  SELECT id, workspace_id, identity_key, created_at,
         CASE
           WHEN domain IN ('gmail.com', 'googlemail.com') AND replace(split_part(local, '+', 1), '.', '') <> ''
             THEN replace(split_part(local, '+', 1), '.', '') || '@gmail.com'
           WHEN domain IN ('outlook.com', 'hotmail.com', 'live.com', 'msn.com', 'icloud.com', 'me.com', 'mac.com',
                           'fastmail.com', 'proton.me', 'protonmail.com', 'pm.me') AND substr(local, 2) LIKE '%+%'
             THEN left(local, 1) || split_part(substr(local, 2), '+', 1) || '@' || domain
           ELSE identity_key
         END AS folded
  FROM (
    SELECT id, workspace_id, identity_key, created_at, substring(identity_key FROM '^(.*)@') AS local,
           substring(identity_key FROM '@([^@]*)$') AS domain
    FROM people WHERE identity_key LIKE '%@%'
  ) split
) found
"""
_FOLD = (
    """
    INSERT INTO person_merges (id, workspace_id, kept_id, merged_id, lead_ids, actor)
    SELECT gen_random_uuid(), workspace_id, kept_id, id,
           coalesce((SELECT jsonb_agg(l.id) FROM leads l WHERE l.person_id = f.id), '[]'), 'an upgrade'
    FROM folded_people f WHERE id <> kept_id
    """,
    "UPDATE leads l SET person_id = f.kept_id FROM folded_people f WHERE l.person_id = f.id AND f.id <> f.kept_id",
    "UPDATE people p SET merged_into = f.kept_id FROM folded_people f WHERE p.id = f.id AND f.id <> f.kept_id",
    """
    UPDATE people p SET identity_key = f.folded FROM folded_people f
    WHERE p.id = f.id AND f.id = f.kept_id AND p.identity_key <> f.folded
    """,
)


# What GET /leads/search looks through and /api/v1/stats counts (webapp.leads: crm, figures). Folding: without case and diacritics, as
# webapp.leads.textnorm.fold_search has it. Cut, since an index entry has room for 2,704 bytes.
_CONTACT = r"""
CREATE FUNCTION search_fold(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(value) = length(value) THEN lower(value)
       ELSE translate(lower(regexp_replace(normalize(value, NFD), '[\u0300-\u036f]', '', 'g')), 'đĐ', 'dd') END;

CREATE FUNCTION lead_contact(name text, author_name text, email text, phone text, phone_e164 text, source text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN left(replace(search_fold(coalesce(name, author_name, '')), E'\n', ' '), 200)
       || E'\n' || left(replace(search_fold(coalesce(email, '')), E'\n', ' '), 320)
       || E'\n' || left(regexp_replace(coalesce(phone, ''), '\D', '', 'g'), 40) || ' ' || coalesce(ltrim(phone_e164, '+'), '')
       || E'\n' || left(replace(source, E'\n', ' '), 60);

ALTER TABLE leads ADD COLUMN contact text
    GENERATED ALWAYS AS (lead_contact(name, author_name, email, phone, phone_e164, source)) STORED NOT NULL;
CREATE INDEX ix_leads_contact ON leads (workspace_id, created_at DESC, id DESC)
    INCLUDE (contact, status, intent, priority);
"""


def _doors(allowed: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{door}'" for door in allowed)
    for table in _WITH_DOOR:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_door")
        # Looks at every row under a lock: about a second for a million leads. NOT VALID and a later VALIDATE would
        # gain nothing, since all of a migration is one transaction.
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT ck_{table}_door CHECK (door IN ({listed}))")


def upgrade() -> None:
    _doors(_DOORS)
    op.create_table(
        "duplicate_suggestions",
        sa.Column("person_a_id", sa.Uuid(), nullable=False),
        sa.Column("person_b_id", sa.Uuid(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "suggested", "merged", "dismissed", name="state", native_enum=False, create_constraint=True, length=32
            ),
            server_default="suggested",
            nullable=False,
        ),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("person_a_id < person_b_id", name=op.f("ck_duplicate_suggestions_order")),
        sa.ForeignKeyConstraint(
            ["person_a_id"], ["people.id"], name=op.f("fk_duplicate_suggestions_person_a_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["person_b_id"], ["people.id"], name=op.f("fk_duplicate_suggestions_person_b_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_duplicate_suggestions_workspace_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_duplicate_suggestions")),
        sa.UniqueConstraint(
            "person_a_id", "person_b_id", name=op.f("uq_duplicate_suggestions_person_a_id_person_b_id")
        ),
    )
    op.create_index("ix_duplicate_suggestions_b", "duplicate_suggestions", ["person_b_id"], unique=False)
    op.create_table(
        "fetches",
        sa.Column(
            "kind",
            sa.Enum("leadgen", "page", name="kind", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "fetching",
                "done",
                "dead",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="pending",
            nullable=False,
        ),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("leads_made", sa.Integer(), server_default="0", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("slot", sa.Text(), nullable=True),
        sa.Column("incarnation", sa.Uuid(), nullable=True),
        sa.Column("rq_job_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_fetches_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fetches")),
        sa.UniqueConstraint("workspace_id", "kind", "target", name=op.f("uq_fetches_workspace_id_kind_target")),
    )
    op.create_index(
        "ix_fetches_due",
        "fetches",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'fetching')"),
    )
    op.create_index(
        "ix_fetches_newest",
        "fetches",
        ["workspace_id", "kind", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "imports",
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("stored_as", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("encoding", sa.Text(), nullable=True),
        sa.Column("delimiter", sa.Text(), nullable=True),
        sa.Column("has_header", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("columns", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("mapping", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("source", sa.Text(), server_default="import", nullable=False),
        sa.Column("dry_run", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "uploaded",
                "queued",
                "running",
                "done",
                "failed",
                "cancelled",
                "undo_queued",
                "undoing",
                "undone",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="uploaded",
            nullable=False,
        ),
        sa.Column("position", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rows_total", sa.Integer(), nullable=True),
        sa.Column("rows_done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("touched_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("undo_removed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("undo_kept", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("slot", sa.Text(), nullable=True),
        sa.Column("incarnation", sa.Uuid(), nullable=True),
        sa.Column("rq_job_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_imports_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
    )
    op.create_index(
        "ix_imports_due",
        "imports",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running', 'undo_queued', 'undoing')"),
    )
    op.create_index(
        "ix_imports_newest",
        "imports",
        ["workspace_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_table(
        "inbound_sources",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("mapping", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column(
            "verification",
            sa.Enum(
                "none",
                "hmac",
                "standard",
                "body",
                "hubspot",
                "webflow",
                name="verification",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="none",
            nullable=False,
        ),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("signature_header", sa.Text(), nullable=True),
        sa.Column("signature_prefix", sa.Text(), nullable=True),
        sa.Column("last_sample", sa.Text(), nullable=True),
        sa.Column("last_received_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("limit_max", sa.Integer(), nullable=True),
        sa.Column("limit_burst", sa.Integer(), nullable=True),
        sa.Column("limit_day", sa.Integer(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_inbound_sources_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbound_sources")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_inbound_sources_token_hash")),
        sa.UniqueConstraint("workspace_id", "name", name=op.f("uq_inbound_sources_workspace_id_name")),
    )
    op.create_table(
        "person_merges",
        sa.Column("kept_id", sa.Uuid(), nullable=False),
        sa.Column("merged_id", sa.Uuid(), nullable=False),
        sa.Column("lead_ids", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["kept_id"], ["people.id"], name=op.f("fk_person_merges_kept_id")),
        sa.ForeignKeyConstraint(["merged_id"], ["people.id"], name=op.f("fk_person_merges_merged_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_person_merges_user_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_person_merges_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person_merges")),
    )
    op.create_index("ix_person_merges_kept_id", "person_merges", ["kept_id"], unique=False)
    op.create_index(
        "uq_person_merges_merged_id",
        "person_merges",
        ["merged_id"],
        unique=True,
        postgresql_where=sa.text("undone_at IS NULL"),
    )
    op.create_table(
        "import_problems",
        sa.Column("import_id", sa.Uuid(), nullable=False),
        sa.Column("row_number", sa.Integer(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"], ["imports.id"], name=op.f("fk_import_problems_import_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("import_id", "row_number", "field", name=op.f("pk_import_problems")),
    )
    op.add_column("api_keys", sa.Column("limit_max", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("limit_burst", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("limit_day", sa.Integer(), nullable=True))
    op.add_column(
        "leads", sa.Column("cleaned", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False)
    )
    op.add_column("leads", sa.Column("import_id", sa.Uuid(), nullable=True))
    op.add_column("leads", sa.Column("source_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_leads_attribution",
        "leads",
        ["attribution"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("attribution <> '{}'::jsonb"),
    )
    op.create_index(
        "ix_leads_import", "leads", ["import_id", "id"], unique=False, postgresql_where=sa.text("import_id IS NOT NULL")
    )
    op.create_index(
        "ix_leads_source_id",
        "leads",
        ["source_id", "created_at"],
        unique=False,
        postgresql_where=sa.text("source_id IS NOT NULL"),
    )
    op.add_column("people", sa.Column("merged_into", sa.Uuid(), nullable=True))
    op.add_column("people", sa.Column("match_keys", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("people", sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_people_match_keys",
        "people",
        ["match_keys"],
        unique=False,
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        "ix_people_merged_into",
        "people",
        ["merged_into"],
        unique=False,
        postgresql_where=sa.text("merged_into IS NOT NULL"),
    )
    op.create_index(
        "ix_people_not_looked_at", "people", ["id"], unique=False, postgresql_where=sa.text("looked_at IS NULL")
    )
    op.create_foreign_key(op.f("fk_people_merged_into"), "people", "people", ["merged_into"], ["id"])
    op.add_column("quarantine", sa.Column("dialect", sa.Text(), server_default="facebook", nullable=False))
    op.add_column("quarantine", sa.Column("source_id", sa.Uuid(), nullable=True))
    op.add_column("quarantine", sa.Column("fixed", sa.Text(), nullable=True))
    op.add_column(
        "quarantine",
        sa.Column("lead_ids", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
    )
    op.add_column("quarantine", sa.Column("decided_by", sa.Text(), nullable=True))
    op.add_column("quarantine", sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("quarantine", sa.Column("content_hash", sa.Text(), nullable=True))
    op.add_column("quarantine", sa.Column("times", sa.Integer(), server_default="1", nullable=False))
    op.add_column("quarantine", sa.Column("last_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("quarantine", sa.Column("request_id", sa.Text(), nullable=True))
    op.create_index(
        "uq_quarantine_content_hash",
        "quarantine",
        ["content_hash"],
        unique=True,
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index(
        "ix_quarantine_newest",
        "quarantine",
        ["workspace_id", "state", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.add_column("social_pages", sa.Column("name", sa.Text(), nullable=True))
    op.add_column("social_pages", sa.Column("access_token", sa.Text(), nullable=True))
    op.add_column("social_pages", sa.Column("token_problem", sa.Text(), nullable=True))
    op.add_column("social_pages", sa.Column("token_checked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("social_pages", sa.Column("token_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("touches", sa.Column("import_id", sa.Uuid(), nullable=True))
    op.add_column("touches", sa.Column("content_hash", sa.Text(), nullable=True))
    op.create_index(
        "ix_touches_content_hash",
        "touches",
        ["lead_id", "content_hash"],
        unique=False,
        postgresql_where=sa.text("content_hash IS NOT NULL"),
    )
    op.add_column("runs", sa.Column("model_required", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_table(
        "sync_requests",
        sa.Column("lead_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("refused", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_sync_requests_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_requests")),
    )
    op.create_index("ix_sync_requests_created_at", "sync_requests", ["created_at"], unique=False)
    op.create_table(
        "task_requests",
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "done",
                "failed",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workspace_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("slot", sa.Text(), nullable=True),
        sa.Column("incarnation", sa.Uuid(), nullable=True),
        sa.Column("rq_job_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_task_requests_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_requests")),
    )
    op.create_index(
        "ix_task_requests_due",
        "task_requests",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "uq_task_requests_open",
        "task_requests",
        ["workspace_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index("ix_task_requests_created_at", "task_requests", ["created_at"], unique=False)
    op.create_index(
        "ix_deliveries_state",
        "deliveries",
        ["workspace_id", "state", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_deliveries_people",
        "deliveries",
        ["destination_id", "remote_id"],
        unique=False,
        postgresql_where=sa.text("action = 'person' AND state = 'delivered'"),
    )
    op.execute(_CONTACT)
    op.execute(_LEAD_SIGNALS)
    op.execute(_FOLDED)
    for statement in _FOLD:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP VIEW lead_signals")
    # The older schema knows no merges: leads go back to whom they came from.
    op.execute(
        "UPDATE leads l SET person_id = m.merged_id FROM person_merges m, jsonb_array_elements_text(m.lead_ids) moved "
        "WHERE m.undone_at IS NULL AND l.id = moved::uuid"
    )
    op.drop_index("ix_leads_contact", table_name="leads")
    op.drop_column("leads", "contact")
    op.execute("DROP FUNCTION lead_contact(text, text, text, text, text, text)")
    op.execute("DROP FUNCTION search_fold(text)")
    op.drop_index(
        "ix_deliveries_people",
        table_name="deliveries",
        postgresql_where=sa.text("action = 'person' AND state = 'delivered'"),
    )
    op.drop_index("ix_deliveries_state", table_name="deliveries")
    op.drop_table("task_requests")
    op.drop_table("sync_requests")
    for table in _WITH_DOOR:  # the older schema has no names for the newer doors
        if table == "idempotency_keys":
            op.execute("DELETE FROM idempotency_keys WHERE door IN ('hook', 'import', 'web')")
        else:
            op.execute(f"UPDATE {table} SET door = 'v1' WHERE door IN ('hook', 'import', 'web')")  # noqa: S608
    _doors(_DOORS_BEFORE)
    op.drop_column("runs", "model_required")
    op.drop_index(
        "ix_touches_content_hash",
        table_name="touches",
        postgresql_where=sa.text("content_hash IS NOT NULL"),
    )
    op.drop_column("touches", "content_hash")
    op.drop_column("touches", "import_id")
    op.drop_column("social_pages", "token_expires_at")
    op.drop_column("social_pages", "token_checked_at")
    op.drop_column("social_pages", "token_problem")
    op.drop_column("social_pages", "access_token")
    op.drop_column("social_pages", "name")
    op.drop_index("ix_quarantine_newest", table_name="quarantine")
    op.drop_index("uq_quarantine_content_hash", table_name="quarantine", postgresql_where=sa.text("state = 'held'"))
    op.drop_column("quarantine", "request_id")
    op.drop_column("quarantine", "last_at")
    op.drop_column("quarantine", "times")
    op.drop_column("quarantine", "content_hash")
    op.drop_column("quarantine", "decided_at")
    op.drop_column("quarantine", "decided_by")
    op.drop_column("quarantine", "lead_ids")
    op.drop_column("quarantine", "fixed")
    op.drop_column("quarantine", "source_id")
    op.drop_column("quarantine", "dialect")
    op.drop_constraint(op.f("fk_people_merged_into"), "people", type_="foreignkey")
    op.drop_index("ix_people_not_looked_at", table_name="people", postgresql_where=sa.text("looked_at IS NULL"))
    op.drop_index("ix_people_merged_into", table_name="people", postgresql_where=sa.text("merged_into IS NOT NULL"))
    op.drop_index("ix_people_match_keys", table_name="people", postgresql_using="gin")
    op.drop_column("people", "looked_at")
    op.drop_column("people", "match_keys")
    op.drop_column("people", "merged_into")
    op.drop_index("ix_leads_source_id", table_name="leads", postgresql_where=sa.text("source_id IS NOT NULL"))
    op.drop_index(
        "ix_leads_attribution",
        table_name="leads",
        postgresql_using="gin",
        postgresql_where=sa.text("attribution <> '{}'::jsonb"),
    )
    op.drop_index("ix_leads_import", table_name="leads", postgresql_where=sa.text("import_id IS NOT NULL"))
    op.drop_column("leads", "source_id")
    op.drop_column("leads", "import_id")
    op.drop_column("leads", "cleaned")
    op.drop_column("api_keys", "limit_day")
    op.drop_column("api_keys", "limit_burst")
    op.drop_column("api_keys", "limit_max")
    op.drop_table("import_problems")
    op.drop_index(
        "uq_person_merges_merged_id", table_name="person_merges", postgresql_where=sa.text("undone_at IS NULL")
    )
    op.drop_index("ix_person_merges_kept_id", table_name="person_merges")
    op.drop_table("person_merges")
    op.drop_table("inbound_sources")
    op.drop_index("ix_imports_newest", table_name="imports")
    op.drop_index(
        "ix_imports_due",
        table_name="imports",
        postgresql_where=sa.text("state IN ('queued', 'running', 'undo_queued', 'undoing')"),
    )
    op.drop_table("imports")
    op.drop_index("ix_fetches_newest", table_name="fetches")
    op.drop_index("ix_fetches_due", table_name="fetches", postgresql_where=sa.text("state IN ('pending', 'fetching')"))
    op.drop_table("fetches")
    op.drop_index("ix_duplicate_suggestions_b", table_name="duplicate_suggestions")
    op.drop_table("duplicate_suggestions")
