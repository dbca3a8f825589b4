"""Independent jobs, several at a time, in processes that do not outlive their parent."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import active_children, connection, get_context, parent_process
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch


def in_processes(
    function: Callable[..., None],
    jobs: Mapping[str, Sequence[Any]],
    processes: int = 1,
    threads: int = 1,
    gpus: Sequence[str] = (),
    tick: Callable[[], None] = lambda: None,
) -> dict[str, BaseException]:
    """Call `function(*arguments)` for every job; one that fails does not stop the others.

    Args:
        function: importable, as are its arguments' classes.
        jobs: arguments by name.
        processes: jobs at a time.
        threads: of each job.
        gpus: dealt out to the processes in turn, as `CUDA_VISIBLE_DEVICES`; all see all without.
        tick: called about once a second, and at the end.

    Returns:
        The errors, by the names of the jobs that failed.
    """
    errors: dict[str, BaseException] = {}
    context = get_context("spawn")
    hands = context.SimpleQueue()
    for place in range(processes if gpus else 0):
        hands.put(gpus[place % len(gpus)])
    pool = ProcessPoolExecutor(processes, context, _begin, (threads, hands if gpus else None))
    try:
        pending: dict[Future[None], str] = {
            pool.submit(function, *arguments): name for name, arguments in jobs.items()
        }
        while pending:
            done, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                name, error = pending.pop(future), future.exception()
                if error is not None:
                    errors[name] = error
            tick()
    except BaseException:  # Ctrl-C: nobody waits for what was not finished
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return errors


def _begin(threads: int, hands: SimpleQueue[str] | None) -> None:
    """Prepare a process: its share of cores and GPUs, and an end when its parent is killed."""
    if hands is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = hands.get()
    limit_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def limit_threads(number: int) -> None:
    """For processes that share a machine's cores."""
    torch.set_num_threads(number)


def quieten() -> None:
    """Leave the terminal to whoever shows the progress."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
