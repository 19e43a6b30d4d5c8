"""PostgreSQL refusing a statement in the middle of a lead: the answer names that, and the connection is as good as new."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from webapp.models import Lead

Refuse = Callable[..., None]


@pytest.fixture
def refuse(session: Session) -> Iterator[Refuse]:
    """``refuse(table, sqlstate, constraint)``: inserts break with that error; ``at_commit``: only there."""
    tables: list[str] = []

    def do(table: str, sqlstate: str, constraint: str = "", *, at_commit: bool = False) -> None:
        tables.append(table)
        session.rollback()
        session.execute(
            sa.text(
                "CREATE FUNCTION test_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}', CONSTRAINT = '{constraint}'; END $$"
            )
        )
        kind, when = ("TRIGGER", "BEFORE INSERT ON"), ""
        if at_commit:
            kind, when = ("CONSTRAINT TRIGGER", "AFTER INSERT ON"), "DEFERRABLE INITIALLY DEFERRED"
        session.execute(
            sa.text(
                f"CREATE {kind[0]} test_refuse {kind[1]} {table} {when} FOR EACH ROW EXECUTE FUNCTION test_refuse()"
            )
        )
        session.commit()

    def undo() -> None:
        session.rollback()
        for table in tables:
            session.execute(sa.text(f"DROP TRIGGER IF EXISTS test_refuse ON {table}"))
        session.execute(sa.text("DROP FUNCTION IF EXISTS test_refuse"))
        session.commit()

    do.undo = undo  # type: ignore[attr-defined]
    yield do
    undo()


@pytest.mark.parametrize("named", [{}, {"lead_id": "crm-1"}], ids=["", "lead_id"])
@pytest.mark.parametrize("keyed", [{}, {"Idempotency-Key": "k1"}], ids=["", "key"])
@pytest.mark.parametrize(
    ("where", "status"),
    [
        (("people", "40P01"), 503),
        (("leads", "22001"), 500),
        (("leads", "23505", "uq_leads_message"), 500),
        (("runs", "40001"), 503),
        (("audit_events", "P0001"), 500),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_refused_statement_leaves_nothing_behind(
    app: Flask,
    client: FlaskClient,
    session: Session,
    headers: dict[str, str],
    refuse: Any,
    monkeypatch: pytest.MonkeyPatch,
    named: dict[str, str],
    keyed: dict[str, str],
    where: tuple[str, ...],
    status: int,
) -> None:
    monkeypatch.setitem(app.config, "ANSWER_ERRORS", True)
    body = {"message": "Please quote 40 seats", "email": "ana@example.com"} | named
    refuse(*where)
    for _ in range(3):
        assert client.post("/api/v1/leads", json=body, headers=headers | keyed).status_code == status
    refuse.undo()
    assert client.post("/api/v1/leads", json=body, headers=headers | keyed).status_code == 201
    assert session.scalars(sa.select(sa.func.count()).select_from(Lead)).one() == 1


@pytest.mark.parametrize(
    ("constraint", "named", "keyed"),
    [("pk_idempotency_keys", {}, {"Idempotency-Key": "k1"}), ("uq_leads_external_id", {"lead_id": "crm-1"}, {})],
)
def test_what_others_keep_taking_is_asked_for_again(
    client: FlaskClient, headers: dict[str, str], refuse: Any, constraint: str, named: dict[str, str], keyed: dict[str, str]
) -> None:  # fmt: skip
    body = {"message": "Please quote 40 seats", "email": "ana@example.com"} | named
    refuse("leads", "23505", constraint)
    for _ in range(8):  # often enough that the driver prepares what it sends, also to get back to the savepoint
        assert client.post("/api/v1/leads", json=body, headers=headers | keyed).status_code == 503
    refuse.undo()
    assert client.post("/api/v1/leads", json=body, headers=headers | keyed).status_code == 201


def test_a_commit_that_is_refused_leaves_nothing_behind(
    app: Flask, client: FlaskClient, headers: dict[str, str], refuse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.config, "ANSWER_ERRORS", True)
    body = {"message": "Please quote 40 seats", "email": "ana@example.com"}
    refuse("leads", "23514", at_commit=True)
    assert client.post("/api/v1/leads", json=body, headers=headers).status_code == 500
    refuse.undo()
    assert client.post("/api/v1/leads", json=body, headers=headers).status_code == 201
