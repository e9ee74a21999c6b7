"""What the units are, while nothing happens."""

import re

from rig.host import ROOT, Failure, until
from rig.setup import quote
from rig.world import ENVOYS, FAR, GATEWAYS, ODD, WEB, instance

# The worst exposure that `systemd-analyze security` may see, on its scale to 10.
WORST = 2.5


def units_verify(world):
    """systemd finds nothing to say about the files, the template in the form that is started."""
    own = sorted(path.name for path in (ROOT / "systemd").iterdir()
                 if path.suffix in (".service", ".target", ".timer") and "@" not in path.name)
    names = " ".join(quote(name) for name in [*own, instance("gw-a"), instance(ODD)])
    # There is no `man` in there to look for the pages with.
    said = world.machine.sh(f"systemd-analyze verify --man=no {names}", check=False)
    if said.returncode != 0 or said.stdout.strip():
        raise Failure(f"exit code {said.returncode}: {said.stdout.strip()}")
    return f"{len(own) + 2} units"


def units_are_hardened(world):
    services = sorted(path.name for path in (ROOT / "systemd").glob("*.service") if "@" not in path.name)
    rated = {}
    for name in [*services, instance("gw-a")]:
        said = world.machine.out(f"systemd-analyze security --no-pager {quote(name)}")
        found = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
        rated[name] = float(found[1]) if found else 10.0
    bad = {name: score for name, score in rated.items() if score > WORST}
    if bad:
        raise Failure(f"worse than {WORST}: {bad}")
    return ", ".join(f"{name} {score}" for name, score in rated.items())


def nothing_runs_as_root(world):
    for unit in ["causeway.service", *map(instance, ENVOYS)]:
        pid = world.machine.out(f"systemctl show -P MainPID {quote(unit)}")
        status = world.machine.out(f"cat /proc/{pid}/status")
        ids = re.search(r"^Uid:\s+(.*)$", status, re.M)[1].split()
        capabilities = re.search(r"^CapEff:\s+(.*)$", status, re.M)[1]
        if "0" in ids or int(capabilities, 16):
            raise Failure(f"{unit}: user ids {ids}, capabilities {capabilities}")
    return ""


def traffic_takes_both_paths(world):
    """The near service by both its instances, the far one through a gateway here and one there."""
    answers = set()

    def both():
        status, body = world.machine.http("GET", WEB)
        answers.update(name for name in ("web-1", "web-2") if status == 200 and name in body)
        return len(answers) == 2

    until("web-1 and web-2 both answer", both)
    _, body = world.machine.http("GET", FAR)
    if '"dc2"' not in body.replace(" ", ""):
        raise Failure(f"{FAR} answers {body}")
    used = sum(world.stat(gateway, r"^cluster\..*dc2.*upstream_cx_total$") for gateway in GATEWAYS)
    if not used:
        raise Failure("no gateway carried a connection to the other datacenter")
    return f"{used} connections through the gateways"


def main_process_is_envoy(world):
    """systemd watches Envoy itself, no wrapper."""
    for proxy in ENVOYS:
        pid = world.machine.out(f"systemctl show -P MainPID {quote(instance(proxy))}")
        name = world.machine.out(f"readlink /proc/{pid}/exe")
        if name != "/usr/bin/envoy":
            raise Failure(f"{proxy}: the main process is {name}")
    return ""


CASES = [units_verify, units_are_hardened, nothing_runs_as_root, main_process_is_envoy, traffic_takes_both_paths]
