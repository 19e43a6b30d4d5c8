"""Gathering facts from outside beside the drain: questions under way, shared by the leads that want the same answer.

One thread of its own for each question, at most so many at once; a lead goes on when all its questions are answered or
its time is over, with what there is by then. Whatever is heard in the drain's lifetime is kept, also what comes too late
for the lead that asked.
"""

import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from webapp.leads import enrichment, enrichment_store
from webapp.leads.enrichment import NOTHING_ASKED, Answer, Enriching, Gathered, Gathering, Source
from webapp.leads.enrichment_store import Key
from webapp.leads.run_stages import Item
from webapp.leads.states import AnswerState
from webapp.leads.types import LeadFacts

#: How old a worker's idea of a workspace's sources and their breakers may be.
_SOURCES_SECONDS = 2.0
#: A question that has not come back after so many times the lead's patience does not count as under way any more.
_GIVEN_UP = 4.0


class Gatherings:
    """Those of one drain."""

    def __init__(self, enriching: Enriching) -> None:
        self._enriching = enriching
        self._sources: dict[uuid.UUID, tuple[float, tuple[Source, ...]]] = {}
        self._known: dict[Key, Answer] = {}
        self._waiting: dict[uuid.UUID, tuple[Item, Gathering]] = {}
        self._flying: dict[Key, tuple[Future[Answer], Source, float]] = {}
        self._todo: deque[tuple[Key, Source]] = deque()
        self._to_keep: list[tuple[Source, str, Answer]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def on(self) -> bool:
        return self._enriching.clients is not None

    @property
    def items(self) -> list[Item]:
        return [item for item, _ in self._waiting.values()]

    @property
    def room(self) -> int:
        """Runs that may be claimed although they may have something to ask."""
        return max(0, 2 * self._enriching.threads - max(len(self._waiting), self._busy() + len(self._todo)))

    @property
    def futures(self) -> list[Future[Any]]:
        return [future for future, _, _ in self._flying.values()]

    def prepare(self, session: Session, rows: Sequence[sa.Row[Any]]) -> None:
        """Look up, for a batch of runs, what their workspaces can ask and what is known already."""
        self._known = {}
        if not self.on or not rows:
            return
        now = time.monotonic()
        stale = {
            row.workspace_id
            for row in rows
            if now - self._sources.get(row.workspace_id, (float("-inf"),))[0] > _SOURCES_SECONDS
        }
        if stale:
            for workspace_id, found in enrichment_store.sources(session, stale).items():
                self._sources[workspace_id] = (now, found)
        keys = [
            key
            for row in rows
            for key, _ in self._wanted(
                row.workspace_id,
                LeadFacts("", "", "", email_normalized=row.email_normalized, phone_e164=row.phone_e164),
            )
        ]
        self._known = enrichment_store.cached(session, keys)

    def _wanted(self, workspace_id: uuid.UUID, facts: LeadFacts) -> Iterable[tuple[Key, Source]]:
        listed = self._sources.get(workspace_id, (0.0, ()))[1]
        for source, subject in enrichment.subjects(facts, listed) if listed else ():
            yield (source.workspace_id, source.key, subject), source

    def start(self, item: Item) -> Gathered | None:
        """What is known of the lead from outside; None when that has to be waited for (see :meth:`gathered`)."""
        if not self.on:
            return NOTHING_ASKED
        gathering = Gathering()
        for key, source in self._wanted(item.workspace_id, item.facts):
            known = self._known.get(key)
            if known is not None:
                gathering.heard.append((source, known))
            elif closed := self._closed(source):
                gathering.heard.append((source, Answer(AnswerState.FAILED, note=closed, healthy=None)))
            else:
                gathering.waits[key] = source
                if key not in self._flying and all(key != one for one, _ in self._todo):
                    self._todo.append((key, source))
        if not gathering.waits:
            return gathering.result() if gathering.heard else NOTHING_ASKED
        self._waiting[item.run_id] = (item, gathering)
        self._launch()
        return None

    def _closed(self, source: Source) -> str:
        """Why the source is not asked now, or nothing. Once its breaker's time is over, one question at a time."""
        if source.open_for > 0:
            return f"left alone for another {max(1, round(source.open_for))} s, since it did not answer before"
        if source.failures >= source.breaker_failures and any(place[1] == source.key for place in self._flying):
            return "it did not answer before; one question is on its way to find out"
        return ""

    def _busy(self) -> int:
        limit = time.monotonic() - _GIVEN_UP * self._enriching.timeout
        return sum(not future.done() and began > limit for future, _, began in self._flying.values())

    def _launch(self) -> None:
        free = self._enriching.threads - self._busy()
        while self._todo and free > 0:
            key, source = self._todo.popleft()
            future: Future[Answer] = Future()
            # Not a pool's thread: those are waited for at the end of the process, and the other side may never answer.
            threading.Thread(
                target=_answer, args=(future, source, key[2], self._enriching), name=f"look {source.key}", daemon=True
            ).start()
            self._flying[key] = (future, source, time.monotonic())
            free -= 1
        queued = {key for key, _ in self._todo}
        now = time.monotonic()
        for _, gathering in self._waiting.values():
            if gathering.until == float("inf") and not queued & gathering.waits.keys():
                gathering.until = now + self._enriching.timeout

    def gathered(self) -> Iterator[tuple[Item, Gathered]]:
        """Leads whose questions are answered, or whose time is over. Does not wait."""
        for key, (future, source, _) in list(self._flying.items()):
            if not future.done():
                continue
            answer = future.result()
            del self._flying[key]
            self._to_keep.append((source, key[2], answer))
            self._tell(key, source, answer)
        now = time.monotonic()
        for run_id, (item, gathering) in list(self._waiting.items()):
            if gathering.waits and now >= gathering.until:
                self._give_up(gathering)
            if not gathering.waits:
                del self._waiting[run_id]
                yield item, gathering.result()
        self._launch()

    def _tell(self, key: Key, source: Source, answer: Answer) -> None:
        for _, gathering in self._waiting.values():
            if gathering.waits.pop(key, None) is not None:
                gathering.heard.append((source, answer))
        if answer.healthy is False:  # the breaker may have opened
            self._sources = {
                workspace_id: (float("-inf"), listed) for workspace_id, (_, listed) in self._sources.items()
            }

    def _give_up(self, gathering: Gathering) -> None:
        note = f"no answer within {self._enriching.timeout:g} s"
        late = Answer(AnswerState.FAILED, note=note, healthy=False)
        for key, source in list(gathering.waits.items()):
            self._to_keep.append((source, key[2], late))
            self._tell(key, source, late)

    def save(self, session: Session) -> None:
        """Keep what was heard. The caller commits."""
        kept, self._to_keep = self._to_keep, []
        enrichment_store.keep(session, kept)

    @property
    def unsaved(self) -> bool:
        return bool(self._to_keep)

    def forget(self) -> None:
        """Drop what waits; answers that still come are not kept."""
        self._waiting.clear()
        self._todo.clear()
        self._flying.clear()


def _answer(future: Future[Answer], source: Source, subject: str, enriching: Enriching) -> None:
    assert enriching.clients is not None
    future.set_result(enrichment.look(source, subject, enriching.clients))
