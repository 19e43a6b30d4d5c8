"""Asking a model about runs: the questions under way and their answers. ``run_beside`` says when.

One thread of its own for each question, none of which a drain waits for longer than it means to.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import llm_usage, run_store
from webapp.leads.claims import Claim
from webapp.leads.enrichment import Gathered
from webapp.leads.judging import Asking, Heard, Judging
from webapp.leads.run_stages import Item
from webapp.leads.stages import classify
from webapp.leads.states import Door, RunTrigger

#: How old may be what is known of the workspaces' budgets.
BUDGET_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that waits for a model's opinion, and the time it is waited for."""

    item: Item
    gathered: Gathered
    until: float


@dataclass(frozen=True, slots=True)
class Answered:
    """A run that waits for nothing any more. ``heard``: what came of asking a model, where one was asked."""

    item: Item
    gathered: Gathered
    heard: Heard | None = None


class Questions:
    """Those of one drain."""

    def __init__(self, judges: Judging) -> None:
        self._judges = judges
        self._flying: dict[Future[Heard], Asked] = {}
        self._spent: dict[uuid.UUID, str] = {}
        self._spent_until = 0.0

    def __len__(self) -> int:
        return len(self._flying)

    @property
    def asks(self) -> bool:
        """Can it happen at all that a model is asked?"""
        return self._judges.asks

    def room(self, to_come: int) -> int:
        """How many more can be asked at once, besides those ``to_come``."""
        return max(0, self._judges.threads - len(self._flying) - to_come)

    @property
    def futures(self) -> list[Future[Heard]]:
        return list(self._flying)

    @property
    def held(self) -> list[Claim]:
        return [Claim(one.item.run_id, one.item.attempt) for one in self._flying.values()]

    @property
    def at(self) -> dict[Claim, str]:
        """The stage that each run under way waits in."""
        return dict.fromkeys(self.held, "classify")

    def look_at_budgets(self, session: Session) -> None:
        """Which workspaces have spent what they may, every so often."""
        now = time.monotonic()
        if self.asks and now >= self._spent_until:
            self._spent, self._spent_until = llm_usage.exhausted(session), now + BUDGET_SECONDS

    def needs_none(self) -> sa.ColumnElement[bool]:
        """Runs about which no model has to be asked."""
        return run_store.needs_no_model(self._judges.policy, spent=self._spent)

    def wants(self, item: Item, judge: classify.Judge) -> bool:
        """Is the run one that a model has to be asked about? False: it can be worked with the rules."""
        policy = self._judges.policy.of(item.judging)
        if not policy.asks or item.standing.decided or item.trigger is RunTrigger.TOUCH:
            return False
        if item.door is Door.WEB:  # its words are ours
            return False
        try:
            said = judge(item.facts.message)
        except Exception:  # the classify stage will meet it again, and record it
            return False
        return policy.needs_model(said, item.facts.message, auto_from=item.rules.auto_from)

    def ask(self, item: Item, gathered: Gathered) -> None:
        """Set a thread to asking about the run."""
        future: Future[Heard] = Future()
        if why := self._spent.get(item.workspace_id):
            future.set_result(Heard(error=why, over_budget=True))
        else:
            asking = Asking(item.facts, item.run_id, item.judging.share_personal)
            # Not a pool's thread: those are waited for at the end of the process, and the other side may never answer.
            answer = lambda: future.set_result(self._judges.ask(asking))  # noqa: E731
            threading.Thread(target=answer, name=f"ask {item.run_id}", daemon=True).start()
        self._flying[future] = Asked(item, gathered, time.monotonic() + self._judges.patience)

    def answered(self) -> Iterator[Answered]:
        """What has come by now; what was waited for too long counts as not heard."""
        for future, asked in list(self._flying.items()):
            if future.done():
                heard = future.result()
            elif time.monotonic() > asked.until:
                heard = Heard(error=f"no answer within {self._judges.patience:g} s")
            else:
                continue
            del self._flying[future]
            yield Answered(asked.item, asked.gathered, heard)

    def forget(self) -> None:
        """Drop what is being asked about; answers that still come are dropped."""
        self._flying.clear()
