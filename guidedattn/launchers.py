"""Where jobs run: processes of this machine, or a cluster; the one module that imports submitit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from guidedattn.errors import ConfigError, GuidedAttnError
from guidedattn.jobs import Launcher, LocalProcesses, limit_threads


def add_job_options(options: ArgumentParser, what: str, output: str) -> None:
    """The options of every command that has jobs: how many of `what`, where, and the folder of results."""
    options.add_argument("--jobs", type=int, default=1, help=f"{what} at a time, in processes")
    options.add_argument("--threads", type=int, default=1, help="of each process")
    options.add_argument("--gpus", type=list[str], default=[], help="dealt out to the processes: [0,1]")
    options.add_argument(
        "--launcher",
        type=Launcher | None,
        default=None,
        help="instead of processes: SubmititLauncher; ignores --threads, --gpus and (but in tune) --jobs",
    )
    options.add_argument("--output", type=Path, default=Path(output), help="folder of results")


def build_launcher(options: Namespace) -> Launcher:
    """What the options of `add_job_options` ask for.

    Raises:
        ConfigError: it needs a package that is not installed.
    """
    if options.launcher is None:
        return LocalProcesses(options.jobs, options.threads, options.gpus)
    only = ArgumentParser(exit_on_error=False)
    only.add_argument("--launcher", type=Launcher)
    launcher: Launcher = only.instantiate(only.parse_object({"launcher": options.launcher})).launcher
    launcher.require()
    return launcher


class SubmititLauncher(Launcher):
    """Every job a job of SLURM: one task of one node, together an array.

    Scripts, pickles and logs lie in the results' folder, which all nodes must see. A job that runs out of
    time is queued again, as often as `max_num_timeout` says (3), and goes on where it stopped.

    Args:
        parameters: of submitit's executor, such as `timeout_min`, `slurm_partition`, `gpus_per_node`,
            `cpus_per_task` or `slurm_array_parallelism`.
        cluster: `slurm`, `local` for processes of this machine, or what there is.
        threads: of each job.
    """

    def __init__(
        self, parameters: dict[str, Any] | None = None, cluster: str | None = None, threads: int = 1
    ) -> None:
        self.parameters, self.cluster, self.threads = dict(parameters or {}), cluster, threads

    def require(self) -> None:
        """Make sure that submitit is installed."""
        _submitit()

    def run(
        self,
        function: Callable[..., None],
        jobs: Mapping[str, Sequence[Any]],
        folder: Path,
        tick: Callable[[], None] = lambda: None,
    ) -> dict[str, BaseException]:
        """Submit all jobs, wait for them, and cancel what is left if the wait is broken off.

        Raises:
            ConfigError: the cluster refuses them.
        """
        executor = self._executor(folder)
        pending: dict[str, Any] = {}
        errors: dict[str, BaseException] = {}
        try:
            with _interrupted_later():
                pending.update(self._submit(executor, function, jobs))
            while pending:
                for name in [name for name, job in pending.items() if job.done()]:
                    error = _error(pending.pop(name))
                    if error is not None:
                        errors[name] = error
                tick()
                time.sleep(1 if pending else 0)
        finally:  # Ctrl-C: nobody waits for what was not finished
            for job in pending.values():
                job.cancel(check=False)
        return errors

    def _executor(self, folder: Path) -> Any:
        try:
            executor = _submitit().AutoExecutor(folder, cluster=self.cluster)
            executor.update_parameters(**{"timeout_min": 24 * 60, **self.parameters})
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise _refusal(error) from error
        return executor

    def _submit(
        self, executor: Any, function: Callable[..., None], jobs: Mapping[str, Sequence[Any]]
    ) -> dict[str, Any]:
        try:
            with executor.batch():
                return {
                    name: executor.submit(_Attempt(), function, arguments, self.threads)
                    for name, arguments in jobs.items()
                }
        except RuntimeError as error:  # all of submitit's are
            raise _refusal(error) from error


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Have Ctrl-C wait for the end of the block: only then is it known which jobs there are to cancel."""
    before, pressed = signal.getsignal(signal.SIGINT), list[int]()
    in_main = threading.current_thread() is threading.main_thread()
    if not (in_main and before is signal.default_int_handler):  # not ours to change
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))  # noqa: ARG005
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt


def _refusal(error: Exception) -> ConfigError:
    return ConfigError(f"launcher: {' '.join(str(error).split()):.300}")


class _Attempt:
    """A job as the cluster calls it; it says what went wrong, as exceptions do not always travel."""

    def __call__(
        self, function: Callable[..., None], arguments: Sequence[Any], threads: int
    ) -> Exception | None:
        limit_threads(threads)
        try:
            function(*arguments)
        except GuidedAttnError as error:
            return error
        except Exception as error:
            return RuntimeError(f"{type(error).__name__}: {error}")
        return None

    def checkpoint(self, *arguments: Any) -> Any:
        """What to queue again when time is over: the same; the job knows how far it is."""
        return _submitit().helpers.DelayedSubmission(self, *arguments)


def _error(job: Any) -> BaseException | None:
    utils = _submitit().core.utils
    try:
        error: BaseException | None = job.result()
    except (utils.UncompletedJobError, utils.FailedJobError):
        return GuidedAttnError(f"the job ended without a result ({job.state}); see {job.paths.stderr}")
    return error


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise ConfigError("SubmititLauncher needs submitit: pip install 'guidedattn[slurm]'") from None
    return submitit
