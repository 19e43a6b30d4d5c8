"""Migrations go up and down on a filled database, and leave what the models say."""

import uuid

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask_migrate import downgrade, upgrade
from sqlalchemy.orm import Session

from embedded import testing
from tests import factories
from tests.conftest import environment
from webapp import create_app
from webapp.config import load_settings
from webapp.leads.dedupe import folded_email
from webapp.models import Lead, Person, db


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


def test_people_of_before_are_found_by_their_folded_address() -> None:
    """One mailbox, several spellings: one person, by the very rule that intake follows; the others merged into them."""
    workspace, first, dotted, plus = (uuid.uuid4() for _ in range(4))
    addresses = {
        first: "ana.perez@gmail.com", dotted: "anaperez@gmail.com", plus: "a.n.a.perez+shop@googlemail.com",
        **{uuid.uuid4(): address for address in (
            "bo+x@proton.me", "bo+x@proton.com", "bo+x@live.me", "bo+x@pm.me", "+bo@gmail.com", "+bo+x@outlook.com",
            "b.o@outlook.com", "bo+x@acme.com", "+84912345678", "facebook:7@x",
        )},
    }  # fmt: skip
    with testing.empty_database("folding") as url:
        app = create_app(load_settings(environment(url, "redis://127.0.0.1:1/0")))
        with app.app_context():
            try:
                upgrade(revision="0001")
                with db.engine.begin() as connection:
                    connection.execute(
                        sa.text("INSERT INTO workspaces (id, name) VALUES (:id, 'before')"), {"id": workspace}
                    )
                    for number, (person, address) in enumerate(addresses.items()):
                        connection.execute(
                            sa.text(
                                "INSERT INTO people (id, workspace_id, identity_key, created_at) "
                                "VALUES (:id, :workspace, :key, now() + make_interval(secs => :number))"
                            ),
                            {"id": person, "workspace": workspace, "key": address, "number": number},
                        )
                        connection.execute(
                            sa.text(
                                "INSERT INTO leads (id, workspace_id, person_id, door, message, content_hash, lang, status,"
                                " intent, priority, next_action, confidence, verdict, search) VALUES (:id, :workspace,"
                                " :person, 'triage', 'hi', '', 'en', 'new_auto', 'unsubscribe', 'P3', 'ignore', 0.9, '{}', '')"
                            ),
                            {"id": uuid.uuid4(), "workspace": workspace, "person": person},
                        )
                upgrade()
                with Session(db.engine) as session:
                    people = {person.id: person for person in session.scalars(sa.select(Person))}
                    assert people[dotted].identity_key == "anaperez@gmail.com"
                    assert (people[first].merged_into, people[plus].merged_into) == (dotted, dotted)
                    for person, address in addresses.items():
                        if person not in (first, plus):
                            expected = folded_email(address) if address != "+84912345678" else address
                            assert people[person].identity_key == expected, address
                            assert people[person].merged_into is None
                    assert all(people[one].do_not_contact for one in addresses if one not in (first, plus))
                    of_ana = sa.select(sa.func.count()).where(Lead.person_id == dotted)
                    assert session.scalar(of_ana) == 3
                downgrade(revision="0001")
                with db.engine.connect() as connection:
                    left = connection.execute(sa.text("SELECT count(DISTINCT person_id) FROM leads")).scalar_one()
                    assert left == len(addresses)
            finally:
                db.session.remove()
                db.engine.dispose()
