"""What an administrator does: nothing that had a healthy path is lost by it."""

import time

from rig.host import Failure, until
from rig.network import Held, Load
from rig.setup import healthy, quote
from rig.world import FAR, ODD, WEB, instance


def under_load(world, *steps):
    """Runs commands in the machine while both paths are used; gives how many requests there were."""
    load = Load(world.machine.init(), [WEB, FAR])
    try:
        until("both paths are used", lambda: all(load.answers.values()) or load.failures, 10)
        for step in steps:
            load.tell(step)
            if callable(step):
                step(load)
            else:
                world.machine.sh(step, seconds=90)
        time.sleep(1)
    finally:
        total, pause = load.end()
    healthy(world)
    return f"{total} requests, the longest {pause * 1000:.0f} ms"


def agent_reload(world):
    """Synchronous as far as the file is concerned, and back to running."""
    detail = under_load(world, "systemctl reload causeway")
    until("the reload has ended", lambda: substate(world, "causeway.service") == "running", 5)
    world.machine.out("journalctl -u causeway --no-pager | grep 'configuration reloaded'")
    return detail


def agent_restart(world):
    return under_load(world, "systemctl restart causeway")


def agent_stop_and_start(world):
    """The Envoys keep what they have: they neither stop nor lose anything."""
    before = main_pids(world)

    def look(_):
        if main_pids(world) != before:
            raise Failure("an Envoy was stopped with the agent")
        time.sleep(2)

    return under_load(world, "systemctl stop causeway", look, "systemctl start causeway")


def consul_back(world):
    return lambda _: until("Consul is back", lambda: world.ask("GET", "/v1/status/leader"), 30)


def consul_reload(world):
    return under_load(world, "systemctl reload consul", consul_back(world))


def consul_restart(world):
    return under_load(world, "systemctl restart consul", consul_back(world))


def consul_stop_and_start(world):
    """Nothing is asked of Consul for a request; the agent keeps what it heard last."""
    return under_load(world, "systemctl stop consul", lambda _: time.sleep(3), "systemctl start consul",
                      consul_back(world))


def envoy_reload(world):
    before = main_pids(world)
    detail = under_load(world, *(f"systemctl reload {quote(instance(proxy))}" for proxy in before))
    if main_pids(world) != before:
        raise Failure("a reload replaced an Envoy")
    return detail


def sidecar_restart(world):
    return under_load(world, f"systemctl restart {quote(instance('web-1-proxy'))}")


def sidecar_stop_and_start(world):
    """While it is stopped the other instance answers alone."""
    unit = quote(instance(ODD))

    def alone(load):
        load.answered()
        time.sleep(1)
        by = load.answered()
        if by.get("web-2") or not by.get("web-1"):
            raise Failure(f"while web-2's sidecar is stopped the answers come from {by}")

    return under_load(world, f"systemctl stop {unit}", alone, f"systemctl start {unit}")


def gateway_restart(world):
    return under_load(world, *(f"systemctl restart {quote(instance(gateway))}" for gateway in ("gw-a", "gw-b")))


def gateway_stop_and_start(world):
    unit = quote(instance("gw-a"))
    return under_load(world, f"systemctl stop {unit}", f"systemctl start {unit}")


def what_is_under_way_is_waited_for(world):
    """The client's own sidecar has no other path; a request that it carries is answered before it ends."""
    vm = world.machine
    unit = quote(instance("client-sidecar-proxy"))
    held = Held(vm.init(), FAR)
    try:
        time.sleep(0.3)
        vm.sh(f"systemctl stop --no-block {unit}")
        until("it drains", lambda: substate(world, instance("client-sidecar-proxy")) == "stop", 5)
        time.sleep(3)
        held.finish()
        until("it has stopped", lambda: substate(world, instance("client-sidecar-proxy")) == "dead", 10)
        result = vm.out(f"systemctl show -P Result {unit}")
        if result != "success":
            raise Failure(f"its result is {result}")
    finally:  # the cases after this one need it
        held.socket.close()
        vm.sh(f"systemctl start {unit}")
    healthy(world)
    return ""


def target_restart(world):
    """The agent and all Envoys as one."""
    before = main_pids(world)
    world.machine.sh("systemctl restart causeway.target", seconds=120)
    healthy(world, 60)
    after = main_pids(world)
    same = [proxy for proxy in before if before[proxy] == after[proxy]]
    if same:
        raise Failure(f"not restarted: {same}")
    return ""


def main_pids(world):
    proxies = ["client-sidecar-proxy", "web-1-proxy", ODD, "gw-a", "gw-b"]
    return {proxy: world.machine.out(f"systemctl show -P MainPID {quote(instance(proxy))}") for proxy in proxies}


def substate(world, unit):
    return world.machine.out(f"systemctl show -P SubState {quote(unit)}")


CASES = [agent_reload, agent_restart, agent_stop_and_start, consul_reload, consul_restart,
         consul_stop_and_start, envoy_reload, sidecar_restart,
         sidecar_stop_and_start, gateway_restart, gateway_stop_and_start, what_is_under_way_is_waited_for,
         target_restart]
