"""Rules: what the workspace changes about how messages are judged, a draft at a time; the bench to try them on."""

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from flask import Blueprint, request
from flask_login import current_user

from webapp.extensions import db
from webapp.leads import history, intake, rule_bench, rulebook, ruleset_changes
from webapp.leads.errors import Conflict, Invalid, NotFound
from webapp.leads.ruleset import FLAGS, LANGS, default_ruleset
from webapp.leads.ruleset_changes import Change, Key
from webapp.leads.states import Role
from webapp.models.judging import RulesetVersion
from webapp.security.roles import requires
from webapp.views import evidence, helpers, words

bp = Blueprint("rules", __name__, url_prefix="/settings/rules")

#: Phrases listed at once; the filter finds the others.
MOST_LISTED = 100
COUNTS = (100, 500, 2_000)
DEFAULT_COUNT = 500


class Listed(NamedTuple):
    """A phrase as the draft has it. ``state``: shipped | added | changed | off."""

    key: Key
    amount: float
    state: str
    shipped: float | None


@bp.get("")
@requires(Role.VIEWER)
def index() -> Any:
    return _page()


def _page(*, status: int = 200, **more: Any) -> Any:
    session, here = db.session(), helpers.here()
    active, draft = rulebook.active(session, here), rulebook.draft(session, here)
    before, after = _changes(active), _changes(draft)
    wanted = {name: request.args.get(name, "").strip() for name in ("q", "kind", "lang", "own")}
    listed, found = _listed(after if draft else before, wanted)
    shown = {
        "active": active, "draft": draft, "base": default_ruleset().version,
        "difference": rulebook.difference(before, after) if draft else [],
        "idle": ruleset_changes.without_effect(after if draft else before),
        "versions": rulebook.versions(session, here), "listed": listed, "found": found, "wanted": wanted,
        "kinds": KINDS, "classes": ruleset_changes.classes(), "given": {}, "problems": {}, "largest": MOST_LISTED,
        "known": ruleset_changes.shipped(), "wrong": [],
    }  # fmt: skip
    return helpers.show("pages/rules.html", **(shown | more), status=status)


def _changes(version: RulesetVersion | None) -> list[Change]:
    return ruleset_changes.read(version.changes) if version else []


def kind_of(section: str, label: str) -> str:
    """One value for a form's choice."""
    return f"{section}:{label}" if label else section


#: What a phrase can be, as a form offers it: (group, [(value, words)]).
KINDS: Sequence[tuple[str, list[tuple[str, str]]]] = (
    ("Intent", [(kind_of("cues", intent), words.intent_word(intent)) for intent in ruleset_changes.INTENTS]),
    ("Priority", [(kind_of("flags", flag), words.named(flag, "FLAG")) for flag in FLAGS]),
    ("Other", [("negations", "negation: undoes the phrase after it"), ("masks", "means nothing: hides phrases in it")]),
)
_KIND_VALUES = {value for _, choices in KINDS for value, _ in choices}


def _listed(changes: Sequence[Change], wanted: dict[str, str]) -> tuple[list[Listed], int]:
    """The phrases that the filter names, own ones first, and how many there are."""
    shipped, own = ruleset_changes.shipped(), {change.key: change for change in changes}
    rows = []
    for key, change in own.items():
        there = shipped.get(key)
        state = "off" if change.off else "changed" if there else "added"
        rows.append(Listed(key, change.amount, state, there.amount if there else None))
    if wanted["own"] != "yes":
        rows += [Listed(key, one.amount, "shipped", one.amount) for key, one in shipped.items() if key not in own]
    text = wanted["q"].casefold()
    rows = [
        row
        for row in rows
        if (not text or text in row.key[3].casefold())
        and (not wanted["kind"] or kind_of(*row.key[:2]) == wanted["kind"])
        and (not wanted["lang"] or row.key[2] == wanted["lang"])
    ]
    return rows[:MOST_LISTED], len(rows)


@bp.post("/phrases")
@requires(Role.MANAGER)
def add() -> Any:
    """Add phrases, one a line."""
    given = {name: request.form.get(name, "").strip() for name in ("kind", "lang", "amount", "phrases")}
    phrases = list(dict.fromkeys(line.strip() for line in given["phrases"].splitlines() if line.strip()))
    problems: dict[str, str] = {}
    if not phrases:
        problems["phrases"] = "are missing"
    if given["kind"] not in _KIND_VALUES:
        problems["kind"] = "must be chosen"
    if given["lang"] not in LANGS:
        problems["lang"] = "must be chosen"
    section, _, label = given["kind"].partition(":")
    amount = _number(given["amount"])
    if section in ("cues", "negations") and amount is None:
        problems["amount"] = "must be a number"
    if problems:
        return _page(given=given, problems=problems, status=422)
    made = [_change((section, label, given["lang"], phrase), amount or 0.0) for phrase in phrases]
    try:
        rulebook.change(db.session(), helpers.here(), made, actor=current_user.user.name)
    except Invalid as error:
        db.session.rollback()
        return _page(given=given, wrong=error.details, status=422)
    db.session.commit()
    helpers.toast(
        "In the draft", f"{len(phrases)} {'phrase' if len(phrases) == 1 else 'phrases'}; nothing is judged by it yet"
    )
    return helpers.see("rules.index")


@bp.post("/phrase")
@requires(Role.MANAGER)
def change() -> Any:
    """Weigh one phrase differently, switch it off, or take its change back (``do``: set | off | restore)."""
    key: Key = tuple(request.form.get(name, "") for name in ("section", "label", "lang", "phrase"))  # type: ignore[assignment]
    action, session, actor = request.form.get("do", ""), db.session(), current_user.user.name
    there = ruleset_changes.shipped().get(key)
    mine = {
        one.key for one in _changes(rulebook.draft(session, helpers.here()) or rulebook.active(session, helpers.here()))
    }
    if there is None and key not in mine:
        raise NotFound("There is no such phrase any more. Open the page again.")
    try:
        if action == "restore" or (action == "off" and there is None):
            rulebook.restore(session, helpers.here(), key, actor=actor)
        elif action == "off":
            off = Change(key[0], key[1], key[2], key[3], off=True)  # type: ignore[arg-type]
            rulebook.change(session, helpers.here(), [off], actor=actor)
        elif action == "set":
            amount = _number(request.form.get("amount", ""))
            if amount is None:
                raise Invalid("A weight is a number, such as 2.5.")
            rulebook.change(session, helpers.here(), [_change(key, amount)], actor=actor)
        else:
            raise Invalid("That choice does not exist. Open the page again and repeat it.")
    except Invalid as error:
        session.rollback()
        said = [f"“{one.field}” {one.reason}" for one in error.details] or [error.message]
        return _page(wrong_words=said, status=422)
    session.commit()
    helpers.toast("In the draft", "nothing is judged by it yet")
    back = {name: value for name in ("q", "kind", "own") if (value := request.form.get(f"back_{name}", ""))}
    return helpers.see(
        "rules.index", **back, **({"lang": request.form["back_lang"]} if request.form.get("back_lang") else {})
    )


def _change(key: Key, amount: float) -> Change:
    section, label, lang, phrase = key
    reach = int(amount) if section == "negations" and 0 <= amount <= ruleset_changes.MAX_REACH else -1
    return Change(
        section, label, lang, phrase, weight=amount if section == "cues" else 0.0,  # type: ignore[arg-type]
        reach=reach if section == "negations" else 0,
    )  # fmt: skip


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


@bp.post("/discard")
@requires(Role.MANAGER)
def discard() -> Any:
    rulebook.discard(db.session(), helpers.here(), actor=current_user.user.name)
    db.session.commit()
    helpers.toast("Draft thrown away", "what is active goes on")
    return helpers.see("rules.index")


@bp.post("/activate")
@requires(Role.MANAGER)
def activate() -> Any:
    """The draft becomes what leads are judged by."""
    session = db.session()
    try:
        made = rulebook.activate(
            session, helpers.here(), revision=int(request.form.get("revision", "-1") or "-1"),
            note=request.form.get("note", ""), actor=current_user.user.name,
        )  # fmt: skip
        session.commit()
    except (Conflict, Invalid) as error:
        session.rollback()
        said = [f"“{one.field}” {one.reason}" for one in error.details] or [error.message]
        return _page(wrong_words=said, status=409 if isinstance(error, Conflict) else 422)
    except ValueError:
        raise Invalid("Open the page again and repeat it.") from None
    helpers.toast(f"Version {made.number} is active", "new leads and runs go by it within seconds")
    return helpers.see("rules.index")


@bp.post("/shipped")
@requires(Role.MANAGER)
def use_shipped() -> Any:
    """Judge by the shipped rules as they are."""
    rulebook.go_back(db.session(), helpers.here(), None, actor=current_user.user.name)
    db.session.commit()
    helpers.toast("The shipped rules are active", "your versions are kept")
    return helpers.see("rules.index")


@bp.post("/versions/<uuid:ruleset_id>/activate")
@requires(Role.MANAGER)
def go_back(ruleset_id: uuid.UUID) -> Any:
    """Judge by an earlier version again."""
    rulebook.go_back(db.session(), helpers.here(), ruleset_id, actor=current_user.user.name)
    db.session.commit()
    helpers.toast("The version is active again", "new leads and runs go by it within seconds")
    return helpers.see("rules.index")


@bp.get("/bench")
@requires(Role.VIEWER)
def bench() -> Any:
    given = request.args.get("lead", "")
    message = ""
    if given:
        try:
            message = history.lead(db.session(), helpers.here(), uuid.UUID(given)).message
        except ValueError:
            raise NotFound("There is no such lead.") from None
    return _bench(message)


@bp.post("/bench")
@requires(Role.VIEWER)
def try_out() -> Any:
    """Judge a pasted message; nothing of it is kept."""
    message = request.form.get("message", "").replace("\r\n", "\n")
    if len(message) > intake.MAX_MESSAGE:
        return _bench(
            message[: intake.MAX_MESSAGE], problem=f"has more than {intake.MAX_MESSAGE:,} characters", status=422
        )
    if problem := intake.text_problem(message):
        return _bench("", problem=problem, status=422)
    return _bench(message)


class Side(NamedTuple):
    """One judge's answer on the bench."""

    title: str
    tried: rule_bench.Tried
    pieces: list[evidence.Piece]


def _bench(message: str, *, problem: str = "", status: int = 200) -> Any:
    session, workspace = db.session(), current_user.workspace
    draft = rulebook.draft(session, workspace.id)
    sides = []
    if message.strip() and not problem:
        compared = [("By the active rules", rulebook.compiled(session, workspace.ruleset_id))]
        if draft:
            compared.append(("By the draft", rulebook.compiled_draft(draft)))
        for title, rules in compared:
            tried = rule_bench.tried(message, rules, workspace)
            sides.append(Side(title, tried, evidence.pieces(message, tried.verdict)))
    return helpers.show(
        "pages/rules_bench.html", "outcome", message=message, problem=problem, sides=sides, draft=draft,
        recent=rule_bench.recent(session, workspace.id), longest=intake.MAX_MESSAGE, status=status,
    )  # fmt: skip


@bp.get("/effect")
@requires(Role.MANAGER)
def effect() -> Any:
    """What the draft would change for the last leads."""
    session, workspace = db.session(), current_user.workspace
    draft = rulebook.draft(session, workspace.id)
    given = request.args.get("leads", "")
    leads = int(given) if given.isascii() and given.isdigit() and int(given) in COUNTS else DEFAULT_COUNT
    found = None
    if draft:
        rules = rulebook.compiled(session, workspace.ruleset_id), rulebook.compiled_draft(draft)
        found = rule_bench.effect(session, workspace, *rules, leads=leads)
    return helpers.show("pages/rules_effect.html", found=found, draft=draft, leads=leads, counts=COUNTS)
