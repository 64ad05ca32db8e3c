"""Several timelines: taken over after a crash at the worst moment, after a stop, and past an owner that froze."""

import signal
from collections.abc import Callable

import pytest

from tests.chaos.conftest import FullStack
from tests.chaos.conversation import check, reaches, talk
from tests.support import until

COUNT = 1000


@pytest.mark.parametrize("point", ["applied", "published", "committed"])
async def test_an_owner_that_dies_between_two_steps_is_replaced(
    full_stack: FullStack, point: str
) -> None:
    """The first timeline holds everything when it dies at its point; the second one must repeat it exactly."""
    async with full_stack(1) as system:

        async def crash(acked: Callable[[], int]) -> None:
            # So early that enough messages are left for it to get there.
            for times in (1, 2):
                await reaches(acked, COUNT // 10 * times)
                system.processes["timeline-1"].kill()
                crashing = system.add(
                    "crashing", ["tests.chaos.crashing_timeline", point, str(times)]
                )
                await until(lambda: crashing.poll() is not None, 60)  # noqa: B023
                assert crashing.poll() == -signal.SIGKILL
                system.processes["timeline-1"].launch()

        await check(system, await talk(system, COUNT, crash))


async def test_an_owner_that_stops_in_an_orderly_way_hands_over(full_stack: FullStack) -> None:
    async with full_stack(2) as system:

        async def roll(acked: Callable[[], int]) -> None:
            for i, name in enumerate(("timeline-1", "timeline-2", "timeline-1"), 1):
                await reaches(acked, COUNT * i // 4)
                system.processes[name].stop()
                assert system.processes[name].poll() == 0
                system.processes[name].launch()

        await check(system, await talk(system, COUNT, roll))


async def test_an_owner_that_froze_and_wakes_up_late_can_do_no_harm(full_stack: FullStack) -> None:
    """It still believes to own its partitions, with records half done, while another has long stored them."""
    async with full_stack(1) as system:

        async def freeze(acked: Callable[[], int]) -> None:
            await reaches(acked, COUNT // 4)
            frozen = system.processes["timeline-1"]
            frozen.signal(signal.SIGSTOP)
            second = system.add("timeline-2", ["functions", "timeline"])
            await reaches(acked, COUNT // 2)  # only the second can have done this
            frozen.signal(signal.SIGCONT)
            await reaches(acked, COUNT * 3 // 4)
            second.stop()
            assert second.poll() == 0

        await check(system, await talk(system, COUNT, freeze))
