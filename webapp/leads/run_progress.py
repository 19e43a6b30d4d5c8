"""Where slow runs are, for who watches: told at each change, all of a drain's in one statement. Runs that wait for nobody
are settled before a page could show where they were, and cost no write."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from webapp.leads.claims import Claim

_TELL = sa.text(
    """
    UPDATE runs AS r SET stage = w.stage, stage_since = now()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:stages AS text[])) AS w (id, attempt, stage)
    WHERE r.id = w.id AND r.attempt = w.attempt AND r.status = 'running'
    """
)


@dataclass(slots=True)
class Progress:
    """What one drain has told."""

    told: dict[uuid.UUID, str] = field(default_factory=dict)

    def tell(self, session_factory: sessionmaker[Session], at: Mapping[Claim, str]) -> None:
        """``at``: the stage that each run under way waits in."""
        new = {claim: stage for claim, stage in at.items() if self.told.get(claim.id) != stage}
        self.told = {claim.id: stage for claim, stage in at.items()}
        if not new:
            return
        given = {
            "ids": [claim.id for claim in new],
            "attempts": [claim.attempt for claim in new],
            "stages": list(new.values()),
        }
        with session_factory.begin() as session:
            session.execute(_TELL, given)
