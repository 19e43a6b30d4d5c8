"""Many leads at once, with the same results as one after another through ``intake.accept_new``.

For files and batches: a thousand leads cost four statements and one commit instead of a thousand of each. What a row
becomes (:class:`Taken`) is worked out from one look at the leads that are here, row by row in the order given; then it
is written. Somebody else who takes the same lead in between breaks UNIQUE, and the chunk is looked at again.

Locks are taken in intake's order (people by key, then leads by id) and sets are sorted, so that chunks and requests
wait for one another and cannot deadlock.
"""

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
import psycopg
from sqlalchemy.orm import Session

from webapp.leads import intake, intake_sql, jsontext, suppression
from webapp.leads.claims import FROM_FILES
from webapp.leads.errors import LeadError, Transient
from webapp.leads.intake import LeadIn, Tenant
from webapp.leads.types import Verdict
from webapp.models.faults import is_contention, is_database_away

log = logging.getLogger(__name__)

#: Backlog order of what came in by file: behind every live lead.
RANK = FROM_FILES
#: Looks at a chunk before its caller is asked to come again; each time somebody else has taken one of it in since.
_ATTEMPTS = 10

_COLUMNS = tuple(intake_sql.BULK_COLUMNS)


class Row(NamedTuple):
    """What intake made of a lead. ``text``: its columns (``intake_sql.BULK_COLUMNS``), as a JSON object without nulls;
    ``id`` in hexadecimal; ``identity_key`` and what follows it: its person, if it has a key, as cleansed. What else is
    asked of few rows is read from the text."""

    id: str
    external_id: str | None
    dedupe_key: str | None
    text: str
    person_new_id: str
    identity_key: str | None
    person_name: str | None
    email: str | None
    phone: str | None
    company: str | None


class Outcome(StrEnum):
    CREATED = "created"
    TOUCHED = "touched"  # the same person said the same before: counted on that lead
    EXISTS = "exists"  # a lead with this external id is here already; nothing was counted


class Taken(NamedTuple):
    """What became of one row, and on which lead (``lead``: its id in hexadecimal)."""

    outcome: Outcome
    lead: str

    @property
    def lead_id(self) -> uuid.UUID:
        return uuid.UUID(self.lead)


@dataclass(slots=True)
class _Plan:
    """What a chunk comes to. ``told``: the rows that are a new lead or counted on one; ``touches``: those that are
    counted, with the lead's id."""

    taken: list[Taken] = field(default_factory=list)
    told: list[Row] = field(default_factory=list)
    new: list[Row] = field(default_factory=list)
    touches: list[tuple[Row, str]] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)

    @property
    def people(self) -> list[dict[str, Any]]:
        """One row for each person: the first one's values, filled from the later ones."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.told:
            key = row.identity_key
            if key is None:
                continue
            person = found.get(key)
            if person is None:
                found[key] = {
                    "id": row.person_new_id, "identity_key": key, "name": row.person_name, "email": row.email,
                    "phone": row.phone, "company": row.company,
                }  # fmt: skip
            else:
                for name, value in (("name", row.person_name), ("phone", row.phone), ("company", row.company)):
                    if person[name] is None:
                        person[name] = value
        return [found[key] for key in sorted(found)]


def prepare(tenant: Tenant, lead: LeadIn, *, key: intake.Key | None = None, said: Verdict | None = None) -> Row:
    """The row of one lead, judged and normalised, for :func:`accept_rows`; no database. ``key`` is noted on its run;
    whether it was used before is the caller's to see to. ``said``: its verdict, where that is known. Invalid when it
    cannot be stored."""
    row = intake.row_for(tenant, lead, said)
    if key:
        row["run_key"] = key.value
    return Row(
        row["id"].hex, row["external_id"], row["dedupe_key"], intake_sql.as_json(row, _COLUMNS),
        row["person_new_id"], row["identity_key"], row["person_name"], row["email_normalized"], row["phone_e164"],
        row["company"],
    )  # fmt: skip


def prepare_each(tenant: Tenant, leads: Sequence[LeadIn]) -> list[Row | Exception]:
    """:func:`prepare` of many, which costs a third less for each; in the place of one that cannot be stored, or that an
    error of ours keeps from it, what was raised."""
    verdicts: Sequence[Verdict | None]
    try:
        verdicts = intake.judge_all(leads, tenant.rules)
    except Exception as error:  # whose it is shows below
        log.warning("judging %d leads together failed, judging each by itself: %s", len(leads), type(error).__name__)
        verdicts = [None] * len(leads)
    found: list[Row | Exception] = []
    for lead, said in zip(leads, verdicts, strict=True):
        try:
            found.append(prepare(tenant, lead, said=said))
        except Exception as error:
            found.append(error)
    return found


def accept_rows(session: Session, tenant: Tenant, rows: Sequence[Row], *, rank: int | None = None) -> list[Taken]:
    """Take in what :func:`prepare` made of leads, in their order. ``rank``: their runs' place in the backlog (None: by
    priority). Transient when others kept taking the same leads in. The caller commits, then rings."""
    if not rows:
        return []
    if suppression.has_list(session, tenant.id):
        rows = _held_back(session, tenant, rows)
    for _ in range(_ATTEMPTS):
        plan = _resolve(session, tenant, rows)
        try:
            with session.begin_nested():
                if _write(session, tenant, plan, rank):
                    return plan.taken
                raise _Raced
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected, _Raced):
            continue  # somebody else took one of them in meanwhile
    raise Transient("these leads are being taken in by several requests at once; send them again", retry_after=1)


def accept_each(
    session: Session, tenant: Tenant, rows: Sequence[Row], *, rank: int | None = None
) -> list[Taken | None]:
    """:func:`accept_rows`, but a row that PostgreSQL refuses (which intake should have foreseen) costs only itself: it
    is looked for by halving, logged, and None in the result."""
    try:
        with session.begin_nested():
            return list(accept_rows(session, tenant, rows, rank=rank))
    except Exception as error:
        if is_database_away(error) or is_contention(error) or isinstance(error, LeadError):
            raise
        if len(rows) > 1:
            half = len(rows) // 2
            return [
                *accept_each(session, tenant, rows[:half], rank=rank),
                *accept_each(session, tenant, rows[half:], rank=rank),
            ]
        log.error("a row was refused: %s", type(error).__name__)  # its text may hold the row
        return [None]


def foresee(session: Session, tenant: Tenant, rows: Sequence[Row]) -> list[Taken]:
    """What :func:`accept_rows` would make of them now; writes nothing."""
    return _resolve(session, tenant, rows).taken


#: Of a row's columns, what the suppression list goes by.
_COMPARED = ("email_normalized", "email", "name", "author_name", "phone_e164", "company", "message", "status", "event")


def _held_back(session: Session, tenant: Tenant, rows: Sequence[Row]) -> list[Row]:
    """The rows, in which those that the list is about say so."""
    found: list[dict[str, Any]] = []
    for row in rows:
        values = intake_sql.from_json(row.text)
        found.append({name: values.get(name) for name in _COMPARED} | {"event": json.dumps(values["event"])})
    suppression.hold_back(session, tenant.id, found)
    return [
        row
        if "suppression_id" not in one
        else row._replace(
            text=intake_sql.as_json_with(
                row.text, suppression_id=one["suppression_id"], status=one["status"], event=one["event"]
            )
        )
        for row, one in zip(rows, found, strict=True)
    ]


class _Raced(Exception):
    """A lead that was to be touched is past the duplicate window since the look at it, or gone."""


def _resolve(session: Session, tenant: Tenant, rows: Sequence[Row]) -> _Plan:
    plan = _Plan()
    if not rows:
        return plan
    by_id, by_words, past = _here(session, tenant, rows)
    for row in rows:
        external_id, words = row.external_id, row.dedupe_key
        if external_id is not None and external_id in by_id:
            plan.taken.append(Taken(Outcome.EXISTS, by_id[external_id]))
            continue
        plan.told.append(row)
        if words is not None and words in by_words:
            plan.touches.append((row, by_words[words]))
            plan.taken.append(Taken(Outcome.TOUCHED, by_words[words]))
            continue
        if words is not None:
            by_words[words] = row.id
            if words in past:
                plan.retired.append(past[words])
        if external_id is not None:
            by_id[external_id] = row.id
        plan.new.append(row)
        plan.taken.append(Taken(Outcome.CREATED, row.id))
    return plan


_HERE = """
SELECT true, external_id, replace(id::text, '-', ''), true FROM leads
WHERE workspace_id = %(workspace_id)s AND external_id = ANY (%(external_ids)s::text[])
UNION ALL
SELECT false, dedupe_key, replace(id::text, '-', ''), created_at > now() - make_interval(days => %(duplicate_days)s) FROM leads
WHERE workspace_id = %(workspace_id)s AND dedupe_key = ANY (string_to_array(%(dedupe_keys)s, ' '))
"""


def _here(
    session: Session, tenant: Tenant, rows: Sequence[Row]
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """The leads that are here already: by external id; by person and words, within the duplicate window; past it."""
    values = {
        "workspace_id": tenant.id,
        "external_ids": list({row.external_id for row in rows if row.external_id is not None}),
        # As one text, which psycopg sends in a twentieth of the time: they are hexadecimal.
        "dedupe_keys": " ".join({row.dedupe_key for row in rows if row.dedupe_key is not None}),
        "duplicate_days": tenant.duplicate_days,
    }
    by_id: dict[str, str] = {}
    by_words: dict[str, str] = {}
    past: dict[str, str] = {}
    for is_id, key, lead_id, recent in intake_sql.run(session, _HERE, values):
        (by_id if is_id else by_words if recent else past)[key] = lead_id
    return by_id, by_words, past


_PEOPLE = """
INSERT INTO people AS p (id, workspace_id, identity_key, name, email, phone, company)
SELECT id, %(workspace_id)s::uuid, identity_key, name, email, phone, company
FROM jsonb_to_recordset(%(people)s::jsonb)
  AS r(id uuid, identity_key text, name text, email text, phone text, company text)
ORDER BY identity_key
{on_known}
RETURNING identity_key, coalesce(merged_into, id)::text
""".replace("{on_known}", intake_sql.ON_KNOWN)

_RETIRE = "UPDATE leads SET dedupe_key = NULL WHERE id = ANY (%(retired)s::uuid[])"

_TOUCH = """
WITH incoming AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(%(touches)s::jsonb) AS r(
    id uuid, lead_id uuid, door text, message text, payload jsonb, import_id uuid, event_id uuid, event jsonb,
    consent text, consent_before text)
),
told AS MATERIALIZED (
  SELECT * FROM jsonb_to_recordset(%(told)s::jsonb) AS r(
    lead_id uuid, times int, consent text, consent_at timestamptz, repeated boolean, attribution jsonb)
),
held AS MATERIALIZED (
  SELECT id, consent FROM leads WHERE id IN (SELECT lead_id FROM told)
    AND created_at > now() - make_interval(days => %(duplicate_days)s)
  ORDER BY id FOR UPDATE
),
counted AS (
  UPDATE leads l
  SET touches = l.touches + t.times, last_contact_at = now(), updated_at = now(),
      consent = coalesce(t.consent, l.consent),
      consent_at = CASE WHEN t.consent IS NULL THEN l.consent_at
                        WHEN t.consent = l.consent AND t.repeated THEN coalesce(t.consent_at, l.consent_at)
                        ELSE t.consent_at END,
      attribution = t.attribution || l.attribution
  FROM told t, held
  WHERE l.id = t.lead_id AND held.id = l.id
  RETURNING l.id, held.consent
),
kept AS (
  INSERT INTO touches (id, workspace_id, lead_id, door, message, payload, import_id)
  SELECT incoming.id, %(workspace_id)s::uuid, lead_id, door, message, payload, import_id
  FROM incoming JOIN counted ON counted.id = lead_id
),
event AS (
  INSERT INTO audit_events (id, workspace_id, lead_id, event_type, actor, details)
  SELECT event_id, %(workspace_id)s::uuid, lead_id, 'LEAD_TOUCHED', 'SYSTEM',
         CASE WHEN incoming.consent IS NULL OR incoming.consent = coalesce(consent_before, counted.consent)
              THEN event ELSE event || jsonb_build_object('consent', incoming.consent) END
  FROM incoming JOIN counted ON counted.id = lead_id
)
SELECT count(*) FROM counted
"""


def _write(session: Session, tenant: Tenant, plan: _Plan, rank: int | None) -> bool:
    """False when a lead to be touched is not what it was."""
    values: dict[str, Any] = {"workspace_id": tenant.id, "duplicate_days": tenant.duplicate_days}
    people = plan.people
    ids: dict[str | None, str] = {}
    if people:
        ids = dict(intake_sql.run(session, _PEOPLE, values | {"people": jsontext.dumps(people)}))
    if plan.retired:
        intake_sql.run(session, _RETIRE, {"retired": plan.retired})
    if plan.new:
        rows = sorted(plan.new, key=_by_external_id)
        text = "[" + ",".join([_with_person(row, ids) for row in rows]) + "]"
        intake_sql.run(session, intake_sql.INSERT_BULK, values | {"rows": text, "rank": rank})
    if plan.touches:
        touches: list[str] = []
        told: dict[str, _Told] = {}
        for row, lead_id in plan.touches:
            so_far = told.setdefault(lead_id, _Told(lead_id))
            consent = so_far.consent
            touches.append(f'{{"lead_id":"{lead_id}","consent_before":{orjson.dumps(consent).decode()},{row.text[1:]}')
            so_far.add(intake_sql.from_json(row.text))
        given = {
            "touches": f"[{','.join(touches)}]",
            "told": jsontext.dumps([asdict(one) for one in told.values()]),
        }
        counted = intake_sql.run(session, _TOUCH, values | given)
        return bool(counted[0][0] == len(told))
    return True


@dataclass(slots=True)
class _Told:
    """What the touches of one lead come to, one after another, as ``intake_sql`` counts them one by one.

    ``repeated``: each of them told the same consent, if any; then a lead that has it already keeps its moment unless
    they told another.
    """

    lead_id: str
    times: int = 0
    consent: str | None = None
    consent_at: str | None = None
    repeated: bool = True
    attribution: dict[str, Any] = field(default_factory=dict)

    def add(self, columns: Mapping[str, Any]) -> None:
        self.times += 1
        self.attribution = columns["attribution"] | self.attribution
        consent, consent_at = columns.get("consent"), columns.get("consent_at")
        if consent is None:
            return
        if self.consent in (None, consent):
            self.consent_at = consent_at or self.consent_at
        else:
            self.consent_at, self.repeated = consent_at, False
        self.consent = consent


def _by_external_id(row: Row) -> tuple[bool, str]:
    return row.external_id is None, row.external_id or ""


def _with_person(row: Row, ids: dict[str | None, str]) -> str:
    person = ids.get(row.identity_key)
    return f'{{"person_id":"{person}",{row.text[1:]}' if person else row.text
