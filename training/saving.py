"""When a run is saved: on the way, at the end, and when it is told to stop."""

import logging
import sys
import time
from pathlib import Path
from typing import NoReturn

from .run import Run
from .save import EPOCH, STEP
from .stopping import StoppedError

RETRY_SECONDS = 30  # between attempts to write the end of a run to a full disk


def save_on_the_way(run: Run, step: int) -> None:
    """What is due after `step` steps, in all processes. A disk that is full may not be at the end: the run goes on."""
    opts, each = run.opts, run.epoch_steps
    names = {
        STEP.format(step): opts.save_every_n_steps and step % opts.save_every_n_steps == 0,
        EPOCH.format(step // each): opts.save_every_n_epochs and step % (opts.save_every_n_epochs * each) == 0,
    }
    wanted = [suffix for suffix, is_due in names.items() if is_due]
    if not wanted:
        return
    main = run.workers.main
    trained, state = run.saver.collect(main), run.state.collect(step, main) if opts.save_state else None
    if not main:
        return
    try:
        for suffix in wanted:
            run.saver.save(step, suffix, trained)
        if state:
            run.state.write(state)
        run.saver.forget(step, step // each)
    except OSError as error:
        logging.warning("step %d was not saved, the run goes on: %s", step, error)


def save_at_the_end(run: Run) -> Path:
    """Write the result, in all processes. Try again until there is room for it: hours of work are in memory."""
    main, stateful = run.workers.main, run.opts.save_state or run.opts.save_state_on_train_end
    trained, state = run.saver.collect(main), run.state.collect(run.steps, main) if stateful else None
    while main:
        try:
            path = run.saver.save(run.steps, trained=trained)  # first, as it is what counts, and smaller
            if state:
                run.state.write(state)
            return path
        except OSError as error:
            print(f"{error}\nfree some space: trying again every {RETRY_SECONDS} s; Ctrl-C gives up", file=sys.stderr)
            time.sleep(RETRY_SECONDS)
    return run.saver.path


def stop(run: Run, step: int, number: int) -> NoReturn:
    """End after `step` steps because of a signal, in all processes; no step is lost where states are saved."""
    ended = f"stopped after step {step} of {run.steps}"
    if not run.opts.save_state:
        raise StoppedError(f"{ended}; nothing is saved since, as save_state is not set", number)
    state = run.state.collect(step, run.workers.main)
    try:
        if run.workers.main:
            run.state.write(state)
    except OSError as error:
        raise StoppedError(f"{ended}, which could not be saved: {error}", number) from error
    raise StoppedError(f"{ended}: run again with --resume auto to go on from there", number)
