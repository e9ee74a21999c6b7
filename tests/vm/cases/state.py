"""The last known good on disk: of use while Consul is away, and never a reason not to start."""

import contextlib
import time

from cases.badinput import mark, show, since
from cases.calm import under_load
from rig.host import Failure, until
from rig.setup import healthy, quote

STATE = "/var/lib/causeway"


def start_without_consul(world):
    """The agent is restarted while Consul is away: it serves what it last knew, and no Envoy loses anything."""
    def without(_):
        until("Consul is away", lambda: world.machine.sh("pgrep -x consul | wc -l").stdout.strip() == "1", 10)
        world.machine.sh("systemctl restart causeway")
        until("the Envoys are served", lambda: "web-1-proxy" in status(world), 10)

    try:
        return under_load(world, "systemctl stop consul", without, "systemctl start consul")
    finally:
        world.machine.sh("systemctl start consul")


def status(world):
    return world.machine.sh("causeway proxy status", check=False).stdout


def damaged_state_file(world):
    """Moved aside with a warning, and the agent starts; only private keys that are of no use are not kept."""
    vm = world.machine
    vm.sh("systemctl stop causeway")
    files = vm.out(f"find {STATE} -maxdepth 1 -type f").split()
    if not files:
        raise Failure(f"nothing is kept in {STATE}")
    for file in files:
        vm.sh(f"printf damaged >{quote(file)}")
    cursor = mark(vm)
    vm.sh("systemctl start causeway")
    said = since(vm, "causeway", cursor)
    aside = vm.out(f"find {STATE} -name '*damaged*'").split()
    missing = [file for file in files if not file.endswith("/keys.state")
               and not any(name.startswith(f"{file}.damaged-") for name in aside)]
    if missing or said.count("WARN kept") < len(files):
        raise Failure(f"{missing} are not aside, only {aside}:\n{said}")
    if any("keys.state" in name for name in aside):
        raise Failure(f"damaged private keys are kept: {aside}")
    healthy(world)
    vm.sh(f"find {STATE} -name '*damaged*' -delete")
    return f"{len(files)} files"


def full_state_directory(world):
    """Told, and nothing else: the agent starts, serves and goes on."""
    vm = world.machine
    with small_disk(vm):
        cursor = mark(vm)
        vm.sh("systemctl start causeway")
        until("the journal tells of it", lambda: "make room there" in since(vm, "causeway", cursor), 30)
        time.sleep(3)
        said = since(vm, "causeway", cursor)
        if said.count("make room there") > 5:
            raise Failure(f"told again and again:\n{said}")
        if (show(world, "causeway", "ActiveState"), show(world, "causeway", "NRestarts")) != ("active", "0"):
            raise Failure(said)
        healthy(world)
    healthy(world)


@contextlib.contextmanager
def small_disk(vm):
    """A full one in place of the state directory; the agent is stopped before and started after."""
    vm.sh(f"systemctl stop causeway && mount -t tmpfs -o size=64k,mode=0700,uid=causeway,gid=causeway none {STATE} && "
          f"(head -c 100k /dev/zero >{STATE}/ballast; true)")
    try:
        yield
    finally:
        vm.sh(f"systemctl stop causeway; umount -l {STATE}; systemctl start causeway")


CASES = [start_without_consul, damaged_state_file, full_state_directory]
