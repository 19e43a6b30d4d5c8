"""Background processes. PostgreSQL is the truth, RQ is the doorbell: ``queue`` rings, ``tasks`` name what a
ring does, ``worker`` and ``schedule`` are the processes, ``wiring`` gives the domain what it needs from
outside."""
