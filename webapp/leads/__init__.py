"""The domain: a lead's way from the first byte to the CRM. Free of Flask, RQ, Redis and HTTP.

Read it top-down::

    in       intake        what every door calls: normalise, judge, insert; one transaction, no network
             ├ dedupe      who wrote, and did they say it before
             │ └ phones    numbers written plainly, read the short way
             ├ crm         leads of CRM clients: is it here already; search by parts of words
             ├ verdict     intent, priority, confidence and evidence, by rules and a small model
             │ ├ rulebook  a workspace's own rules: versions of its changes, the active one compiled
             │ │ └ ruleset_changes  the changes, compiled on top of the shipped rules
             │ ├ ruleset   the rules as data (rulesets/default.json), compiled into a token trie
             │ ├ wordmodel  words and rules weighed together (rulesets/words.json, made by script/train)
             │ ├ reliability  how right verdicts are on labelled messages (`flask classify --evaluate`)
             │ ├ suspicion does the message talk to a machine? then never out by itself
             │ ├ hearing   what the rules alone make of a message; matching finds their phrases in it
             │ ├ explanation  the evidence and the reasons of a verdict
             │ ├ words     tokens, each looked up once for all that the judge wants of it; language
             │ ├ textnorm  folding, forms to compare; offsets of the text as sent
             │ └ compiled  where all these are as machine code, if they were compiled
             ├ suppression  who must not be treated as a lead; the list, copies of it, the query before a delivery
             │ ├ suppression_match  what an entry says, and whether it is about somebody
             │ └ suppression_walk   leads that are here, compared with a list that has changed
             ├ search      the tokens under which a lead is found
             └ intake_sql  the one statement: key → person → lead → run → audit event
             intake_bulk   the same for a thousand rows at once, with the same results
             imports       files of leads: taken in, mapped, worked chunk by chunk, undone (its own map)
             answers       whole answers by idempotency key, for batches and uploads

             sources       inbound webhooks: addresses at which other people's systems post
             ├ hooked      one entry at such an address: a lead, or quarantine
             ├ mapping     which value of it is which field
             │ └ paths     the expressions that find values
             └ presets     mappings of well-known senders
             quarantine    what nobody could digest, kept raw
             └ quarantine_replay  mended, read again, discarded

             webpages      public pages that an admin named
             fetching      the loop that gets what is only announced or named: claim, fetch, take in

    through  run           claim a batch of due runs, work it, settle it
             ├ claims      leases, slots, fencing tokens; deliveries use them too
             ├ run_beside  what is asked outside about some runs while the others go on
             │ ├ run_gathering  facts: questions under way, shared by the leads that want the same answer
             │ └ run_asking     a model's opinion
             ├ enrichment  the sources of facts: what each is asked, and what came of asking
             │ ├ enrichment_store     sources, kept answers, breakers
             │ ├ enrichment_settings  what an admin decides about them
             │ └ fact_mapping         a service's JSON → facts
             ├ run_stages  one lead through the stages, and what a failing stage costs
             │ ├ learning  all facts of a lead put together
             │ ├ stages    enrich → classify → score → route; pure
             │ └ judging   rules and model together: what a model may see, and what its opinion changes
             │   ├ judging_policy  when one is asked: deployment, workspace
             │   └ llm_usage  what asking takes: each question, the day's budget
             ├ knowledge   the facts of a lead as they are stored and read again
             ├ scoring     a workspace's weights and ideal company, in versions
             │ ├ scoring_preview  what they would make of a lead that is here
             │ └ rescoring   waiting leads whose score has lost a point to age
             ├ run_store   load, and settle under the lead's lock
             ├ run_rows    the statements that settle a batch
             ├ boards      who may get leads now: members, teams, rules, hours
             ├ assigning   turns and capacities, exact among any number of workers
             ├ run_progress  where slow runs are, for who watches
             └ qualify     the same while the sender waits (/enrich-lead)
               └ qualify_keys  who answers which key: leases, stored answers
             reruns        many leads at once: which, at what cost, how far it is
             └ rerun_work  queues their runs a bit at a time

    seen     queries       keyset pages of leads, the export
             ├ filters     which leads: parsed from query parameters, told to SQL
             └ counts      counts that equal the list, the glance above it
             listings      keyset pages of runs, of deliveries, of quarantine
             run_filters   which runs: parsed from query parameters, told to SQL
             query_values  values of query parameters that filters share
             history       one lead, run or delivery with what happened around it
             keyset        pages of what came one after another, for programs
             figures       how many of what over a period, for programs

    decided  review        approve, override, reject, undo, assign; who is here

    out      outbox        which effects a lead calls for; written in the deciding transaction
             ├ triggers    which leads a destination wants
             ├ callbacks   results posted to the address that came with a lead
             └ withdrawing what was delivered and should not have been is taken back
             destinations  where they go: made, changed, switched
             ├ kinds       what each kind of destination is: settings, steps, fields, promises
             ├ fieldmap    which value of a lead fills which field there
             ├ digests     when the next digest goes out; pure
             └ trial       trying a destination out
             deliver       the loop that sends what is due: claim, call, save
             ├ draining    the loop itself; fetching uses it too
             ├ sending     before a call: claim, look at the lead again, load
             ├ pacing      the rate budget that all workers share
             └ outcomes    after a call: delivery, attempt, breaker, audit event, alert
             replays       dead letters asked for again: one put right, or many in the background
             delivery_filters  the filter of the list of deliveries
             delivery_waits  what one that is to go out waits for
             alerting      alerts about deliveries, and alerts sent on to chat or mail
             delivery_figures  calls, failures and times of each destination by the hour
             crm_sync      the same on request: what is due and not in the CRM, and where it stands
             crm_tasks     follow-up tasks in the CRM on request: rounds of small steps
             ├ crm_rounds  how such a round is asked for and told
             └ crm_people  whom a task may be made for
             ports         what outside services must offer (webapp.clients does)

    became   lead_outcomes  won or lost: a history of reports, and what sources are worth by them
             crm_pulling   deals and deletions read back from CRMs, in small steps
             ├ crm_pulls   for which, what their stages mean, how it went
             └ deals       whose a deal is, what is new of it; what was deleted there

    people   lookalikes    who may be the same person: in a whole set (pairs), or in the background (search)
             merging       two people become one, and two again
             members       who belongs to a workspace, with which role; one admin always stays
             workspaces    one by each name

    due      hours         working hours, holidays, changes of the clocks; pure
             sla           by when a person should have decided
             backlog       leads that wait for their team, given out when it works

    tasks    task_texts    what a lead's follow-up task says: wanted, seen, edited, fixed when it goes out
             ├ copywriting   has them written by a model
             ├ task_check    what of a model's words may stand in one
             └ task_template the text without a model, and how both are rendered

    set      flags         features that a workspace can switch off, and what is held meanwhile
    around   alerts        what admins should see to: raised, counted, acknowledged, resolved

    all      states        closed vocabularies and legal transitions (docs/taxonomy.md)
             vocabulary    what they say in words, for pages and for messages to people
             types         frozen values between the stages
             industries    the closed list of them
             errors        Transient | Permanent | Conflict | NotFound | Invalid | Forbidden
             audit         one event, in the transaction of what it tells of

The caller (door, page) owns the commit and then rings; functions here flush. ``run`` and ``deliver`` take a session
factory and own their short transactions, because they work, or call the outside, between them.
"""

from webapp.leads import compiled

__path__[:0] = compiled.search_path(compiled.folder())
