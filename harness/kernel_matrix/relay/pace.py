"""What follows from a guest's speed, which its agent measures each time that the guest wakes. Pure.

Not when it is saved: the machine may have been busy then, and every guest restored later would have its long limits.
"""

from __future__ import annotations

from kernel_matrix.relay.job import Job

#: seconds of a round of the agent's speed probe on the reference: a current processor without emulation
REFERENCE_SECONDS = 0.0003
#: seconds of silence, on the reference, after which a guest counts as hung
SILENCE_ON_REFERENCE = 20.0
#: limit of a guest's slowness relative to the reference: a measurement on a busy host must not cause hours of waiting
MOST_SLOWNESS = 10.0


def slowness(seconds: float) -> float:
    """Return by what factor a guest is slower than the reference, from the duration of its probe."""
    return max(1.0, seconds / REFERENCE_SECONDS)


def silence(job: Job, seconds: float) -> float:
    """Return the seconds of silence after which the guest counts as hung."""
    return job.silence_timeout or SILENCE_ON_REFERENCE * max(min(slowness(seconds), MOST_SLOWNESS), job.patience)


def limits(job: Job, seconds: float) -> dict[str, str]:
    """Return the environment variables by which the guest scales its own limits."""
    return {
        "HARNESS_SPEED": f"{max(job.patience, slowness(seconds)):.2f}",
        "HARNESS_SILENCE": f"{silence(job, seconds):.2f}",
    }
