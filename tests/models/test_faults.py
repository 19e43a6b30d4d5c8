"""Which errors mean that the database is away: those of connections, made for real."""

import os
import socket
from contextlib import suppress

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import intake_sql
from webapp.models.faults import is_database_away


def error_of(session: Session, statement: sa.Executable) -> BaseException:
    try:
        session.execute(statement)
    except Exception as error:
        return error
    finally:
        with suppress(sa.exc.DBAPIError):
            session.rollback()
    raise AssertionError("it worked")


def test_a_statement_that_the_driver_refuses_to_send_is_a_bug(session: Session) -> None:
    error = error_of(session, sa.select(sa.literal(0).in_(range(1, 70_000))))
    assert isinstance(error, sa.exc.OperationalError) and "number of parameters" in str(error.orig)
    assert not is_database_away(error)
    assert session.scalar(sa.select(sa.literal(1))) == 1  # nothing was wrong with the connection


def test_a_statement_that_the_server_refuses_is_a_bug(session: Session) -> None:
    assert not is_database_away(error_of(session, sa.text("SELECT 1 / 0")))


def test_a_connection_that_ended_is_away(session: Session) -> None:
    assert is_database_away(error_of(session, sa.text("SELECT pg_terminate_backend(pg_backend_pid())")))
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    with socket.socket(fileno=os.dup(driver.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)  # without a word from the server
    assert is_database_away(error_of(session, sa.text("SELECT 1")))
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    driver.close()  # the driver itself knows, and sends nothing
    assert is_database_away(error_of(session, sa.text("SELECT 1")))


def test_the_statements_of_intake_tell_it_too(session: Session) -> None:
    with pytest.raises(psycopg.OperationalError) as raised:
        intake_sql.run(session, "SELECT pg_terminate_backend(pg_backend_pid())", {})
    assert is_database_away(raised.value)
    with suppress(sa.exc.DBAPIError):
        session.rollback()


def test_nobody_who_answers_is_away() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = sa.create_engine(f"postgresql+psycopg://u@127.0.0.1:{port}/d")
    with pytest.raises(sa.exc.OperationalError) as raised:
        engine.connect()
    assert is_database_away(raised.value) and is_database_away(raised.value.orig)
    assert is_database_away(psycopg.OperationalError("the database is away; not trying again yet"))  # webapp.engine
