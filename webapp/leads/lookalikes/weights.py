"""The weights: how often two records of one person, and of two strangers, agree on each field, and how closely.

The model is Fellegi and Sunter's (A Theory for Record Linkage, JASA 64, 1969): a level of agreement on a field is
evidence of ``log2(m / u)`` bits, with m its share among pairs of one person and u among pairs of strangers. For an
exact agreement u is the value's own frequency in the set (Winkler's frequency-based matching), so that two Nguyens say
little and two Pantazopouloses much.

``m`` and ``u`` below are where a set is too small to tell: judgements, rounded, of records that people type in. A set of
some hundreds brings its own figures (``statistics``), which is how one table serves sets as unlike as FEBRL3, where one
name in ten is another one altogether, and a contact list, where that means another person.
"""

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How closely two values agree. MISSING: at least one is not there, which says nothing."""

    MISSING = 0
    EXACT = 1
    CLOSE = 2
    SIMILAR = 3
    DIFFERENT = 4


#: Levels that carry weight, in the order of the tuples below.
LEVELS = (Level.EXACT, Level.CLOSE, Level.SIMILAR, Level.DIFFERENT)


@dataclass(frozen=True, slots=True)
class FieldWeights:
    """``m`` and ``u``: shares of EXACT, CLOSE, SIMILAR, DIFFERENT; each adds up to 1."""

    m: tuple[float, float, float, float]
    u: tuple[float, float, float, float]


WEIGHTS: dict[str, FieldWeights] = {
    #                     m: exact close similar different    u: exact close similar different
    "first":    FieldWeights((0.80, 0.16, 0.03, 0.010), (0.0050, 0.0040, 0.020, 0.9710)),
    "last":     FieldWeights((0.81, 0.14, 0.03, 0.020), (0.0030, 0.0030, 0.015, 0.9790)),
    "middle":   FieldWeights((0.75, 0.10, 0.05, 0.100), (0.0500, 0.0200, 0.030, 0.9000)),
    "company":  FieldWeights((0.70, 0.15, 0.05, 0.100), (0.0020, 0.0020, 0.016, 0.9800)),
    "number":   FieldWeights((0.83, 0.07, 0.00, 0.100), (0.0150, 0.1000, 0.000, 0.8850)),
    "street":   FieldWeights((0.75, 0.15, 0.03, 0.070), (0.0010, 0.0010, 0.018, 0.9800)),
    "extra":    FieldWeights((0.70, 0.17, 0.03, 0.100), (0.0030, 0.0040, 0.023, 0.9700)),
    "city":     FieldWeights((0.77, 0.15, 0.02, 0.060), (0.0050, 0.0030, 0.022, 0.9700)),
    "postcode": FieldWeights((0.82, 0.12, 0.01, 0.050), (0.0020, 0.0120, 0.006, 0.9800)),
    "state":    FieldWeights((0.92, 0.01, 0.00, 0.070), (0.2000, 0.0200, 0.000, 0.7800)),
    "country":  FieldWeights((0.96, 0.01, 0.00, 0.030), (0.5000, 0.0100, 0.000, 0.4900)),
    "birth":    FieldWeights((0.92, 0.05, 0.01, 0.020), (0.00005, 0.0012, 0.004, 0.99475)),
    "email":    FieldWeights((0.68, 0.14, 0.05, 0.130), (0.00005, 0.00015, 0.001, 0.9988)),
    "phone":    FieldWeights((0.72, 0.13, 0.00, 0.150), (0.0001, 0.0010, 0.000, 0.9989)),
}  # fmt: skip

#: Share of one person's records whose first and last name (or two address lines) changed places.
SWAPPED = 0.03

#: Share of one person's records that give another home.
MOVED = 0.1

#: Duplicates that a record has on average before anything is known; the prior odds of two of n records being one person
#: are then this / n.
EXPECTED_DUPLICATES = 0.3

# Two people may be alike because they live or work together. For these explanations of an agreement, what such people
# share is no evidence, and the rest weighs as follows (judgement, rounded).
#: Household pairs for each pair of one person's records that share a home, as if seen in so many pairs of the set.
HOUSEHOLD_ODDS = 0.5
HOUSEHOLD_PRIOR = 25
#: First names that agree within a household (father and son).
HOUSEHOLD_SAME_FIRST = 0.03
#: Dates of birth that agree within a household (twins).
HOUSEHOLD_SAME_BIRTH = 0.05
#: Households and offices that share one e-mail address.
SHARED_EMAIL = 0.1

#: Posterior probability from which two records are held to be the same (the command line), and from which they are
#: worth a reviewer's look.
SAME_FROM = 0.75
SUGGEST_FROM = 0.40
