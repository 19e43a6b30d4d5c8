"""The statements of intake: chained data-modifying CTEs, so that a lead costs one round trip and one commit.

Order inside the statement follows the locks it takes (person, lead, key) and sets are sorted, so that concurrent
requests wait for one another in one order and cannot deadlock.
"""

import json
import re
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

import orjson
import psycopg
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from webapp.leads.states import Door

#: Columns of an incoming row and their types; a row is a dict with these keys (webapp.leads.intake makes it).
COLUMNS = {
    "id": "uuid", "workspace_id": "uuid", "person_new_id": "uuid", "identity_key": "text", "email_normalized": "text",
    "phone_e164": "text", "dedupe_key": "text", "door": "text", "source": "text",
    "external_id": "text", "name": "text", "email": "text", "phone": "text", "company": "text", "message": "text",
    "content_hash": "text", "lang": "text", "budget": "double precision", "attributes": "jsonb",
    "attribution": "jsonb", "consent": "text", "consent_at": "timestamptz", "platform": "text", "source_type": "text",
    "source_subtype": "text", "external_post_id": "text", "external_thread_id": "text", "external_message_id": "text",
    "author_name": "text", "author_id": "text", "status": "text", "intent": "text", "priority": "text",
    "next_action": "text", "confidence": "double precision", "verdict": "jsonb", "search": "text", "run_id": "uuid",
    "cleaned": "jsonb", "sla_due_at": "timestamptz", "person_name": "text", "import_id": "uuid", "source_id": "uuid",
    "suppression_id": "uuid", "callback_url": "text",
    "run_key": "text", "rank": "smallint", "payload": "jsonb", "event_id": "uuid", "event": "jsonb",
}  # fmt: skip

#: Columns of ``leads`` that are taken over as they come.
_LEAD = [
    "id", "workspace_id", "dedupe_key", "door", "source", "external_id", "name", "email", "email_normalized", "phone",
    "phone_e164", "company", "message", "content_hash", "lang", "budget", "attributes", "attribution", "consent",
    "consent_at", "platform", "source_type", "source_subtype", "external_post_id", "external_thread_id",
    "external_message_id", "author_name", "author_id", "status", "intent", "priority", "next_action", "confidence",
    "verdict", "cleaned", "import_id", "source_id", "sla_due_at", "suppression_id",
    "callback_url",
]  # fmt: skip

_ONE_ROW = "SELECT " + ", ".join(f"%({name})s::{kind} AS {name}" for name, kind in COLUMNS.items())


def _many_rows(columns: Mapping[str, str]) -> str:
    named = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    return f"SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r({named})"


# The key names the lead that the statement made or touched. A key that is taken already breaks UNIQUE, which undoes
# the whole statement: nothing of a repeat is left but its answer.
_KEY = """
keyed AS (
  INSERT INTO idempotency_keys (workspace_id, door, key, request_hash, lead_id, expires_at)
  SELECT workspace_id, door, %(key)s, %(request_hash)s, lead.id, now() + make_interval(days => %(idempotency_days)s)
  FROM incoming, lead
),
"""

# The same person's same words: counted on the lead that is here. Past the window the WHERE refuses, no row returns.
# Consent is the newest that was told, attribution the first: what is new of it is added.
_TOUCH = """
ON CONFLICT (workspace_id, dedupe_key) DO UPDATE
  SET touches = l.touches + 1, last_contact_at = now(), updated_at = now(),
      consent = coalesce(excluded.consent, l.consent),
      consent_at = CASE WHEN excluded.consent IS NULL THEN l.consent_at
                        WHEN excluded.consent = l.consent THEN coalesce(excluded.consent_at, l.consent_at)
                        ELSE excluded.consent_at END,
      attribution = excluded.attribution || l.attribution
  WHERE l.created_at > now() - make_interval(days => %(duplicate_days)s)
"""
_ONCE = "ON CONFLICT (workspace_id, platform, external_message_id) WHERE external_message_id IS NOT NULL DO NOTHING"

#: Somebody who is known: what is missing is filled in, and then look-alikes are searched anew.
ON_KNOWN = """
ON CONFLICT (workspace_id, identity_key) DO UPDATE
  SET name = coalesce(p.name, excluded.name), phone = coalesce(p.phone, excluded.phone),
      company = coalesce(p.company, excluded.company), updated_at = now(),
      looked_at = CASE WHEN coalesce(p.name, excluded.name) IS NOT DISTINCT FROM p.name
                        AND coalesce(p.phone, excluded.phone) IS NOT DISTINCT FROM p.phone
                        AND coalesce(p.company, excluded.company) IS NOT DISTINCT FROM p.company
                       THEN p.looked_at END
""".strip()

_LEAD_AND_PERSON = """
WITH incoming AS MATERIALIZED ({rows}),
person AS (
  INSERT INTO people AS p (id, workspace_id, identity_key, name, email, phone, company)
  SELECT DISTINCT ON (identity_key) person_new_id, workspace_id, identity_key, person_name, email_normalized, phone_e164,
         company
  FROM incoming WHERE identity_key IS NOT NULL ORDER BY identity_key
  {on_known}
  RETURNING coalesce(merged_into, id) AS person_id, identity_key
),
lead AS (
  INSERT INTO leads AS l ({lead_columns}, person_id, search)
  SELECT {lead_columns}, person_id, array_to_tsvector(string_to_array(search, ' '))
  FROM incoming LEFT JOIN person USING (identity_key) ORDER BY external_message_id
  {conflict}
  RETURNING l.id, l.created_at
),
run AS (
  INSERT INTO runs (id, workspace_id, lead_id, idempotency_key, source, rank, payload_json)
  SELECT run_id, workspace_id, id, run_key, source, rank, payload FROM incoming JOIN lead USING (id)
),
"""

# One row: what is no new lead is a touch of the lead that came back instead. Its event tells of a consent that differs
# from the one before, which a look at the table still shows: all parts of a statement see what was there before it.
_ONE = (
    _LEAD_AND_PERSON.replace("{rows}", _ONE_ROW).replace("{conflict}", _TOUCH)
    + """
{keyed}
touch AS (
  INSERT INTO touches (id, workspace_id, lead_id, door, key, message, payload)
  SELECT incoming.id, workspace_id, lead.id, door, run_key, message, payload
  FROM incoming, lead WHERE lead.id <> incoming.id
),
event AS (
  INSERT INTO audit_events (id, workspace_id, lead_id, event_type, actor, details)
  SELECT event_id, workspace_id, lead.id,
         CASE WHEN lead.id = incoming.id THEN 'LEAD_SIGNAL_CREATED' ELSE 'LEAD_TOUCHED' END, 'SYSTEM',
         CASE WHEN lead.id = incoming.id OR consent IS NULL
                OR consent = (SELECT before.consent FROM leads before WHERE before.id = lead.id)
              THEN event ELSE event || jsonb_build_object('consent', consent) END
  FROM incoming, lead
)
SELECT id, created_at FROM lead
"""
)
_MANY = (
    _LEAD_AND_PERSON.replace("{rows}", _many_rows(COLUMNS)).replace("{conflict}", _ONCE)
    + """
event AS (
  INSERT INTO audit_events (id, workspace_id, lead_id, event_type, actor, details)
  SELECT event_id, workspace_id, id, 'LEAD_SIGNAL_CREATED', 'SYSTEM', event FROM incoming JOIN lead USING (id)
)
SELECT id, created_at FROM lead
"""
)


def _with(template: str, keyed: str = "") -> str:
    filled = template.replace("{lead_columns}", ", ".join(_LEAD)).replace("{on_known}", ON_KNOWN)
    return filled.replace("{keyed}", keyed)


_INSERT_ONE = _with(_ONE)
_INSERT_KEYED = _with(_ONE, _KEY)
_INSERT_SIGNALS = _with(_MANY)

#: Columns of what ``INSERT_BULK`` takes: those of a row, but for what it is told beside.
BULK_COLUMNS = {
    name: kind
    for name, kind in COLUMNS.items()
    if name not in ("workspace_id", "person_new_id", "identity_key", "person_name")
}
#: For ``webapp.leads.intake_bulk``, which has dealt with people and repeats: new leads of one workspace and nothing else.
INSERT_BULK = _with(
    """
WITH incoming AS MATERIALIZED ({rows}),
lead AS (
  INSERT INTO leads AS l ({lead_columns}, person_id, search)
  SELECT {lead_columns}, person_id, array_to_tsvector(string_to_array(search, ' ')) FROM incoming
),
run AS (
  INSERT INTO runs (id, workspace_id, lead_id, idempotency_key, source, rank, payload_json)
  SELECT run_id, workspace_id, id, run_key, source, coalesce(%(rank)s::smallint, rank), payload FROM incoming
)
INSERT INTO audit_events (id, workspace_id, lead_id, event_type, actor, details)
SELECT event_id, workspace_id, id, 'LEAD_SIGNAL_CREATED', 'SYSTEM', event FROM incoming
""".replace(
        "{rows}",
        _many_rows({"person_id": "uuid"} | BULK_COLUMNS).replace("*", "*, %(workspace_id)s::uuid AS workspace_id"),
    )
)

#: Where a statement runs: inside a session's transaction, or on an engine as a transaction of its own, which saves
#: the two round trips of BEGIN and COMMIT.
Database = Session | Engine


class KeyTaken(Exception):
    """The idempotency key has been used; its holder has committed."""


class ExternalIdTaken(Exception):
    """A lead with this external id is here; whoever took it in has committed."""


class StoredKey(NamedTuple):
    request_hash: str
    lead_id: uuid.UUID
    created_at: Any


@cache
def _numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """``%(name)s`` → ``$1``, with the names in order. psycopg would rewrite statements as long as these anew at every
    execution, which costs as much as everything else it does for them."""
    names: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${names.setdefault(match[1], len(names) + 1)}"

    return re.sub(r"%\((\w+)\)s", number, sql).encode(), tuple(names)


Rows = list[tuple[Any, ...]]


def run(database: Database, sql: str, values: dict[str, Any]) -> Rows:
    """Execute a statement with ``%(name)s`` for its values; the rows, if it returns any."""
    if isinstance(database, Engine):
        return _run_alone(database, sql, values)
    connection = database.connection()
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, psycopg.Connection)
    try:
        return _execute(driver, sql, values)
    except psycopg.OperationalError as error:
        if driver.closed:  # past SQLAlchemy's eyes, so it has to be told
            connection.invalidate(error)
        raise


def _run_alone(engine: Engine, sql: str, values: dict[str, Any]) -> Rows:
    """``engine`` must be in autocommit mode (``webapp.engine.make_autocommit_engine``)."""
    pooled = engine.raw_connection()
    try:
        driver = pooled.dbapi_connection
        assert isinstance(driver, psycopg.Connection)
        assert driver.autocommit
        try:
            return _execute(driver, sql, values)
        finally:
            if driver.closed:
                pooled.invalidate()
    finally:
        pooled.close()


def _execute(driver: "psycopg.Connection[Any]", sql: str, values: dict[str, Any]) -> Rows:
    statement, names = _numbered(sql)
    with psycopg.RawCursor(driver) as cursor:
        cursor.execute(statement, [values[name] for name in names])
        # Not `description`, which would build an object for every column.
        return cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else []


def insert_one(database: Database, row: dict[str, Any], *, keyed: bool) -> tuple[uuid.UUID, Any] | None:
    """(lead id, created_at) of the new lead, or of the one that has this person's same words and was touched; None
    when that one is past the duplicate window. KeyTaken for a key in use, ExternalIdTaken likewise."""
    # In a session the transaction has to outlive a key or an id that is taken.
    alone = isinstance(database, Engine) or not (keyed or row["external_id"] is not None)
    try:
        with nullcontext() if alone else database.begin_nested():  # type: ignore[union-attr]
            found = run(database, _INSERT_KEYED if keyed else _INSERT_ONE, row)
    except psycopg.errors.UniqueViolation as error:
        if error.diag.constraint_name == "pk_idempotency_keys":
            raise KeyTaken from None
        if error.diag.constraint_name == "uq_leads_external_id":
            raise ExternalIdTaken from None
        raise
    return (found[0][0], found[0][1]) if found else None


def insert_signals(database: Database, rows: list[dict[str, Any]]) -> list[uuid.UUID]:
    """Insert many; returns the ids of those that were new, in the order given."""
    if not rows:
        return []
    listed = "[" + ",".join([as_json(row) for row in rows]) + "]"
    new = {found[0] for found in run(database, _INSERT_SIGNALS, {"rows": listed})}
    return [row["id"] for row in rows if row["id"] in new]


#: Columns whose values are JSON already.
_NESTED = frozenset(name for name, kind in COLUMNS.items() if kind == "jsonb")


@cache
def _apart(columns: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those with plain values, and those with JSON."""
    return tuple(name for name in columns if name not in _NESTED), tuple(name for name in columns if name in _NESTED)


def as_json(row: dict[str, Any], columns: tuple[str, ...] = tuple(COLUMNS)) -> str:
    """A row as a JSON object without its nulls, for the statements that take many; nested JSON is taken as it is, not
    parsed and written again."""
    plain, nested = _apart(columns)
    found: dict[str, Any] = {name: value for name in plain if (value := row[name]) is not None}
    for name in nested:
        found[name] = orjson.Fragment(row[name])
    return orjson.dumps(found).decode()


def from_json(text: str) -> dict[str, Any]:
    """What :func:`as_json` made of a row. Numbers in its nested JSON may have lost digits."""
    try:
        found: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError:  # a number of a thousand digits, which PostgreSQL and Python have no trouble with
        found = json.loads(text)
    return found


def as_json_with(text: str, **changed: Any) -> str:
    """What :func:`as_json` made of a row, with other values for some columns; the others stay to the letter. They stand
    behind those that they replace: jsonb keeps the last of equal names."""
    found: dict[str, Any] = {
        name: orjson.Fragment(value) if name in _NESTED else value for name, value in changed.items()
    }
    return f"{text[:-1]},{orjson.dumps(found).decode()[1:]}"


_STORED = """
SELECT k.key, k.request_hash, k.lead_id, l.created_at FROM idempotency_keys k JOIN leads l ON l.id = k.lead_id
WHERE k.workspace_id = %(workspace_id)s AND k.door = %(door)s AND k.key = ANY (%(keys)s::text[]) AND k.expires_at > now()
"""
_FREE = """
DELETE FROM idempotency_keys
WHERE workspace_id = %(workspace_id)s AND door = %(door)s AND key = ANY (%(keys)s::text[]) AND expires_at <= now()
"""
_STORE = """
INSERT INTO idempotency_keys (workspace_id, door, key, request_hash, lead_id, expires_at)
SELECT %(workspace_id)s::uuid, %(door)s, key, request_hash, lead_id, now() + make_interval(days => %(idempotency_days)s)
FROM unnest(%(keys)s::text[], %(hashes)s::text[], %(lead_ids)s::uuid[]) AS r(key, request_hash, lead_id) ORDER BY key
"""


def stored_keys(database: Database, workspace_id: uuid.UUID, door: Door, keys: list[str]) -> dict[str, StoredKey]:
    """What each key was used for; those past their days are free for use afterwards."""
    values = {"workspace_id": workspace_id, "door": door.value, "keys": keys}
    run(database, _FREE, values)
    return {found[0]: StoredKey(*found[1:]) for found in run(database, _STORED, values)}


def store_keys(
    database: Database, workspace_id: uuid.UUID, door: Door, rows: list[tuple[str, str, uuid.UUID]], days: int
) -> None:  # fmt: skip
    """``rows``: (key, request hash, lead id). UniqueViolation when somebody else has used one meanwhile."""
    keys, hashes, lead_ids = ([row[n] for row in rows] for n in range(3))
    values = {"workspace_id": workspace_id, "door": door.value, "keys": keys, "hashes": hashes, "lead_ids": lead_ids}
    run(database, _STORE, values | {"idempotency_days": days})


def stored_key(database: Database, workspace_id: uuid.UUID, door: Door, key: str) -> StoredKey | None:
    """What a key was used for; None when it is past its days, which frees it for use."""
    values = {"workspace_id": workspace_id, "door": door.value, "key": key}
    found = run(
        database,
        "SELECT k.request_hash, k.lead_id, l.created_at FROM idempotency_keys k JOIN leads l ON l.id = k.lead_id "
        "WHERE k.workspace_id = %(workspace_id)s AND k.door = %(door)s AND k.key = %(key)s AND k.expires_at > now()",
        values,
    )
    if found:
        return StoredKey(*found[0])
    run(
        database,
        "DELETE FROM idempotency_keys "
        "WHERE workspace_id = %(workspace_id)s AND door = %(door)s AND key = %(key)s AND expires_at <= now()",
        values,
    )
    return None


def by_external_id(
    database: Database, workspace_id: uuid.UUID, external_id: str | None
) -> tuple[uuid.UUID, Any] | None:
    """(id, created_at) of the lead with this business id."""
    found = run(
        database,
        "SELECT id, created_at FROM leads WHERE workspace_id = %(workspace_id)s AND external_id = %(external_id)s",
        {"workspace_id": workspace_id, "external_id": external_id},
    )
    return (found[0][0], found[0][1]) if found else None


def retire_dedupe_key(database: Database, row: dict[str, Any]) -> None:
    """Let a lead past the duplicate window no longer stand in the way of a new one."""
    run(
        database,
        "UPDATE leads SET dedupe_key = NULL WHERE workspace_id = %(workspace_id)s AND dedupe_key = %(dedupe_key)s "
        "AND created_at <= now() - make_interval(days => %(duplicate_days)s)",
        row,
    )


def lock_external_id(session: Session, workspace_id: uuid.UUID, external_id: str) -> None:
    """Serialise the posts of one business id until the transaction ends."""
    run(
        session,
        "SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))",
        {"name": f"external_id:{workspace_id}:{external_id}"},
    )
