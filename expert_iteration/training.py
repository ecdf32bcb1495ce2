"""The main loop. Read this file first.

    prompts -> rollouts -> grading -> reference log-probs -> selection -> replay buffer
            -> loss -> optimizer -> weight push -> (rollouts)

Tensors never pass through here: collectors write samples to the buffer, trainers read them from it,
and this loop sees counts and metrics. *When* something happens is decided in scheduler.py, *what*
happens is written in stages.py, and *where* is the choice of the workers: here or in Ray actors.
"""

import asyncio
import signal

from expert_iteration.config import RunConfig
from expert_iteration.laws import laws_of
from expert_iteration.prompts import Data
from expert_iteration.reporting import Reporter
from expert_iteration.scheduler import Scheduler, Stopped
from expert_iteration.stages import Run
from expert_iteration.workers import Workers


async def train(config: RunConfig, data: Data, workers: Workers, run: Run, reporter: Reporter) -> str:
    """Run expert iteration, or go on with it.

    Returns:
        why it ended: "finished", "stopped" (by a signal), or what health.py found: "collapsed", "plateau".
    """
    laws = laws_of(config)
    await run.begin()
    scheduler = Scheduler(laws, run, run.progress, await workers.missing(range(laws.groups)))
    _stop_on_signal(scheduler)
    watching = asyncio.create_task(run.watch())
    reason = "finished"
    try:
        await scheduler.run()
    except* Stopped as stopped:
        await run.save()
        reason = str(stopped.exceptions[0])
    finally:
        watching.cancel()
    await run.settle()
    reporter.finish(reason, (await workers.snapshot()).totals | data.left_out)
    return reason


def _stop_on_signal(scheduler: Scheduler) -> None:
    """The first signal saves and ends the run; a second one is not caught."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    stopping: list[asyncio.Task[None]] = []  # the loop itself only keeps a weak reference

    def stop() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        stopping.append(loop.create_task(scheduler.stop()))

    for number in numbers:
        loop.add_signal_handler(number, stop)
