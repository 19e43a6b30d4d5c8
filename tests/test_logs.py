"""No row's contents and no parameter in a log, whichever way an error gets there."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import structlog
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import IntegrityError, OperationalError, PendingRollbackError
from sqlalchemy.orm import Session, sessionmaker

from webapp import errors, logs
from webapp.models import Person

SECRET = "jane.doe@acme.example"
TABLE = "CREATE TEMP TABLE people_logged (email text CONSTRAINT uq_people_logged UNIQUE) ON COMMIT DROP"


def violate(session: Session) -> None:
    session.execute(sa.text(TABLE))
    insert = sa.text("INSERT INTO people_logged (email) VALUES (:email)")
    for _ in range(2):
        session.execute(insert, {"email": SECRET})


@pytest.fixture
def violation(session: Session) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        violate(session)
    assert SECRET in str(caught.value)  # in PostgreSQL's DETAIL: what this is about
    return caught.value


def logged(error: BaseException, **how: Any) -> str:
    record = logging.LogRecord("x", logging.ERROR, "f.py", 1, "failed", (), (type(error), error, error.__traceback__))
    for name, value in how.items():
        setattr(record, name, value)
    return logs.Formatter("%(message)s").format(record)


def test_a_database_error_is_its_type_state_constraint_and_first_line(violation: IntegrityError) -> None:
    assert logs.in_a_line(violation) == (
        "psycopg.errors.UniqueViolation (SQLSTATE 23505, constraint uq_people_logged): "
        'duplicate key value violates unique constraint "uq_people_logged"'
    )


def test_an_error_of_our_own_keeps_its_words() -> None:
    assert logs.in_a_line(ValueError("three\nlines\nlong")) == "ValueError: three\nlines\nlong"


def test_a_quoted_database_error_loses_its_detail(violation: IntegrityError) -> None:
    said = logs.in_a_line(RuntimeError(f"could not save: {violation}"))
    assert said.startswith("RuntimeError: could not save: (psycopg.errors.UniqueViolation) duplicate key")
    assert SECRET not in said


def test_the_session_s_word_on_an_earlier_error_has_none_either(session: Session, violation: IntegrityError) -> None:
    error = PendingRollbackError(f"rolled back due to a previous exception. Original exception was: {violation}")
    assert SECRET not in logs.in_a_line(error)


def test_a_traceback_through_the_standard_library(violation: IntegrityError) -> None:
    try:
        try:
            raise violation
        except IntegrityError as cause:
            raise RuntimeError("while saving") from cause
    except RuntimeError as error:
        said = logged(error)
    assert SECRET not in said and "[SQL" not in said and "DETAIL" not in said
    assert "UniqueViolation (SQLSTATE 23505, constraint uq_people_logged)" in said
    assert "direct cause" in said and said.endswith("RuntimeError: while saving")
    assert "in violate" in said  # where it happened is kept


def test_what_another_handler_made_of_it_is_not_taken_over(violation: IntegrityError) -> None:
    assert SECRET not in logged(violation, exc_text=f"DETAIL: {SECRET}")


def test_an_error_as_an_argument_of_a_message(violation: IntegrityError) -> None:
    for args in ((violation,), (violation.orig,)):
        said = logged(violation, msg="failed: %s", args=args, exc_info=None)
        assert said.startswith("failed: psycopg.errors.UniqueViolation") and SECRET not in said
    assert SECRET not in logged(violation, msg=violation, exc_info=None)


def test_each_error_of_a_group(violation: IntegrityError) -> None:
    said = logs.traceback_of(ExceptionGroup("several", [violation, ValueError("and this")]))
    assert SECRET not in said and "UniqueViolation" in said and "ValueError: and this" in said


@pytest.fixture
def stderr(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a configured process writes."""
    root = logging.getLogger()
    handlers, level, kept = root.handlers[:], root.level, structlog.get_config()
    noisy = {name: logging.getLogger(name).level for name in ("rq", "rq.worker", "alembic", "granian")}
    root.handlers = []
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    logs.configure("INFO")
    yield written
    root.handlers, root.level = handlers, level
    for name, before in noisy.items():
        logging.getLogger(name).setLevel(before)
    structlog.configure(**kept)


def test_structlog_s_exc_info_in_all_its_forms(violation: IntegrityError, stderr: io.StringIO) -> None:
    log = logs.get("x")
    log.error("failed", exc_info=violation)
    log.error("failed", exc_info=(type(violation), violation, violation.__traceback__))
    log.error("failed", error=violation)
    try:
        raise violation
    except IntegrityError:
        log.exception("failed")
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 4
    for line in lines:
        event = json.loads(line)
        assert SECRET not in line and "exc_info" not in event
        assert "UniqueViolation (SQLSTATE 23505" in event.get("exception", event.get("error"))


def test_loggers_of_the_standard_library(violation: IntegrityError, stderr: io.StringIO) -> None:
    try:
        raise violation
    except IntegrityError:
        logging.getLogger("webapp.leads.run").exception("run crashed")
    said = stderr.getvalue()
    assert "run crashed" in said and "UniqueViolation" in said and SECRET not in said


def test_an_unexpected_error_of_a_request_is_logged_without_them(
    app: Flask, client: FlaskClient, violation: IntegrityError, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    chain = [logs.without_row_contents, structlog.processors.JSONRenderer()]

    class Kept:
        def msg(self, line: str) -> None:
            said.append(line)

        error = warning = msg

    monkeypatch.setattr(errors, "log", structlog.wrap_logger(Kept(), processors=chain))
    monkeypatch.setitem(app.config, "ANSWER_ERRORS", True)

    def fails(*_: object, **__: object) -> None:
        raise violation

    endpoint = next(rule.endpoint for rule in app.url_map.iter_rules() if rule.rule == "/healthz")
    monkeypatch.setitem(app.view_functions, endpoint, fails)
    assert client.get("/healthz").status_code == 500
    (line,) = said
    assert "UniqueViolation" in line and SECRET not in line

    # The database away is told once a second, however many requests find out.
    away = OperationalError(None, {}, psycopg.OperationalError("connection refused"))

    def finds_out(*_: object, **__: object) -> None:
        raise away

    said.clear()
    monkeypatch.setattr(logs, "say_database_away", logs.Throttle(60))
    monkeypatch.setitem(app.view_functions, endpoint, finds_out)
    assert [client.get("/healthz").status_code for _ in range(5)] == [503] * 5
    (line,) = said
    assert "database away" in line and "connection refused" in line


def test_the_secret_of_an_address_is_in_no_log(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Kept:
        def msg(self, line: str) -> None:
            said.append(line)

        error = warning = msg

    chain = [logs.without_row_contents, structlog.processors.JSONRenderer()]
    monkeypatch.setattr(errors, "log", structlog.wrap_logger(Kept(), processors=chain))
    monkeypatch.setattr(logs, "say_database_away", logs.Throttle(0))
    monkeypatch.setitem(app.config, "ANSWER_ERRORS", True)
    token = "s3cret-of-the-address"
    for error, status in (
        (RuntimeError("broken"), 500),
        (OperationalError(None, {}, psycopg.OperationalError("connection refused")), 503),
    ):

        def fails(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        said.clear()
        monkeypatch.setitem(app.view_functions, "hooks.receive", fails)
        assert client.post(f"/hooks/{token}", json={}).status_code == status
        (line,) = said
        assert json.loads(line)["path"] == "/hooks/<token>" and token not in line
    with app.test_request_context(f"/hooks/{token}/more"):  # an address that is none, with the secret in it
        assert errors.told_path() == "/hooks/…"
    with app.test_request_context("/queue/no-such"):
        assert errors.told_path() == "/queue/no-such"


def test_a_throttle_opens_again() -> None:
    allowed = logs.Throttle(0)
    assert [allowed(), allowed()] == [True, True]
    allowed = logs.Throttle(60)
    assert [allowed(), allowed()] == [True, False]


def test_an_engine_s_errors_have_no_parameters(session_factory: sessionmaker[Session]) -> None:
    with session_factory() as session, pytest.raises(sa.exc.ProgrammingError) as caught:
        session.execute(sa.text("SELECT nothing FROM people WHERE :name"), {"name": SECRET})
    assert SECRET not in str(caught.value)
    assert Person.__tablename__ in str(caught.value)
