"""A workspace's way of scoring: what a form says, versions, and what runs make of it."""

import pytest
import sqlalchemy as sa
from werkzeug.datastructures import MultiDict

from tests.factories import make_lead, make_workspace
from tests.leads.test_run import drain, fresh, says
from webapp.leads import alerts, industries, scoring, scoring_preview
from webapp.leads.errors import Invalid, NotFound
from webapp.leads.stages.score import SHIPPED, SHIPPED_FIT, SHIPPED_WEIGHTS, Model, Profile
from webapp.models import AuditEvent
from webapp.models.routing import Alert


def form(**over):
    given = {f"weight_{name}": str(weight) for name, weight in SHIPPED_WEIGHTS.items()}
    given |= {f"fit_{name}": str(weight) for name, weight in SHIPPED_FIT.items()}
    given |= {"half_life": "7", "large_budget": "", "industries": (), "sizes": (), "countries": ""}
    return given | over


def parsed(**over):
    return scoring.parsed(form(**over), industries=industries.NAMES)


def save(session, workspace, model, **over):
    found = scoring.save(session, workspace.id, model, actor="Ann", **over)
    session.commit()
    return found


class TestForms:
    def test_what_is_shipped_comes_back_as_it_is(self):
        assert parsed() == SHIPPED

    def test_a_profile(self):
        model = parsed(industries=["software"], sizes=["51-200"], countries="Vietnam, de;\nUSA", large_budget="20,000")
        assert model.profile.countries == {"VN", "DE", "US"}
        assert (model.profile.industries, model.profile.sizes) == ({"software"}, {"51-200"})
        assert model.large_budget == 20_000

    @pytest.mark.parametrize(
        ("over", "field"),
        [
            ({"weight_intent": "-1"}, "weight_intent"), ({"weight_intent": "101"}, "weight_intent"),
            ({"weight_intent": "1e9"}, "weight_intent"), ({"weight_intent": "٣"}, "weight_intent"),
            ({"weight_intent": None}, "weight_intent"), ({f"weight_{n}": "0" for n in SHIPPED_WEIGHTS}, "weight_intent"),
            ({"half_life": "0"}, "half_life"), ({"half_life": "nan"}, "half_life"), ({"half_life": "soon"}, "half_life"),
            ({"large_budget": "-5"}, "large_budget"), ({"large_budget": "inf"}, "large_budget"),
            ({"industries": ["magic"]}, "industries"), ({"sizes": ["7"]}, "sizes"), ({"countries": "Narnia"}, "countries"),
            ({"countries": "DE", "fit_country": "0"}, "fit_industry"),
        ],
    )  # fmt: skip
    def test_what_makes_no_sense_is_refused_by_name(self, over, field):
        with pytest.raises(Invalid) as refused:
            parsed(**over)
        assert [problem.field for problem in refused.value.details] == [field]

    def test_a_real_form_gives_its_text(self):
        given = MultiDict(form(weight_intent="50"))
        assert scoring.parsed(given, industries=()).weights["intent"] == 50


class TestVersions:
    model = Model(weights={**SHIPPED_WEIGHTS, "intent": 80}, profile=Profile(countries=frozenset({"DE"})))

    def test_saving_is_versioned_and_audited_and_leaves_other_settings_alone(self, session, workspace):
        workspace.settings = {"region": "DE", "flags": {"x": True}}
        session.commit()
        saved = save(session, workspace, self.model)
        assert saved.version == 1
        session.refresh(workspace)
        assert (workspace.settings["region"], workspace.settings["flags"]) == ("DE", {"x": True})
        assert scoring.model_from(workspace.settings["score"]) == saved
        event = session.scalars(sa.select(AuditEvent).where(AuditEvent.event_type == "SCORING_CHANGED")).one()
        assert (event.actor, event.details["before"]["version"], event.details["version"]) == ("Ann", 0, 1)

    def test_saving_what_holds_already_makes_no_version(self, session, workspace):
        assert save(session, workspace, SHIPPED).version == 0
        save(session, workspace, self.model)
        assert save(session, workspace, self.model).version == 1
        assert len(scoring.versions(session, workspace.id)) == 1

    def test_an_earlier_one_and_the_shipped_one_come_back_as_new_ones(self, session, workspace):
        save(session, workspace, self.model)
        scoring.restore(session, workspace.id, 0, actor="Bob")
        scoring.restore(session, workspace.id, 1, actor="Bob")
        session.commit()
        told = [(one.version, one.restored_from) for one in scoring.versions(session, workspace.id)]
        assert told == [(3, 1), (2, 0), (1, None)]
        session.refresh(workspace)
        assert scoring.model_from(workspace.settings["score"]).weights["intent"] == 80

    def test_anothers_version_is_none(self, session, workspace):
        save(session, make_workspace(session), self.model)
        with pytest.raises(NotFound):
            scoring.restore(session, workspace.id, 1, actor="Bob")

    def test_a_part_that_comes_with_an_upgrade_counts_in_what_was_saved_before(self):
        assert scoring.model_from({"version": 2, "weights": {"intent": 10}}).weights["freshness"] == 5

    def test_the_stored_form_reads_as_what_it_was(self):
        assert scoring.model_from(scoring.stored_form(self.model)) == self.model


class TestRuns:
    def test_new_runs_go_by_it(self, session, session_factory, workspace):
        only = Model(weights=dict.fromkeys(SHIPPED_WEIGHTS, 0) | {"urgency": 3})
        save(session, workspace, only)
        lead = make_lead(session, workspace)
        drain(session_factory, judge=says())
        assert [(part["name"], part["points"], part["of"]) for part in fresh(session, lead).score_parts] == [
            ("urgency", 60, 100)
        ]

    def test_the_preview_is_what_a_run_would_say(self, session, session_factory, workspace):
        assert scoring_preview.of_latest(session, workspace.id, SHIPPED, currency="USD") is None
        lead = make_lead(
            session, workspace, email="jane@acme.example", phone="+84912345678", budget=20_000.0, touches=3
        )
        drain(session_factory, judge=says())
        session.expire_all()
        found = scoring_preview.of_latest(session, workspace.id, SHIPPED, currency="USD")
        assert found.lead.id == lead.id
        assert [part.as_json() for part in found.score.parts] == fresh(session, lead).score_parts

    def test_a_part_that_fails_alerts_the_admins_once_and_counts(self, session, workspace):
        failed = scoring.Failed(workspace.id, "company_fit", "TypeError: x")
        for times in (1, 2):
            scoring.note_failures(session, [failed] * times)
            session.commit()
        alert = session.scalars(sa.select(Alert)).one()
        assert (alert.kind, alert.key, alert.times) == (alerts.SCORING_FALLBACK, "company_fit", 3)
        assert "company fit" in alert.message
