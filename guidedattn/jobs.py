"""Independent jobs, and one way to carry them out: processes that do not outlive their parent."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import active_children, connection, get_context, parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch


class Launcher(ABC):
    """Base of the ways to carry out independent jobs."""

    def require(self) -> None:  # noqa: B027  most need nothing
        """Make sure, before anything else is done, that there is what it needs.

        Raises:
            ConfigError: a package is not installed.
        """

    @abstractmethod
    def run(
        self,
        function: Callable[..., None],
        jobs: Mapping[str, Sequence[Any]],
        folder: Path,
        tick: Callable[[], None] = lambda: None,
    ) -> dict[str, BaseException]:
        """Call `function(*arguments)` for every job; one that fails does not stop the others.

        Args:
            function: importable, as are its arguments' classes.
            jobs: arguments by name.
            folder: for what the launcher itself has to write.
            tick: called about once a second, and at the end.

        Returns:
            The errors, by the names of the jobs that failed.
        """


class LocalProcesses(Launcher):
    """Several jobs at a time in processes of this machine, which end with their parent.

    Args:
        jobs: at a time.
        threads: of each.
        gpus: dealt out to the processes in turn, as `CUDA_VISIBLE_DEVICES`; all see all without.
    """

    def __init__(self, jobs: int = 1, threads: int = 1, gpus: Sequence[str] = ()) -> None:
        self.jobs, self.threads, self.gpus = jobs, threads, tuple(gpus)

    def run(
        self,
        function: Callable[..., None],
        jobs: Mapping[str, Sequence[Any]],
        folder: Path,  # noqa: ARG002
        tick: Callable[[], None] = lambda: None,
    ) -> dict[str, BaseException]:
        """Carry out the jobs; on Ctrl-C those that run are ended."""
        errors: dict[str, BaseException] = {}
        context = get_context("spawn")
        hands = context.SimpleQueue()
        for place in range(self.jobs if self.gpus else 0):
            hands.put(self.gpus[place % len(self.gpus)])
        begin = self.threads, hands if self.gpus else None
        pool = ProcessPoolExecutor(self.jobs, context, _begin, begin)
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
