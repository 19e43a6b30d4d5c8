"""Audit events as sentences, for the history of a lead."""

from collections.abc import Callable, Mapping
from typing import Any

from webapp.leads.states import DealState, Intent, LeadStatus, RejectReason
from webapp.views import words

Teller = Callable[[Mapping[str, Any]], str]


def event(kind: str, details: Mapping[str, Any]) -> str:
    """An audit event as a sentence; an event that this page does not know yet reads as its name in words."""
    teller = EVENTS.get(kind)
    return teller(details) if teller else words.plain(kind).capitalize()


def _received(details: Mapping[str, Any]) -> str:
    status = words.member(LeadStatus, details.get("status", ""))
    via = words.named(str(details.get("source") or "unknown"), "SOURCE")
    return f"Received ({via}), judged {status} at intake" if status else f"Received ({via})"


def _touched(details: Mapping[str, Any]) -> str:
    if not details.get("intent"):
        consent = f"; consent is now “{details['consent']}”" if details.get("consent") else ""
        return f"The same request came again; counted here{consent}"
    return f"They wrote again in other words, judged {verdict_words(details)}"


def _raised(details: Mapping[str, Any]) -> str:
    said = f" ({verdict_words(details)})" if details.get("intent") else ""
    end = "the decision stands" if details.get("decided") else "up for review"
    return f"What they wrote later asks for more{said}: {end}"


def _overridden(details: Mapping[str, Any]) -> str:
    before, after = (verdict_words(details.get(side) or {}) for side in ("before", "after"))
    return _because(f"Overridden: {before} became {after}" if before != after else f"Overridden: {after}", details)


def _rejected(details: Mapping[str, Any]) -> str:
    reason = details.get("reject_reason") or RejectReason.OTHER
    if reason == RejectReason.OTHER and details.get("reason"):
        return _because("Rejected", details)
    return _because(f"Rejected: {words.member(RejectReason, reason)}", details)


def _because(text: str, details: Mapping[str, Any]) -> str:
    return f"{text} – “{details['reason']}”" if details.get("reason") else text


def _run_done(details: Mapping[str, Any]) -> str:
    said = [verdict_words(details)] if details.get("intent") else []
    if details.get("score") is not None:
        said.append(f"score {details['score']}")
    changed = "Run changed the verdict to" if details.get("before") else "Run finished:"
    return f"{changed} {', '.join(said)}" if said else "Run finished"


def _assigned(details: Mapping[str, Any]) -> str:
    return f"Assigned to {details['assignee']}" if details.get("assignee") else "Assigned to nobody"


def _stage(details: Mapping[str, Any]) -> str:
    stage = words.named(str(details.get("stage") or "a stage"), "STAGE")
    return f"Stage “{stage}” went on with less"


def _delivery(text: str) -> Teller:
    def tell(details: Mapping[str, Any]) -> str:
        where, what = str(details.get("destination") or ""), words.effect(details.get("action"))
        if what in where:  # a destination named for the one thing that it does
            what = ""
        return text + (f" ({what})" if what else "") + (f" to {where}" if where else "")

    return tell


def _there(what: str) -> Teller:
    def tell(details: Mapping[str, Any]) -> str:
        record = words.named(str(details.get("action") or ""), "EFFECT")
        return f"The {record} {what}" + (f" in {details['destination']}" if details.get("destination") else "")

    return tell


def _withdrawn(details: Mapping[str, Any]) -> str:
    what = "Delivery withdrawn" if len(details.get("deliveries") or ()) == 1 else "Deliveries withdrawn"
    return f"{what}: {details['reason']}" if details.get("reason") else what


def _undone(details: Mapping[str, Any]) -> str:
    return f"Decision taken back: {words.member(LeadStatus, (details.get('after') or {}).get('status', ''))} again"


def _corrected(details: Mapping[str, Any]) -> str:
    what = {"name": "Name", "email": "E-mail", "phone": "Phone"}.get(str(details.get("field")), "Field")
    return f"{what} corrected" if details.get("used") else f"{what} taken as it was sent"


def _about(text: str, name: str) -> Teller:
    """``text``, and whom or what it was about."""
    return lambda details: f"{text}: {details[name]}" if details.get(name) else text


def _source_changed(details: Mapping[str, Any]) -> str:
    what = {"fields": "the fields", "proof": "the proof", "limits": "name or limits"}.get(str(details.get("what")))
    return _about("Inbound webhook changed" + (f" ({what})" if what else ""), "source")(details)


def _rules(what: str) -> Teller:
    def tell(details: Mapping[str, Any]) -> str:
        number = details.get("version")
        which = f"Version {number} of the rules" if number else "The shipped rules"
        return f"{which} {what}" + (f" – “{details['note']}”" if details.get("note") else "")

    return tell


def _follow_up(details: Mapping[str, Any]) -> str:
    where = f" in {details['destination']}" if details.get("destination") else ""
    whose = f" for {details['assignee']}" if details.get("assignee") else ""
    return f"Follow-up task made{where}{whose}"


def _outcome(details: Mapping[str, Any]) -> str:
    said = words.member(DealState, details.get("outcome", ""))
    value = f", {float(details['value']):,.0f} {details.get('currency')}" if details.get("value") else ""
    stage = f" ({details['stage']})" if details.get("stage") else ""
    return f"Outcome reported: {said}{stage}{value}"


def _merged(details: Mapping[str, Any]) -> str:
    who, into = details.get("person"), details.get("into")
    return f"{who} and {into} were merged as one person" if who and into else "Merged with another person"


def _merge_undone(details: Mapping[str, Any]) -> str:
    return f"Merge with {details['person']} taken back" if details.get("person") else "Merge taken back"


def _routed(details: Mapping[str, Any]) -> str:
    if not details.get("assignee"):
        return "Taken out of the backlog, as nobody of the team takes leads"
    return f"Given to {details['assignee']} out of the backlog"


#: One for every type of event that the console writes (tested).
EVENTS: dict[str, Teller] = {
    "LEAD_SIGNAL_CREATED": _received,
    "LEAD_TOUCHED": _touched,
    "LEAD_RAISED": _raised,
    "LEAD_APPROVED": lambda details: _because("Approved", details),
    "LEAD_OVERRIDDEN": _overridden,
    "LEAD_REJECTED": _rejected,
    "LEAD_ASSIGNED": _assigned,
    "LEAD_CORRECTED": _corrected,
    "DECISION_UNDONE": _undone,
    "PERSON_MERGED": _merged,
    "PERSON_MERGE_UNDONE": _merge_undone,
    "DUPLICATE_DISMISSED": _about("Not the same person", "person"),
    "RUN_REQUESTED": lambda _: "Another run was asked for",
    "RUN_SUCCEEDED": _run_done,
    "RUN_FAILED": lambda _: "Run failed; the verdict before it stands",
    "STAGE_DEGRADED": _stage,
    "DELIVERY_SENT": _delivery("Delivered"),
    "DELIVERY_DEAD": _delivery("Delivery given up"),
    "DELIVERY_UNCERTAIN": _delivery("Unknown whether it arrived"),
    "DELIVERY_CANCELLED": _withdrawn,
    "DELIVERY_REPLAYED": _delivery("Delivery asked for again"),
    "DELIVERY_EDITED": _delivery("Delivery put right and asked for again"),
    "DELIVERY_LET_GO": _delivery("Delivery let go of"),
    "SHADOWED_SENT": _about("What was only recorded is sent to", "destination"),
    "REPLAY_CANCELLED": lambda _: "Sending deliveries again was stopped",
    "SHADOWED_DISCARDED": _about("What was only recorded is discarded, for", "destination"),
    "DELIVERY_WITHDRAWAL": lambda details: _because("What was delivered is to be taken back", details),
    "DELIVERY_WITHDRAWN": _delivery("Taken back"),
    "REPLAY_ASKED": _about("Deliveries asked for again", "deliveries"),
    "REPLAY_DONE": _about("Deliveries put in line again", "deliveries"),
    "TASK_TEXT_WRITTEN": lambda _: "Text of the follow-up task written",
    "TASK_TEXT_EDITED": lambda _: "Text of the follow-up task edited",
    "TASK_TEXT_DISCARDED": lambda _: "Text of the follow-up task thrown away",
    "FOLLOW_UP_CREATED": _follow_up,
    "WORKSPACE_CREATED": _about("Workspace made", "name"),
    "DESTINATION_SET": _about("Destination set up", "destination"),
    "DESTINATION_ON": _about("Destination switched on", "destination"),
    "DESTINATION_OFF": _about("Destination switched off", "destination"),
    "DESTINATION_SHADOW": _about("Destination only records what it would send", "destination"),
    "DESTINATION_CHANGED": _about("Destination changed", "destination"),
    "DESTINATION_REMOVED": _about("Destination removed", "destination"),
    "CALLBACK_REFUSED": _about("No callback: its destination is not there any more", "address"),
    "DESTINATION_GONE": _about("Destination switched off, as it answers that it is gone", "destination"),
    "MEMBER_ADDED": _about("Member added", "member"),
    "MEMBER_CHANGED": _about("Member changed", "member"),
    "MEMBER_REMOVED": _about("Member removed", "member"),
    "KEY_CREATED": _about("API key made", "key"),
    "KEY_REVOKED": _about("API key revoked", "key"),
    "IMPORT_STARTED": _about("Import started", "filename"),
    "IMPORT_FINISHED": _about("Import finished", "filename"),
    "IMPORT_CANCELLED": _about("Import cancelled", "filename"),
    "IMPORT_UNDONE": _about("Import undone", "filename"),
    "IMPORT_UNDO_FAILED": _about("Undoing an import stopped by an error of ours", "filename"),
    "FETCH_DEAD": _about("Fetching given up", "error"),
    "WEB_PAGES_ADDED": lambda _: "Web pages to be fetched added",
    "WEB_PAGE_REMOVED": _about("Web page taken off the list", "page"),
    "SOURCE_CREATED": _about("Inbound webhook made", "source"),
    "SOURCE_CHANGED": _source_changed,
    "SOURCE_ROTATED": _about("Inbound webhook given another address", "source"),
    "SOURCE_ON": _about("Inbound webhook switched on", "source"),
    "SOURCE_OFF": _about("Inbound webhook switched off", "source"),
    "SOURCE_DELETED": _about("Inbound webhook deleted", "source"),
    "QUARANTINE_REPLAYED": _about("Taken in from quarantine; it was held because", "reason"),
    "QUARANTINE_HELD": _about("Read again from quarantine and still held", "reason"),
    "QUARANTINE_DISCARDED": _about("Discarded from quarantine; it was held because", "reason"),
    "QUARANTINE_RESTORED": _about("Put back into quarantine", "reason"),
    "SOCIAL_PAGE_ADDED": _about("Social page added", "page"),
    "SOCIAL_PAGE_CHANGED": _about("Social page changed", "page"),
    "SOCIAL_PAGE_REMOVED": _about("Social page removed", "page"),
    "SOCIAL_PAGE_TROUBLE": _about("Meta refuses the access token of a social page", "page"),
    "META_SECRET_SET": lambda _: "Secret of the Meta app set",
    "META_SECRET_REMOVED": lambda _: "Secret of the Meta app removed",
    "LEAD_ROUTED": _routed,
    "HOURS_CHANGED": lambda _: "Working hours and targets changed",
    "ROUTING_CHANGED": lambda _: "What happens to leads that no rule fits changed",
    "ROUTING_RULE_SAVED": _about("Routing rule saved", "rule"),
    "ROUTING_RULE_MOVED": _about("Routing rule moved", "rule"),
    "ROUTING_RULE_DELETED": _about("Routing rule deleted", "rule"),
    "TEAM_SAVED": _about("Team saved", "team"),
    "TEAM_DELETED": _about("Team deleted", "team"),
    "MEMBER_HOURS_CHANGED": _about("Capacity and hours of a member changed", "member"),
    "ABSENCE_ADDED": _about("Absence added", "member"),
    "ABSENCE_REMOVED": _about("Absence removed", "member"),
    "ALERT_ACKNOWLEDGED": _about("Alert acknowledged", "alert"),
    "ALERT_RESOLVED": _about("Alert resolved", "alert"),
    "LEAD_SUPPRESSED": _about("Held back by the suppression list", "value"),
    "LEAD_RELEASED": lambda _: "Let go by the suppression list",
    "SUPPRESSION_ADDED": _about("Put on the suppression list", "value"),
    "SUPPRESSION_REMOVED": _about("Taken off the suppression list", "value"),
    "SUPPRESSION_EXPIRED": _about("Ran out on the suppression list", "value"),
    "OUTCOME_RECORDED": _outcome,
    "DELIVERY_DELETED_THERE": _there("was deleted"),
    "DELIVERY_BACK_THERE": _there("was brought back"),
    "CRM_PULL_CHANGED": lambda details: (
        f"Reading back {details.get('destination') or 'the CRM'} "
        + ("changed" if details.get("enabled") else "switched off")
    ),
    "RERUN_STARTED": _about("Many leads to be run again", "leads"),
    "RERUN_DONE": lambda _: "Running many leads again is done",
    "RERUN_CANCELLED": lambda _: "Running many leads again was stopped",
    "ENRICHMENT_CHANGED": lambda _: "Sources of enrichment changed",
    "ENRICHMENT_SERVICE_SWITCHED": _about("Enrichment service switched", "service"),
    "ENRICHMENT_SERVICE_REMOVED": _about("Enrichment service removed", "service"),
    "FLAG_CHANGED": lambda _: "Features changed",
    "COPYWRITING_CHANGED": lambda _: "Language of follow-up tasks changed",
    "SCORING_CHANGED": lambda _: "Scoring changed",
    "SETTINGS_CHANGED": lambda _: "Thresholds changed",
    "RULES_ACTIVATED": _rules("activated"),
    "RULES_ROLLED_BACK": _rules("again in use"),
    "RULES_DISCARDED": lambda _: "Draft of the rules thrown away",
    "JUDGING_CHANGED": lambda _: "Judging settings changed",
}


def verdict_words(values: Mapping[str, Any]) -> str:
    """``{intent, priority}`` as stored → ``price inquiry, P0``."""
    parts = []
    if values.get("intent"):
        parts.append(words.member(Intent, values["intent"]))
    if values.get("priority"):
        parts.append(str(values["priority"]))
    return ", ".join(parts)
