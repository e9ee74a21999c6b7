"""How Causeway gets into the machine, and when all of it is well."""

import os
import subprocess

from rig.host import ROOT, Failure, binary, until
from rig.world import ENVOYS, FAR, WEB, instance

UNITS = ["causeway.target", "causeway.service", *map(instance, ENVOYS)]


def package(machine, version):
    """The Debian package of the binary at hand, with this version."""
    environment = {**os.environ, "CAUSEWAY_BINARY": str(binary("causeway")), "DEB_VERSION": version,
                   "DEB_PROFILE": "dev", "DEB_DIR": str(machine.home / "packages"), "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run([ROOT / "tools/deb"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, errors="replace", timeout=300)
    if done.returncode != 0:
        raise Failure(f"tools/deb: exit code {done.returncode}\n{done.stderr.strip()[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


def install(machine, deb):
    machine.copy(deb, "/root/causeway.deb", 0o644)
    return machine.out("DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /root/causeway.deb", 120)


def is_healthy(world):
    """Whether every unit runs, every Envoy has what it is meant to have, and Consul says all is well."""
    machine = world.machine
    states = machine.sh(f"systemctl is-active {' '.join(quote(unit) for unit in UNITS)}", check=False).stdout.split()
    if states != ["active"] * len(UNITS):
        raise Failure(", ".join(f"{unit} is {state}" for unit, state in zip(UNITS, states) if state != "active"))
    failed = machine.out("systemctl --failed --no-legend --plain")
    if failed:
        raise Failure(f"failed: {failed}")
    status = machine.sh("causeway proxy status", check=False)
    if status.returncode != 0:
        raise Failure(f"causeway proxy status: exit code {status.returncode}: {status.stdout[:600]}")
    for proxy in ENVOYS:
        if proxy not in status.stdout:
            raise Failure(f"{proxy} is not connected")
    bad = [name for name, check in world.ask("GET", "/v1/agent/checks").items() if check["Status"] != "passing"]
    if bad:
        raise Failure(f"critical in Consul: {', '.join(bad)}")
    for url in (WEB, FAR):
        code, body = machine.http("GET", url)
        if code != 200:
            raise Failure(f"{url} answers {code}: {body.strip()[:200]}")
    return True


def healthy(world, seconds=40):
    until("everything is healthy", lambda: is_healthy(world), seconds, 0.2)


def start(world):
    """Enables the Envoys as an administrator does; the package has enabled and started the agent."""
    units = " ".join(quote(instance(proxy)) for proxy in ENVOYS)
    world.machine.sh(f"systemctl enable {units} && systemctl start --no-block {units} && systemctl restart causeway",
                     seconds=60)


def quote(text):
    return "'" + text.replace("'", "'\\''") + "'"
