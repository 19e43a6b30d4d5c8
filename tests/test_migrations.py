"""Migrations go up and down on a filled database, and leave what the models say."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask_migrate import downgrade, upgrade
from sqlalchemy.orm import Session

from embedded import testing
from tests import factories
from tests.conftest import environment
from webapp import create_app
from webapp.config import load_settings
from webapp.models import db


def test_up_down_and_up_again_on_a_filled_database() -> None:
    with testing.empty_database("migrations") as url:
        app = create_app(load_settings(environment(url, "redis://127.0.0.1:1/0")))
        with app.app_context():
            try:
                upgrade()
                with Session(db.engine) as session:
                    workspace = factories.make_workspace(session)
                    factories.make_user(session, workspace)
                    factories.make_key(session, workspace)
                    factories.make_lead(session, workspace)
                downgrade(revision="base")
                with db.engine.connect() as connection:
                    left = connection.exec_driver_sql(
                        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'S') "
                        "UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
                    ).scalars()
                    assert set(left) <= {"alembic_version"}
                upgrade()
                with db.engine.connect() as connection:
                    context = MigrationContext.configure(connection, opts={"compare_type": True})
                    assert compare_metadata(context, db.metadata) == []
            finally:
                db.session.remove()
                db.engine.dispose()
