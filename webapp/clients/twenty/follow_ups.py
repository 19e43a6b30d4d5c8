"""Follow-up tasks for people who are in the CRM already."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from webapp.clients.crm import FOLLOW_UP
from webapp.clients.twenty.members import member_name
from webapp.clients.twenty.records import Records, is_duplicate
from webapp.clients.twenty.tasks import task_fields
from webapp.leads.errors import Permanent
from webapp.leads.ports import FollowUp, OutcomeUnknown, PersonTasks, Refused

_OPEN = 'or(status[neq]:"DONE",status[is]:NULL)'


class FollowUps:
    """:class:`leads.ports.CrmTasks`. ``target_field``: the name of a task target's person."""

    def __init__(self, records: Records, *, target_field: str) -> None:
        self._records = records
        self._target_field = target_field

    def member_page(self, cursor: str | None) -> tuple[Mapping[str, str], str | None]:
        try:
            records, following = self._records.page("workspaceMembers", cursor)
        except Refused as error:
            if error.exchange.http_status == 403:
                return {}, None  # the key's role may not read members: tasks go out unassigned
            raise
        return {str(one["id"]): member_name(one) for one in records if one.get("id")}, following

    def open_task_page(self, cursor: str | None) -> tuple[Mapping[str, int], str | None]:
        records, following = self._records.page("tasks", cursor, filter=_OPEN)
        return Counter(str(task["assigneeId"]) for task in records if task.get("assigneeId")), following

    def tasks_of(self, person_ids: Sequence[str], *, follow_ups: Set[str]) -> Mapping[str, PersonTasks]:
        here = {str(person["id"]) for person in self._records.by_ids("people", "id", person_ids)}
        links: dict[str, set[str]] = {person_id: set() for person_id in person_ids if person_id in here}
        for link in self._records.by_ids("taskTargets", self._target_field, list(links)):
            links[str(link[self._target_field])].add(str(link.get("taskId")))
        tasks = self._records.by_ids("tasks", "id", sorted(set().union(*links.values())))
        waiting = {
            str(task["id"])
            for task in tasks
            if task.get("status") != "DONE"
            and (task["id"] in follow_ups or str(task.get("title") or "").startswith(FOLLOW_UP))
        }
        return {
            person_id: PersonTasks(open_follow_up=bool(theirs & waiting), links=len(theirs))
            for person_id, theirs in links.items()
        }

    def create_follow_up(self, wanted: FollowUp) -> str:
        fields = task_fields(wanted.lead, since=wanted.asked_at) | {"assigneeId": wanted.assignee_id}
        for task_id, link_id in wanted.ids:
            if self._make("tasks", "task", {"id": task_id, **fields}, usable=lambda task: task.get("status") != "DONE"):
                link = {"id": link_id, "taskId": task_id, self._target_field: wanted.person_id}
                if self._make("taskTargets", "taskTarget", link):
                    return task_id
        raise Permanent("Twenty has deleted the tasks that were made for them before, and keeps their ids")

    def _make(
        self,
        plural: str,
        singular: str,
        body: dict[str, Any],
        *,
        usable: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> bool:
        """Is the record there now, made by this call or an earlier one? False when its id is used up: the record was
        deleted, or is not ``usable`` any more."""
        try:
            self._records.call("POST", f"/{plural}", params={"depth": "0"}, json_body=body)
            return True
        except OutcomeUnknown:
            if self._records.look_up(plural, singular, body["id"]) is None:
                raise
            return True
        except Refused as error:
            if error.exchange.http_status != 400:
                raise
            found = self._records.look_up(plural, singular, body["id"])
            if found is None and not is_duplicate(error):
                raise
            return found is not None and usable(found[0])
