"""`guidedattn shortcut`: train recipes on data with a planted marker, and compare what they learnt.

Three recipes are always there: `ceiling` (plain, trained without any marker), `inside only` (what lies
outside the mask is removed from the images) and `plain`. A call with the same --output goes on where the
last one stopped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guidedattn.arguments import model_arguments, with_value
from guidedattn.callbacks import versions
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli_errors import ShortParser
from guidedattn.component import default
from guidedattn.data import ImageDataModule
from guidedattn.data.markers import Marker
from guidedattn.files import whole_file
from guidedattn.gates import MultiplyGate
from guidedattn.jobs import Launcher, quieten
from guidedattn.launchers import add_job_options, build_launcher
from guidedattn.shortcut.cost import step_costs
from guidedattn.shortcut.report import save_figure, summarise, table, to_markdown
from guidedattn.shortcut.runs import Bench, Run, carry_out, finished, settings_digest

ALWAYS: dict[str, dict[str, Any]] = {
    "ceiling": {"planted": False},
    "inside only": {"input_gate": default(MultiplyGate)},
    "plain": {},
}


def parser() -> ShortParser:
    """The options of the command."""
    options = ShortParser(prog="guidedattn shortcut", description=__doc__)
    options.add_argument("--config", action="config", help="a YAML file of these options")
    options.add_argument("--data", type=ImageDataModule, required=True, help="single-label, with masks")
    options.add_argument("--marker", type=Marker, required=True, help="what is planted outside the masks")
    options.add_argument("--probability", type=float, default=0.95, help="how often it agrees in training")
    options.add_class_arguments(GuidedClassifier, "model", instantiate=False)
    options.add_argument(
        "--recipes",
        type=dict,
        default={},
        help="by name, arguments that differ; `tune` maps a dotted one to values, chosen on validation; "
        "`planted: false` trains without the marker",
    )
    options.add_argument("--seeds", type=list[int], default=[0, 1, 2], help="one run each per recipe")
    options.add_argument("--epochs", type=int, default=5, help="passes over the training images")
    add_job_options(options, "runs", "guidedattn_shortcut")
    return options


class Benchmark:
    """All runs of a call: which there are, which are done, and what they say.

    Args:
        options: as parsed.
        words: the command line, for other processes to parse again.
        launcher: where they run.
    """

    def __init__(self, options: Namespace, words: Sequence[str], launcher: Launcher) -> None:
        self.options, self.words, self.launcher = options, list(words), launcher
        self.folder = options.output / "runs"
        self.shared = {
            "data": options.data.as_dict(),
            "marker": options.marker.as_dict(),
            "probability": options.probability,
            "epochs": options.epochs,
        }
        self.recipes = {name: dict(recipe) for name, recipe in {**ALWAYS, **options.recipes}.items()}
        self.tuned = {name: dict(recipe.pop("tune", {})) for name, recipe in self.recipes.items()}
        self.planted = {name: bool(recipe.pop("planted", True)) for name, recipe in self.recipes.items()}

    def run_of(self, name: str, seed: int, value: Any = None) -> Run:
        """A recipe's run on one seed, with a value in the tuned place if there is one."""
        recipe, variant = self.recipes[name], ""
        for key in self.tuned[name]:
            recipe, variant = with_value(recipe, key, value), f"{key.rpartition('.')[2]}={value:g}"
        arguments = model_arguments(f"recipe {name!r}", {**self.options.model.as_dict(), **recipe})
        return Run(name, seed, arguments, "matched" if self.planted[name] else "absent", variant)

    def first_runs(self) -> list[Run]:
        """Every seed of an untuned recipe, and every value of a tuned one on the first seed."""
        runs = []
        for name in self.recipes:
            values = list(itertools.chain(*self.tuned[name].values()))
            if values:
                runs += [self.run_of(name, self.options.seeds[0], value) for value in values]
            else:
                runs += [self.run_of(name, seed) for seed in self.options.seeds]
        return runs

    def chosen_runs(self, results: Sequence[Mapping[str, Any]]) -> list[Run]:
        """Every seed of the tuned recipes, with the value that did best on validation images."""
        runs = []
        for name in self.recipes:
            scores = {r["variant"]: r["val_accuracy_outside_swapped"] for r in results if r["recipe"] == name}
            for values in self.tuned[name].values():
                named = {self.run_of(name, self.options.seeds[0], v).variant: v for v in values}
                best = max(named, key=lambda variant: scores[variant])
                runs += [self.run_of(name, seed, named[best]) for seed in self.options.seeds]
        return runs

    def carry_out(self, runs: Sequence[Run], progress: Progress, label: str) -> list[dict[str, Any]]:
        """Do what is not done yet, several at a time if asked."""
        digests = {run: settings_digest(run, self.shared) for run in runs}
        missing = [run for run in runs if finished(run, self.folder, digests[run]) is None]
        task = progress.add_task(label, total=len(runs))

        def tick() -> None:
            done = sum(path.exists() for path in (self.folder / f"{run.name}.json" for run in runs))
            progress.update(task, completed=done)

        jobs = {run.name: (self.words, run, self.folder, digests[run]) for run in missing}
        errors = self.launcher.run(_job, jobs, self.options.output / "jobs", tick) if jobs else {}
        tick()
        for error in errors.values():
            raise error
        results = (finished(run, self.folder, digests[run]) for run in runs)
        return [result for result in results if result is not None]

    def costs(self, runs: Sequence[Run]) -> dict[str, float]:
        """What a training step of each recipe costs, measured once for these runs."""
        one = {name: next(run for run in runs if run.recipe == name) for name in self.recipes}
        digests = [settings_digest(run, self.shared) for run in one.values()]
        path = self.options.output / "steps.json"
        if not path.exists() or json.loads(path.read_text())["runs"] != digests:
            jobs = {"steps": (self.words, one, path, digests)}
            for error in self.launcher.run(_time_steps, jobs, self.options.output / "jobs").values():
                raise error
        steps: dict[str, float] = json.loads(path.read_text())["steps"]
        return steps


def _bench(words: Sequence[str]) -> Bench:
    options = parser().parse_args(list(words))
    del options["model"]  # each run builds its own
    built = parser().instantiate(options)
    return Bench(built.data, built.marker, options.probability, options.epochs)


def _job(words: Sequence[str], run: Run, folder: Path, digest: str) -> None:
    """One run, in a process of its own."""
    carry_out(_bench(words), run, folder, digest)


def _time_steps(words: Sequence[str], runs: Mapping[str, Run], path: Path, digests: list[str]) -> None:
    """The cost of all recipes' steps, in a process of its own while no other runs."""
    quieten()
    with whole_file(path) as file:
        json.dump({"runs": digests, "steps": step_costs(_bench(words), runs)}, file, indent=2)


def run(words: Sequence[str]) -> None:
    """Run the benchmark, print its table and leave runs, table, figure and numbers in the output folder."""
    options = parser().parse_args(list(words[1:]))
    benchmark = Benchmark(options, words[1:], build_launcher(options))
    first = benchmark.first_runs()  # a mistake in a recipe shows before anything is written
    with whole_file(options.output / "config.yaml") as file:
        file.write(parser().dump(options, skip_unset=False))
    with whole_file(options.output / "versions.json") as file:
        json.dump(versions(), file, indent=2)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console()
    with Progress(*columns, console=console) as progress:
        results = benchmark.carry_out(first, progress, "first runs")
        chosen = benchmark.chosen_runs(results)
        tuned = {run.recipe for run in chosen}
        results = [result for result in results if result["recipe"] not in tuned]
        results += benchmark.carry_out(chosen, progress, "tuned recipes, all seeds") if chosen else []
    with console.status("what a step costs"):
        summary = summarise(results, benchmark.costs([*chosen, *first]))
    with whole_file(options.output / "results.json") as file:
        json.dump(summary, file, indent=2)
    with whole_file(options.output / "table.md") as file:
        file.write(to_markdown(summary))
    save_figure(summary, options.output / "figure.png")
    console.print(table(summary))
    console.print(f"Runs, table, figure and numbers: {options.output}")
