"""Learn ``webapp/leads/rulesets/words.json``: script/train.

Learned from: our own messages beside this file, the tune half of tests/data/messages_a.jsonl, and, counted half, the
development set tests/data/leads.jsonl, which the rules were written on. Confidence is set by cross-validation: each
message is judged by a model that has seen neither it nor another spelling of the same line.
"""

import argparse
import base64
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from webapp.leads import verdict, wordmodel
from webapp.leads.reliability import TUNE, half
from webapp.leads.states import Intent
from webapp.leads.textnorm import fold_search
from webapp.leads.wordmodel import COARSE, PATH, UNIT

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "tests" / "data"
SEED = 7
#: Regularisation, how loudly the rules are heard, and how much a message counts that the rules were written on.
C, RULES, SEEN = 4.0, 0.5, 0.5
#: Spellings made of a line with alternatives ``[one|other]``.
SPELLINGS = 3
#: Words whose weights are all smaller are left out.
SMALLEST = 0.08
FOLDS = 5
#: Lower edges of the steps of confidence, by the model's probability.
STEPS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.78, 0.85, 0.9, 0.94, 0.97, 0.985)
_ALTERNATIVES = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")


@dataclass(frozen=True, slots=True)
class Row:
    text: str
    intent: str
    lang: str
    group: str
    weight: float
    seen_by_rules: bool = False


def rows() -> list[Row]:
    found = _own()
    for one in _json("messages_a.jsonl"):
        if half(one["id"]) == TUNE:
            found.append(Row(one["text"], one["intent"], one["lang"], one["id"], 1.0))
    for one in _json("leads.jsonl"):
        group = one.get("duplicate_of") or one["id"]
        found.append(Row(one["message"], one["intent"], one["lang"], group, SEEN, seen_by_rules=True))
    return found + _bare(found)


def _bare(given: list[Row]) -> list[Row]:
    """Vietnamese as many type it, without diacritics: the same messages once more, counted half."""
    plain = ((row, fold_search(row.text)) for row in given if row.lang != "en")
    return [replace(row, text=text, weight=row.weight / 2) for row, text in plain if text != row.text.casefold()]


def _json(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def _own() -> list[Row]:
    """Each line's spellings count as one message together, or nearly."""
    found, chance = [], random.Random(SEED)
    for path in sorted(HERE.glob("messages_*.txt")):
        lang, intent = path.stem.split("_")[1], ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            if line.startswith("# "):
                intent = Intent(line[2:].strip()).value
            elif line.strip():
                texts = _spellings(line[1:] if line[0] in "!~" and len(line) > 1 else line, chance)
                weight = len(texts) ** -0.5
                found.extend(Row(text, intent, lang, f"{path.stem}:{number}", weight) for text in texts)
    return found


def _spellings(line: str, chance: random.Random) -> list[str]:
    parts = [part.split("|") if i % 2 else [part] for i, part in enumerate(_ALTERNATIVES.split(line))]
    parts = [chance.sample(options, len(options)) for options in parts]
    longest = max(map(len, parts))
    texts = {}
    for turn in range(3 * SPELLINGS):
        chosen = (options[turn % len(options)] if turn < longest else chance.choice(options) for options in parts)
        texts[" ".join("".join(chosen).split(" ")).replace("  ", " ").strip().replace("\\n", "\n")] = None
    return list(texts)[:SPELLINGS]


def features(text: str) -> dict[str, float]:
    keys, heard = verdict.heard(text)
    said: dict[str, float] = {name: float(times) for name, times in wordmodel.of_text(keys).items()}
    said |= {f"rule {name}": times * RULES / (8 if name[0] == "R" else 1) for name, times in heard}
    return said


def learn(given: Any, intents: Sequence[str], weights: Any) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=300, tol=1e-3).fit(given, intents, sample_weight=weights)


def calibrate(probability: Any, right: Any, weight: Any) -> list[list[float]]:
    """Steps (from, promised): the share right in each, less one standard error, since the messages of the world are not
    these; never falling."""
    fitted = IsotonicRegression(out_of_bounds="clip").fit(probability, right, sample_weight=weight)
    steps: list[list[float]] = []
    last = 0.2
    for low, high in zip(STEPS, (*STEPS[1:], 1.01), strict=True):
        inside = (probability >= low) & (probability < high)
        if not inside.any():
            continue
        n = float(weight[inside].sum())
        share = float((weight[inside] * fitted.predict(probability[inside])).sum()) / n
        last = max(last, share - (share * (1 - share) / n) ** 0.5)
        steps.append([low, round(min(last, 0.985), 3)])
    steps[0][0] = 0.0
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="script/train", description="Learn the model of words that judges with the rules."
    )
    parser.add_argument("--out", type=Path, default=PATH)
    parser.add_argument("--dry", action="store_true", help="cross-validate only")
    chosen = parser.parse_args()
    data = rows()
    vectors = DictVectorizer()
    given = vectors.fit_transform([features(row.text) for row in data])
    intents = np.array([row.intent for row in data])
    weights = np.array([row.weight for row in data])
    groups = np.array([row.group for row in data])
    fresh = np.flatnonzero([not row.seen_by_rules for row in data])
    seen = np.flatnonzero([row.seen_by_rules for row in data])
    probability, right = np.zeros(len(data)), np.zeros(len(data))
    for train, test in GroupKFold(FOLDS, shuffle=True, random_state=SEED).split(fresh, groups=groups[fresh]):
        learned = np.r_[seen, fresh[train]]
        model = learn(given[learned], intents[learned], weights[learned])
        said = model.predict_proba(given[fresh[test]])
        probability[fresh[test]] = said.max(axis=1)
        right[fresh[test]] = model.classes_[said.argmax(axis=1)] == intents[fresh[test]]
    calibration = {}
    vietnamese = np.array([row.lang != "en" for row in data])
    for lang, mask in (("en", ~vietnamese), ("vi", vietnamese)):
        at = fresh[mask[fresh]]
        once = weights[at] ** 2
        calibration[lang] = calibrate(probability[at], right[at], once)
        print(f"{lang}: {once.sum():.0f} messages, right {np.average(right[at], weights=once):.3f}")
        for low, promised in calibration[lang]:
            above = at[probability[at] >= low]
            print(
                f"  from {low:<5} promised {promised:.3f}, all above: {(weights[above] ** 2).sum() / once.sum():.1%} of messages, "
                f"right {np.average(right[above], weights=weights[above] ** 2):.3f}"
            )
    if chosen.dry:
        return
    model = learn(given, intents, weights)
    write(chosen.out, model, vectors.get_feature_names_out(), calibration)


def write(out: Path, model: LogisticRegression, names: Sequence[str], calibration: dict[str, Any]) -> None:
    order = [list(model.classes_).index(intent.value) for intent in Intent]
    weights = model.coef_[order]
    rules = {
        name.removeprefix("rule "): [round(w * RULES / (8 if name[5] == "R" else 1) * UNIT) for w in weights[:, i]]
        for i, name in enumerate(names)
        if name.startswith("rule ")
    }
    kept = [i for i, n in enumerate(names) if not n.startswith("rule ") and np.abs(weights[:, i]).max() >= SMALLEST]
    coarse = np.clip(np.rint(weights[:, kept].T * COARSE) + 128, 0, 255).astype(np.uint8)
    whole = {
        "version": "2026-11-28", "about": "Weights of webapp/leads/wordmodel.py, made by script/train.",
        "intents": [intent.value for intent in Intent],
        "bias": [round(b * UNIT) for b in model.intercept_[order]],
        "calibration": calibration, "rules": rules,
        "features": "\n".join(names[i] for i in kept), "weights": base64.b64encode(coarse.tobytes()).decode(),
    }  # fmt: skip
    out.write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(kept):,} of {len(names):,} features, {out.stat().st_size / 1024:.0f} KiB: {out}")


if __name__ == "__main__":
    main()
