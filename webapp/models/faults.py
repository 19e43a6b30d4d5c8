"""What an error of the database means: away, or in contention, as opposed to a statement that it refuses."""

import psycopg
import sqlalchemy as sa

#: Shutting down, crashed, starting, database dropped; too many connections.
_NOT_NOW = frozenset({"57P01", "57P02", "57P03", "57P04", "53300"})


def is_database_away(error: BaseException) -> bool:
    """The server cannot be reached, went away, or refuses connections; as opposed to a bug in a statement."""
    if isinstance(error, sa.exc.TimeoutError):  # the pool had no connection to give in time
        return True
    if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
        return True
    original = getattr(error, "orig", error)
    if not isinstance(original, psycopg.OperationalError):
        return False
    state = original.sqlstate
    if state is None:  # the server said nothing: away if there is no sound connection to it
        if original.pgconn is not None:
            return original.pgconn.status != psycopg.pq.ConnStatus.OK
        # Raised by the driver. SQLAlchemy would have found the connection of a statement invalid (above) if it were;
        # it is sound, and the driver refused to send, say, too many parameters.
        return getattr(error, "statement", None) is None
    return state.startswith("08") or state in _NOT_NOW  # class 08: connection


def is_contention(error: BaseException) -> bool:
    """A deadlock or serialisation failure: nothing was done, and the same request may well work next time."""
    state = getattr(getattr(error, "orig", error), "sqlstate", None)
    return state in {"40001", "40P01"}
