"""What the domain asks of the outside: one Protocol per port, and the frozen values that cross it.

``webapp.clients`` implements these; the domain never imports it. A client makes its calls outside any transaction and
tells what happened by returning a :class:`Receipt` or raising one of the errors below.
"""

import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol, runtime_checkable

from webapp.leads.errors import Ambiguous, Permanent, Transient
from webapp.leads.intake import LeadIn as LeadIn  # clients make them, and import the ports alone
from webapp.leads.states import (
    DeliveryOperation,
    DestinationKind,
    FetchKind,
    Intent,
    LeadStatus,
    NextAction,
    Priority,
    TaskStep,
)
from webapp.leads.types import Fact


@dataclass(frozen=True, slots=True)
class Drained:
    """What one bounded drain of a backlog did. ``more``: something is still due, so ring again."""

    done: int
    more: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A destination as a client needs it. ``credentials`` is still encrypted; whoever builds the client decrypts.

    ``mapping``: target field → template, complete. ``options``: rate budget, what follows an unknown outcome.
    ``sends_again``: where the other side cannot be asked, a call whose outcome is unknown may be repeated. ``shadow``:
    nothing is to be sent. ``problem``: why it could not be called when it was last tried (:class:`Unusable`)."""

    id: uuid.UUID
    workspace_id: uuid.UUID
    kind: DestinationKind
    name: str
    config: Mapping[str, Any]
    credentials: str | None
    managed_by: str | None
    mapping: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    sends_again: bool = False
    shadow: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LeadSnapshot:
    """What a destination may learn of a lead, as it stood just before sending. Times are aware UTC."""

    lead_id: uuid.UUID
    workspace_id: uuid.UUID
    external_id: str | None
    name: str | None
    first_name: str | None
    last_name: str | None
    email: str | None  # normalised when it could be
    phone: str | None  # as sent
    phone_e164: str | None
    company: str | None
    job_title: str | None
    city: str | None
    message: str
    lang: str
    source: str
    budget: float | None
    platform: str | None
    author_name: str | None
    author_id: str | None
    status: LeadStatus
    intent: Intent
    priority: Priority
    next_action: NextAction
    confidence: float
    score: int | None
    qualified: bool | None
    reasons: tuple[str, ...]
    attribution: Mapping[str, Any]
    consent: str | None
    assignee_name: str | None
    assignee_email: str | None
    decided_by: str | None
    created_at: datetime
    event_at: datetime  # of the decision, else of the settling run: the same on every retry
    consent_at: datetime | None = None
    task_text: str | None = None  # what its follow-up task says, as Markdown
    attributes: Mapping[str, str] = field(default_factory=dict)  # whatever was sent besides, nothing sensitive
    facts: Mapping[str, Any] = field(default_factory=dict)  # what enrichment found, by name
    url: str | None = None  # its page in the console
    settled_at: datetime | None = None  # when its first run was done

    @property
    def display_name(self) -> str:
        """Whatever tells people best who this is."""
        said = (self.name, self.author_name, self.company, self.email, self.phone)
        return next((one for one in said if one and any(map(str.isalnum, one))), "Unknown")


@dataclass(frozen=True, slots=True)
class DeliveryRequest:
    """One effect to bring about. ``delivery_id`` never changes for it, so it is the idempotency key.

    ``remote``: remote ids of the lead's steps there, its own included, by action. ``attempt``: the fencing token, for
    logs only. ``fields``: the mapped target fields that yielded something. ``operation``: what to do; ``revision``: how
    often something else was asked for after the first sending. ``address``: where this one goes, for kinds whose
    deliveries have addresses of their own.
    """

    delivery_id: uuid.UUID
    action: str
    attempt: int
    lead: LeadSnapshot
    remote: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    operation: DeliveryOperation = DeliveryOperation.SEND
    revision: int = 0
    address: str | None = None

    @property
    def message_id(self) -> str:
        """For receivers that deduplicate: the same on every attempt, another one for each change."""
        return str(self.delivery_id if not self.revision else uuid.uuid5(self.delivery_id, str(self.revision)))

    @property
    def withdrawn(self) -> bool:
        return self.operation is DeliveryOperation.WITHDRAW


def remote_id_for(delivery_id: uuid.UUID, action: str) -> str:
    """The id that a record gets on the other side where a client may choose it: always the same for a delivery."""
    return str(uuid.uuid5(delivery_id, action))


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was seen on the wire. ``excerpt``: start of the answer, redacted. ``payload``: the body sent, no secrets."""

    http_status: int | None = None
    excerpt: str | None = None
    payload: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The effect is there. ``remote_id``: its id on the other side, if it has one."""

    remote_id: str | None = None
    exchange: Exchange = Exchange()


class DestinationClient(Protocol):
    """One outside service; used by several threads at a time.

    ``reconciles``: the service can be asked, or deduplicates by itself, so that a delivery whose outcome is unknown
    may be tried again without ever taking effect twice.
    """

    reconciles: bool

    def send(self, request: DeliveryRequest) -> Receipt:
        """Bring the effect about. Raises Transient, Ambiguous or Permanent (see below).

        With another ``operation`` than SEND, do that: change what is there, or take it back. Both are only asked of
        actions whose :class:`~webapp.leads.kinds.base.Step` says so and are harmless to repeat. Without a remote id no
        attempt was ever confirmed, so a record that is not there is made. Where it was deleted since, taking it back is
        done, and changing it is Permanent.
        """
        ...

    def render(self, request: DeliveryRequest) -> dict[str, Any]:
        """The body that :meth:`send` would send first, as people may see it; calls nothing."""
        ...

    def probe(self) -> str:
        """A harmless call that shows whether the destination works; what it found, in words. Raises as ``send``."""
        ...

    def reconcile(self, request: DeliveryRequest) -> Receipt | None:
        """After an unknown outcome: the receipt when the effect is there, None when it has to be sent (again)."""
        ...


@runtime_checkable
class TellsAlerts(Protocol):
    """A destination that can also tell people of trouble in the console."""

    def tell(self, message: str, link: str | None) -> None:
        """Errors as of :class:`DestinationClient`."""
        ...


@runtime_checkable
class SendsTogether(Protocol):
    """A destination that takes several leads at a time."""

    def send_together(self, requests: Sequence[DeliveryRequest]) -> Receipt:
        """One effect for all of them, which are SENDs and have got equally far. Errors as of :class:`DestinationClient`."""
        ...


class Clients(Protocol):
    """Gives the client of a destination; called often, so it caches."""

    def client_for(self, target: Target) -> DestinationClient:
        """Raises Unusable when it cannot be made of what is stored."""
        ...


@dataclass(frozen=True, slots=True)
class PersonTasks:
    """What a CRM knows of a person's tasks. ``links``: how many tasks are theirs, whatever has become of them."""

    open_follow_up: bool
    links: int


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A follow-up task to make for a person in the CRM. ``ids``: (task id, link id) to take, the next pair where the
    first is used up; the same on every attempt, so that it is made once. ``asked_at``: what its due date counts from."""

    person_id: str
    lead: LeadSnapshot
    ids: Sequence[tuple[str, str]]
    asked_at: datetime
    assignee_id: str | None


@runtime_checkable
class CrmTasks(Protocol):
    """The tasks of a CRM. Pages: hand the cursor back until it is None. Errors as of :class:`DestinationClient`."""

    def member_page(self, cursor: str | None) -> tuple[Mapping[str, str], str | None]:
        """Member id → name; empty when the credential may not read members."""
        ...

    def open_task_page(self, cursor: str | None) -> tuple[Mapping[str, int], str | None]:
        """Member id → how many of the page's open tasks are theirs."""
        ...

    def tasks_of(self, person_ids: Sequence[str], *, follow_ups: Set[str]) -> Mapping[str, PersonTasks]:
        """Of up to 60 people; who is not in the CRM any more is left out. ``follow_ups``: ids of tasks that are
        follow-ups whatever they are called now."""
        ...

    def create_follow_up(self, wanted: FollowUp) -> str:
        """The id of the task, made and linked to its person; harmless to repeat."""
        ...


@runtime_checkable
class CrmMatch(Protocol):
    """A CRM that can be asked about somebody. Errors as of :class:`DestinationClient`."""

    def match(self, email: str | None, phone: str | None, domain: str | None) -> Sequence[Fact]:
        """``crm_*`` (docs/enrichment.md); empty when neither the person nor the company is there."""
        ...


#: What the stages of deals mean where nobody has said otherwise; the rest is open. Twenty's own last stage is CUSTOMER.
WON_STAGES = ("CUSTOMER", "WON", "CLOSED_WON")
LOST_STAGES = ("LOST", "CLOSED_LOST", "REJECTED")


def same_stage(name: str | None) -> str:
    """A stage without case, blanks and signs: ``Closed won``, ``CLOSED_WON`` and ``ClosedWon`` are one."""
    return "".join(char for char in (name or "").upper() if char.isalnum())


@dataclass(frozen=True, slots=True)
class Deal:
    """A deal as a CRM has it. Times are aware UTC. ``person_id``, ``company_id``: whom it is with, by their ids there."""

    id: str
    stage: str | None
    created_at: datetime
    updated_at: datetime
    value: Decimal | None = None
    currency: str | None = None
    person_id: str | None = None
    company_id: str | None = None


#: Kinds of records of a CRM that are looked after.
RecordKind = Literal["person", "task", "deal"]


@runtime_checkable
class CrmOutcomes(Protocol):
    """A CRM that tells what became of leads, and what was deleted. Pages: hand the cursor back until it is None. Errors
    as of :class:`DestinationClient`; Refused where the credential may not read such records."""

    def deal_page(self, cursor: str | None, *, since: datetime | None) -> tuple[Sequence[Deal], str | None]:
        """Deals in the order of their last change, as far as it was at ``since`` or later."""
        ...

    def deals_with(self, person_ids: Sequence[str], company_ids: Sequence[str]) -> Sequence[Deal]:
        """All deals with these; together up to 60."""
        ...

    def deleted_page(
        self, kind: RecordKind, cursor: str | None, *, since: datetime | None
    ) -> tuple[Mapping[str, datetime], str | None]:
        """Id → when it was deleted, as far as that was at ``since`` or later."""
        ...

    def present(self, kind: RecordKind, ids: Sequence[str]) -> Set[str]:
        """Which of up to 60 records are there."""
        ...

    def is_gone(self, kind: RecordKind, record_id: str) -> bool:
        """A second look at a single record that was not among those present."""
        ...


@dataclass(frozen=True, slots=True)
class FetchTask:
    """One thing to fetch from outside. ``target``: a page's URL, or a leadgen id; ``payload``: what announced it.
    ``tries``: calls made before this one since a person last asked."""

    id: uuid.UUID
    workspace_id: uuid.UUID
    kind: FetchKind
    target: str
    payload: Mapping[str, Any]
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was found. Each lead has an ``external_id`` or an ``external_message_id`` that is the same whenever the
    same thing is fetched again, so that it never makes a second lead. ``result``: JSON for the row, without the leads.
    ``pause``: seconds for which other targets at the same host are to be left alone."""

    leads: Sequence[LeadIn] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    pause: float = 0.0


class Fetcher(Protocol):
    """Fetches one kind of target; used by several threads at a time, outside any transaction."""

    def fetch(self, task: FetchTask) -> Fetched:
        """Raises Throttled (asked to wait, or waiting its turn: costs no try), another Transient (tried again with
        back-off, no sooner than its ``retry_after``) or Permanent (given up; its message is shown to people)."""
        ...


class PageTokens(Protocol):
    """The access tokens of a workspace's social pages; used by several threads at a time."""

    def token(self, workspace_id: uuid.UUID, page_id: str) -> str | None:
        """The token that reads what was sent to a Facebook page, None without one. Permanent when it is unreadable."""
        ...

    def used(self, workspace_id: uuid.UUID, page_id: str, problem: str | None) -> None:
        """Say what came of it: ``problem`` in words when the token was refused, None when it worked."""
        ...


@dataclass(frozen=True, slots=True)
class TokenState:
    """What a test of an access token found. ``problem``: why it does not work, in words; ``expires_at`` None: it does
    not expire, or nobody said. ``lacks``: permissions without which a part of it does not work."""

    problem: str | None = None
    expires_at: datetime | None = None
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A message for a model to judge. ``text`` has been masked and cut already: what stands here leaves the house."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What one question took. ``tokens_*`` None: nobody knows; ``estimated``: the other side did not say, they are
    guessed by length. ``cost`` (US dollars) None: there is no price for the model."""

    model: str
    ms: int
    calls: int = 1
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a model says of a message. ``confidence`` is its own (0..1), not yet a probability that can be relied on.
    ``suspicious``: the message tries to give it orders."""

    intent: Intent
    priority: Priority
    confidence: float
    reason: str
    industry: str | None
    suspicious: bool
    usage: Usage


class Model(Protocol):
    """A language model that judges messages; used by several threads at a time, outside any transaction."""

    def judge(self, question: Question) -> Opinion:
        """Raises ModelFailed; within its own time limit, as far as the other side's bytes let it."""
        ...


@dataclass(frozen=True, slots=True)
class Brief:
    """What a model may know to write a follow-up task. ``message`` has been masked and cut already."""

    message: str
    intent: Intent
    priority: Priority
    language: str  # en | vi


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a model suggests, unchecked. ``points``: what it takes for quotations; ``steps``: (step, quotation or
    empty)."""

    summary: str
    points: tuple[str, ...]
    steps: tuple[tuple[TaskStep, str], ...]
    usage: Usage


class Copywriter(Protocol):
    """A language model that helps to write follow-up tasks; used by several threads at a time, outside any
    transaction."""

    def suggest(self, brief: Brief) -> Suggestion:
        """Raises ModelFailed; within its own time limit, as far as the other side's bytes let it."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """A company-data or e-mail-verification service as an admin described it. ``url`` holds ``{domain}`` or ``{email}``;
    ``auth``: none | header | query, under ``auth_name``; ``secret`` is still encrypted."""

    url: str
    auth: str = "none"
    auth_name: str | None = None
    auth_prefix: str = ""
    secret: str | None = None


class LookupClients(Protocol):
    """What the outside knows of a domain or a person; used by several threads at a time, outside any transaction.

    Each raises NotFound (it knows nothing of the subject), Permanent (there is nothing to be had, and why), Throttled,
    Refused (``destination_wide``: our key), or another Transient; each within its own time limit. The provider of the
    facts is filled in by the caller.
    """

    def mail_server(self, domain: str) -> Sequence[Fact]:
        """``email_mx``. Transient when the DNS does not answer."""
        ...

    def home_page(self, domain: str) -> Sequence[Fact]:
        """What the domain's home page says of its company."""
        ...

    def ask(self, service: Service, subject: str) -> Any:
        """The service's answer, parsed."""
        ...

    def crm(self, target: Target, email: str | None, phone: str | None, domain: str | None) -> Sequence[Fact]:
        """``crm_*``: is this person or company known there, and whose is it? Empty when it is not."""
        ...


class ModelFailed(Transient):
    """No usable opinion: no answer in time, an error, a refusal, or an answer that breaks the schema even on asking
    again. The message is plain words and holds nothing of what was asked. ``usage``: what it took all the same."""

    def __init__(self, message: str, *, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage


class Throttled(Transient):
    """The other side asks everybody to wait (429). Not the delivery's fault, so it costs none of its tries."""

    def __init__(self, message: str, *, retry_after: float, exchange: Exchange = Exchange()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.exchange = exchange


class Unusable(Transient):
    """The destination cannot be used as it is set up: credentials that cannot be read or are refused, a missing setting, a
    certificate that is not good, a mail server that refuses the sender. It has done nothing and would do nothing for any
    other delivery, so no attempt is recorded and no try used; where it was asked, the message is in its words. People have
    to put it right. ``remedy``: how."""

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Unreached(Transient):
    """Failed for now, and surely without effect (no connection, or an answer that says so)."""

    def __init__(self, message: str, *, retry_after: float | None = None, exchange: Exchange = Exchange()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.exchange = exchange


class Partly(Unreached):
    """Done for some, and surely not for the others, who are to be tried again. ``remote_id``: what the next try has to
    know of it."""

    def __init__(self, message: str, *, remote_id: str, exchange: Exchange = Exchange()) -> None:
        super().__init__(message, exchange=exchange)
        self.remote_id = remote_id


class OutcomeUnknown(Ambiguous):
    """Sent, and then a timeout, a reset or a 5xx: it may have taken effect."""

    def __init__(self, message: str, *, retry_after: float | None = None, exchange: Exchange = Exchange()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.exchange = exchange


class Refused(Permanent):
    """The other side said no for good.

    ``destination_wide``: it would refuse every other delivery too (bad credential), which counts for the breaker.
    ``gone``: it wants no more deliveries at all (410), so the destination is switched off.
    """

    def __init__(
        self,
        message: str,
        *,
        exchange: Exchange = Exchange(),
        destination_wide: bool = False,
        gone: bool = False,
    ) -> None:
        super().__init__(message)
        self.exchange = exchange
        self.destination_wide = destination_wide
        self.gone = gone


def exchange_of(error: BaseException) -> Exchange:
    """What an error knows of the wire; empty when it never got there."""
    found = getattr(error, "exchange", None)
    return found if isinstance(found, Exchange) else Exchange()
