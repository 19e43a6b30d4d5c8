"""Opportunities as deals, and what was deleted.

Lists leave out what was deleted (``deletedAt``), unless a filter names that field. An order gets the id as its last
word, so the cursor stays where it was among records of one timestamp.
"""

from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from webapp.clients.crm import iso
from webapp.clients.twenty.records import Record, Records, by_one_of
from webapp.leads.ports import Deal, RecordKind
from webapp.leads.task_template import one_line

_NAMES: dict[RecordKind, tuple[str, str]] = {
    "person": ("people", "person"),
    "task": ("tasks", "task"),
    "deal": ("opportunities", "opportunity"),
}
_MICRO = Decimal(1_000_000)


class Opportunities:
    """:class:`leads.ports.CrmOutcomes`."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def deal_page(self, cursor: str | None, *, since: datetime | None) -> tuple[Sequence[Deal], str | None]:
        wanted = {"filter": f'updatedAt[gte]:"{iso(since)}"'} if since else {}
        found, following = self._records.page("opportunities", cursor, order_by="updatedAt[AscNullsFirst]", **wanted)
        return _deals(found), following

    def deals_with(self, person_ids: Sequence[str], company_ids: Sequence[str]) -> Sequence[Deal]:
        named = (("pointOfContactId", person_ids), ("companyId", company_ids))
        parts = [by_one_of(field, ids) for field, ids in named if ids]
        if not parts:
            return []
        return _deals(self._records.all("opportunities", filter=f"or({','.join(parts)})" if parts[1:] else parts[0]))

    def deleted_page(
        self, kind: RecordKind, cursor: str | None, *, since: datetime | None
    ) -> tuple[Mapping[str, datetime], str | None]:
        wanted = f'deletedAt[gte]:"{iso(since)}"' if since else "deletedAt[is]:NOT_NULL"
        order = "deletedAt[AscNullsFirst]"
        found, following = self._records.page(_NAMES[kind][0], cursor, filter=wanted, order_by=order)
        times = ((str(one.get("id")), _time(one.get("deletedAt"))) for one in found)
        return {record_id: at for record_id, at in times if at is not None}, following

    def present(self, kind: RecordKind, ids: Sequence[str]) -> Set[str]:
        return {str(one.get("id")) for one in self._records.by_ids(_NAMES[kind][0], "id", ids)}

    def is_gone(self, kind: RecordKind, record_id: str) -> bool:
        return self._records.look_up(*_NAMES[kind], record_id) is None


def _deals(records: Any) -> list[Deal]:
    return [deal for record in records if (deal := _deal(record)) is not None]


def _deal(record: Record) -> Deal | None:
    """None for what cannot be placed in time."""
    updated = _time(record.get("updatedAt"))
    if updated is None or not record.get("id"):
        return None
    amount = found if isinstance(found := record.get("amount"), dict) else {}
    return Deal(
        id=str(record["id"]),
        stage=one_line(str(record.get("stage") or "")) or None,
        created_at=_time(record.get("createdAt")) or updated,
        updated_at=updated,
        value=_money(amount.get("amountMicros")),
        currency=str(amount.get("currencyCode") or "") or None,
        person_id=_text(record.get("pointOfContactId") or record.get("personId")),
        company_id=_text(record.get("companyId")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _money(micros: Any) -> Decimal | None:
    try:
        amount = Decimal(str(micros)) / _MICRO
    except InvalidOperation:
        return None
    return amount if amount.is_finite() else None


def _time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
