"""Graph's client against the stand-in: a form's answers become a lead, and each error what it means for us."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.fakes.graph import TOKEN, GraphFake, Token
from webapp.clients.graph import GraphClient, TokenRefused
from webapp.clients.leadgen import LeadgenFetcher
from webapp.leads.errors import Permanent, Transient
from webapp.leads.ports import FetchTask, LeadIn, Throttled
from webapp.leads.states import FetchKind
from webapp.security.fields import FieldCipher

WORKSPACE = uuid.UUID(int=5)
CIPHER = FieldCipher([Fernet.generate_key().decode()])


@pytest.fixture
def graph() -> Iterator[GraphFake]:
    with GraphFake() as fake:
        fake.tokens[TOKEN] = Token(("PAGE",))
        yield fake


class Tokens:
    """What pages have, and what was said of it."""

    def __init__(self, **tokens: str) -> None:
        self.tokens = tokens
        self.said: list[tuple[str, str | None]] = []

    def token(self, workspace_id: uuid.UUID, page_id: str) -> str | None:
        assert workspace_id == WORKSPACE
        return self.tokens.get(page_id)

    def used(self, workspace_id: uuid.UUID, page_id: str, problem: str | None) -> None:
        self.said.append((page_id, problem))


def client(graph: GraphFake, *, timeout: float = 5.0, version: str = "v24.0") -> GraphClient:
    return GraphClient(graph.url, version, timeout=timeout)


def task(leadgen_id: str = "1001", page_id: Any = "PAGE") -> FetchTask:
    change = {"field": "leadgen", "value": {"leadgen_id": leadgen_id, "page_id": page_id}}
    return FetchTask(uuid.uuid4(), WORKSPACE, FetchKind.LEADGEN, leadgen_id, change)


def fetched(graph: GraphFake, tokens: Tokens | None = None, *, of: FetchTask | None = None, **over: Any) -> LeadIn:
    fetcher = LeadgenFetcher(client(graph, **over), tokens or Tokens(PAGE=TOKEN), CIPHER.seal)
    (lead,) = fetcher.fetch(of or task()).leads
    return lead


def test_the_answers_become_a_lead(graph: GraphFake) -> None:
    graph.fill_in(
        "1001",
        "PAGE",
        full_name="Ana Torres",
        email="ana@example.com",
        phone_number="+14155552671",
        company_name="Acme",
        job_title="CTO",
        city="Lyon",
        **{"how_many_seats?": "50", "which_plan": ["basic", "gold"], "comments": "Call me, what is the price?"},
    )
    lead = fetched(graph)
    assert (lead.name, lead.email, lead.phone, lead.company) == (
        "Ana Torres",
        "ana@example.com",
        "+14155552671",
        "Acme",
    )
    assert lead.message == "Call me, what is the price?\nhow many seats? 50\nwhich plan: basic, gold"
    assert (lead.platform, lead.source_type, lead.external_message_id) == ("facebook", "leadgen", "1001")
    assert lead.attributes == {
        "job_title": "CTO", "city": "Lyon", "ad_id": "6042", "form_id": "77", "page_id": "PAGE",
        "created_time": "2018-02-28T08:49:14+00:00",
    }  # fmt: skip
    assert lead.payload["answers"]["full_name"] == "Ana Torres"
    (call,) = graph.calls("GET")
    assert call.path == "/v24.0/1001" and call.query == {"fields": "id,created_time,ad_id,form_id,field_data"}
    assert call.headers["authorization"] == f"Bearer {TOKEN}"  # and not in the address, which ends up in logs


def test_a_form_s_own_words_for_the_usual_questions(graph: GraphFake) -> None:
    graph.fill_in("1001", "PAGE", first_name="Ana", last_name="Torres", work_email="ana@acme.example", message="Hi")
    lead = fetched(graph)
    assert (lead.name, lead.email, lead.phone, lead.message) == ("Ana Torres", "ana@acme.example", None, "Hi")


def test_sensitive_answers_are_sealed_everywhere(graph: GraphFake) -> None:
    graph.fill_in("1001", "PAGE", full_name="Ana", date_of_birth="1990-01-02", your_monthly_salary="4321", seats="3")
    lead = fetched(graph)
    assert "1990" not in repr(lead) and "4321" not in repr(lead)
    assert CIPHER.decrypt(lead.attributes["date_of_birth"]) == "1990-01-02"
    assert CIPHER.decrypt(lead.payload["answers"]["your_monthly_salary"]) == "4321"
    assert lead.message == "seats: 3"


def test_odd_answers_are_still_a_lead_that_can_be_stored(graph: GraphFake) -> None:
    graph.fill_in("1001", "PAGE", full_name="A\x00na", note="x" * 30_000, empty=[])
    graph.leads["1001"][1]["field_data"] += ["nonsense", {"name": 7}, {"name": "n", "values": "no list"}]
    graph.leads["1001"][1].update(created_time="yesterday", ad_id=6042)
    lead = fetched(graph)
    assert lead.name == "Ana" and len(lead.message) == 20_000
    assert lead.attributes["created_time"] == "yesterday" and lead.attributes["ad_id"] == "6042"
    json.dumps(lead.payload)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (190, TokenRefused, "connect the page again"),
        (10, TokenRefused, "permission"),
        (200, TokenRefused, "permission"),
        (4, Throttled, "asks to wait"),
        (17, Throttled, "asks to wait"),
        (32, Throttled, "asks to wait"),
        (613, Throttled, "asks to wait"),
        (80005, Throttled, "asks to wait"),
        (429, Throttled, "429"),
        (1, Transient, "problem of its own"),
        (2, Transient, "problem of its own"),
        (503, Transient, "503"),
        (100, Permanent, "no such thing"),
        (404, Permanent, "404"),
    ],
)
def test_what_each_error_means(graph: GraphFake, code: int, kind: type[Exception], words: str) -> None:
    graph.fill_in("1001", "PAGE", full_name="Ana")
    graph.fail_next(kind=str(code), retry_after="7")
    tokens = Tokens(PAGE=TOKEN)
    with pytest.raises(kind, match=words) as raised:
        fetched(graph, tokens)
    assert TOKEN not in str(raised.value)
    if kind is Throttled:
        assert raised.value.retry_after == (7 if code == 429 else 300)  # type: ignore[attr-defined]
    # Trouble with the token is the page's, and shown there; anything else is not.
    assert [bool(problem) for _, problem in tokens.said] == ([True] if kind is TokenRefused else [])
    assert fetched(graph, tokens).name == "Ana"
    assert tokens.said[-1] == ("PAGE", None)


@pytest.mark.parametrize("kind", ["reset_before", "hang", "garbage"])
def test_no_usable_answer_is_tried_again(graph: GraphFake, kind: str) -> None:
    graph.fill_in("1001", "PAGE", full_name="Ana")
    graph.fail_next(kind=kind, seconds=30)
    with pytest.raises(Transient):
        fetched(graph, timeout=0.3)
    assert fetched(graph).name == "Ana"


def test_an_answer_without_answers_is_tried_again(graph: GraphFake) -> None:
    graph.leads["1001"] = ("PAGE", {"id": "1001"})
    with pytest.raises(Transient):
        fetched(graph)


def test_a_page_without_a_token_asks_nobody(graph: GraphFake) -> None:
    with pytest.raises(Permanent, match="no access token"):
        fetched(graph, Tokens())
    with pytest.raises(Permanent, match="which page"):
        fetched(graph, of=task(page_id=None))
    assert graph.calls() == []


def test_a_token_of_another_page_does_not_open_this_one(graph: GraphFake) -> None:
    graph.fill_in("1001", "OTHER", full_name="Ana")
    with pytest.raises(Permanent, match="may not see it"):
        fetched(graph)


def test_checking_a_token(graph: GraphFake) -> None:
    ends = datetime(2027, 3, 1, tzinfo=UTC)
    graph.tokens |= {
        "t-ends": Token(("PAGE",), expires_at=int(ends.timestamp())),
        "t-quiet": Token(("PAGE",), asks_about_itself=False),
        "t-less": Token(("PAGE",), scopes=("pages_show_list",)),
        "t-dead": Token(("PAGE",), valid=False),
        "t-other": Token(("ELSE",)),
    }
    graph_client = client(graph)
    assert graph_client.check("facebook", "PAGE", TOKEN).problem is None
    assert graph_client.check("facebook", "PAGE", TOKEN).expires_at is None
    assert graph_client.check("facebook", "PAGE", "t-ends").expires_at == ends
    assert graph_client.check("facebook", "PAGE", "t-quiet").problem is None
    assert graph_client.check("facebook", "PAGE", "t-less").lacks == ("leads_retrieval",)
    assert graph_client.check("whatsapp", "PAGE", "t-less").lacks == ()
    assert "connect the page again" in str(graph_client.check("facebook", "PAGE", "t-dead").problem)
    assert "may not see it" in str(graph_client.check("facebook", "PAGE", "t-other").problem)
    graph.fail_next(kind="2")
    with pytest.raises(Transient):
        graph_client.check("facebook", "PAGE", TOKEN)
