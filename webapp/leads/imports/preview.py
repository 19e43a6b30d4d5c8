"""The first rows of a file as they would come in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy.orm import object_session

from webapp.leads import callbacks
from webapp.leads.errors import Problem
from webapp.leads.imports.columns import FIELDS, Mapper, check_mapping
from webapp.leads.imports.files import path_of
from webapp.leads.imports.layout import Layout, as_json, inspect
from webapp.leads.imports.reading import Broken, rows
from webapp.leads.intake import LeadIn
from webapp.models.inbound import Import

ROWS = 20
_LONGEST_CELL = 300


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """``cells``: as in the file, in the order of the columns, shortened. ``fields``: what the lead's fields would be,
    by name; empty when ``problems`` say why it would be none."""

    number: int
    cells: tuple[str, ...]
    fields: dict[str, str]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """``broken``: why the file cannot be read to its end, as far as the preview saw."""

    columns: tuple[str, ...]
    rows: tuple[PreviewRow, ...]
    broken: str | None = None


def layout_of(path: Path, found: Import) -> Layout:
    """How the file is read, by what was found or chosen when it came."""
    return inspect(
        path,
        format=found.format,
        encoding=found.encoding,
        delimiter=found.delimiter,
        has_header=found.has_header,
    )


def _allowed(found: Import) -> Sequence[callbacks.Place]:
    session = object_session(found)
    return callbacks.places(session, found.workspace_id) if session is not None else ()


def preview(
    folder: str | Path, found: Import, *, mapping: Mapping[str, Any] | None = None, limit: int = ROWS
) -> Preview:
    """The first ``limit`` rows under ``mapping`` (None: as it stands). Invalid for a mapping that makes no sense,
    NotFound when the file is gone."""
    chosen = check_mapping(found.columns, found.mapping if mapping is None else mapping)
    path = path_of(folder, found.stored_as)
    layout = layout_of(path, found)
    mapper = Mapper(
        chosen,
        seal=_unsealed,
        source=found.source,
        open_ended=layout.format != "csv",
        columns=found.columns,
        callback_problem=partial(callbacks.problem_of, allowed=_allowed(found)),
    )
    shown: list[PreviewRow] = []
    broken = None
    with path.open("rb") as file:
        try:
            for number, row in enumerate(islice(rows(file, layout, layout.begins_at), limit), start=1):
                values = row.values or {}
                cells = tuple(_short(values.get(column)) for column in found.columns)
                made = mapper.lead(row)
                if isinstance(made, LeadIn):
                    shown.append(PreviewRow(number, cells, _fields(made)))
                else:
                    shown.append(PreviewRow(number, cells, {}, made))
        except Broken as error:
            broken = str(error)
    return Preview(tuple(found.columns), tuple(shown), broken)


def _unsealed(value: Any) -> Any:
    return value


def _short(value: Any) -> str:
    text = "" if value is None else as_json(value)
    return text if len(text) <= _LONGEST_CELL else f"{text[:_LONGEST_CELL]}…"


def _money(amount: float | None) -> str | None:
    return None if amount is None else f"{amount:,.2f}".removesuffix(".00")


def _fields(lead: LeadIn) -> dict[str, str]:
    found: dict[str, Any] = {
        "message": lead.message, "name": lead.name, "email": lead.email, "phone": lead.phone, "company": lead.company,
        "budget": _money(lead.budget), "source": lead.source, "lead_id": lead.external_id, "consent": lead.consent,
        "consent_at": lead.consent_at,
    }  # fmt: skip
    found |= lead.attributes | lead.attribution
    return {known.name: str(found[known.name]) for known in FIELDS if found.get(known.name) not in (None, "")}
