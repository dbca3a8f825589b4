"""Where the runs of a study are carried out: in processes, on a cluster, on two processes each."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from guidedattn.cli import main
from guidedattn.errors import ConfigError
from guidedattn.files import locked
from guidedattn.launchers import SubmititLauncher
from guidedattn.study.options import parser
from guidedattn.study.plan import Plan

FailedJobError = pytest.importorskip("submitit").core.utils.FailedJobError
ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
data:
  class_path: PhantomDataModule
  init_args: {train_size: 24, val_size: 6, test_size: 9, image_size: 32, batch_size: 8}
bodies: {A: {backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}}}
model:
  head: {class_path: LinearHead}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 3.0e-3}}
stage1: {epochs: 2}
stage2: {epochs: 2}
stage3: {epochs: 1}
arms: {gate: {gate: {class_path: MultiplyGate}}}
resamples: 50
"""
CLUSTER = ["--launcher", "SubmititLauncher", "--launcher.cluster", "local"]


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("study.yaml").write_text(CONFIG)
    return ["study", "--config", "study.yaml", "--output"]


@pytest.mark.slow
def test_a_cluster_writes_the_tables_of_local_processes(words):
    assert main([*words, "here"]) == 0
    assert main([*words, "there", *CLUSTER, "--launcher.parameters", "{timeout_min: 9}"]) == 0
    assert len(list(Path("there/jobs").rglob("*_result.pkl"))) == 3  # one job a run, and they did the work
    names = sorted(path.relative_to("here") for path in Path("here/tables").iterdir())
    for name in [*names, "results.json"]:
        assert Path("here", name).read_bytes() == Path("there", name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_a_run_may_train_on_two_processes(words, strategy):
    trainer = f"{{accelerator: cpu, devices: 2, strategy: {strategy}}}"
    provider = "guidedattn.masks.EllipseMask"
    assert main([*words, "out", "--model.mask_provider", provider, "--trainer", trainer]) == 0
    assert len(list(Path("out/masks").rglob("*.npy"))) == 24 + 6 + 9
    for run in ("stage1-A-seed0", "stage2-A-seed0", "stage3-A-gate-seed0"):
        table = pd.read_csv(f"out/runs/{run}/predictions/test.csv")
        assert len(table) == table["path"].nunique() == 9
    assert len(pd.read_csv("out/runs/stage2-A-seed0/history.csv")) == 2


@pytest.mark.slow
def test_a_strategy_that_calls_the_command_again_is_refused(words, capsys):
    assert main([*words, "out", "--trainer", "{accelerator: cpu, devices: 2, strategy: ddp}"]) == 2
    assert "stage1-A-seed0 failed: trainer.strategy starts the whole command" in capsys.readouterr().err


def write_or_fail(path):
    if path.name == "bad":
        raise ConfigError("no luck")
    if path.name == "dead":
        os.kill(os.getpid(), signal.SIGKILL)
    path.write_text(path.name)


@pytest.mark.slow
def test_a_failing_job_is_named_and_stops_no_other(words, tmp_path):
    jobs = {name: [tmp_path / name] for name in ("good", "bad", "dead", "fine")}
    errors = SubmititLauncher(cluster="local").run(write_or_fail, jobs, tmp_path / "jobs")
    assert sorted(errors) == ["bad", "dead"]
    assert isinstance(errors["bad"], ConfigError)
    assert str(errors["bad"]) == "no luck"
    assert "the job ended without a result" in str(errors["dead"])
    assert (tmp_path / "good").read_text() == "good"
    assert (tmp_path / "fine").read_text() == "fine"


def sleep(path):
    path.write_text(str(os.getpid()))
    time.sleep(300)


@pytest.fixture
def interruptible():
    """Shells let what they start behind ignore Ctrl-C, and processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_cancels_the_jobs(words, tmp_path):
    def tick():
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SubmititLauncher(cluster="local").run(sleep, {"a": [tmp_path / "pid"]}, tmp_path / "jobs", tick)
    pid, deadline = int((tmp_path / "pid").read_text()), time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the job outlived the call")


class Submitted:
    """A job of `Cluster`; like submitit's it cannot be cancelled before the cluster has taken it."""

    number = cancelled = None

    def cancel(self, check):
        assert self.number is not None
        self.cancelled = True


class Cluster:
    """Takes jobs at the end of a batch, as submitit's executors do, and meets with something on its way."""

    def __init__(self, meet):
        self.meet, self.jobs = meet, []

    @contextmanager
    def batch(self):
        yield
        for number, job in enumerate(self.jobs):
            self.meet(number)
            job.number = number

    def submit(self, *arguments):
        self.jobs.append(Submitted())
        return self.jobs[-1]


def submit_to(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(SubmititLauncher, "_executor", lambda self, folder: cluster)
    return SubmititLauncher().run(print, {"a": [1], "b": [2]}, tmp_path)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_jobs_are_submitted_cancels_them(tmp_path, monkeypatch):
    cluster = Cluster(lambda number: number or os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        submit_to(cluster, tmp_path, monkeypatch)
    assert [job.cancelled for job in cluster.jobs] == [True, True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_cluster_refuses_costs_one_line(tmp_path, monkeypatch):
    def refuse(number):
        raise FailedJobError("sbatch: error: Batch job submission failed:\nInvalid partition specified")

    with pytest.raises(ConfigError) as caught:
        submit_to(Cluster(refuse), tmp_path, monkeypatch)
    assert str(caught.value) == (
        "launcher: sbatch: error: Batch job submission failed: Invalid partition specified"
    )


def test_without_submitit_one_line_names_the_extra(words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main([*words, "out", *CLUSTER]) == 2
    error = capsys.readouterr().err
    assert "pip install 'guidedattn[slurm]'" in error
    assert len(error.splitlines()) == 1
    assert not Path("out").exists()


def test_a_parameter_that_the_cluster_does_not_take_costs_one_line(words, capsys):
    assert main([*words, "out", *CLUSTER, "--launcher.parameters", "{slurm_partion: a}"]) == 2
    error = capsys.readouterr().err
    assert "slurm_partion" in error
    assert len(error.splitlines()) == 1


WAITING = """
import sys
from tests.study.test_launchers import plan_of
from guidedattn.study import train

plan = plan_of(sys.argv[1:])
train.carry_out(sys.argv[1:], plan.first[0], plan.folder, {})
"""


def plan_of(words):
    return Plan(parser().parse_args([*words, "--output", "out"]), "data")


def test_a_second_job_on_a_run_waits_for_the_first_and_leaves_its_work(words):
    Path("waiting.py").write_text(WAITING)
    plan = plan_of(words[1:3])
    run = plan.first[0]
    with locked(plan.folder.parent / ".locks" / run.name, wait=False):
        second = subprocess.Popen([sys.executable, "waiting.py", *words[1:3]])
        part = plan.folder / f".{run.name}.part"
        part.mkdir(parents=True)
        (part / "mine").touch()
        (part / "run.json").write_text('{"settings": ""}')
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(20)
        assert (part / "mine").exists()  # it did not remove what the first is writing
        part.rename(plan.folder / run.name)
    assert second.wait(120) == 0
    assert sorted(path.name for path in (plan.folder / run.name).iterdir()) == ["mine", "run.json"]
