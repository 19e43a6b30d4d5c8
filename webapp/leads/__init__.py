"""The domain: a lead's way from the first byte to the CRM. Free of Flask, RQ, Redis and HTTP.

Read it top-down::

    in       intake        what every door calls: normalise, judge, insert; one transaction, no network
             ├ dedupe      who wrote, and did they say it before
             ├ verdict     intent, priority, confidence and evidence, by rules
             │ ├ ruleset   the rules as data (rulesets/default.json), compiled into a token trie
             │ └ textnorm  folding, tokens, language; offsets of the text as sent
             ├ search      the tokens under which a lead is found
             └ intake_sql  the one statement: key → person → lead → run → audit event

    through  run           claim a batch of due runs, work it, settle it
             ├ claims      leases, slots, fencing tokens; deliveries use them too
             ├ run_stages  one lead through the stages, and what a failing stage costs
             │ └ stages    enrich → classify → score → route; pure
             ├ run_store   load, and settle under the lead's lock
             └ run_rows    the statements that settle a batch

    seen     queries       keyset pages of leads, the export
             ├ filters     which leads: parsed from query parameters, told to SQL
             └ counts      counts that equal the list, the glance above it
             listings      keyset pages of runs and of deliveries
             history       one lead, run or delivery with what happened around it

    decided  review        approve, override, reject, undo, assign; who is here

    out      outbox        which effects a lead calls for; written in the deciding transaction
             destinations  where they go
             deliver       the loop that sends what is due: claim, call, save
             ├ sending     before a call: claim, look at the lead again, load
             └ outcomes    after a call: delivery, attempt, breaker, audit event
             ports         what outside services must offer (webapp.clients does)

    people   members       who belongs to a workspace, with which role; one admin always stays

    all      states        closed vocabularies and legal transitions (docs/taxonomy.md)
             types         frozen values between the stages
             errors        Transient | Permanent | Conflict | NotFound | Invalid | Forbidden
             audit         one event, in the transaction of what it tells of

The caller (door, page) owns the commit and then rings; functions here flush. ``run`` and ``deliver`` take a session
factory and own their short transactions, because they work, or call the outside, between them.
"""
