"""Starts workers of the deliveries in no time, as forks of a process that has loaded everything: ``-m tests.faults.nursery``.

A line on its standard input starts one; its process id is printed. Loading takes seconds of a core, which two hundred
kills would mostly be. What runs is ``jobs.worker``, from its first line on.
"""

import os
import signal
import sys

from jobs import worker


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are killed
    print("ready", flush=True)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(worker.main(["deliveries"]))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
