"""Logs: one line of key=value or JSON an event, with the request's id; never a secret, never a message's text.

A database error's own words hold parameters and, in PostgreSQL's DETAIL and CONTEXT, whole rows: people's data. So
every exception is put into words here, both for structlog and for the standard library's loggers: a database error
becomes its type, SQLSTATE, constraint and the first line of what happened, wherever it stands in a traceback.
"""

import copy
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

#: What follows PostgreSQL's primary message, should somebody have quoted it in an error of another kind.
_ROW_CONTENTS = re.compile(r"\s*^(DETAIL|CONTEXT|HINT|\[SQL|\[parameters):.*", re.MULTILINE | re.DOTALL)


def in_a_line(error: BaseException) -> str:
    """What may be said of ``error``: of a database error its type, SQLSTATE, constraint and first line; of any other
    its type and words."""
    cause = error
    while isinstance(cause, SQLAlchemyError) and isinstance(getattr(cause, "orig", None), BaseException):
        cause = cause.orig  # type: ignore[attr-defined]
    if not isinstance(cause, (SQLAlchemyError, psycopg.Error)):
        return _ROW_CONTENTS.sub("", "".join(traceback.format_exception_only(cause)).rstrip())
    primary = cause.diag.message_primary if isinstance(cause, psycopg.Error) else None
    said = next(iter((primary or str(cause)).splitlines()), "")
    facts = []
    if isinstance(cause, psycopg.Error):
        named = (("SQLSTATE", cause.sqlstate), ("constraint", cause.diag.constraint_name))
        facts = [f"{name} {value}" for name, value in named if value]
    kind = f"{type(cause).__module__}.{type(cause).__qualname__}"
    return kind + (f" ({', '.join(facts)})" if facts else "") + (f": {said}" if said else "")


def traceback_of(error: BaseException) -> str:
    """The traceback as Python writes it, causes first, each error as :func:`in_a_line` has it."""
    return "".join(_chain(error, set())).rstrip("\n")


def _chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause, link = error.__cause__, "The above exception was the direct cause of the following exception:"
    if cause is None and not error.__suppress_context__:
        cause, link = error.__context__, "During handling of the above exception, another exception occurred:"
    if cause is not None and id(cause) not in seen:
        yield from _chain(cause, seen)
        yield f"\n{link}\n\n"
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(error.__traceback__)
    yield f"{in_a_line(error)}\n"
    for part in getattr(error, "exceptions", ()) if isinstance(error, BaseExceptionGroup) else ():
        if id(part) not in seen:
            yield "\nOne of them:\n\n"
            yield from _chain(part, seen)


def without_row_contents(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: ``exc_info`` → ``exception``, and exceptions among the values → one line each."""
    given = event.pop("exc_info", None)
    error = _error_of(given)
    if error is not None:
        event["exception"] = traceback_of(error)
    for name, value in event.items():
        if isinstance(value, BaseException):
            event[name] = in_a_line(value)
    return event


def _error_of(given: Any) -> BaseException | None:
    """As logging and structlog take ``exc_info``: an exception, a triple, or True for the one being handled."""
    if isinstance(given, BaseException):
        return given
    triple = given if isinstance(given, tuple) else sys.exc_info() if given else ()
    return triple[1] if len(triple) == 3 else None


class Formatter(logging.Formatter):
    """The standard library's records, under the same rule."""

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)  # other handlers get it as it was
        if isinstance(record.msg, BaseException):
            record.msg = in_a_line(record.msg)
        if isinstance(record.args, Mapping):
            record.args = {name: _said(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(_said(value) for value in record.args)
        record.exc_text = None  # somebody else's wording
        return super().format(record)

    def formatException(self, ei: Any) -> str:
        error = _error_of(ei)
        return traceback_of(error) if error is not None else ""


def _said(value: object) -> object:
    return in_a_line(value) if isinstance(value, BaseException) else value


class Throttle:
    """True at most once in so many seconds, whichever thread asks."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._next = float("-inf")

    def __call__(self) -> bool:
        if not self._lock.acquire(blocking=False):
            return False  # somebody else is being told
        try:
            now = time.monotonic()
            if now < self._next:
                return False
            self._next = now + self._seconds
            return True
        finally:
            self._lock.release()


#: Whether to say (again) that the database is away: each request finds out, one line a second tells it.
say_database_away = Throttle(1.0)


def configure(level: str) -> None:
    """Send everything to stderr: readable on a terminal, JSON elsewhere."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            without_row_contents,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if terminal
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    for noisy in ("rq", "rq.worker", "alembic", "granian"):
        logging.getLogger(noisy).setLevel(max(logging.getLevelName(level), logging.WARNING))


def get(name: str) -> structlog.stdlib.BoundLogger:
    return structlog.get_logger(name)  # type: ignore[no-any-return]
