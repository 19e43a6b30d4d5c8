"""The servers and processes of a machine that has nothing but Python.

Where no DATABASE_URL and REDIS_URL are given, a real PostgreSQL and a real Redis are started from
binaries that came with the Python packages. Nothing here is imported by the application: it sees two
URLs in its environment and cannot tell an embedded server from a managed one.

    paths, process, account, binaries   what everything below stands on
    postgres, redis_server              one server each: start, stop, kill, restart
    instance                            one owner per data folder; others join: `ensure()`
    keys                                SECRET_KEY and FIELD_ENCRYPTION_KEYS of an embedded default
    supervisor                          keeps web, workers, clock and both servers running
    server, flask                       what script/server and script/flask execute
    testing                             throw-away servers and databases for the test suite
"""

from embedded.errors import StartError
from embedded.instance import Servers, ensure
from embedded.postgres import PostgresServer
from embedded.redis_server import RedisServer

__all__ = ["PostgresServer", "RedisServer", "Servers", "StartError", "ensure"]
