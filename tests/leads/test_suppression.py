"""The suppression list: who is on it, what that means at intake, in a run and before a delivery, and what changes later."""

import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import make_lead, make_user, make_workspace
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.leads.delivering import drain as deliver_due
from tests.leads.delivering import webhook_destination
from tests.leads.importing import accept_many
from tests.leads.test_run import drain, fresh, says
from webapp.leads import intake, outbox, queries, review, suppression, suppression_walk
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.filters import LeadFilter
from webapp.leads.review import Actor
from webapp.leads.states import (
    DecisionAction,
    DeliveryState,
    Door,
    LeadStatus,
    RunStatus,
    RunTrigger,
    SuppressionKind,
    SuppressionMatch,
)
from webapp.leads.suppression import LISTS, Line
from webapp.leads.suppression_match import Contact, Entry, Matcher, parsed
from webapp.models import AuditEvent, Delivery, Lead, Run, Suppression, SuppressionList
from webapp.models.base import new_id
from webapp.security.keys import tenant_of

ANN = Actor("Ann")
HOOK = SimpleNamespace(url="https://a.example/hook")


def put(session, workspace, *values, kind=SuppressionKind.COMPETITOR, **over):
    """On the list, and known to this process at once."""
    lines = [Line(value, kind, **over) for value in values]
    found = suppression.add(session, workspace.id, lines, region="US", actor="Ann")
    session.commit()
    LISTS.clear()
    return found


def entry(session, workspace, value):
    return session.scalars(
        sa.select(Suppression).where(Suppression.workspace_id == workspace.id, Suppression.value == value)
    ).one()


def take_off(session, workspace, value):
    suppression.remove(session, workspace.id, entry(session, workspace, value).id, actor="Bob")
    session.commit()


def walk(session_factory, **kwargs):
    return suppression_walk.process(session_factory, **kwargs)


def events(session, lead, kind):
    session.rollback()
    query = sa.select(AuditEvent.details).where(AuditEvent.lead_id == lead.id, AuditEvent.event_type == kind)
    return session.scalars(query).all()


class TestWhatPeopleWrite:
    @pytest.mark.parametrize(
        ("text", "match", "key"),
        [
            ("Jane.Doe+x@Gmail.com", SuppressionMatch.EMAIL, "janedoe@gmail.com"),
            ("rival.com", SuppressionMatch.DOMAIN, "rival.com"),
            ("https://www.Rival.com/about", SuppressionMatch.DOMAIN, "rival.com"),
            ("@rival.com", SuppressionMatch.DOMAIN, "rival.com"),
            ("bücher.de", SuppressionMatch.DOMAIN, "xn--bcher-kva.de"),
            ("(415) 555-2671", SuppressionMatch.PHONE, "+14155552671"),
            ("Test*", SuppressionMatch.PATTERN, "test*"),
        ],
    )
    def test_what_it_is_is_told_by_its_looks(self, text, match, key):
        found = parsed(text, region="US")
        assert (found[0], found[2]) == (match, key)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "1 to 254"), ("gmail.com", "everybody"), ("co.uk", "anybody"), ("com", "no domain"),
            ("not a domain", "no domain"), ("a@b", "no e-mail"), ("+999 123456", "no phone"), ("*a*", "at least 3"),
            ("x" * 300, "1 to 254"), ("a\x00bc*", "printable"),
        ],
    )  # fmt: skip
    def test_what_would_be_about_everybody_or_nobody_is_refused(self, text, said):
        with pytest.raises(Invalid) as refused:
            parsed(text, region="US")
        assert said in refused.value.details[0].reason

    @given(st.text(max_size=40))
    def test_nothing_that_people_paste_breaks_it(self, text):
        try:
            match, value, key = parsed(text, region="US")
        except Invalid:
            return
        assert value and key and match in SuppressionMatch
        one = Entry(new_id(), SuppressionKind.TEST, match, key, value)
        Matcher.of([one]).find(Contact(text, None, text, text, text))


class TestComparing:
    def finds(self, text, **contact):
        match, value, key = parsed(text, region="US")
        one = Entry(new_id(), SuppressionKind.OTHER, match, key, value)
        whole = {"email": None, "phone": None, "name": None, "company": None, "message": ""} | contact
        return Matcher.of([one]).find(Contact(**whole)) is not None

    def test_a_domain_is_also_what_lies_under_it_and_nothing_else(self):
        assert self.finds("rival.com", email="a@rival.com")
        assert self.finds("rival.com", email="a@mail.rival.com")
        assert not self.finds("rival.com", email="a@notrival.com")
        assert not self.finds("mail.rival.com", email="a@rival.com")

    def test_an_address_is_one_mailbox_however_it_is_spelt(self):
        assert self.finds("jane.doe@gmail.com", email="janedoe+spam@googlemail.com")
        assert not self.finds("jane.doe@gmail.com", email="jane@gmail.com")

    @pytest.mark.parametrize("field", ["name", "company", "message", "email"])
    def test_a_pattern_is_compared_as_a_whole_without_case_and_accents(self, field):
        assert self.finds("tést *", **{field: "TEST lead 5"})
        assert not self.finds("test *", **{field: "a test lead"})
        assert self.finds("*test*", **{field: "a test lead"})

    def test_nothing_but_the_asterisk_is_special(self):
        assert self.finds("[test]?*", message="[test]?!")
        assert not self.finds("[test]?*", message="t!")

    def test_one_that_has_run_out_is_about_nobody(self):
        now = datetime.now(UTC)
        one = Entry(new_id(), SuppressionKind.OTHER, SuppressionMatch.DOMAIN, "rival.com", "rival.com", now)
        contact = Contact("a@rival.com", None, None, None, "")
        assert Matcher.of([one]).find(contact, now=now) is None
        assert Matcher.of([one]).find(contact, now=now - timedelta(seconds=1)) is one


class TestTheList:
    def test_lines_are_added_once_and_bad_ones_are_told(self, session, workspace):
        found = put(session, workspace, "rival.com", "gmail.com", "www.rival.com", "a@b.example", "")
        assert (found.added, found.known) == (2, 0)
        assert [(number, text) for number, text, _ in found.problems] == [(2, "gmail.com"), (5, "")]
        assert put(session, workspace, "rival.com", "new.example").known == 1
        assert suppression.count(session, workspace.id) == 3

    def test_what_was_taken_off_can_be_put_on_again_and_stays_told(self, session, workspace):
        put(session, workspace, "rival.com")
        take_off(session, workspace, "rival.com")
        assert suppression.count(session, workspace.id) == 0
        assert put(session, workspace, "rival.com").added == 1
        session.rollback()
        gone = session.scalars(sa.select(Suppression).where(Suppression.removed_at.is_not(None))).one()
        assert (gone.added_by, gone.removed_by) == ("Ann", "Bob")
        with pytest.raises(Conflict, match="Bob"):
            suppression.remove(session, workspace.id, gone.id, actor="Cy")

    def test_another_workspaces_entry_is_none_and_their_list_is_theirs(self, session, workspace):
        there = make_workspace(session)
        put(session, there, "rival.com")
        with pytest.raises(NotFound):
            suppression.remove(session, workspace.id, entry(session, there, "rival.com").id, actor="Bob")
        session.rollback()
        assert make_lead(session, workspace, email="a@rival.com").suppression_id is None
        assert suppression.listing(session, workspace.id) == []

    def test_it_is_searched_and_counts_the_leads_it_holds(self, session, workspace):
        put(session, workspace, "rival.com", "other.example", reason="they look at our prices")
        put(session, workspace, "100%.*", kind=SuppressionKind.TEST)
        make_lead(session, workspace, email="a@rival.com")
        make_lead(session, workspace, email="b@rival.com")
        (row,) = suppression.listing(session, workspace.id, text="RIVAL")
        assert (row.entry.value, row.hits) == ("rival.com", 2)
        assert suppression.count(session, workspace.id, text="prices") == 2
        assert suppression.count(session, workspace.id, text="%") == 1
        assert suppression.count(session, workspace.id, kind=SuppressionKind.TEST) == 1

    def test_it_has_room_for_so_many(self, session, workspace, monkeypatch):
        monkeypatch.setattr(suppression, "MAX_PATTERNS", 1)
        with pytest.raises(Invalid, match="at most"):
            put(session, workspace, "one *", "two *")
        session.rollback()
        assert suppression.count(session, workspace.id) == 0

    def test_entries_run_out(self, session, workspace):
        soon = datetime.now(UTC) + timedelta(days=1)
        put(session, workspace, "rival.com", expires_at=soon)
        assert put(session, workspace, "late.example", expires_at=soon - timedelta(days=2)).problems
        assert suppression.run_out(session) == 0
        session.execute(sa.update(Suppression).values(expires_at=sa.func.now() - timedelta(seconds=1)))
        session.commit()
        before = session.scalars(sa.select(SuppressionList.version)).one()
        assert suppression.run_out(session) == 1
        session.commit()
        assert session.scalars(sa.select(SuppressionList.version)).one() == before + 1
        assert suppression.count(session, workspace.id) == 0


class TestCopies:
    def test_an_unchanged_list_costs_a_look_at_its_version_and_only_now_and_then(self, session, workspace, monkeypatch):
        put(session, workspace, "rival.com")
        asked = []
        run = suppression.intake_sql.run
        monkeypatch.setattr(suppression.intake_sql, "run", lambda *given: asked.append(given[1]) or run(*given))
        lists = suppression.Lists()
        for _ in range(50):
            assert lists.of(session, workspace.id)
        assert asked == [suppression._VERSION, suppression._ENTRIES]
        lists.of(session, workspace.id, max_age=0.0)
        assert asked[2:] == [suppression._VERSION]

    def test_a_change_is_seen_once_the_copy_is_old(self, session, workspace):
        lists = suppression.Lists()
        assert not lists.of(session, workspace.id)
        put(session, workspace, "rival.com")
        assert not lists.of(session, workspace.id)
        assert lists.of(session, workspace.id, max_age=0.0)


class TestIntake:
    def test_a_suppressed_lead_is_kept_as_a_draft_at_most(self, session, workspace):
        put(session, workspace, "rival.com")
        sure = "I want to buy 50 licenses today, please send the invoice"
        free = make_lead(session, workspace, sure, email="a@acme.example")
        held = make_lead(session, workspace, sure, email="a@mail.rival.com")
        assert free.status is LeadStatus.NEW_AUTO
        assert (held.status, held.suppression_id) == (LeadStatus.NEW_DRAFT, entry(session, workspace, "rival.com").id)
        (event,) = events(session, held, "LEAD_SIGNAL_CREATED")
        assert (event["status"], event["suppressed"]) == ("new_draft", "competitor")

    def test_numbers_words_and_many_at_once(self, session, workspace):
        put(session, workspace, "+1 415 555 2671", "asdf*")
        tenant = tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)
        rows = [
            intake.LeadIn(Door.IMPORT, "How much is it?", phone="(415) 555-2671"),
            intake.LeadIn(Door.IMPORT, "asdf asdf", email="x@acme.example"),
            intake.LeadIn(Door.IMPORT, "How much is it for us?", email="y@acme.example"),
        ]
        taken = accept_many(session, tenant, rows)
        session.commit()
        held = [session.get_one(Lead, one.lead_id).suppression_id is not None for one in taken]
        assert held == [True, True, False]

    def test_social_signals(self, session, workspace):
        put(session, workspace, "test comment*", kind=SuppressionKind.TEST)
        tenant = tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)
        told = [
            intake.LeadIn(Door.SOCIAL, text, platform="facebook", external_message_id=str(number), author_id="1")
            for number, text in enumerate(["Test comment 1", "price?"])
        ]
        ids = intake.accept_signals(session, tenant, told)
        session.commit()
        assert [session.get_one(Lead, one).suppression_id is not None for one in ids] == [True, False]


class TestRuns:
    def test_a_run_goes_by_the_list_as_it_is(self, session, session_factory, workspace):
        make_user(session, workspace, takes_leads=True)
        lead = make_lead(session, workspace, email="a@rival.com")
        suppression.add(
            session, workspace.id, [Line("rival.com", SuppressionKind.COMPETITOR)], region="US", actor="Ann"
        )
        session.commit()  # this process has a copy from before
        drain(session_factory)
        lead = fresh(session, lead)
        assert (lead.status, lead.suppression_id is None) == (LeadStatus.NEW_DRAFT, False)
        assert lead.assignee_id is None
        assert "suppression list" in lead.assignment_reason

    def test_who_is_put_on_it_while_the_run_works_is_held_too(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, email="a@rival.com")

        def judge(text):
            with session_factory.begin() as other:
                lines = [Line("rival.com", SuppressionKind.COMPETITOR)]
                suppression.add(other, workspace.id, lines, region="US", actor="Ann")
            return says()(text)

        drain(session_factory, judge=judge)
        lead = fresh(session, lead)
        assert (lead.status, lead.suppression_id is None) == (LeadStatus.NEW_DRAFT, False)

    def test_a_person_may_decide_it_all_the_same_but_nothing_is_sent(self, session, session_factory, workspace):
        put(session, workspace, "rival.com")
        webhook_destination(session, workspace, HOOK)
        lead = make_lead(session, workspace, email="a@rival.com")
        drain(session_factory)
        lead = fresh(session, lead)
        review.decide(
            session,
            workspace.id,
            lead.id,
            action=DecisionAction.APPROVE,
            version=lead.version,
            actor=ANN,
            undo_seconds=0,
        )
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Delivery)) == 0
        assert outbox.preview(session, fresh(session, lead)) == [
            "Nothing will be sent: the suppression list holds it back."
        ]


class TestDeliveries:
    def test_the_list_is_asked_once_more_right_before_a_call(self, session, session_factory, workspace):
        with WebhookReceiver() as hook:
            webhook_destination(session, workspace, hook)
            lead = make_lead(session, workspace, email="a@rival.com")
            other = make_lead(session, workspace, email="a@acme.example")
            drain(session_factory)
            suppression.add(
                session, workspace.id, [Line("rival.com", SuppressionKind.COMPETITOR)], region="US", actor="A"
            )
            session.commit()
            deliver_due(session_factory)
            session.rollback()
            states = {row.lead_id: (row.state, row.last_error) for row in session.scalars(sa.select(Delivery))}
        assert states[lead.id] == (DeliveryState.CANCELLED, "the suppression list holds it back")
        assert states[other.id][0] is DeliveryState.DELIVERED


class TestLater:
    def test_leads_that_are_here_are_held_and_their_deliveries_cancelled(self, session, session_factory, workspace):
        webhook_destination(session, workspace, HOOK)
        auto = make_lead(session, workspace, email="a@rival.com")
        drain(session_factory, hold_seconds=60)
        approved = make_lead(session, workspace, email="b@rival.com", status=LeadStatus.NEW_DRAFT)
        review.decide(
            session, workspace.id, approved.id, action=DecisionAction.APPROVE, version=1, actor=ANN, undo_seconds=60
        )
        session.commit()
        assert not suppression_walk.has_due(session)
        put(session, workspace, "rival.com")
        assert suppression_walk.has_due(session)
        assert walk(session_factory).more is False
        assert not suppression_walk.has_due(session)
        auto, approved = fresh(session, auto), fresh(session, approved)
        assert (auto.status, auto.version, auto.suppression_id is None) == (LeadStatus.NEW_DRAFT, 2, False)
        assert (approved.status, approved.suppression_id is None) == (LeadStatus.APPROVED, False)
        assert set(session.scalars(sa.select(Delivery.state))) == {DeliveryState.CANCELLED}
        (event,) = events(session, auto, "LEAD_SUPPRESSED")
        assert (event["before"], event["value"], event["kind"]) == ("new_auto", "rival.com", "competitor")

    def test_what_is_taken_off_lets_go(self, session, session_factory, workspace):
        put(session, workspace, "rival.com", "b.example")
        webhook_destination(session, workspace, HOOK)
        waits = make_lead(session, workspace, email="a@rival.com")
        approved = make_lead(session, workspace, email="b@rival.com", status=LeadStatus.APPROVED)
        still = make_lead(session, workspace, email="a@b.example")
        walk(session_factory)
        take_off(session, workspace, "rival.com")
        walk(session_factory, hold_seconds=60)
        waits, approved, still = (fresh(session, lead) for lead in (waits, approved, still))
        assert (waits.suppression_id, waits.status) == (None, LeadStatus.NEW_DRAFT)
        assert approved.suppression_id is None
        assert still.suppression_id is not None
        (sent,) = session.scalars(sa.select(Delivery))
        assert (sent.lead_id, sent.state) == (approved.id, DeliveryState.PENDING)
        assert events(session, waits, "LEAD_RELEASED")

    def test_what_is_let_go_is_given_to_somebody_and_does_not_go_out_by_itself(
        self, session, session_factory, workspace
    ):
        rep = make_user(session, workspace, takes_leads=True)
        webhook_destination(session, workspace, HOOK)
        put(session, workspace, "rival.com")
        free, theirs = (make_lead(session, workspace, email=f"{name}@rival.com") for name in "ab")
        drain(session_factory, judge=says(0.99))
        assert fresh(session, free).assignee_id is None
        session.execute(sa.update(Lead).where(Lead.id == theirs.id).values(assignee_id=rep.id))
        session.commit()
        take_off(session, workspace, "rival.com")
        walk(session_factory)
        (waiting,) = session.scalars(sa.select(Run).where(Run.status == RunStatus.QUEUED))
        assert (waiting.lead_id, waiting.trigger, waiting.rank) == (free.id, RunTrigger.RERUN, suppression_walk.RANK)
        assert drain(session_factory, judge=says(0.99)).done == 1
        free = fresh(session, free)
        assert (free.assignee_id, free.status) == (rep.id, LeadStatus.NEW_DRAFT)
        assert session.scalars(sa.select(Delivery)).all() == []

    def test_an_entry_that_replaces_another_takes_its_leads_over(self, session, session_factory, workspace):
        put(session, workspace, "rival.com", "a@rival.com")
        lead = make_lead(session, workspace, email="a@rival.com")
        assert lead.suppression_id == entry(session, workspace, "a@rival.com").id
        take_off(session, workspace, "a@rival.com")
        walk(session_factory)
        assert fresh(session, lead).suppression_id == entry(session, workspace, "rival.com").id

    def test_many_leads_are_walked_in_batches_by_many_workers_once(
        self, session, session_factory, workspace, monkeypatch
    ):
        monkeypatch.setattr(suppression_walk, "BATCH", 3)
        leads = [make_lead(session, workspace, f"price {n}?", email=f"a{n}@rival.com") for n in range(8)]
        put(session, workspace, "rival.com")
        threads = [threading.Thread(target=walk, args=(session_factory,)) for _ in range(3)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        walk(session_factory)
        session.rollback()
        assert session.scalar(sa.select(sa.func.count()).where(Lead.suppression_id.is_not(None))) == 8
        assert all(len(events(session, lead, "LEAD_SUPPRESSED")) == 1 for lead in leads)
        assert not suppression_walk.has_due(session)

    def test_a_walk_that_is_cut_short_goes_on_where_it_was(self, session, session_factory, workspace, monkeypatch):
        monkeypatch.setattr(suppression_walk, "BATCH", 2)
        for number in range(5):
            make_lead(session, workspace, f"price {number}?", email=f"a{number}@rival.com")
        put(session, workspace, "rival.com")
        stops = iter([False, True])
        assert walk(session_factory, stop=lambda: next(stops)).more is True
        session.rollback()
        assert session.scalars(sa.select(SuppressionList.walk)).one() is not None
        assert walk(session_factory).more is False


class TestViews:
    def test_what_is_held_has_a_view_of_its_own_and_counts_equal_lists(self, session, workspace):
        put(session, workspace, "rival.com")
        held = make_lead(session, workspace, email="a@rival.com", status=LeadStatus.NEW_DRAFT)
        free = make_lead(session, workspace, email="a@acme.example", status=LeadStatus.NEW_ESCALATE)
        gone = make_lead(session, workspace, email="b@rival.com", status=LeadStatus.REJECTED)
        expected = {
            "waiting": {free.id}, "draft": set(), "escalate": {free.id}, "suppressed": {held.id}, "rejected": {gone.id},
            "all": {held.id, free.id, gone.id},
        }  # fmt: skip
        for text in ("", "báo giá"):
            for view, ids in expected.items():
                wanted = LeadFilter.parse({"view": view, "q": text})
                assert {row.id for row in queries.page(session, workspace.id, wanted).rows} == ids, (view, text)
                assert queries.counts(session, workspace.id, wanted).of(view).n == len(ids), (view, text)
        for asked, ids in (("yes", {held.id, gone.id}), ("no", {free.id})):
            wanted = LeadFilter.parse({"suppressed": asked})
            assert {row.id for row in queries.page(session, workspace.id, wanted).rows} == ids
            assert queries.counts(session, workspace.id, wanted).of("all").n == len(ids)
        assert queries.glance(session, workspace.id).waiting.n == 1
        with pytest.raises(Invalid):
            LeadFilter.parse({"suppressed": "perhaps"})
