"""Requests in the machine's own network: a thread may enter another network than the rest of its process."""

import ctypes
import http.client
import json
import os
import socket
import threading
import time
from urllib.parse import urlsplit

from rig.host import Failure, until

CLONE_NEWNET = 0x40000000


def enter(pid):
    """Moves the calling thread into the network of a process, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            raise Failure(f"enter the machine's network: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(namespace)


def inside(pid, act):
    """What `act` gives when it is done in the network of a process."""
    outcome = {}

    def work():
        try:
            enter(pid)
            outcome["value"] = act()
        except Exception as error:  # handed on to whoever asked
            outcome["error"] = error

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def request(method, url, body=None, headers=None, seconds=10):
    """Status and body of one exchange on a connection of its own."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=seconds)
    try:
        path = place.path + (f"?{place.query}" if place.query else "")
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Connection": "close", **(headers or {})})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{method} {url}: {error or type(error).__name__}") from None
    finally:
        connection.close()


def over_socket(path, target, seconds=10):
    """Status and body of a GET over a Unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=seconds)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(seconds)
        connection.sock.connect(path)
        connection.request("GET", target, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"GET {target} over {path}: {error or type(error).__name__}") from None
    finally:
        connection.close()


class Load:
    """Requests without pause, each on a connection of its own, until it ends; and what became of them."""

    def __init__(self, pid, urls):
        self.failures, self.answers, self.by = [], {url: 0 for url in urls}, {}
        self.last = {url: None for url in urls}
        self.pauses = {url: 0.0 for url in urls}
        self.began, self.steps = time.monotonic(), []
        self.lock, self.is_over = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(pid, url)) for url in urls]
        for thread in self.threads:
            thread.start()

    def work(self, pid, url):
        try:
            enter(pid)
        except Failure as failure:
            return self.failed(failure)
        last = time.monotonic()
        while not self.is_over.is_set():
            try:
                status, body = request("GET", url, seconds=20)
                if status != 200:
                    raise Failure(f"GET {url}: {status} {body.strip()[:120]}")
                self.took(url, body, time.monotonic() - last)
            except (Failure, ValueError, AttributeError) as failure:  # a body that is no answer of ours fails as well
                self.failed(failure)
                time.sleep(0.01)
            last = time.monotonic()
            time.sleep(0.004)
        return None

    def failed(self, failure):
        with self.lock:
            self.failures.append((time.monotonic() - self.began, str(failure)))

    def took(self, url, body, seconds):
        name = json.loads(body).get("instance", "?")
        with self.lock:
            self.last[url] = time.monotonic()
            self.answers[url] += 1
            self.by[name] = self.by.get(name, 0) + 1
            self.pauses[url] = max(self.pauses[url], seconds)

    def tell(self, step):
        """Remembers when a step began, for the report of what failed."""
        name = step if isinstance(step, str) else step.__name__
        self.steps.append(f"{time.monotonic() - self.began:.1f} {name}")

    def answered(self):
        """Answers so far, by who gave them, since this was last asked."""
        with self.lock:
            by, self.by = self.by, {}
        return by

    def end(self):
        """Ends it; a Failure if a request failed, or a path gives no answer after the last step."""
        asked = time.monotonic()
        try:
            until("an answer on each path after the last step",
                  lambda: all(at and at > asked for at in self.last.values()), 20)
        except Failure as failure:
            self.failed(failure)
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        silent = [url for url, count in self.answers.items() if not count]
        total = sum(self.answers.values())
        if self.failures or silent:
            kinds = dict.fromkeys(text for _, text in self.failures)
            when = ", ".join(f"{at:.1f}" for at in sorted({round(at, 1) for at, _ in self.failures})[:20])
            raise Failure(f"{len(self.failures)} of {total + len(self.failures)} requests failed, at {when} s: "
                          + "; ".join(list(kinds)[:3]) + f" (steps: {', '.join(self.steps)})"
                          + "".join(f"; {url} never answered" for url in silent))
        return total, max(self.pauses.values())


class Held:
    """A request of which only the first half is sent: it is under way until `finish`."""

    def __init__(self, pid, url):
        place = urlsplit(url)
        self.socket = inside(pid, lambda: socket.create_connection((place.hostname, place.port), 20))
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: far\r\n")

    def finish(self):
        try:
            self.socket.sendall(b"Connection: close\r\n\r\n")
            data = b""
            while more := self.socket.recv(65536):
                data += more
        except OSError as error:
            raise Failure(f"a request that was under way was cut: {error}") from None
        finally:
            self.socket.close()
        if not data.startswith(b"HTTP/1.1 200"):
            raise Failure(f"a request that was under way got {data[:80]!r}")
