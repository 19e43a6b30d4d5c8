"""Salesforce: a lead by an external id, and a follow-up task for it."""

import re

from webapp.leads.kinds.base import Field, Guarantee, Kind, Mapped, Step, Unknown
from webapp.leads.kinds.twenty import PERSON, TASK
from webapp.leads.states import DestinationKind

#: How it logs in: values of the setting ``grant``.
CLIENT_CREDENTIALS, REFRESH_TOKEN = "client_credentials", "refresh_token"


def _field_problem(text: str) -> str | None:
    return (
        None if re.fullmatch(r"[A-Za-z]\w{0,76}__c", text) else "must be the API name of a custom field, such as X__c"
    )


KIND = Kind(
    kind=DestinationKind.SALESFORCE,
    label="Salesforce",
    about="A lead, told apart by an external id, and a follow-up task for it.",
    fields=(
        Field("url", "Login address", "url", "Your My Domain, such as https://acme.my.salesforce.com"),
        Field(
            "grant",
            "How it logs in",
            "choice",
            default=CLIENT_CREDENTIALS,
            choices=((CLIENT_CREDENTIALS, "client credentials"), (REFRESH_TOKEN, "refresh token")),
        ),
        Field("client_id", "Consumer key", help="Of a connected app with the scope “Manage user data via APIs (api)”"),
        Field(
            "client_secret",
            "Consumer secret",
            secret=True,
            required=False,
            needed_for=("grant", CLIENT_CREDENTIALS),
            help="For client credentials, and beside a refresh token where the app asks for it",
        ),
        Field(
            "refresh_token",
            "Refresh token",
            secret=True,
            required=False,
            needed_for=("grant", REFRESH_TOKEN),
            help="Only where it logs in with one. The app must not rotate it.",
        ),
        Field(
            "lead_field",
            "External id of leads",
            default="LeadOps_Id__c",
            check=_field_problem,
            help="API name of a text field of yours on Lead: external id, unique",
        ),
        Field(
            "task_field",
            "External id of tasks",
            required=False,
            check=_field_problem,
            help="The same on Activity. Without it, tasks are found again by a mark in their comments.",
        ),
    ),
    steps=(
        Step(PERSON, 0, "lead", updates=True),
        Step(TASK, 1, "follow-up task", updates=True, withdraws=True),
    ),
    unknown=Unknown.ASKS,
    guarantees=(
        Guarantee(
            "lead",
            "at most one record per e-mail, else per number, author on a platform or lead",
            "upsert by your external id, which holds a key of ours",
        ),
        Guarantee(
            "follow-up task with an external id",
            "at most one record",
            "upsert by your external id, and looked for by it before it is sent again",
        ),
        Guarantee(
            "follow-up task without one",
            "at most one record, as far as the last 200 tasks of the lead, or of the contact that it became, tell and nobody "
            "removed the mark",
            "its comments carry the delivery's id, which is looked for before it is sent again",
        ),
    ),
    mapping=(
        Mapped("FirstName", "First name", "first_name"),
        Mapped("LastName", "Last name", "last_name"),
        Mapped("Company", "Company", "company | facts.company_name"),
        Mapped("Title", "Title", "job_title"),
        Mapped("City", "City", "city"),
        Mapped("Website", "Website", "facts.company_domain"),
        Mapped("LeadSource", "Lead source", "source"),
        Mapped("Description", "Description", "message"),
        Mapped("task.title", "Task: subject", "📞 Sales Follow-up — {display_name}", needed=True),
    ),
    open_fields=True,
    # 86,400 a day of the 100,000 that the smallest Enterprise org has; other programs have to live on the same.
    per_second=10,
    per_minute=60,
)
