"""Fill the demo's workspace: `python -m embedded.demo_fill URL`, a child of the server.

Step by step, each remembered when it is done, so that a second start fills nothing twice and an interrupted one goes
on where it was. Prints one line of JSON at the end: who can log in, and how.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import sqlalchemy as sa
from flask import current_app
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from embedded import demo_destinations, demo_history, demo_leads, demo_review, demo_setup
from embedded.demo import STEP
from embedded.demo_people import PEOPLE, TAKES_LEADS, password
from embedded.demo_progress import Progress
from jobs import queue
from webapp.cli import add_user, find_workspace
from webapp.extensions import db
from webapp.leads import alerting, audit, destinations
from webapp.leads.review import Actor
from webapp.leads.states import DeliveryState, DestinationKind, RunStatus, Scope
from webapp.models.account import ApiKey, User
from webapp.models.lead import AuditEvent, Lead
from webapp.models.work import Delivery, Destination, Run
from webapp.security.keys import create_key
from wsgi import app

PATIENCE = 15.0
"""Seconds for the workers to judge and send what was posted; what takes longer happens before the newcomer's eyes."""

PROGRAM = "Partner portal"


class Filling:
    def __init__(self, url: str) -> None:
        self.url = url
        self.session: Session = db.session()
        self.workspace = find_workspace(destinations.DEFAULT_WORKSPACE).id
        self.secret = current_app.extensions["settings"].secret_key.get_secret_value()
        self.key = ""

    def run(self) -> None:
        leads = len(demo_leads.samples())
        steps: list[tuple[str, str, int, Callable[[Progress], None]]] = [
            ("people", "people of every role", len(PEOPLE), self.people),
            ("setup", "destinations, routing and a suppression list", 5, self.setup),
            ("leads", f"{leads} leads through the doors", leads, self.leads),
            ("runs", "their runs", leads, self.runs),
            ("ages", "some of them older", 10, self.ages),
            ("decisions", "decisions", demo_review.DECISIONS, self.decisions),
            ("failures", "failures", 10, self.failures),
            ("outcomes", "deals that were won and lost", 5, self.outcomes),
        ]
        done = self._done()
        left = [step for step in steps if step[0] not in done]
        if not left:
            return
        progress = Progress(sum(units for _, _, units, _ in left))
        self.key = self._new_key()
        for name, what, units, work in left:
            with progress.step(what, units):
                work(progress)
                audit.record(self.session, self.workspace, STEP, actor=demo_history.ACTOR, step=name)
                self.session.commit()
        self._revoke_key()
        progress.end()

    def find_stand_ins(self) -> None:
        cipher = current_app.extensions["cipher"]
        demo_destinations.find_stand_ins(self.session, self.workspace, os.environ, cipher)
        self.session.commit()

    def _done(self) -> set[str]:
        told = sa.select(AuditEvent.details["step"].astext).where(
            AuditEvent.workspace_id == self.workspace, AuditEvent.event_type == STEP
        )
        return set(self.session.scalars(told))

    # Steps

    def people(self, progress: Progress) -> None:
        workspace = find_workspace(destinations.DEFAULT_WORKSPACE)
        for one in PEOPLE:
            add_user(one.email, password(self.secret, one.email), one.role, workspace, name=one.name)
            progress.add()
        # A stand-in needs no rate budget, and a newcomer would wait for it.
        chat = Destination.kind == DestinationKind.SLACK
        options = sa.case((chat, sa.literal({alerting.OPTION: True}, JSONB)), else_=sa.literal({}, JSONB))
        made = sa.update(Destination).where(Destination.workspace_id == self.workspace)
        self.session.execute(made.where(Destination.managed_by == destinations.ENVIRONMENT).values(options=options))

    def setup(self, progress: Progress) -> None:
        cipher = current_app.extensions["cipher"]
        demo_destinations.create(self.session, self.workspace, os.environ, cipher)
        demo_setup.route(self.session, self.workspace)
        demo_setup.suppress(self.session, self.workspace, region=current_app.extensions["settings"].default_region)

    def leads(self, progress: Progress) -> None:
        demo_history.misbehave(_root("TWENTY_REST_URL"), demo_history.CRM_FAULTS)
        demo_history.misbehave(_root("WEBHOOK_URL"), demo_history.FOLLOW_UP_FAULTS)
        demo_leads.post(self.url, self.key, progress.add)

    def runs(self, progress: Progress) -> None:
        waiting = (
            sa.select(sa.func.count())
            .select_from(Run)
            .where(Run.workspace_id == self.workspace, Run.status.in_((RunStatus.QUEUED, RunStatus.RUNNING)))
        )
        self._await(waiting, progress)

    def ages(self, progress: Progress) -> None:
        own = [sample["message"] for sample in demo_leads.samples()]
        ids = self.session.scalars(
            sa.select(Lead.id)
            .where(Lead.workspace_id == self.workspace, Lead.message.in_(own))
            .order_by(Lead.created_at, Lead.id)
        )
        demo_history.make_older(self.session, self.workspace, ids.all())

    def decisions(self, progress: Progress) -> None:
        emails = [one.email for one in PEOPLE if one.role in TAKES_LEADS]
        users = self.session.scalars(sa.select(User).where(User.email.in_(emails)).order_by(User.email))
        people = [Actor(user.name, user.id) for user in users]
        demo_review.by_people(self.session, self.workspace, people, progress.add)
        queue.ring("deliveries")
        demo_review.by_program(self.session, self.workspace, self.url, self.key, progress.add)

    def failures(self, progress: Progress) -> None:
        demo_history.fail_runs(self.session, self.workspace)
        self.session.commit()
        queue.ring("runs")
        dead = sa.select(sa.literal(1) - sa.func.least(1, sa.func.count())).where(
            Delivery.workspace_id == self.workspace, Delivery.state == DeliveryState.DEAD
        )
        self._await(dead, progress)
        demo_history.leave_uncertain(self.session, self.workspace)

    def outcomes(self, progress: Progress) -> None:
        self._await(demo_destinations.without_delivery(self.workspace), progress)
        currency = find_workspace(destinations.DEFAULT_WORKSPACE).currency
        demo_setup.close_deals(self.session, self.workspace, currency=currency)
        demo_destinations.rest(self.session, self.workspace, os.environ)

    def _await(self, count: sa.Select[tuple[int]], progress: Progress) -> None:
        """Until nothing is left to count, within reason."""
        until = time.monotonic() + PATIENCE
        last = None
        while (left := self.session.scalar(count) or 0) and time.monotonic() < until:
            self.session.rollback()  # the next look is a new transaction
            if last is not None:
                progress.add(max(0, last - left))
            last = left
            time.sleep(0.1)

    # The program's key lives as long as the filling

    def _new_key(self) -> str:
        scopes = {Scope.INGEST, Scope.READ, Scope.REVIEW}
        made = create_key(self.session, workspace_id=self.workspace, name=PROGRAM, scopes=scopes, rate_limited=False)
        self.session.commit()
        return made[1]

    def _revoke_key(self) -> None:
        self.session.execute(
            sa.update(ApiKey)
            .where(ApiKey.workspace_id == self.workspace, ApiKey.name == PROGRAM, ApiKey.revoked_at.is_(None))
            .values(revoked_at=datetime.now(UTC))
        )
        self.session.commit()


def _root(variable: str) -> str:
    return "{0.scheme}://{0.netloc}".format(urlsplit(os.environ[variable]))


def main(url: str) -> None:
    with app.app_context():
        filling = Filling(url)
        filling.find_stand_ins()
        filling.run()
        people = [
            {"role": one.role.value, "email": one.email, "password": password(filling.secret, one.email)}
            for one in PEOPLE
        ]
    print(json.dumps({"people": people}))


if __name__ == "__main__":
    main(sys.argv[1])
