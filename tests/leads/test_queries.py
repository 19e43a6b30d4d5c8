"""The read side of leads: counts equal lists, pages neither repeat nor miss, garbage is refused in words."""

import base64
import re
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from tests.factories import make_lead, make_user, make_workspace
from webapp.leads import filters, queries
from webapp.leads.errors import Invalid
from webapp.leads.queries import LeadFilter
from webapp.leads.states import Intent, LeadStatus, Priority, RouteState
from webapp.models import Lead, Workspace


@pytest.fixture
def many(session: Session, workspace: Workspace) -> Any:
    """36 leads of every status, intent and priority in turn; every third is assigned to ``me``."""
    me = make_user(session, workspace)
    statuses, priorities = list(LeadStatus), list(Priority)
    intents = [Intent.COMPLAINT, Intent.INQUIRY, Intent.SPAM]
    for n in range(36):
        make_lead(
            session, workspace, f"message number {n}", status=statuses[n % 6], intent=intents[n % 3],
            priority=priorities[n % 4], source="form" if n % 2 else "facebook",
            assignee_id=me.id if n % 3 == 0 else None,
        )  # fmt: skip
    return me


def walk(session: Session, workspace: Workspace, wanted: LeadFilter, **kwargs: Any) -> list[uuid.UUID]:
    seen, cursor = [], None
    while True:
        page = queries.page(session, workspace.id, wanted, cursor=cursor, limit=4, **kwargs)
        seen += [row.id for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            return seen


@pytest.mark.parametrize(
    "given",
    [{}, {"intent": "complaint"}, {"priority": "P0,P1"}, {"source": "form"}, {"assignee": "none"}, {"assignee": "me"},
     {"q": "MESSAGE"}, {"q": "number 12"}, {"q": "nothing such"}, {"intent": "spam", "source": "form", "q": "message"}],
)  # fmt: skip
def test_every_count_equals_its_list(session: Session, workspace: Workspace, many: Any, given: dict[str, str]) -> None:
    for view in queries.VIEWS:
        wanted = LeadFilter.parse(given | {"view": view}, me=many.id)
        listed = walk(session, workspace, wanted)
        counted = queries.counts(session, workspace.id, wanted, me=many.id)
        assert counted.of(view).n == len(listed) == len(set(listed)), view
        assert not counted.of(view).capped
        # With the glance above the list by one statement they are the same.
        together = queries.counts_and_glance(session, workspace.id, wanted, me=many.id)
        assert together == (counted, queries.glance(session, workspace.id))


def test_counts_of_more_than_can_be_counted_say_so(
    session: Session, workspace: Workspace, many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webapp.leads.counts.COUNT_CAP", 5)
    plain = queries.counts(session, workspace.id, LeadFilter())
    assert str(plain.by_status[LeadStatus.NEW_AUTO]) == "5+"
    assert plain.by_status[LeadStatus.NEW_AUTO].capped
    text = queries.counts(session, workspace.id, LeadFilter(text="message"))
    assert all(str(count).endswith("+") for count in text.by_status.values())


@pytest.mark.parametrize("order", queries.ORDERS)
def test_pages_neither_repeat_nor_miss_while_leads_arrive(
    session: Session, workspace: Workspace, many: Any, order: str
) -> None:
    before = set(session.scalars(sa.select(Lead.id)))
    seen: list[uuid.UUID] = []
    cursor = None
    while True:
        page = queries.page(session, workspace.id, LeadFilter(), cursor=cursor, limit=5, order=order)
        seen += [row.id for row in page.rows]
        make_lead(session, workspace, f"arrived meanwhile {len(seen)}", priority=Priority.P0)
        cursor = page.next_cursor
        if cursor is None or len(seen) > 100:
            break
    assert len(seen) == len(set(seen))
    assert before <= set(seen)


def test_leads_of_one_instant_are_not_lost_between_pages(session: Session, workspace: Workspace, many: Any) -> None:
    session.execute(sa.update(Lead).values(created_at=sa.func.now()))
    session.commit()
    assert len(walk(session, workspace, LeadFilter())) == 36


@pytest.mark.parametrize("order", queries.ORDERS)
def test_going_back_shows_the_page_before(session: Session, workspace: Workspace, many: Any, order: str) -> None:
    def page(cursor: str | None) -> queries.Page:
        return queries.page(session, workspace.id, LeadFilter(), cursor=cursor, limit=10, order=order)

    first = page(None)
    second = page(first.next_cursor)
    third = page(second.next_cursor)
    assert first.prev_cursor is None
    assert page(second.prev_cursor).rows == first.rows
    assert page(page(third.next_cursor).prev_cursor).rows == third.rows
    assert page(page(second.prev_cursor).next_cursor).rows == second.rows
    assert page(second.prev_cursor).prev_cursor is None


def test_what_waits_goes_by_urgency_then_by_age(session: Session, workspace: Workspace, many: Any) -> None:
    rows = queries.page(session, workspace.id, LeadFilter.parse({"view": "waiting"})).rows
    assert [(r.priority, r.created_at) for r in rows] == sorted((r.priority, r.created_at) for r in rows)


@pytest.mark.parametrize(
    "cursor",
    ["x", "%%%", "a" * 500, "\x00", "é", base64.urlsafe_b64encode(b"[1]").decode(),
     base64.urlsafe_b64encode(b'["newest",0,"2026-01-01","x"]').decode(),
     base64.urlsafe_b64encode(b'["newest",0,"2026-01-01T00:00:00","00000000-0000-0000-0000-000000000000"]').decode(),
     base64.urlsafe_b64encode(b'{"a":1}').decode(), base64.urlsafe_b64encode(b'["newest",[],{},null]').decode()],
)  # fmt: skip
def test_a_garbled_cursor_is_refused_in_words(session: Session, workspace: Workspace, cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        queries.page(session, workspace.id, LeadFilter(), cursor=cursor)
    assert refused.value.details[0].field == "cursor"


def test_a_cursor_of_another_order_is_refused(session: Session, workspace: Workspace, many: Any) -> None:
    cursor = queries.page(session, workspace.id, LeadFilter(), limit=3, order="newest").next_cursor
    with pytest.raises(Invalid):
        queries.page(session, workspace.id, LeadFilter(), cursor=cursor, order="urgent")


def test_every_bad_parameter_is_named_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        LeadFilter.parse({"view": "x", "intent": "buy", "priority": "P9", "assignee": "bob", "status": "old"})
    assert {problem.field for problem in refused.value.details} == {"view", "intent", "priority", "assignee", "status"}


def test_values_repeat_or_stand_in_one_parameter() -> None:
    both = frozenset({Intent.SPAM, Intent.JOB})
    assert LeadFilter.parse(MultiDict([("intent", "spam"), ("intent", "job")])).intents == both
    assert LeadFilter.parse({"intent": "spam, job"}).intents == both


@pytest.mark.parametrize("text", ["'", "\\", ":*", "a' | 'b", "& | !", "(((", "\x00", "%", "🙂", "x" * 5000])
def test_no_text_breaks_the_search(session: Session, workspace: Workspace, many: Any, text: str) -> None:
    wanted = LeadFilter.parse({"q": text})
    queries.page(session, workspace.id, wanted)
    queries.counts(session, workspace.id, wanted)


def test_search_ignores_case_and_diacritics(session: Session, workspace: Workspace) -> None:
    lead = make_lead(session, workspace, "Cho tôi báo giá gói Enterprise", name="Đỗ Hải Yến")
    for text in ("bao gia", "BÁO GIÁ", "do hai", "enterpr"):
        assert [r.id for r in queries.page(session, workspace.id, LeadFilter(text=text)).rows] == [lead.id]


def test_another_workspace_is_never_seen(session: Session, workspace: Workspace, many: Any) -> None:
    other = make_workspace(session)
    theirs = make_lead(session, other, "message of theirs")
    assert [row.id for row in queries.page(session, other.id, LeadFilter()).rows] == [theirs.id]
    assert queries.counts(session, other.id, LeadFilter(text="message")).of("all").n == 1
    assert queries.glance(session, other.id).waiting.n <= 1
    assert queries.rows_by_id(session, workspace.id, [theirs.id]) == []
    assert queries.neighbour(session, workspace.id, LeadFilter(), theirs.id) is None


def test_the_neighbour_is_the_next_row_then_the_one_before(session: Session, workspace: Workspace, many: Any) -> None:
    wanted = LeadFilter.parse({"view": "waiting"})
    rows = queries.page(session, workspace.id, wanted).rows
    assert queries.neighbour(session, workspace.id, wanted, rows[0].id) == rows[1].id
    assert queries.neighbour(session, workspace.id, wanted, rows[-1].id) == rows[-2].id


def test_the_glance_counts_what_waits_and_the_oldest_of_it(session: Session, workspace: Workspace, many: Any) -> None:
    waiting = sa.select(Lead.created_at).where(Lead.status.in_(queries.VIEWS["waiting"])).order_by(Lead.created_at)
    seen = queries.glance(session, workspace.id)
    assert seen.waiting.n == 12
    assert seen.oldest == session.scalars(waiting).first()


def test_a_statement_that_is_kept_serves_every_workspace_and_everybody(
    session: Session, workspace: Workspace, many: Any
) -> None:
    other = make_workspace(session)
    theirs = make_lead(session, other, "theirs", status=LeadStatus.NEW_DRAFT, assignee_id=many.id)
    for text in ("mine", "mine too"):
        make_lead(session, workspace, text, status=LeadStatus.NEW_DRAFT, assignee_id=many.id)
    wanted = LeadFilter.parse({"view": "waiting"})
    for here, me, mine in ((workspace, many.id, 2), (other, many.id, 1), (other, uuid.uuid4(), 0)):
        counted, seen = queries.counts_and_glance(session, here.id, wanted, me=me)
        assert (counted.mine.n, seen.waiting) == (mine, counted.of("waiting"))
    assert [row.id for row in queries.page(session, other.id, wanted).rows] == [theirs.id]
    assert len(queries.page(session, workspace.id, wanted).rows) == 14


def test_what_waits_is_counted_from_indexes_alone(session: Session, workspace: Workspace) -> None:
    for state in (RouteState.MANUAL, RouteState.BACKLOG):
        make_lead(session, workspace, status=LeadStatus.NEW_DRAFT, route_state=state)
    of_one = {"id", "external_id", "dedupe_key", "external_message_id", "contact"}
    columns = ", ".join(column.name for column in Lead.__table__.columns if column.name not in of_one)
    many = f"INSERT INTO leads (id, {columns}) SELECT gen_random_uuid(), {columns} FROM leads, generate_series(1, 1000)"
    session.execute(sa.text(many))
    session.commit()
    with session.get_bind().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE leads"))
    narrowed = {"intent": "inquiry_price", "priority": "P1", "source": "website_form", "assignee": "none"}
    session.execute(sa.text("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"))
    for view in ("overdue", "manual", "backlog"):
        for more in ({}, narrowed):
            where = filters.all_conditions(workspace.id, LeadFilter.parse({"view": view} | more))
            counted = sa.select(sa.func.count()).select_from(Lead).where(*where)
            text = counted.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
            plan = "\n".join(session.connection().exec_driver_sql(f"EXPLAIN {text}").scalars())
            assert re.search("Index Only Scan using ix_leads_(sla|unrouted|backlog) ", plan), (view, more, plan)


def test_lists_do_not_read_whole_messages(session: Session, workspace: Workspace) -> None:
    make_lead(session, workspace, "x" * 5000)
    (row,) = queries.page(session, workspace.id, LeadFilter()).rows
    assert row.excerpt == "x" * queries.EXCERPT
