"""Asking a model about runs beside the others: what may be claimed for it, the questions under way, their answers.

One thread of its own for each question, none of which a drain waits for longer than it means to. What the threads hear
is settled by the drain like everything else.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import claims, llm_usage, run_store
from webapp.leads.claims import RUNS, Claim, Holder
from webapp.leads.judging import Asking, Heard, Judging
from webapp.leads.run_stages import Item
from webapp.leads.stages import classify
from webapp.leads.states import Door, RunTrigger

#: How old may be what is known of the workspaces' budgets.
BUDGET_SECONDS = 2.0

_ALSO_SET: dict[str, Any] = {"started_at": sa.func.now(), "stage": None}


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that waits for a model's opinion, and the time it is waited for."""

    item: Item
    until: float


class Questions:
    """Those of one drain. ``open``: further ones may be asked."""

    def __init__(self, judges: Judging) -> None:
        self.open = True
        self._judges = judges
        self._flying: dict[Future[Heard], Asked] = {}
        self._look_again = 0.0
        self._spent: dict[uuid.UUID, str] = {}
        self._spent_until = 0.0

    def __len__(self) -> int:
        return len(self._flying)

    @property
    def held(self) -> list[Claim]:
        return [Claim(one.item.run_id, one.item.attempt) for one in self._flying.values()]

    @property
    def at(self) -> dict[Claim, str]:
        """The stage that each run under way waits in."""
        return dict.fromkeys(self.held, "classify")

    def claim(self, session: Session, holder: Holder, size: int) -> tuple[list[Claim], bool]:
        """Due runs, and whether there are no more. Of those that may need a model no more are claimed than can be
        asked about at once, so that other workers can take them."""
        if not self._judges.asks:
            held = claims.claim(session, RUNS, holder, limit=size, also_set=_ALSO_SET)
            return held, len(held) < size
        self._look_at_budgets(session)
        free = min(size, self._judges.threads - len(self._flying)) if self.open else 0
        held = claims.claim(session, RUNS, holder, limit=free, also_set=_ALSO_SET) if free > 0 else []
        if len(held) < free or free == size:
            return held, len(held) < free
        began = time.monotonic()
        if self._flying and began < self._look_again:
            return held, True
        needs_none = [run_store.needs_no_model(self._judges.policy, spent=self._spent)]
        more = claims.claim(session, RUNS, holder, limit=size - free, where=needs_none, also_set=_ALSO_SET)
        # With all threads busy there may be a long backlog to look through.
        self._look_again = time.monotonic() + 5 * (time.monotonic() - began)
        return held + more, free <= 0 and len(more) < size

    def _look_at_budgets(self, session: Session) -> None:
        now = time.monotonic()
        if now >= self._spent_until:
            self._spent, self._spent_until = llm_usage.exhausted(session), now + BUDGET_SECONDS

    def ask(self, item: Item, judge: classify.Judge) -> bool:
        """Set a thread to asking about the run if it needs it. False: it can be worked now."""
        policy = self._judges.policy.of(item.judging)
        if not policy.asks or item.standing.decided or item.trigger is RunTrigger.TOUCH:
            return False
        if item.door is Door.WEB:  # its words are ours
            return False
        try:
            said = judge(item.facts.message)
        except Exception:  # the classify stage will meet it again, and record it
            return False
        if not policy.needs_model(said, item.facts.message, auto_from=item.rules.auto_from):
            return False
        future: Future[Heard] = Future()
        if why := self._spent.get(item.workspace_id):
            future.set_result(Heard(error=why))
        else:
            asking = Asking(item.facts, item.run_id, item.judging.share_personal)
            # Not a pool's thread: those are waited for at the end of the process, and the other side may never answer.
            answer = lambda: future.set_result(self._judges.ask(asking))  # noqa: E731
            threading.Thread(target=answer, name=f"ask {item.run_id}", daemon=True).start()
        self._flying[future] = Asked(item, time.monotonic() + self._judges.patience)
        return True

    def answered(self, seconds: float) -> Iterator[tuple[Asked, Heard]]:
        """What has come, after waiting so long for a first one; what was waited for too long counts as not heard."""
        wait(self._flying, timeout=seconds, return_when=FIRST_COMPLETED)
        for future, asked in list(self._flying.items()):
            if future.done():
                heard = future.result()
            elif time.monotonic() > asked.until:
                heard = Heard(error=f"no answer within {self._judges.patience:g} s")
            else:
                continue
            del self._flying[future]
            yield asked, heard

    def give_back(self, session: Session) -> None:
        """Leave what is being asked about to the next worker, at once; answers that still come are dropped."""
        run_store.give_back(session, self.held)
        self._flying.clear()
