"""What tests of imports share: files taken in as a door does, worked as a worker does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from webapp.leads import imports, intake_bulk
from webapp.leads.claims import Holder
from webapp.leads.intake import LeadIn, Tenant
from webapp.leads.ports import Drained
from webapp.models import Import, Workspace
from webapp.security.keys import tenant_of as _tenant_of


def tenant_of(workspace: Workspace) -> Tenant:
    return _tenant_of(workspace, default_region="US", duplicate_days=30, idempotency_days=30)


def as_sent(value: Any) -> Any:
    """Nothing is sealed."""
    return value


def upload(
    session: Session, workspace: Workspace, folder: Path, data: bytes | str, filename: str = "leads.csv", **wishes: Any
) -> Import:
    """Taken in and recorded; not started."""
    raw = data.encode() if isinstance(data, str) else data
    stored = imports.receive([raw], folder, limit=1 << 30)
    layout = imports.inspect(imports.path_of(folder, stored.name), filename=filename, **wishes)
    found = imports.create(session, workspace.id, stored, layout, filename=filename, created_by="Tess")
    session.commit()
    return found


def queued(session: Session, workspace: Workspace, folder: Path, data: bytes | str, **more: Any) -> Import:
    """Taken in and started."""
    start = {name: more.pop(name) for name in ("mapping", "dry_run", "source") if name in more}
    found = upload(session, workspace, folder, data, **more)
    imports.start(session, found, by="Tess", **start)
    session.commit()
    return found


def work(session_factory: sessionmaker[Session], folder: Path, **more: Any) -> Drained:
    values: dict[str, Any] = {"folder": folder, "seal": as_sent, "tenant_of": tenant_of, "max_seconds": 60.0} | more
    return imports.process(session_factory, values.pop("holder", Holder()), **values)


def accept_many(session: Session, tenant: Tenant, leads: Sequence[LeadIn], **more: Any) -> list[intake_bulk.Taken]:
    """As a chunk of a file is taken in; Invalid for a lead that cannot be."""
    rows = []
    for one in intake_bulk.prepare_each(tenant, leads):
        if isinstance(one, Exception):
            raise one
        rows.append(one)
    return intake_bulk.accept_rows(session, tenant, rows, **more)
