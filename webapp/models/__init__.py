"""What is stored, one module per aggregate. Importing this package registers every table on ``db``."""

from webapp.models.account import ApiKey, Membership, SocialPage, User, Workspace
from webapp.models.base import db, new_id, scoped
from webapp.models.crm import CrmPull, DealSighting
from webapp.models.enrichment import EnrichmentAnswer, EnrichmentHealth, EnrichmentProvider
from webapp.models.inbound import Fetch, Import, ImportProblem, InboundSource
from webapp.models.judging import LlmCall, RulesetVersion
from webapp.models.lead import (
    AuditEvent,
    Decision,
    IdempotencyKey,
    Lead,
    Person,
    Presence,
    Quarantined,
    Touch,
)
from webapp.models.people import DuplicateSuggestion, PersonMerge
from webapp.models.routing import Absence, Alert, RoutingRule, Team, TeamMember
from webapp.models.scoring import LeadOutcome, ScoreFallback, ScoreVersion
from webapp.models.suppression import Suppression, SuppressionList
from webapp.models.work import (
    Delivery,
    DeliveryAttempt,
    Destination,
    ReplayRequest,
    Rerun,
    Run,
    SyncRequest,
    TaskRequest,
    TaskText,
    WorkerSlot,
)

__all__ = [
    "Absence",
    "Alert",
    "ApiKey",
    "AuditEvent",
    "CrmPull",
    "DealSighting",
    "Decision",
    "Delivery",
    "DeliveryAttempt",
    "Destination",
    "DuplicateSuggestion",
    "EnrichmentAnswer",
    "EnrichmentHealth",
    "EnrichmentProvider",
    "Fetch",
    "IdempotencyKey",
    "Import",
    "ImportProblem",
    "InboundSource",
    "Lead",
    "LeadOutcome",
    "LlmCall",
    "Membership",
    "Person",
    "PersonMerge",
    "Presence",
    "Quarantined",
    "ReplayRequest",
    "Rerun",
    "RoutingRule",
    "RulesetVersion",
    "Run",
    "ScoreFallback",
    "ScoreVersion",
    "SocialPage",
    "Suppression",
    "SuppressionList",
    "SyncRequest",
    "TaskRequest",
    "TaskText",
    "Team",
    "TeamMember",
    "Touch",
    "User",
    "WorkerSlot",
    "Workspace",
    "db",
    "new_id",
    "scoped",
]
