"""`guidedattn study`: do the runs that are missing, stage by stage, then write what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guidedattn.callbacks import versions
from guidedattn.data import ImageDataModule
from guidedattn.errors import ConfigError
from guidedattn.files import locked, whole_file
from guidedattn.jobs import Launcher, quieten
from guidedattn.launchers import build_launcher
from guidedattn.study.comparators import judge_comparators
from guidedattn.study.options import build_comparators, build_data, build_set, parser
from guidedattn.study.plan import Plan, Run, record
from guidedattn.study.recipes import parse
from guidedattn.study.results import gather, set_names
from guidedattn.study.statistics import require_statistics
from guidedattn.study.train import carry_out
from guidedattn.study.write import write_results


def run(words: Sequence[str]) -> None:
    """Run the study and leave runs, tables, figures and the report in the output folder.

    Raises:
        ConfigError: options that do not fit, an output folder of other settings, or runs that failed.
    """
    words = list(words[1:])
    options = parse(words)
    if options.select < 1 or not options.seeds or not options.bodies:
        raise ConfigError("a study needs at least one body, one seed and select: 1")
    require_statistics()
    quieten()
    data, external = build_data(words)
    data.setup("fit")
    launcher = build_launcher(options)
    plan = Plan(options, data_digest([data, *external.values()]))
    for possible in plan.possible:
        plan.result(possible)  # refuses an earlier study's folder before anything is written
    with _alone(options.output):
        with whole_file(options.output / "config.yaml") as file:
            file.write(parser().dump(options, skip_unset=False))
        with whole_file(options.output / "versions.json") as file:
            json.dump(versions(), file, indent=2)
        with whole_file(options.output / "manifest.csv") as file:
            data.manifest().to_csv(file, index=False)
        _study(Study(plan, words, launcher), data.class_names)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other calls out of a folder; the lock ends with this process, however it ends.

    Raises:
        ConfigError: another call works in it.
    """
    try:
        with locked(folder / ".lock", wait=False):
            yield
    except TimeoutError:
        raise ConfigError(f"another call works in {folder}") from None


def _study(study: Study, class_names: Sequence[str]) -> None:
    plan, words, options = study.plan, study.words, study.plan.options
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console()
    with Progress(*columns, console=console) as progress:
        results = study.carry_out(plan.first, progress, "stage I")
        chosen = plan.choose(results)
        results += study.carry_out(plan.second(chosen), progress, "stage II")
        results += study.carry_out(plan.third(chosen), progress, "stage III")
    with console.status("tables, figures and report"):
        said = judge_comparators(
            build_comparators(words), set_names(options), partial(build_set, words), class_names
        )
        write_results(options.output, gather(plan, results, chosen, said))
    console.print(f"Chosen bodies: {', '.join(chosen)}\nReport: {options.output / 'report.html'}")


def data_digest(modules: Sequence[ImageDataModule]) -> str:
    """Identifies the images, labels and splits that data modules list."""
    tables = "\n\n".join(module.manifest().to_csv(index=False) for module in modules)
    return hashlib.sha256(tables.encode()).hexdigest()


class Study:
    """Carries out the runs of a plan, and says how far it is.

    Args:
        plan: which runs there are.
        words: the command line, for other processes to build the data from.
        launcher: where they run.
    """

    def __init__(self, plan: Plan, words: Sequence[str], launcher: Launcher) -> None:
        self.plan, self.words, self.launcher = plan, list(words), launcher
        self.status: dict[str, dict[str, Any]] = {}

    def carry_out(self, runs: Sequence[Run], progress: Progress, label: str) -> list[dict[str, Any]]:
        """Do what is not done yet, and return the results of all.

        Raises:
            ConfigError: some runs failed; the others are done.
        """
        missing = {run.name: run for run in runs if self.plan.result(run) is None}
        task = progress.add_task(label, total=len(runs), completed=len(runs) - len(missing))

        def tick() -> None:
            done = self._write_status(runs)
            progress.update(task, completed=done)

        tick()
        options, folder = self.plan.options, self.plan.folder
        jobs = {name: (self.words, run, folder, dict(options.trainer)) for name, run in missing.items()}
        errors = self.launcher.run(carry_out, jobs, options.output / "jobs", tick) if jobs else {}
        self._write_status(runs, errors)
        if errors:
            name, error = next(iter(errors.items()))
            others = f" (and {len(errors) - 1} more, see status.json)" if len(errors) > 1 else ""
            raise ConfigError(
                f"run {name} failed{others}: {' '.join(str(error).split()) or type(error).__name__:.300}; "
                "the others are kept: mend it and call again"
            ) from error
        results = [self.plan.result(run) for run in runs]
        return [result for result in results if result is not None]

    def _write_status(self, runs: Sequence[Run], errors: Mapping[str, BaseException] | None = None) -> int:
        """Write `status.json`; returns how many of the runs are done."""
        for run in runs:
            self.status[run.name] = _state(self.plan.folder, run.name)
            if errors and run.name in errors:
                self.status[run.name] = {"state": "failed", "error": str(errors[run.name])}
        with whole_file(Path(self.plan.options.output) / "status.json") as file:
            json.dump(self.status, file, indent=2)
        return sum(self.status[run.name]["state"] == "done" for run in runs)


def _state(folder: Path, name: str) -> dict[str, Any]:
    if record(folder, name).exists():
        return {"state": "done"}
    part = folder / f".{name}.part"
    try:
        return {"state": "running", **json.loads((part / "progress.json").read_text())}
    except (OSError, json.JSONDecodeError):
        return {"state": "running" if part.exists() else "waiting"}
