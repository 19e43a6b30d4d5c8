"""The intake judge: explainable rules for English and Vietnamese, fast enough to run inside the request.

``judge`` is pure: no I/O, no clock, no framework. It splits the message into tokens once, walks the ruleset's
trie from each token (longest match wins), lets negations undo cues, sums the weights per intent, and lets the
taxonomy's precedence choose among the intents that are clearly there. A small model of words (``wordmodel``) then hears
what the rules made of the message, weighs it with all the words, and decides; priority, evidence and tags stay the rules'
business. A ruleset that does not ask for the model decides alone.
"""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from webapp.leads.ruleset import Ruleset, default_ruleset
from webapp.leads.ruleset_trie import Cue, Node
from webapp.leads.states import (
    BUYING_INTENTS,
    PRECEDENCE,
    Intent,
    Priority,
    next_action_for,
)
from webapp.leads.textnorm import Mapped, Tokens, compose, fold_search, language, tokenize, word_key
from webapp.leads.types import Span, Verdict
from webapp.leads.wordmodel import WordModel, of_rules

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_KEY_MASHING = re.compile("[bcdfghjklmnpqrstvwxz]{4}")
_RANK = {intent: rank for rank, intent in enumerate((Intent.SPAM, Intent.VENDOR_PITCH, *PRECEDENCE, Intent.UNKNOWN))}
#: After these a negation goes on ("no demo or quote").
_OR = frozenset({"or", "nor", "hay", "hoặc", "hoac"})
_INTENTS = {intent.value: intent for intent in Intent}
_JUNK = frozenset({Intent.SPAM, Intent.VENDOR_PITCH})
#: Tokens that say something without being a word.
_TELLING = frozenset(("<phone>", "<email>", "<url>", "$", "£", "€", "₫"))
#: How many words are shown as evidence where the model decided by them.
_WORDS_SHOWN = 4


@dataclass(slots=True)
class _Hit:
    """A cue found at the token ranges ``parts`` (several for a phrase with gaps)."""

    parts: tuple[tuple[int, int], ...]
    cue: Cue
    negated: bool = False


@dataclass(slots=True)
class _Said:
    """What the rules make of a message. ``names``: its flags; ``scores``: of the intents that they found."""

    mapped: Mapped
    tokens: Tokens
    lang: str
    hits: list[_Hit]
    flags: list[_Hit]
    names: set[str]
    narrowed: bool
    scores: dict[Intent, float]
    intent: Intent
    runner_up: Intent | None


def judge(text: str, *, rules: Ruleset | None = None, channel: str | None = None) -> Verdict:
    """The verdict on one message. Never raises for any text; offsets in the evidence are those of ``text``.

    ``channel`` is accepted because callers know it; the shipped rules judge by the words alone.
    """
    rules = rules or default_ruleset()
    said = _listen(text, rules)
    model = rules.model if _can_weigh(said) else None
    runner_up: Intent | None
    if model:
        intent, likely, runner_up, less = model.best(said.tokens.keys, _as_features(said, rules), _undone(said))
        confidence = model.confidence(likely, said.lang)
        runner_up_confidence = round(min(less, confidence, 1 - confidence), 3)
    else:
        intent, runner_up = said.intent, said.runner_up
        confidence = _confidence(intent, runner_up, said.scores, said.tokens, rules)
        runner_up_confidence = _runner_up_confidence(confidence, runner_up, said.scores)
    names = said.names
    if intent is Intent.COMPLAINT and _large_sum(said.tokens, rules, said.lang):
        names.add("large_sum")
    priority = _priority(intent, names)
    evidence = _evidence(said, intent)
    reasons = _reasons(said, intent, runner_up)
    if model and intent is not Intent.UNKNOWN and not any(span.label == intent for span in evidence):
        evidence, words = _by_words(model, said, intent, evidence)
        reasons = (_told(intent, words, said.intent), *reasons[1:])
    return Verdict(
        intent=intent,
        priority=priority,
        next_action=next_action_for(intent, priority),
        confidence=confidence,
        evidence=evidence,
        runner_up=runner_up,
        runner_up_confidence=runner_up_confidence,
        lang=said.lang,
        tags=tuple(sorted(names)),
        reasons=reasons,
        ruleset=rules.version,
    )


def heard(text: str, *, rules: Ruleset | None = None) -> tuple[list[str], list[tuple[str, int]]]:
    """What the model of words is given: the tokens, and what the rules made of them. For training."""
    rules = rules or default_ruleset()
    said = _listen(text, rules)
    return said.tokens.keys, _as_features(said, rules)


def _listen(text: str, rules: Ruleset) -> _Said:
    """What the rules alone make of the message."""
    mapped = compose(text)
    tokens = tokenize(mapped.text)
    lang, hits, flags = _met(tokens, rules)
    narrowed = any(flag.cue.label == "narrowed" for flag in flags)
    flags = [flag for flag in flags if flag.cue.label != "narrowed"]
    scores = _scores(hits, rules, narrowed)
    words = [word for word in tokens.words if word[:1].isalnum()]
    if not words:
        scores = {intent: score for intent, score in scores.items() if intent is Intent.ENGAGEMENT}
    elif not scores and _gibberish(words):
        scores[Intent.SPAM] = rules.pitch
    names = {flag.cue.label for flag in flags}
    if any(literal in mapped.text for literal in rules.attack_literals):
        names.add("attack")
    if "attack" in names:
        scores[Intent.SPAM] = scores.get(Intent.SPAM, 0.0) + rules.strong - 0.5
    intent, runner_up = _decide(scores, rules)
    if intent in BUYING_INTENTS and runner_up is Intent.INQUIRY:
        intent, runner_up = _decide(_without_question_mark(scores, hits), rules)
    return _Said(mapped, tokens, lang, hits, flags, names, narrowed, scores, intent, runner_up)


def _can_weigh(said: _Said) -> bool:
    """Is the message one for the model? Not without anything to read, and what the rules know as an attack is theirs."""
    return "attack" not in said.names and any(key[0].isalnum() or key in _TELLING for key in said.tokens.keys)


def _undone(said: _Said) -> set[str]:
    """The intents of which a negation has left nothing ("not interested in a demo")."""
    return {hit.cue.label for hit in said.hits if hit.negated}.difference(said.scores)


def _as_features(said: _Said, rules: Ruleset) -> list[tuple[str, int]]:
    flags = {*said.names, "narrowed"} if said.narrowed else said.names
    negated = (hit.cue.label for hit in said.hits if hit.negated)
    return of_rules(said.scores, rules.strong, said.intent, flags, negated)


def _by_words(
    model: WordModel, said: _Said, intent: Intent, evidence: tuple[Span, ...]
) -> tuple[tuple[Span, ...], list[str]]:
    """The evidence with the words that told the model ``intent`` where no rule has a phrase for it, and those words."""
    tokens, mapped = said.tokens, said.mapped
    places = _positions(tokens.words, mapped.text)
    spans, words = list(evidence), []
    for i in model.speaking(tokens.keys, intent):
        word = tokens.words[i]
        if not word[:1].isalnum():
            continue
        start, end = mapped.origin(places[i], places[i] + len(word))
        if any(start < span.end and span.start < end for span in spans if span.kind != "intent"):
            continue
        spans = [span for span in spans if not (start < span.end and span.start < end)]
        spans.append(Span(start, end, "intent", intent.value, word))
        words.append(word)
        if len(words) == _WORDS_SHOWN:
            break
    return tuple(sorted(spans, key=lambda span: span.start)), words


def _told(intent: Intent, words: list[str], alone: Intent) -> str:
    """The first reason, where the model decided without a phrase of the rules."""
    quoted = ", ".join(f"“{word}”" for word in words)
    said = f"{intent.value} by its words" + (f": {quoted}" if quoted else "")
    return said if alone is intent else f"{said} (the rules alone: {alone.value})"


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule that a message met. ``kind``: ``intent`` | ``flag`` | ``negation`` | ``mask``; ``words``: what it met."""

    kind: str
    label: str
    phrase: str
    words: str
    weight: float
    negated: bool


def fired(text: str, *, rules: Ruleset | None = None) -> tuple[Fired, ...]:
    """Every rule that ``text`` meets, from the left: what :func:`judge` goes by."""
    rules = rules or default_ruleset()
    tokens = tokenize(compose(text).text)
    _, hits, flags = _met(tokens, rules)
    return tuple(
        Fired(hit.cue.kind, hit.cue.label, hit.cue.phrase, _words_of(hit, tokens), hit.cue.weight, hit.negated)
        for hit in sorted((*hits, *flags), key=lambda hit: hit.parts[0])
    )


def _met(tokens: Tokens, rules: Ruleset) -> tuple[str, list[_Hit], list[_Hit]]:
    """The language, the cues with negations applied, and the flags."""
    lang, bare = language(tokens.words)
    trie = rules.english if lang == "en" else rules.bare if bare else rules.marked
    hits, flags = _scan(tokens, trie, rules.gap)
    _negate(hits, tokens, rules)
    return lang, hits, flags


def _scan(tokens: Tokens, root: Node, gap: int) -> tuple[list[_Hit], list[_Hit]]:
    """All cues and flags found, longest match first from the left; phrases with gaps on top of those."""
    keys, size = tokens.keys, len(tokens.keys)
    hits: list[_Hit] = []
    flags: list[_Hit] = []
    gapped: list[_Hit] = []
    open_chains: dict[int, tuple[tuple[int, int], ...]] = {}
    free = flag_free = 0
    for i, node in enumerate(map(root.next.get, keys)):
        if node is None:
            continue
        j = i + 1
        best = best_flags = None
        while True:
            if node.ends:
                if node.cues and i >= free:
                    best = (j, node.cues)
                if node.flags and i >= flag_free:
                    best_flags = (j, node.flags)
                if node.steps or node.opens:
                    _follow(node, i, j, open_chains, gapped, flags, tokens, gap)
            if j >= size:
                break
            node = node.next.get(keys[j])
            if node is None:
                break
            j += 1
        if best:
            # "^" only anchors a cue: what begins at the word after it is as far left and must not be hidden.
            free = i if keys[i] == "^" else best[0]
            hits.extend(_Hit(((i, best[0]),), cue) for cue in best[1])
        if best_flags:
            flag_free = best_flags[0]
            flags.extend(_Hit(((i, flag_free),), cue) for cue in best_flags[1])
    return (_settle(hits, gapped) if gapped else hits), flags


def _follow(
    node: Node,
    start: int,
    end: int,
    open_chains: dict[int, tuple[tuple[int, int], ...]],
    gapped: list[_Hit],
    flags: list[_Hit],
    tokens: Tokens,
    gap: int,
) -> None:
    """Go on with the phrases with gaps: finish or lengthen those that wait for this part, open new ones."""
    for before, after, cue in node.steps:
        parts = open_chains.get(before)
        if parts is None:
            continue
        last = parts[-1][1]
        if not last <= start <= last + gap or not tokens.same_sentence(last - 1, start):
            continue
        parts = (*parts, (start, end))
        if cue is not None:
            (flags if cue.kind == "flag" else gapped).append(_Hit(parts, cue))
        if after is not None:
            open_chains[after] = parts
    for chain in node.opens:
        open_chains[chain] = ((start, end),)


def _settle(hits: list[_Hit], gapped: list[_Hit]) -> list[_Hit]:
    """Let each phrase with gaps replace the weaker cues whose words it uses, or give way to a stronger one."""
    owner: dict[int, list[_Hit]] = {}
    for hit in hits:
        for i in range(*hit.parts[0]):
            owner.setdefault(i, []).append(hit)
    dropped: set[int] = set()
    kept: list[_Hit] = []
    for hit in sorted(gapped, key=lambda h: -h.cue.weight):
        used = [i for part in hit.parts for i in range(*part)]
        rivals = [rival for i in used for rival in owner.get(i, ()) if id(rival) not in dropped]
        if any(_outranks(rival, hit) for rival in rivals):
            continue
        dropped.update(id(rival) for rival in rivals)
        kept.append(hit)
        for i in used:
            owner.setdefault(i, []).append(hit)
    return sorted((*(h for h in hits if id(h) not in dropped), *kept), key=lambda h: h.parts[0])


def _outranks(rival: _Hit, hit: _Hit) -> bool:
    """Whether the phrase with gaps ``hit`` gives way: words that stand together are the better evidence."""
    if rival.cue.kind != "intent" or len(rival.parts) > 1 or rival.cue.weight > hit.cue.weight:
        return True
    return rival.cue.weight == hit.cue.weight and rival.cue.label == hit.cue.label


def _negate(hits: list[_Hit], tokens: Tokens, rules: Ruleset) -> None:
    """Mark the cues that stand within reach of a negation in the same clause, and those joined to them."""
    if all(hit.cue.kind != "negation" for hit in hits):
        return
    until = negation = -1
    negations = [hit.parts[0][0] for hit in hits if hit.cue.kind == "negation"]
    for hit in hits:
        (start, end) = hit.parts[0]
        if hit.cue.kind == "negation":
            until, negation = end + hit.cue.reach, start
            continue
        if hit.cue.kind != "intent" or _INTENTS[hit.cue.label] not in rules.negatable:
            continue
        last_start, last = hit.parts[-1]
        within = bisect_right(negations, start) < bisect_left(negations, last_start)  # inside the gap
        if within or (start <= until and tokens.same_clause(negation, start)):
            hit.negated = True
            if last < len(tokens.keys) and tokens.keys[last] in _OR:
                until = max(until, last + 3)


def _gibberish(words: list[str]) -> bool:
    """Whether the words look like keys hit at random; a single such word says nothing (``unknown``)."""
    odd = sum(_KEY_MASHING.search(fold_search(word)) is not None for word in words)
    return odd >= 2 and odd * 2 >= len(words)


def _scores(hits: list[_Hit], rules: Ruleset, narrowed: bool) -> dict[Intent, float]:
    """Weights summed per intent; the same phrase said twice counts once.

    When the message narrows its refusal to a channel or a topic ("don't call me, just email the price"), the
    narrowable cues together stay below ``strong``: they decide only where no other intent is clearly there.
    """
    scores: dict[Intent, float] = {}
    limited: dict[Intent, float] = {}
    seen: set[tuple[str, str]] = set()
    for hit in hits:
        cue = hit.cue
        if cue.kind != "intent" or hit.negated or (cue.label, cue.phrase) in seen:
            continue
        seen.add((cue.label, cue.phrase))
        intent = _INTENTS[cue.label]
        if narrowed and cue.narrowable:
            limited[intent] = min(cue.weight, rules.strong - 0.5)
        else:
            scores[intent] = scores.get(intent, 0.0) + cue.weight
    for intent, weight in limited.items():
        scores[intent] = max(scores.get(intent, 0.0), weight)
    return scores


def _decide(scores: dict[Intent, float], rules: Ruleset) -> tuple[Intent, Intent | None]:
    """The intent and its closest rival.

    A pitch or spam that is clearly one wins whatever else it says. Otherwise precedence chooses
    among the intents that are clearly there (``strong``), and failing those among the best-scored.
    """
    if not scores:
        return Intent.UNKNOWN, None
    ranked = sorted(scores, key=lambda i: (-scores[i], _RANK[i]))
    junk = [i for i in ranked if i in _JUNK and scores[i] >= rules.pitch]
    needed = min(rules.strong, scores[ranked[0]])
    eligible = junk or [i for i in sorted(scores, key=_RANK.__getitem__) if scores[i] >= needed]
    intent = eligible[0] if scores[eligible[0]] >= rules.floor else Intent.UNKNOWN
    rivals = [i for i in ranked if i is not intent]
    return intent, rivals[0] if rivals else None


def _without_question_mark(scores: dict[Intent, float], hits: list[_Hit]) -> dict[Intent, float]:
    """A question mark speaks for ``inquiry`` among other things, but against no buying intent: who asks "how much
    is it?" is no less sure to want the price than who leaves the mark out."""
    marks = next((hit.cue.weight for hit in hits if hit.cue.phrase == "?" and not hit.negated), 0.0)
    scores[Intent.INQUIRY] -= marks
    if scores[Intent.INQUIRY] <= 0:
        del scores[Intent.INQUIRY]
    return scores


def _priority(intent: Intent, names: set[str]) -> Priority:
    """taxonomy.md, "Priority"."""
    pressing = "urgent" in names or "deadline" in names
    if intent in BUYING_INTENTS:
        if pressing and not ("put_off" in names and "urgent" not in names):
            return Priority.P0
        return Priority.P2 if "put_off" in names else Priority.P1
    if intent is Intent.COMPLAINT:
        return Priority.P0 if names & {"threat", "large_sum"} else Priority.P1
    if intent in (Intent.INQUIRY, Intent.SUPPORT, Intent.PARTNERSHIP, Intent.UNKNOWN):
        return Priority.P2
    return Priority.P3


def _large_sum(tokens: Tokens, rules: Ruleset, lang: str) -> bool:
    """Whether the message names an amount of money at or above the ruleset's large sum (in USD)."""
    units = rules.units["en" if lang == "en" else "vi"]
    for i, key in enumerate(tokens.keys):
        if key != "#":
            continue
        number = _NUMBER.match(tokens.words[i])
        if number is None:
            continue
        attached = tokens.words[i][number.end() :]
        near = [attached, tokens.words[i - 1], tokens.words[i + 1]]
        worth = [units[word_key(unit)] for unit in near if unit and word_key(unit) in units]
        if worth and _amount(number[0]) * max(worth) >= rules.large_sum:
            return True
    return False


def _amount(digits: str) -> float:
    """``38,000`` and ``38.000`` are thirty-eight thousand; ``4.5`` and ``4,5`` are four and a half."""
    groups = re.split("[.,]", digits)
    if len(groups) > 1 and len(groups[-1]) != 3:
        return float("".join(groups[:-1])[:15] + "." + groups[-1][:3])
    return float("".join(groups)[:15])


def _confidence(
    intent: Intent, rival: Intent | None, scores: dict[Intent, float], tokens: Tokens, rules: Ruleset
) -> float:
    """The share of verdicts with evidence like this that were right on labelled messages (ruleset table)."""
    if intent is Intent.UNKNOWN:
        count = sum(word[:1].isalnum() for word in tokens.words)
        return rules.unknown["empty" if count == 0 else "short" if count <= 4 else "long"]
    margin = min(scores[intent], 8.0) - (0.6 * min(scores[rival], 6.0) if rival else 0.0)
    found = rules.margins[0][1]
    for low, probability in rules.margins:
        if margin < low:
            break
        found = probability
    return found


def _runner_up_confidence(confidence: float, rival: Intent | None, scores: dict[Intent, float]) -> float:
    """The rival's share, by score, of what the verdict leaves over."""
    if rival is None:
        return 0.0
    rest = (1.0 - confidence) * scores[rival] / (scores[rival] + 1.0)
    return round(min(rest, confidence), 3)


def _evidence(said: _Said, intent: Intent) -> tuple[Span, ...]:
    """Non-overlapping spans: the verdict's own cues first, then priority words, negations, other intents."""
    hits, flags, tokens, mapped = said.hits, said.flags, said.tokens, said.mapped
    if not hits and not flags:
        return ()
    ranked: list[tuple[int, _Hit, str, str]] = []
    for hit in hits:
        kind, label = hit.cue.kind, hit.cue.label
        if kind == "negation":
            ranked.append((2, hit, "negation", "negation"))
        elif kind == "intent" and not hit.negated:
            ranked.append((0 if label == intent else 3, hit, "intent", label))
    ranked.extend((1, flag, "priority", flag.cue.label) for flag in flags)
    ranked.sort(key=lambda item: item[0])
    places = _positions(tokens.words, mapped.text)
    taken: set[int] = set()
    spans: list[Span] = []
    for _, hit, kind, label in ranked:
        for first, after in hit.parts:
            real = [i for i in range(first, after) if tokens.words[i]]
            if not real or not taken.isdisjoint(real):
                continue
            taken.update(real)
            start, end = mapped.origin(places[real[0]], places[real[-1]] + len(tokens.words[real[-1]]))
            spans.append(Span(start, end, kind, label, _readable(hit, tokens)))
    spans.sort(key=lambda span: span.start)
    return tuple(spans)


def _readable(hit: _Hit, tokens: Tokens) -> str:
    """The rule's phrase; for one that stands for many spellings, the words that it met."""
    if hit.cue.phrase.isalpha():
        return hit.cue.phrase
    return _words_of(hit, tokens) or hit.cue.phrase


def _words_of(hit: _Hit, tokens: Tokens) -> str:
    return " … ".join(" ".join(filter(None, tokens.words[a:b])) for a, b in hit.parts)


def _positions(words: list[str], text: str) -> list[int]:
    """Where each token starts. Skipped characters can start no token, so the next ``find`` is the token."""
    places = []
    at = 0
    for word in words:
        if word:
            at = text.find(word, at)
            places.append(at)
            at += len(word)
        else:
            places.append(at)
    return places


def _reasons(said: _Said, intent: Intent, rival: Intent | None) -> tuple[str, ...]:
    """Why, in words that a reviewer can read."""
    hits, tokens, scores, names = said.hits, said.tokens, said.scores, said.names
    if intent is Intent.UNKNOWN:
        reasons = ["No phrase of the ruleset says what this message wants."]
    else:
        own = (h for h in hits if h.cue.label == intent and not h.negated)
        cues = dict.fromkeys(_readable(hit, tokens) for hit in own)
        quoted = ", ".join(f"“{cue}”" for cue in list(cues)[:4])
        reasons = [f"{intent.value} ({scores.get(intent, 0):g}): {quoted}" if quoted else intent.value]
    if rival is not None and rival in scores:
        reasons.append(f"also {rival.value} ({scores[rival]:g})")
    if any(hit.negated for hit in hits):
        undone = ", ".join(f"“{_readable(hit, tokens)}”" for hit in hits if hit.negated)
        reasons.append(f"a negation undoes {undone}")
    reasons.extend(name.replace("_", " ") for name in sorted(names))
    return tuple(reasons)


#: ``Verdict.judge`` where there are no words to judge.
BY_CONTACT = "contact details"
BY_PAGE = "public page"
NO_WORDS = frozenset({BY_CONTACT, BY_PAGE})
#: The share of such leads that want what is assumed is not known: a draft at the default thresholds.
_CONTACT_CONFIDENCE = 0.72


def of_contact_details() -> Verdict:
    """The verdict on somebody whose contact details were handed over for being contacted, without a word of their own
    (a CRM record, a lead form): a person approves it."""
    intent, priority = Intent.CONTACT_REQUEST, Priority.P1
    return Verdict(
        intent, priority, next_action_for(intent, priority), _CONTACT_CONFIDENCE,
        reasons=("contact details were left, without a message",), judge=BY_CONTACT,
    )  # fmt: skip


def of_public_page() -> Verdict:
    """The verdict on a contact found on a public page: nobody has asked for anything, and the words are ours."""
    intent, priority = Intent.UNKNOWN, Priority.P2
    return Verdict(
        intent, priority, next_action_for(intent, priority), 0.5,
        reasons=("found on a public page; nobody has asked for anything",), judge=BY_PAGE,
    )  # fmt: skip
