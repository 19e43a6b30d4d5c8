"""The stages of a run, in order: enrich → classify → score → route.

Each is a pure function on ``leads.types``: no database, no clock, no network of its own. What a stage needs
from outside (a judge, the members of a workspace, a source of chance) is handed in, and how a stage's failure
is made good is ``leads.run``'s business.
"""
