"""Asking the outside about a lead: which sources there are for it, what each is asked, and what came of asking.

A source is asked about a subject (a domain, an address), never about a lead, so that leads share answers. Every failure
is an answer too: nothing here raises, and no lead waits longer than ``Enriching.timeout``. The rows behind it are in
``enrichment_store``, the drain's part in ``run_gathering``.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from webapp.leads import fact_mapping
from webapp.leads.errors import LeadError, NotFound, Permanent, Transient
from webapp.leads.ports import LookupClients, Refused, Service, Target, Throttled
from webapp.leads.stages import enrich
from webapp.leads.stages.place import country_code
from webapp.leads.states import AnswerState, LookupSubject
from webapp.leads.types import Fact, LeadFacts

log = logging.getLogger(__name__)

DAY = 86_400.0
#: Seconds for which an answer serves: what is known, that nothing is known, that there was no answer.
MAX_AGE = 30 * DAY
NOTHING_AGE = 7 * DAY
FAILED_AGE = 300.0
DNS_AGE = 7 * DAY
CRM_AGE = 600.0
#: How long a source is left alone once its breaker opens, and when it says that our key is refused.
BREAKER_SECONDS = 60.0
REFUSED_SECONDS = 600.0
#: Longest pause that a source can ask for.
MAX_PAUSE = 3_600.0

#: Keys of the sources that need no configuration.
DNS, HOME = "dns", "home"
OWN, CRM = "own", "crm"

#: Names that nobody can register (RFC 2606, RFC 6761, RFC 7686): not worth a question.
_RESERVED = frozenset({"example", "test", "invalid", "localhost", "local", "internal", "onion", "arpa", "home", "lan"})
_RESERVED_DOMAINS = frozenset({"example.com", "example.net", "example.org"})

#: What text from elsewhere may hold and PostgreSQL or a page cannot: control characters, halves of surrogate pairs.
_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Source:
    """One place to ask, as a workspace has it. ``workspace_id`` None: its answers serve everybody. ``name``: as people
    read it. ``failures`` and ``open_for`` (seconds, 0: closed): its breaker as of the last look."""

    key: str
    name: str
    subject: LookupSubject
    workspace_id: uuid.UUID | None
    max_age: float = MAX_AGE
    breaker_failures: int = 5
    failures: int = 0
    open_for: float = 0.0
    trust: float = 0.8
    service: Service | None = None
    mapping: Mapping[str, str] = field(default_factory=dict)
    target: Target | None = None

    @property
    def place(self) -> tuple[uuid.UUID | None, str]:
        """By what its answers and its breaker are kept."""
        return self.workspace_id, self.key


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking a source about a subject. ``healthy``: what it says of the source, None nothing;
    ``pause``: seconds for which the source is to be left alone."""

    state: AnswerState
    facts: tuple[Fact, ...] = ()
    note: str = ""
    healthy: bool | None = True
    pause: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that was asked for a lead. ``asked``: a line for each source (name, what came of it, whether it was kept);
    ``missing``: names of the sources that gave no answer, with the reason in words."""

    facts: tuple[Fact, ...] = ()
    asked: tuple[Mapping[str, Any], ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    ms: int = 0


NOTHING_ASKED = Gathered()


@dataclass(frozen=True, slots=True)
class Enriching:
    """A worker's way outside. ``timeout``: seconds a lead waits for all its sources; ``threads``: questions under way
    at once. Without ``clients`` nothing is asked."""

    clients: LookupClients | None = None
    timeout: float = 8.0
    threads: int = 32


NOTHING_OUTSIDE = Enriching()


def domain_of(facts: LeadFacts) -> str | None:
    """The lead's own domain: of its address, unless that is of a mail service or a throw-away one."""
    domain = (facts.email_normalized or "").rpartition("@")[2].lower()
    if not domain or enrich.is_free_mail(domain) or enrich.is_disposable(domain):
        return None
    return domain if is_public(domain) else None


def is_public(domain: str) -> bool:
    """Can it exist on the internet?"""
    return (
        "." in domain
        and domain.rpartition(".")[2] not in _RESERVED
        and ".".join(domain.split(".")[-2:]) not in _RESERVED_DOMAINS
    )


def subjects(facts: LeadFacts, sources: Sequence[Source]) -> list[tuple[Source, str]]:
    """What is to be asked about a lead, and where."""
    domain = domain_of(facts)
    email = facts.email_normalized
    wanted = []
    for source in sources:
        if source.target is not None:  # the CRM knows people by number as well
            who = " ".join(part for part in (email, facts.phone_e164) if part)
            if who:
                wanted.append((source, who))
        elif source.subject is LookupSubject.DOMAIN and domain:
            wanted.append((source, domain))
        elif source.subject is LookupSubject.EMAIL and email and is_public(email.rpartition("@")[2]):
            wanted.append((source, email))
    return wanted


def look(source: Source, subject: str, clients: LookupClients) -> Answer:
    """Ask. Called outside any transaction, from any thread; every failure is an answer."""
    answer = _look(source, subject, clients)
    return replace(answer, note=_UNSTORABLE.sub(" ", answer.note))


def _look(source: Source, subject: str, clients: LookupClients) -> Answer:
    try:
        facts, note = _asker(source, clients)(subject)
    except NotFound as nothing:
        return Answer(AnswerState.NOTHING, note=nothing.message[:300])
    except Throttled as busy:
        pause = min(busy.retry_after or BREAKER_SECONDS, MAX_PAUSE)
        return Answer(AnswerState.FAILED, note=busy.message[:300], healthy=None, pause=pause)
    except Refused as refused:
        if refused.destination_wide:
            note = f"it does not accept our key ({refused.message})"[:300]
            return Answer(AnswerState.FAILED, note=note, healthy=False, pause=REFUSED_SECONDS)
        return Answer(AnswerState.NOTHING, note=refused.message[:300])
    except Permanent as refused:
        return Answer(AnswerState.NOTHING, note=refused.message[:300])
    except Transient as failed:
        return Answer(AnswerState.FAILED, note=failed.message[:300], healthy=False)
    except LeadError as error:
        return Answer(AnswerState.FAILED, note=error.message[:300], healthy=False)
    except Exception as error:  # a bug of a client is no reason to lose a lead, and its text may hold anything
        log.exception("%s could not be asked", source.key)
        return Answer(AnswerState.FAILED, note=f"internal error: {type(error).__name__}", healthy=False)
    named = tuple(replace(told, provider=source.name) for fact in facts if (told := _standard(fact)))
    return Answer(AnswerState.FOUND if named else AnswerState.NOTHING, named, note)


def _standard(fact: Fact) -> Fact | None:
    """Countries by their code, as everywhere; a page may write anything. None for a value that is no text to keep."""
    values = fact.value if isinstance(fact.value, list | tuple) else [fact.value]
    if any(isinstance(value, str) and _UNSTORABLE.search(value) for value in values):
        return None
    fact = replace(fact, note=_UNSTORABLE.sub(" ", fact.note))
    if fact.name != "country":
        return fact
    code = country_code(str(fact.value))
    return replace(fact, value=code) if code else None


def _asker(source: Source, clients: LookupClients) -> Callable[[str], tuple[Sequence[Fact], str]]:
    def told(found: Sequence[Fact]) -> tuple[Sequence[Fact], str]:
        return found, ""

    if source.key == DNS:
        return lambda domain: told(clients.mail_server(domain))
    if source.key == HOME:
        return lambda domain: told(clients.home_page(domain))
    target, service = source.target, source.service
    if target is not None:
        return lambda who: told(clients.crm(target, *_parts(who)))
    if service is not None:
        return lambda subject: fact_mapping.read(source.mapping, clients.ask(service, subject), trust=source.trust)
    raise Permanent("there is nothing that could be asked")


def _parts(who: str) -> tuple[str | None, str | None, str | None]:
    """(address, number, domain of its own) of a CRM's subject."""
    email = phone = None
    for part in who.split(" "):
        if "@" in part:
            email = part
        elif part.startswith("+"):
            phone = part
    domain = domain_of(LeadFacts("", "", "", email_normalized=email))
    return email, phone, domain


@dataclass(slots=True)
class Gathering:
    """What a lead still waits for. ``until`` (monotonic): set once all its questions are under way."""

    began: float = field(default_factory=time.monotonic)
    until: float = float("inf")
    waits: dict[tuple[uuid.UUID | None, str, str], Source] = field(default_factory=dict)
    heard: list[tuple[Source, Answer]] = field(default_factory=list)

    def result(self) -> Gathered:
        asked, missing, facts = [], {}, list[Fact]()
        for source, answer in self.heard:
            facts += answer.facts
            if answer.state is AnswerState.FAILED:
                missing[source.name] = answer.note or "no answer"
            asked.append(
                {"source": source.name, "came": answer.state.value, "note": answer.note, "kept": answer.cached}
            )
        ms = round((time.monotonic() - self.began) * 1000)
        return Gathered(tuple(facts), tuple(asked), missing, ms)
