"""How a workspace scores: its weights and its ideal company, edited by managers, kept in versions.

What stands is in ``workspaces.settings["score"]``; every saved version is a row of ``score_versions``. Version 0 is what is
shipped. Nothing here commits.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pycountry
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from webapp.leads import alerts, audit, workspaces
from webapp.leads.errors import Invalid, NotFound, Problem
from webapp.leads.stages.score import SHIPPED, SHIPPED_FIT, SHIPPED_WEIGHTS, SIZES, Model, Profile
from webapp.leads.types import ScorePart
from webapp.models.base import scoped
from webapp.models.scoring import ScoreFallback, ScoreVersion

MAX_WEIGHT = 100
MIN_HALF_LIFE, MAX_HALF_LIFE = 0.5, 365.0
#: Versions that the page lists.
MAX_VERSIONS = 50


def model_from(stored: Mapping[str, Any] | None) -> Model:
    """From ``settings["score"]``. What is missing there is as shipped, so that a component that comes with an upgrade
    counts in workspaces that have chosen before."""
    if not stored:
        return SHIPPED
    fit = stored.get("profile") or {}
    profile = Profile(
        industries=frozenset(fit.get("industries", ())),
        sizes=frozenset(fit.get("sizes", ())),
        countries=frozenset(fit.get("countries", ())),
        weights={**SHIPPED_FIT, **fit.get("weights", {})},
    )
    return Model(
        weights={**SHIPPED_WEIGHTS, **stored.get("weights", {})},
        profile=profile,
        half_life=float(stored.get("half_life", SHIPPED.half_life)),
        large_budget=stored.get("large_budget"),
        version=int(stored.get("version", 0)),
    )


def stored_form(model: Model) -> dict[str, Any]:
    """What :func:`model_from` reads."""
    profile = model.profile
    return {
        "version": model.version,
        "weights": {name: model.weights.get(name, 0) for name in SHIPPED_WEIGHTS},
        "profile": {
            "industries": sorted(profile.industries),
            "sizes": [size for size in SIZES if size in profile.sizes],
            "countries": sorted(profile.countries),
            "weights": {name: profile.weights.get(name, 0) for name in SHIPPED_FIT},
        },
        "half_life": model.half_life,
        "large_budget": model.large_budget,
    }


def parsed(given: Mapping[str, Any], *, industries: Iterable[str]) -> Model:
    """A model from a form: ``weight_NAME``, ``fit_NAME``, ``half_life``, ``large_budget`` as text; ``industries`` and
    ``sizes`` as lists; ``countries`` as words between commas. Invalid names every field that is wrong."""
    problems: list[Problem] = []
    weights = {name: _weight(given, f"weight_{name}", problems) for name in SHIPPED_WEIGHTS}
    fit = {name: _weight(given, f"fit_{name}", problems) for name in SHIPPED_FIT}
    if not problems and not sum(weights.values()):
        problems.append(Problem("weight_intent", "must be above 0 when all the others are 0"))
    half_life = _number(given, "half_life", problems, least=MIN_HALF_LIFE, most=MAX_HALF_LIFE)
    large = _number(given, "large_budget", problems, least=1, most=1e15) if _text(given, "large_budget") else None
    profile = Profile(
        industries=_members(given, "industries", set(industries), problems),
        sizes=_members(given, "sizes", set(SIZES), problems),
        countries=_countries(_text(given, "countries"), problems),
        weights=fit,
    )
    if not problems and (profile.industries or profile.sizes or profile.countries) and not profile.wanted():
        problems.append(Problem("fit_industry", "must be above 0 for something that the profile names"))
    if problems:
        raise Invalid("The scoring cannot be saved.", details=tuple(problems))
    return Model(weights, profile, half_life, large)


def _text(given: Mapping[str, Any], name: str) -> str:
    return str(given.get(name) or "").strip()


def _weight(given: Mapping[str, Any], name: str, problems: list[Problem]) -> int:
    text = _text(given, name)
    if text.isascii() and text.isdigit() and int(text[:4]) <= MAX_WEIGHT:
        return int(text[:4])
    problems.append(Problem(name, f"must be a whole number from 0 to {MAX_WEIGHT}"))
    return 0


def _number(given: Mapping[str, Any], name: str, problems: list[Problem], *, least: float, most: float) -> float:
    try:
        value = float(_text(given, name).replace(",", ""))
    except ValueError:
        value = -1.0
    if not least <= value <= most:  # NaN neither
        problems.append(Problem(name, f"must be a number from {least:,g} to {most:,.0f}"))
    return value


def _members(given: Mapping[str, Any], name: str, known: set[str], problems: list[Problem]) -> frozenset[str]:
    values = frozenset(given.get(name) or ())
    if values - known:
        problems.append(Problem(name, "names something that there is not"))
    return values & known


def _countries(text: str, problems: list[Problem]) -> frozenset[str]:
    found, unknown = set(), []
    for word in filter(None, (part.strip() for part in text.replace("\n", ",").replace(";", ",").split(","))):
        try:
            found.add(pycountry.countries.lookup(word).alpha_2)
        except LookupError:
            unknown.append(word[:40])
    if unknown:
        problems.append(Problem("countries", f"has what is no country: {', '.join(unknown[:5])}"))
    return frozenset(found)


# Versions


def save(
    session: Session, workspace_id: uuid.UUID, model: Model, *, actor: str, restored_from: int | None = None
) -> Model:
    """Make ``model`` what stands, as a new version; the one that stands already is left as it is. New runs go by it."""
    workspace = workspaces.locked(session, workspace_id)
    before = model_from(workspace.settings.get("score"))
    if replace(model, version=before.version) == before:
        return before
    latest = session.scalar(
        sa.select(sa.func.max(ScoreVersion.version)).where(ScoreVersion.workspace_id == workspace_id)
    )
    model = replace(model, version=(latest or 0) + 1)
    config = stored_form(model)
    workspace.settings = workspace.settings | {"score": config}
    session.add(
        ScoreVersion(
            workspace_id=workspace_id,
            version=model.version,
            config=config,
            created_by=actor,
            restored_from=restored_from,
        )
    )
    audit.record(
        session,
        workspace_id,
        "SCORING_CHANGED",
        actor=actor,
        version=model.version,
        before=stored_form(before),
        after=config,
        restored_from=restored_from,
    )
    session.flush()
    return model


def restore(session: Session, workspace_id: uuid.UUID, version: int, *, actor: str) -> Model:
    """Take an earlier version (0: as shipped) over as a new one. NotFound."""
    if version == 0:
        model = SHIPPED
    else:
        config = session.scalar(
            sa.select(ScoreVersion.config).where(
                ScoreVersion.workspace_id == workspace_id, ScoreVersion.version == version
            )
        )
        if config is None:
            raise NotFound("There is no such version of the scoring.")
        model = model_from(config)
    return save(session, workspace_id, model, actor=actor, restored_from=version)


def versions(session: Session, workspace_id: uuid.UUID) -> Sequence[ScoreVersion]:
    """Saved versions, newest first."""
    query = scoped(ScoreVersion, workspace_id).order_by(ScoreVersion.version.desc()).limit(MAX_VERSIONS)
    return session.scalars(query).all()


# Components that failed


@dataclass(frozen=True, slots=True)
class Failed:
    """A component that could not be worked out for a lead of a workspace."""

    workspace_id: uuid.UUID
    component: str
    error: str


def failures(workspace_id: uuid.UUID, parts: Iterable[ScorePart]) -> list[Failed]:
    return [Failed(workspace_id, part.name, part.failed) for part in parts if part.failed]


def note_failures(session: Session, failed: Sequence[Failed]) -> None:
    """Count components that fell back, for whoever watches (``/metrics``), and tell the admins."""
    if not failed:
        return
    times: dict[tuple[uuid.UUID, str], tuple[int, str]] = {}
    for one in failed:
        count = times.get((one.workspace_id, one.component), (0, ""))[0]
        times[one.workspace_id, one.component] = (count + 1, one.error)
    rows = [
        {"workspace_id": workspace_id, "component": component, "times": count, "last_error": error}
        for (workspace_id, component), (count, error) in sorted(times.items())
    ]
    new = insert(ScoreFallback).values([row | {"last_at": sa.func.now()} for row in rows])
    session.execute(
        new.on_conflict_do_update(
            index_elements=["workspace_id", "component"],
            set_={
                "times": ScoreFallback.times + new.excluded.times,
                "last_at": new.excluded.last_at,
                "last_error": new.excluded.last_error,
            },
        )
    )
    for (workspace_id, component), (count, _) in sorted(times.items()):
        alerts.raise_alert(
            session,
            workspace_id,
            alerts.SCORING_FALLBACK,
            component,
            f"The part “{component.replace('_', ' ')}” of a score could not be worked out and counts as nothing; the "
            "other parts stand. The runs of these leads say why. Run them again once it is repaired.",
            link="/runs",
            times=count,
        )
