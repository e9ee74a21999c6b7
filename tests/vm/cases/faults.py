"""What breaks is repaired, without anybody's help."""

import time

from cases.calm import main_pids, substate, under_load
from rig.host import Failure, until
from rig.setup import healthy, quote
from rig.world import ENVOYS, instance


def kill_the_agent(world):
    """While it is away nothing is lost."""
    pid = world.machine.out("systemctl show -P MainPID causeway")

    def replaced(_):
        until("another agent runs", lambda: substate(world, "causeway.service") == "running"
              and world.machine.out("systemctl show -P MainPID causeway") != pid, 20)

    return under_load(world, f"kill -KILL {pid}", replaced)


def kill_every_envoy(world):
    """Each is replaced and serves again."""
    before, slowest = main_pids(world), 0.0
    for proxy in ENVOYS:
        began = time.monotonic()
        world.machine.sh(f"kill -KILL {before[proxy]}")
        until(f"{proxy} runs again", lambda: substate(world, instance(proxy)) == "running"
              and main_pids(world)[proxy] != before[proxy], 30)
        slowest = max(slowest, time.monotonic() - began)
    healthy(world)
    return f"the slowest after {slowest:.1f} s"


def kill_consul(world):
    world.machine.sh("systemctl kill --kill-whom=main --signal=KILL consul")
    until("Consul is back", lambda: world.ask("GET", "/v1/status/leader"), 40)
    healthy(world)


def watchdog_expiry(world):
    """An agent that hangs is ended and replaced; a shorter time than the unit's, set as an administrator would."""
    vm = world.machine
    vm.write("/run/systemd/system/causeway.service.d/watchdog.conf", "[Service]\nWatchdogSec=3\n")
    try:
        vm.sh("systemctl daemon-reload && systemctl restart causeway")
        pid = vm.out("systemctl show -P MainPID causeway")

        def hang(_):
            vm.sh(f"kill -STOP {pid}")
            until("another agent runs", lambda: substate(world, "causeway.service") == "running"
                  and vm.out("systemctl show -P MainPID causeway") not in (pid, "0"), 30)

        detail = under_load(world, hang)
        if "Watchdog timeout" not in vm.out("journalctl -u causeway --no-pager"):
            raise Failure("the journal tells of no watchdog")
    finally:
        vm.sh("rm -r /run/systemd/system/causeway.service.d && systemctl daemon-reload && systemctl restart causeway")
    healthy(world)
    return detail


def any_start_order(world):
    """Envoys first, then the agent, Consul last: nothing fails for good, and all ends well."""
    vm = world.machine
    vm.sh("systemctl stop causeway.target consul", seconds=120)
    envoys = " ".join(quote(instance(proxy)) for proxy in ENVOYS)
    vm.sh(f"systemctl start --no-block {envoys}")
    time.sleep(1)
    vm.sh("systemctl start --no-block causeway")
    time.sleep(1)
    vm.sh("systemctl start --no-block consul causeway.target")
    healthy(world, 60)


def reboot(world):
    world.machine.reboot()
    healthy(world, 90)


CASES = [kill_the_agent, kill_every_envoy, kill_consul, watchdog_expiry, any_start_order, reboot]
