"""Rules of a workspace's own: changes on top of the shipped ones, versions, and who is judged by them."""

import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tests import factories
from tests.factories import make_lead
from tests.leads.importing import accept_many
from webapp.leads import intake, rulebook, ruleset_changes, run, verdict
from webapp.leads.claims import Holder
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.intake import LeadIn
from webapp.leads.ruleset import default_data, default_ruleset, load_ruleset
from webapp.leads.ruleset_changes import Change
from webapp.leads.states import Door, Intent, Priority
from webapp.models import Lead, RulesetVersion
from webapp.security.keys import tenant_of

ZIBBIT = Change("cues", "purchase_intent", "en", "send the zibbit", weight=5.0)
MESSAGE = "ok send the zibbit along"
SAMPLES = (
    "I want to buy 5 seats asap", "how much is the zibbit?", "please remove me from your list", "Can we see a demo?",
    "not interested in a demo", "cho em báo giá gói Pro", "bao gia giup em voi", "chốt em váy hoa size M",
    "what colour would the zibbit be", "hello", "", "My order is broken, I want a refund now",
)  # fmt: skip


def activated(session, workspace, *changes):
    rulebook.change(session, workspace.id, changes, actor="Ana")
    revision = rulebook.draft(session, workspace.id).revision
    version = rulebook.activate(session, workspace.id, revision=revision, note="", actor="Ana")
    session.commit()
    session.refresh(workspace)
    return version


def tenant(workspace):
    return tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)


class TestCompiling:
    def test_changes_on_top_judge_as_a_ruleset_written_out_would(self):
        """The tries that share nodes with the shipped ones are the same as compiled from scratch."""
        data = default_data()
        off = [key for key in ruleset_changes.shipped() if key[0] == "cues"][3::97][:6]
        changes = [
            ZIBBIT,
            Change("cues", "inquiry_price", "en", "what .. zibbit", weight=4.0),
            Change("flags", "urgent", "en", "zibbit", weight=0.0),
            Change("negations", "", "en", "hardly", reach=4),
            *(Change(*key, off=True) for key in off),
        ]
        for section in ("cues", "flags"):
            for group in data[section]:
                label = group.get("intent") or group.get("flag")
                gone = {key[3] for key in off if key[:3] == (section, label, group["lang"])}
                group["phrases"] = [phrase for phrase in group["phrases"] if phrase not in gone] or ["qqqq zzzz"]
        data["cues"] += [
            {"intent": one.label, "lang": "en", "weight": one.weight, "phrases": [one.phrase]} for one in changes[:2]
        ]
        data["flags"].append({"flag": "urgent", "lang": "en", "phrases": ["zibbit"]})
        data["negations"].append({"lang": "en", "reach": 4, "phrases": ["hardly"]})
        whole, (overlay, problems) = load_ruleset(data), ruleset_changes.compile_changes(changes, "1")
        assert problems == []
        for text in (*SAMPLES, MESSAGE, "we hardly want to buy a zibbit", *(key[3] for key in off)):
            by_whole, by_overlay = verdict.judge(text, rules=whole), verdict.judge(text, rules=overlay)
            assert (by_whole.intent, by_whole.priority, by_whole.confidence, by_whole.evidence) == (
                by_overlay.intent, by_overlay.priority, by_overlay.confidence, by_overlay.evidence,
            ), text  # fmt: skip

    def test_the_shipped_rules_are_left_as_they_are(self):
        before = [verdict.judge(text) for text in SAMPLES]
        key = next(key for key in ruleset_changes.shipped() if key == ("flags", "urgent", "en", "asap"))
        ruleset_changes.compile_changes([ZIBBIT, Change(*key, off=True)], "1")
        assert [verdict.judge(text) for text in SAMPLES] == before
        assert verdict.judge(MESSAGE).intent is Intent.UNKNOWN

    def test_a_weight_of_ones_own_takes_the_place_of_the_shipped_one(self):
        key = ("cues", "purchase_intent", "en", "checkout")
        found = next((k for k in ruleset_changes.shipped() if k[:3] == key[:3] and k[3].isalpha()), None)
        assert found
        lighter, _ = ruleset_changes.compile_changes([Change(*found, weight=0.5)], "1")
        weights = [one.weight for one in verdict.fired(found[3], rules=lighter) if one.phrase == found[3]]
        assert weights == [0.5]

    def test_what_the_shipped_rules_no_longer_know_is_left_out_and_told(self):
        broken = Change("cues", "spam", "en", "{gone} word", weight=2.0)
        ruleset, problems = ruleset_changes.compile_changes([broken, ZIBBIT], "1")
        assert [one.field for one in problems] == ["{gone} word"]
        assert verdict.judge(MESSAGE, rules=ruleset).intent is Intent.PURCHASE_INTENT
        idle = Change("cues", "spam", "en", "never shipped", off=True)
        assert ruleset_changes.without_effect([idle, ZIBBIT]) == [idle]

    @pytest.mark.parametrize(
        ("change", "why"),
        [
            (Change("cues", "unknown", "en", "x", weight=1), "needs an intent"),
            (Change("cues", "spam", "de", "x", weight=1), "needs a language"),
            (Change("cues", "spam", "en", "x", weight=float("nan")), "needs a weight"),
            (Change("cues", "spam", "en", "x", weight=6.5), "needs a weight"),
            (Change("cues", "spam", "en", " ", weight=1), "must have 1 to 200"),
            (Change("cues", "spam", "en", "x" * 201, weight=1), "must have 1 to 200"),
            (Change("cues", "spam", "en", "(a|b)" * 30, weight=1), "too many"),
            (Change("flags", "loud", "en", "x"), "needs a kind of priority word"),
            (Change("negations", "", "en", "x .. y", reach=3), "may have a gap"),
            (Change("negations", "", "en", "x", reach=11), "needs a reach"),
        ],
    )
    def test_what_is_wrong_is_named_by_its_phrase(self, change, why):
        (problem,) = ruleset_changes.problems_of([change, ZIBBIT])
        assert problem.field == change.phrase and why in problem.reason

    def test_there_is_an_end_to_what_a_workspace_can_add(self):
        many = [Change("cues", "spam", "en", f"w{n}", weight=1) for n in range(ruleset_changes.MAX_CHANGES + 1)]
        assert "a workspace can have 2,000" in ruleset_changes.problems_of(many)[0].reason


class TestVersions:
    def test_a_draft_is_numbered_when_it_is_activated_and_begins_from_what_is_active(self, session, workspace):
        first = activated(session, workspace, ZIBBIT)
        assert (first.number, first.active, first.activated_by) == (1, True, "Ana")
        second = activated(session, workspace, Change("flags", "urgent", "en", "chop chop"))
        assert second.number == 2 and len(second.changes) == 2
        assert [one.number for one in rulebook.versions(session, workspace.id)] == [2, 1]
        assert not session.get_one(RulesetVersion, first.id).active

    def test_going_back_and_to_the_shipped_ones(self, session, workspace):
        first = activated(session, workspace, ZIBBIT)
        activated(session, workspace, Change("flags", "urgent", "en", "chop chop"))
        rulebook.go_back(session, workspace.id, first.id, actor="Bo")
        assert rulebook.active(session, workspace.id).id == first.id
        rulebook.go_back(session, workspace.id, None, actor="Bo")
        assert rulebook.active(session, workspace.id) is None
        other = factories.make_workspace(session)
        with pytest.raises(NotFound):
            rulebook.go_back(session, other.id, first.id, actor="Bo")

    def test_a_stale_look_and_an_invalid_draft_are_refused(self, session, workspace):
        rulebook.change(session, workspace.id, [ZIBBIT], actor="Ana")
        with pytest.raises(Conflict):
            rulebook.activate(session, workspace.id, revision=0, note="", actor="Ana")
        with pytest.raises(Invalid):
            rulebook.change(session, workspace.id, [Change("cues", "spam", "en", "{x}", weight=1)], actor="Ana")
        assert len(rulebook.draft(session, workspace.id).changes) == 1

    def test_the_database_holds_one_draft_and_one_active_version(self, session, workspace):
        activated(session, workspace, ZIBBIT)
        for values in (
            {"number": 2, "active": True, "activated_at": sa.func.now()},
            {"number": None},
            {"number": None},
        ):
            session.add(RulesetVersion(workspace_id=workspace.id, base="1", created_by="x", updated_by="x", **values))
        with pytest.raises(IntegrityError):
            session.flush()

    def test_two_managers_at_once_lose_no_change(self, session, session_factory, workspace):
        def add(word):
            with session_factory.begin() as own:
                rulebook.change(own, workspace.id, [Change("cues", "spam", "en", word, weight=1)], actor=word)

        threads = [threading.Thread(target=add, args=(f"word{n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(rulebook.draft(session, workspace.id).changes) == 6


class TestJudgedBy:
    def test_intake_bulk_intake_and_runs_go_by_the_active_version(self, session, session_factory, workspace):
        other = factories.make_workspace(session)
        activated(session, workspace, ZIBBIT)
        lead = make_lead(session, workspace, MESSAGE)
        assert (lead.intent, lead.priority) == (Intent.PURCHASE_INTENT, Priority.P1)
        assert lead.verdict["ruleset"] == f"{default_ruleset().version}+1"
        (taken,) = accept_many(session, tenant(workspace), [LeadIn(Door.V1, MESSAGE, email="b@x.example")])
        session.commit()
        assert session.get_one(Lead, taken.lead_id).intent is Intent.PURCHASE_INTENT
        theirs = make_lead(session, other, MESSAGE)
        assert theirs.intent is Intent.UNKNOWN and "+" not in theirs.verdict["ruleset"]
        assert run.process(session_factory, Holder()).done == 3
        session.expire_all()
        assert session.get_one(Lead, lead.id).intent is Intent.PURCHASE_INTENT
        assert session.get_one(Lead, theirs.id).intent is Intent.UNKNOWN

    def test_a_run_after_the_change_judges_by_it(self, session, session_factory, workspace):
        lead = make_lead(session, workspace, MESSAGE)
        activated(session, workspace, ZIBBIT)
        run.process(session_factory, Holder())
        session.expire_all()
        assert session.get_one(Lead, lead.id).intent is Intent.PURCHASE_INTENT

    def test_a_request_goes_by_it_within_seconds(self, client, session, workspace, headers, app):
        activated(session, workspace, ZIBBIT)
        app.extensions["keyring"]._known.clear()  # what expires by itself after two seconds
        answer = client.post("/enrich-lead", json={"email": "a@x.example", "message": MESSAGE}, headers=headers)
        assert answer.json["lead"]["intent"] == "purchase_intent"

    def test_a_version_is_compiled_once_in_a_process(self, session, workspace):
        version = activated(session, workspace, ZIBBIT)
        rules = rulebook.compiled(session, version.id)
        assert rules is rulebook.compiled(session, version.id) is tenant(workspace).rules
        assert intake.judge(LeadIn(Door.V1, MESSAGE), rules).intent is Intent.PURCHASE_INTENT

    def test_who_has_changed_nothing_needs_no_look_at_the_database(self, workspace):
        assert tenant(workspace).rules is None
        assert rulebook.judge_by(None) is verdict.judge
