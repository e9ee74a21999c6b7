#!/usr/bin/python3
"""Drives python-consul, a client library of Consul's that many services use, as it is. Every request is the library's own;
this file calls it and looks at what it gives. Neither knows anything of Causeway.

  lock_client.py count LOCK COUNTER TIMES ADDRESS
  lock_client.py turns LOCK HERE THERE

`count` increments the counter so many times under the lock, and prints a line `token VALUE` for each grant that came with
one. `turns` hands a lock from one address to the other and back, and ends with an error where an answer is not the one
that Consul itself would give.
"""

import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import consul

# An agent that takes over answers 503 or 504 meanwhile: as long as Consul without a leader might.
PATIENCE = 90.0
# For an answer that must not come while somebody waits for it.
MOMENT = 0.5


def client(address):
    """The library's client of http://ADDRESS, or of http://TOKEN@ADDRESS where Consul has ACLs."""
    parts = urllib.parse.urlsplit(address)
    made = consul.Consul(host=parts.hostname, port=parts.port, token=parts.username, consistency="consistent")
    if parts.username:
        # This release sends its token with keys and not with sessions.
        made.http.session.headers["X-Consul-Token"] = parts.username
    return made


def patiently(act, *args, **more):
    """What the library gives; what cannot be answered now is asked again."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return act(*args, **more)
        except consul.ConsulException as error:
            # Its own kinds are for what the request is about; the plain one is for 5xx.
            if type(error) is not consul.ConsulException or time.monotonic() > end:
                raise
            time.sleep(0.2)


def take(it, lock, session):
    """Waits for the lock as Consul's guide to locks tells: try, then a blocking query on the key."""
    while not patiently(it.kv.put, lock, "python", acquire=session):
        index, pair = patiently(it.kv.get, lock)
        if pair and "Session" in pair:
            patiently(it.kv.get, lock, index=index, wait="5s", consistency="default")


def count(lock, counter, times, address):
    it, tokens = client(address), []
    # The library keeps no headers of a write.
    it.http.session.hooks["response"].append(lambda answer, **_: tokens.append(answer.headers.get("X-Lock-Token")))
    session = patiently(it.session.create, name="python", ttl=15, lock_delay=0)
    for _ in range(int(times)):
        patiently(it.session.renew, session)
        take(it, lock, session)
        if tokens[-1]:
            print("token", tokens[-1], flush=True)
        _, pair = patiently(it.kv.get, counter)
        value = int(pair["Value"]) if pair else 0
        is_written = patiently(it.kv.put, counter, str(value + 1))
        is_released = patiently(it.kv.put, lock, "", release=session)
        assert (is_written, is_released) == (True, True), (is_written, is_released)
    assert patiently(it.session.destroy, session)


def turns(lock, *addresses):
    """Each of the two in turn is the one that holds it."""
    here, there = (client(address) for address in addresses)
    ids = [patiently(it.session.create, name=f"turns-{number}", ttl=30, lock_delay=0, behavior="release")
           for number, it in enumerate((here, there))]
    for (holder, mine), (other, theirs) in [((here, ids[0]), (there, ids[1])), ((there, ids[1]), (here, ids[0]))]:
        hand_over(lock, holder, mine, other, theirs)
    for it, session in zip((there, here), ids):
        # Found, renewed and ended from the other side.
        assert it.session.renew(session)["ID"] == session
        assert it.session.info(session)[1]["TTL"] == "30s"
        assert it.session.destroy(session)
        assert it.session.info(session)[1] is None
    ephemeral(lock + "-ephemeral", here, there)


def hand_over(lock, holder, mine, other, theirs):
    assert patiently(holder.kv.put, lock, "mine", acquire=mine) is True
    assert other.kv.put(lock, "theirs", acquire=theirs) is False, "two hold it"
    assert other.kv.put(lock, "theirs", release=theirs) is False, "who does not hold it released it"
    index, pair = other.kv.get(lock)
    assert (pair["Session"], pair["Value"]) == (mine, b"mine"), pair
    with ThreadPoolExecutor() as beside:
        woken = beside.submit(other.kv.get, lock, index=index, wait="60s", consistency="default")
        try:
            raise AssertionError(f"the query did not wait: {woken.result(timeout=MOMENT)}")
        except TimeoutError:
            pass
        assert holder.kv.put(lock, "done", release=mine) is True
        _, pair = woken.result(timeout=PATIENCE)
    assert ("Session" not in pair, pair["Value"]) == (True, b"done"), pair
    assert other.kv.put(lock, "theirs", acquire=theirs) is True, "it is free"
    assert holder.kv.put(lock, "mine", acquire=mine) is False, "two hold it"
    assert other.kv.put(lock, "", release=theirs) is True
    index, pair = holder.kv.get(lock)
    assert holder.kv.delete(lock, cas=pair["ModifyIndex"]) is True
    assert other.kv.get(lock)[1] is None


def ephemeral(lock, here, there):
    """A key that goes with its session."""
    session = here.session.create(ttl=30, lock_delay=0, behavior="delete")
    assert here.session.info(session)[1]["Behavior"] == "delete"
    assert here.kv.put(lock, "", acquire=session) is True
    assert there.kv.get(lock)[1]["Session"] == session
    assert there.session.destroy(session)
    for it in (here, there):
        assert it.kv.get(lock)[1] is None, "its key is still there"


{"count": count, "turns": turns}[sys.argv[1]](*sys.argv[2:])
