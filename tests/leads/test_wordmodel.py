"""The model of words beside the rules, and what the two together are worth on messages that nothing was tuned on."""

import json
from pathlib import Path
from typing import Any

import pytest

from webapp.leads import reliability, verdict, wordmodel
from webapp.leads.reliability import CHECK, Labelled, figures, judged
from webapp.leads.ruleset import PATH, default_ruleset, load_ruleset
from webapp.leads.states import AUTO_FROM, Intent, NextAction, Priority
from webapp.leads.textnorm import compose
from webapp.leads.verdict import judge
from webapp.leads.wordmodel import WordModel, default_model
from webapp.leads.words import read

DATA = Path(__file__).parents[1] / "data"


def labelled(name: str) -> list[Labelled]:
    rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    return [
        Labelled(
            row["id"], row["text"], Intent(row["intent"]), Priority(row["priority"]), NextAction(row["next_action"]), row["lang"]
        )
        for row in rows
    ]  # fmt: skip


BLIND = labelled("messages_b.jsonl")
HELD_OUT = [row for row in labelled("messages_a.jsonl") if reliability.half(row.id) == CHECK]


def ruleset(**changes: Any) -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8")) | changes


@pytest.mark.parametrize("rows", [BLIND, HELD_OUT], ids=["blind", "held out"])
def test_the_bars_hold_on_messages_that_nothing_was_tuned_on(rows: list[Labelled]) -> None:
    for lang, done in reliability.by_language(judged(rows, judge)).items():
        found = figures(done)
        assert None not in (found.accuracy, found.sure_accuracy, found.sure_share, found.priority, found.next_action)
        assert (found.accuracy or 0) >= (0.80 if lang == "all" else 0.78), lang
        assert (found.sure_accuracy or 0) >= (0.95 if lang == "all" else 0.93), lang
        assert (found.sure_share or 0) >= 0.5, lang
        assert (found.priority or 0) >= 0.82, lang
        assert (found.next_action or 0) >= 0.82, lang


def test_confidence_promises_no_more_than_is_kept_where_leads_go_out_by_themselves() -> None:
    done = [one for one in judged([*BLIND, *HELD_OUT], judge) if one.said.confidence >= AUTO_FROM]
    promised = sum(one.said.confidence for one in done) / len(done)
    assert sum(one.right for one in done) / len(done) >= promised - 0.02


def test_ham_of_short_messages_is_no_spam_with_confidence() -> None:
    texts = [
        "Ok lar... joking wif u oni",
        "I'm back home, call you tomorrow",
        "What time you coming down later?",
        "Mẹ về chưa con",
    ]
    assert not [text for text in texts if (said := judge(text)).intent is Intent.SPAM and said.confidence >= AUTO_FROM]


def test_words_add_up_as_training_sees_them() -> None:
    """The features that the file was learned from, and the sums that are made of it here, are the same."""
    model = default_model()
    repeated = ["the price, the price and the price", "hủy huỷ hủy đơn, huỷ đơn"]
    for text in (*(row.text for row in HELD_OUT[:40]), *repeated):
        words = read(compose(text).text, model.lexicon)
        weights = [
            times * (pair_weight(model, name[1:]) if name[0] == "2" else model.words.get(name, 0))
            for name, times in wordmodel.of_text([word.key for word in words.tokens]).items()
        ]
        assert model.of_words(words) == sum(weights)


def pair_weight(model: WordModel, pair: str) -> int:
    first, second = pair.split(" ")
    return model.pairs.get(first, {}).get(second, 0)


def test_an_intent_that_was_negated_away_is_not_chosen() -> None:
    model = default_model()
    text = "How much is it?"
    said = model.of_words(read(text.casefold(), model.lexicon)) + model.of_heard(verdict.heard(text)[1])
    first, likely, second, less = model.best(said)
    assert (first, likely > less) == (Intent.INQUIRY_PRICE, True)
    assert model.best(said, {first})[0] is second


def test_of_intents_that_are_as_likely_the_same_one_is_chosen_with_and_without_negations() -> None:
    model = default_model()
    level = wordmodel.pack([0] * len(model.intents)) - model.bias
    first, likely, second, less = model.best(level)
    assert likely == less == pytest.approx(1 / len(model.intents))
    assert model.best(level, {first})[0] is second


def test_where_no_rule_has_a_phrase_the_words_are_the_evidence_and_it_is_said() -> None:
    by_words = [one for one in judged(HELD_OUT, judge) if "by its words" in one.said.reasons[0]]
    assert len(by_words) >= 3
    for one in by_words:
        said, text = one.said, one.row.text
        spans = [span for span in said.evidence if (span.kind, span.label) == ("intent", said.intent)]
        assert all(f"“{text[span.start : span.end].casefold()}”" in said.reasons[0] for span in spans)
    assert any("the rules alone:" in one.said.reasons[0] for one in by_words)
    assert any(one.said.evidence for one in by_words)


def test_a_ruleset_that_does_not_ask_for_the_model_decides_alone() -> None:
    alone = load_ruleset(ruleset(words=False))
    text = "Is the front desk opening still available? How do I apply?"
    assert default_ruleset().model
    assert judge(text, rules=alone).intent is Intent.INQUIRY
    assert judge(text).intent is Intent.JOB


def test_a_strong_phrase_that_somebody_adds_decides() -> None:
    data = ruleset()
    data["cues"].append({"intent": "partnership", "lang": "en", "weight": 6, "phrases": ["zebra scheme"]})
    said = judge("tell me about the zebra scheme", rules=load_ruleset(data))
    assert said.intent is Intent.PARTNERSHIP
    assert [text for text in ("zebra scheme",) if any(span.cue == text for span in said.evidence)]


@pytest.mark.parametrize(
    "text", ["word " * 30_000, " ".join(f"w{n}" for n in range(30_000)), "\U0001f600 a " * 5000, "$", "@"]
)
def test_sums_of_any_length_stay_in_their_lanes(text: str) -> None:
    said = judge(text)
    assert 0 <= said.confidence <= 1
    assert 0 <= said.runner_up_confidence <= max(said.confidence, 1 - said.confidence)


def test_a_file_whose_weights_do_not_fit_is_refused() -> None:
    data = json.loads(wordmodel.PATH.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="do not fit"):
        wordmodel.load(data | {"features": data["features"] + "\nmore"})


def test_learning_reads_no_message_that_checking_uses() -> None:
    """Also no copy of one among our own messages."""
    folder = Path(__file__).parents[2] / "script" / "training"
    lines = {
        line.lstrip("!~").strip().casefold()
        for path in folder.glob("messages_*.txt")
        if "taxonomy" not in path.name
        for line in path.read_text(encoding="utf-8").splitlines()
    }
    copied = [
        row.text for row in [*BLIND, *HELD_OUT] if len(row.text.split()) > 3 and row.text.strip().casefold() in lines
    ]
    assert not copied
