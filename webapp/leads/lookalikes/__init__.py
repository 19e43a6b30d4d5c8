"""Look-alikes: records that may be one person's. Suggested to people, merged by people (``webapp.leads.merging``).

::

    columns      which column of a table is which field
    records      named fields → a folded record; what is missing stays empty
    blocking     which records are worth comparing, so that a large set stays cheap
    similarity   how closely two values agree
    weights      what an agreement or a difference is worth; the thresholds
    statistics   what a set tells of itself: how common values are, how unreliable fields
    scoring      two records → bits for one person, against strangers, households, colleagues
    reasons      the same in words
    pairs        a whole set compared with itself (``flask dedupe evaluate``)
    search       people of a workspace compared as they come, through an index
"""
