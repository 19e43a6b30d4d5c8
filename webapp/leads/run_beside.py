"""What a drain does beside itself: facts are gathered from outside, then a model is asked, while it works the runs that
need neither.

How many runs may be claimed for it: no more than can be asked about at once, so that other workers can take them. What the
threads hear is settled by the drain like everything else.
"""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import claims, enrichment_store, run_store
from webapp.leads.claims import RUNS, Claim, Holder
from webapp.leads.enrichment import Enriching, Gathered
from webapp.leads.judging import Judging
from webapp.leads.run_asking import Answered, Questions
from webapp.leads.run_gathering import Gatherings
from webapp.leads.run_stages import Item
from webapp.leads.stages import classify

_ALSO_SET: dict[str, Any] = {"started_at": sa.func.now(), "stage": None}


class Beside:
    """That of one drain. ``open``: further runs may be taken on that something has to be asked about."""

    def __init__(self, judges: Judging, enriching: Enriching) -> None:
        self.open = True
        self.gatherings = Gatherings(enriching)
        self._questions = Questions(judges)
        self._to_ask: set[uuid.UUID] = set()  # runs whose facts are gathered first
        self._look_again = 0.0

    def __len__(self) -> int:
        return len(self._questions) + len(self.gatherings)

    @property
    def held(self) -> list[Claim]:
        gathering = [Claim(item.run_id, item.attempt) for item in self.gatherings.items]
        return self._questions.held + gathering

    @property
    def at(self) -> dict[Claim, str]:
        """The stage that each run under way waits in."""
        gathering = [Claim(item.run_id, item.attempt) for item in self.gatherings.items]
        return self._questions.at | dict.fromkeys(gathering, "enrich")

    def claim(self, session: Session, holder: Holder, size: int) -> tuple[list[Claim], bool]:
        """Due runs, and whether there are no more."""
        self._questions.look_at_budgets(session)
        model, outside = self._room(size)
        # Of any kind; then without those that may need a model; then without those that have something to look up.
        held, drained = self._some(session, holder, min(model, outside), [])
        if drained or len(held) >= size:
            return held, drained
        began = time.monotonic()
        if len(self) and began < self._look_again:
            return held, True
        no_model = [self._questions.needs_none()] if model < size else []
        nothing = [enrichment_store.needs_nothing()] if outside < size else []
        for limit, where in ((outside - len(held), no_model), (model - len(held), nothing)):
            if where and limit > 0:
                held += self._some(session, holder, limit, where)[0]
        more, drained = self._some(session, holder, size - len(held), no_model + nothing)
        # With all threads busy there may be a long backlog to look through.
        self._look_again = time.monotonic() + 5 * (time.monotonic() - began)
        return held + more, drained and min(model, outside) <= 0

    def _room(self, size: int) -> tuple[int, int]:
        """How many runs may be claimed that may need a model, and that may have something to look up."""
        if not self.open:
            return (0 if self._questions.asks else size), (0 if self.gatherings.on else size)
        model = min(size, self._questions.room(len(self._to_ask))) if self._questions.asks else size
        return model, min(size, self.gatherings.room) if self.gatherings.on else size

    @staticmethod
    def _some(session: Session, holder: Holder, limit: int, where: list[Any]) -> tuple[list[Claim], bool]:
        if limit <= 0:
            return [], False
        held = claims.claim(session, RUNS, holder, limit=limit, where=where, also_set=_ALSO_SET)
        return held, len(held) < limit

    def take(self, item: Item, judge: classify.Judge) -> Gathered | None:
        """What is known of the lead from outside; None when the run has to wait (see :meth:`heard`)."""
        asks = self._questions.wants(item, judge)
        gathered = self.gatherings.start(item)
        if gathered is None:
            if asks:
                self._to_ask.add(item.run_id)
            return None
        if asks:
            self._questions.ask(item, gathered)
            return None
        return gathered

    def heard(self, seconds: float) -> Iterator[Answered]:
        """Runs that wait for nothing any more, after waiting so long for a first one."""
        futures = [*self.gatherings.futures, *self._questions.futures]
        wait(futures, timeout=seconds, return_when=FIRST_COMPLETED)
        for item, gathered in self.gatherings.gathered():
            if item.run_id in self._to_ask:
                self._to_ask.remove(item.run_id)
                self._questions.ask(item, gathered)
            else:
                yield Answered(item, gathered)
        yield from self._questions.answered()

    def give_back(self, session: Session) -> None:
        """Leave what is waited for to the next worker, at once; answers that still come are dropped."""
        run_store.give_back(session, self.held)
        self.gatherings.forget()
        self._questions.forget()
        self._to_ask.clear()
