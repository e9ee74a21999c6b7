"""The checks, in the order in which they run. Each leaves the machine as it found it, or raises."""

from cases import badinput, calm, faults, package, secrets, standing, state

CASES = [
    *standing.CASES,
    *secrets.CASES,
    *calm.CASES,
    *faults.CASES,
    *badinput.CASES,
    *state.CASES,
    *package.CASES,
]
