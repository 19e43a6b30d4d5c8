"""Twenty CRM."""

from webapp.leads.kinds.base import Field, Guarantee, Kind, Mapped, Step, Unknown
from webapp.leads.states import DestinationKind

PERSON, TASK, TASK_TARGET = "person", "task", "task_target"
COMPANY, NOTE = "company", "note"

KIND = Kind(
    kind=DestinationKind.TWENTY,
    label="Twenty CRM",
    about="A person, a follow-up task for them, and if you like their company and a note with the verdict.",
    fields=(
        Field("url", "Address of the REST API", "url", "Ends in /rest, such as https://crm.example.com/rest"),
        Field("token", "API key", secret=True, help="Twenty: Settings → APIs & Webhooks"),
        Field(
            "task_target_field",
            "How tasks are linked",
            "choice",
            "Servers before about 1.17 know only personId.",
            default="targetPersonId",
            choices=(("targetPersonId", "targetPersonId"), ("personId", "personId (older servers)")),
        ),
        Field("companies", "Make the company, and link the person to it", "switch", required=False, default=True),
        Field("notes", "Write a note with the verdict", "switch", required=False, default=True),
    ),
    steps=(
        Step(PERSON, 0, "person", updates=True),
        Step(TASK, 1, "follow-up task", updates=True, withdraws=True),
        Step(TASK_TARGET, 2, "link between the two"),
        Step(COMPANY, 3, "company", switch="companies"),
        Step(NOTE, 4, "note with the verdict", switch="notes", updates=True),
    ),
    unknown=Unknown.ASKS,
    guarantees=(
        Guarantee("person with an e-mail", "at most one record", "upsert, matched by Twenty's unique primary e-mail"),
        Guarantee(
            "person with only a phone",
            "one record per number, as far as Twenty's data allows",
            "searched by number, else upsert with an id made from workspace and number",
        ),
        Guarantee(
            "person with neither",
            "at most one record per author on a platform, else per lead",
            "upsert with an id made from it",
        ),
        Guarantee("follow-up task", "at most one record", "its id is made from the delivery"),
        Guarantee("link task–person", "at most one record", "its id is made from the delivery"),
        Guarantee(
            "company",
            "one record per domain, else per name, as far as Twenty's data allows",
            "searched by domain or name, else made with an id that follows from it",
        ),
        Guarantee("note with its link", "at most one record", "both ids are made from the delivery"),
    ),
    mapping=(
        Mapped("name.firstName", "First name", "first_name"),
        Mapped("name.lastName", "Last name", "last_name"),
        Mapped("jobTitle", "Job title", "job_title"),
        Mapped("city", "City", "city"),
        Mapped("company.name", "Company: name", "company | facts.company_name"),
        Mapped("company.domain", "Company: domain", "facts.company_domain"),
        Mapped("task.title", "Task: title", "📞 Sales Follow-up — {display_name}", needed=True),
    ),
    open_fields=True,
    per_second=100,
    per_minute=100,
)
