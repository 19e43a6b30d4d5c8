"""Alembic's entry point: runs migrations on the app's own engine, one process at a time."""

from alembic import context
from flask import current_app

from webapp import models

config = context.config
target_metadata = models.db.metadata

#: Any number of hosts may run ``flask db upgrade`` at once; this lock lets one of them do the work.
UPGRADE_LOCK = 4_207_849_301


def run_migrations_online() -> None:
    engine = current_app.extensions["migrate"].db.engine
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=target_metadata, compare_server_default=False)
        with context.begin_transaction():
            # Released at the end of the transaction, so it works behind PgBouncer in transaction mode.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (UPGRADE_LOCK,))
            context.run_migrations()


if context.is_offline_mode():
    context.configure(url="postgresql+psycopg://", target_metadata=target_metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    run_migrations_online()
