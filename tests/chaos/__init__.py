"""Chaos: faults are injected into a search, and what comes of it is compared with an undisturbed one.

    tunekit search -> one kind of fault at random (seeded) moments -> tunekit resume, as often as needed
      -> the same trials, rungs, values and MLflow runs as an undisturbed search; nothing is left behind

With one trial at a time the order of events is determined, so everything must be exactly the same. With
several at a time it is not: then the invariants are checked, and that the policy, asked again, decides
as the history says.

    search_under_fault.py  the search in a process of its own: start, resume, processes, epochs lost
    faults.py              the kinds of fault that need nothing but the search
    ending_faults.py       the kinds after which the search's process has ended
    node_faults.py         a second node for its Ray, removed and added
    tracking_faults.py     an MLflow server that stops, and a proxy before it that misbehaves
    verdict.py             what differs from the undisturbed search, and what breaks an invariant
    leftovers.py           processes, files, locks and runs that nobody may leave behind
    campaign.py            a kind of fault from the first start to the verdict
    __main__.py            `python -m tests.chaos`: the table of all of them

Sources: Ray's own chaos tests (ray/_private/test_utils.py, the node and worker killers), and the crash
tests of NePS.
"""
