import os
import time

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from embedded.process import wait_until
from jobs import queue


def rings(connection, name="runs"):
    return Queue(name, connection=connection, serializer=JSONSerializer).jobs


def test_a_ring_names_its_task_and_needs_no_pickle(bell):
    queue.ring(queue.RUNS)
    assert wait_until(lambda: rings(bell), 2)
    (job,) = rings(bell)
    assert job.func_name == "jobs.tasks.process_runs"
    assert (job.args, job.kwargs) == ([], {}) or (list(job.args), job.kwargs) == ([], {})


def test_a_thousand_rings_cost_a_few_jobs(bell):
    start = time.monotonic()
    for _ in range(1000):
        queue.ring(queue.RUNS)
        queue.ring(queue.DELIVERIES)
    assert time.monotonic() - start < 5
    assert wait_until(lambda: rings(bell) and rings(bell, "deliveries"), 2)
    assert len(rings(bell)) <= queue.ENOUGH_RINGS


def test_rings_do_not_pile_up_when_nobody_listens(bell):
    ids = set()
    for _ in range(10):
        assert queue.ring_now(queue.RUNS)
        ids |= {job.id for job in rings(bell)}
    assert len(rings(bell)) == queue.ENOUGH_RINGS
    assert len(ids) == queue.ENOUGH_RINGS  # a fresh id each


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0"])
def test_without_redis_a_ring_neither_raises_nor_waits(url):
    bell = queue.Doorbell(url)
    start = time.monotonic()
    for _ in range(100):
        bell.ring(queue.RUNS)
    assert time.monotonic() - start < 2
    assert bell.send([queue.RUNS]) is False


def test_a_ring_before_init_is_dropped(monkeypatch):
    monkeypatch.setattr(queue, "_doorbell", None)
    queue.ring(queue.RUNS)
    assert queue.ring_now(queue.RUNS) is False


def test_a_forked_child_rings_by_itself(bell):
    queue.ring(queue.RUNS)  # the parent's thread and socket exist
    assert wait_until(lambda: rings(bell), 2)
    child = os.fork()
    if child == 0:
        queue.ring(queue.DELIVERIES)
        time.sleep(1)
        os._exit(0)
    assert wait_until(lambda: rings(bell, "deliveries"), 2)
    os.waitpid(child, 0)
    queue.ring(queue.RUNS)  # and the parent's still works
    assert wait_until(lambda: len(rings(bell)) == 2, 2)
