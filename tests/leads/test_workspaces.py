"""Settings of several parts stand in one document of the workspace."""

from dataclasses import replace

from webapp.leads import flags, scoring, task_texts, workspaces
from webapp.leads.flags import Flag
from webapp.leads.stages.score import SHIPPED
from webapp.models.account import Workspace


def test_a_part_is_changed_beside_what_others_have_changed_meanwhile(session, session_factory, workspace):
    """As two settings pages saved at once: each had read the workspace before the other saved."""
    session.commit()
    with session_factory() as other, session_factory() as third:
        read = [reader.get(Workspace, workspace.id) for reader in (session, other, third)]
        assert all(read)
        flags.choose(session, workspace.id, Flag.WEBHOOKS, False, actor="Mai")
        session.commit()
        task_texts.prefer(other, workspace.id, "vi", actor="Bo")
        other.commit()
        scoring.save(third, workspace.id, replace(SHIPPED, half_life=3.0), actor="An")
        third.commit()
    session.expire_all()
    found = workspaces.locked(session, workspace.id).settings
    assert found["flags"] == {Flag.WEBHOOKS.value: False}
    assert found["copywriting"] == {"language": "vi"}
    assert found["score"]["half_life"] == 3.0
