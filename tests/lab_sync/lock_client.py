#!/usr/bin/env python3
"""A client of Consul's HTTP API as many services have one: sessions, locks by ?acquire=, blocking queries. Standard library
only. It knows nothing of Causeway.

  lock_client.py ADDRESS LOCK COUNTER TIMES

increments the counter so many times under the lock, and prints a line `token VALUE` for each grant that came with one.
"""

import json
import sys
import time
import urllib.error
import urllib.request

# An agent that takes over answers 503 or 504 meanwhile: as long as Consul without a leader might.
PATIENCE = 90.0


class Client:
    def __init__(self, address):
        # http://TOKEN@ADDRESS, where Consul has ACLs
        scheme, _, rest = address.partition("://")
        token, _, host = rest.rpartition("@")
        self.address = f"{scheme}://{host}"
        self.headers = {"X-Consul-Token": token} if token else {}

    def ask(self, method, path, body=None):
        """Status, headers and body; what cannot be answered now is asked again."""
        end = time.monotonic() + PATIENCE
        while True:
            request = urllib.request.Request(self.address + path, data=body, headers=self.headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=75) as answer:
                    return answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                if error.code < 500 or time.monotonic() > end:
                    return error.code, error.headers, error.read()
            except (urllib.error.URLError, OSError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)

    def session(self):
        body = json.dumps({"Name": "python", "TTL": "15s", "LockDelay": "0s"}).encode()
        status, _, answer = self.ask("PUT", "/v1/session/create", body)
        assert status == 200, (status, answer)
        return json.loads(answer)["ID"]

    def acquire(self, lock, session):
        """Waits for the lock as Consul's guide to locks tells: try, then a blocking query on the key."""
        while True:
            status, headers, answer = self.ask("PUT", f"/v1/kv/{lock}?acquire={session}", b"python")
            assert status == 200, (status, answer)
            if answer.strip() == b"true":
                return headers.get("X-Lock-Token")
            status, headers, answer = self.ask("GET", f"/v1/kv/{lock}?consistent")
            if status == 200 and "Session" in json.loads(answer)[0]:
                index = headers["X-Consul-Index"]
                self.ask("GET", f"/v1/kv/{lock}?index={index}&wait=5s")

    def release(self, lock, session):
        status, _, answer = self.ask("PUT", f"/v1/kv/{lock}?release={session}", b"")
        assert (status, answer.strip()) == (200, b"true"), (status, answer)


def main():
    address, lock, counter, times = sys.argv[1:]
    client = Client(address)
    session = client.session()
    for _ in range(int(times)):
        client.ask("PUT", f"/v1/session/renew/{session}")
        token = client.acquire(lock, session)
        if token:
            print("token", token, flush=True)
        status, _, value = client.ask("GET", f"/v1/kv/{counter}?raw&consistent")
        value = int(value) if status == 200 else 0
        status, _, answer = client.ask("PUT", f"/v1/kv/{counter}", str(value + 1).encode())
        assert (status, answer.strip()) == (200, b"true"), (status, answer)
        client.release(lock, session)
    client.ask("PUT", f"/v1/session/destroy/{session}")


main()
