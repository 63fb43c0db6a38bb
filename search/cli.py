"""The command `filter-search`: verbs, options, exit codes.

Heavy modules are imported inside the verbs, so that `--help` answers at once.
"""

import json
import os
import signal
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from search.errors import ConfigError, FilterSearchError
from search.printable import printable

app = typer.Typer(
    name="filter-search",
    epilog="Exit codes: 0 done, 1 unexpected, 2 usage, 3 configuration, 4 data, 5 storage, 6 no trial could be "
    "completed, 130 or 143 interrupted after a clean drain.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Launcher(StrEnum):
    """What starts the workers."""

    local = "local"
    ray = "ray"


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="Configuration file (YAML).", show_default=False)]
StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Study folder, or its name below studies/.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Override one value; repeatable.", show_default=False),
]
Trusted = Annotated[bool, typer.Option("--allow-code", help="Import code, and fetch data, that the folder names.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """How many filters should each stage of a CNN get, and is doubling them near-optimal?

    Start with: filter-search run configs/digits.yaml
    """


def main() -> None:
    """Run the command; whatever goes wrong, one message and a documented exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)):
        signal.signal(number, lambda *_, code=code: sys.exit(code))
    try:
        try:
            app(arguments)
        finally:
            sys.stdout.flush()  # here, where what cannot be written still gets a message and an exit code
    except Exception as error:  # the last resort
        if isinstance(error, OSError):  # perhaps of that very flush, which would fail once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(1)  # who read it has gone and wants no message
        if debug:
            traceback.print_exc()
        known = isinstance(error, FilterSearchError)
        said = str(error) if known else f"unexpected {type(error).__name__}: {error}; --debug shows the traceback"
        typer.echo(f"filter-search: {printable(said)}", err=True)
        sys.exit(error.exit_code if isinstance(error, FilterSearchError) else 1)


@app.command()
def init(
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="digits, combinations, one of torchvision's sets such as FashionMNIST, a folder of images, an .npz "
            "file, or module:function.",
        ),
    ] = "digits",
) -> None:
    """Write a commented configuration, with stages and budgets that suit the images.

    Example: filter-search init --data photos
    """
    from search import configfile, folder, starter

    path, schema = Path(f"{starter.study_name(data)}.yaml"), Path("filter-search.schema.json")
    if path.exists():
        msg = f"{path} exists and is not overwritten; move it away, or edit it and run `filter-search check {path}`"
        raise ConfigError(msg)
    content = folder.json_text(configfile.schema())
    if schema.exists() and not (schema.is_file() and schema.read_bytes() == content.encode()):
        msg = f"{schema} exists with other content and is not overwritten; move it away, then write both with init"
        raise ConfigError(msg)
    begun = starter.start(data)
    for remark in begun.remarks:
        typer.echo(f"note: {remark}", err=True)
    folder.write_whole(schema, content)
    folder.write_whole(path, configfile.template(begun.config, schema.name))
    typer.echo(f"wrote {path} and {schema}; next: filter-search check {path}")


@app.command()
def check(config: ConfigPath, overrides: Overrides = None) -> None:
    """Say what a study would do: its space, costs, rules, likely time. Trains nothing.

    Example: filter-search check configs/digits.yaml
    """
    from search import configfile
    from search.device import count_workers, device_memory

    settings = configfile.read(config, overrides or (), device_memory)
    from search import display
    from search.check import forecast
    from search.plan import make_plan

    plan = make_plan(settings)
    display.show_plan(plan, forecast(plan), count_workers(plan.config.compute))


@app.command()
def run(
    config: ConfigPath,
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Finished trials.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study if there is one.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Study folder; studies/NAME unless given.", show_default=False),
    ] = None,
    launcher: Annotated[Launcher, typer.Option("--launcher", help="What starts the workers.")] = Launcher.local,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print verdict.json instead of tables; the counts if stopped before it.")
    ] = False,
) -> None:
    """Search, confirm, judge: the main job.

    Example: filter-search run configs/digits.yaml --workers 2
    """
    from search import configfile, folder
    from search.apart import Apart
    from search.device import count_workers, device_memory, device_name

    given = [f"search.trials={trials}"] * (trials is not None) + [f"compute.workers={workers}"] * (workers is not None)
    with Apart() as apart:
        settings = configfile.read(config, [*(overrides or ()), *given], lambda name: apart(device_memory, name))
        where = out or folder.STUDIES / settings.name
        folder.check_startable(where, resume)
        from search import display
        from search.livedisplay import live
        from search.plan import make_plan
        from search.progress import counts_json
        from search.run import run_study
        from search.study import load

        plan = make_plan(settings, apart)
        device, processes = apart(device_name, settings.compute.device), apart(count_workers, settings.compute)
    with live(settings, quiet=as_json) as show:
        ended = run_study(
            plan,
            where,
            workers=processes,
            device=device,
            resume=resume,
            command=["filter-search", *sys.argv[1:]],
            show=show,
            launcher=launcher.value,
        )
    if ended.stopped:
        display.show_stopped(ended.stopped, where)
    display.show_missing(ended.progress)
    if as_json:
        known = (where / "verdict.json").read_text() if ended.findings else None
        typer.echo(known or counts_json(load(where, settings.name), settings), nl=False)
    elif ended.findings:
        display.show_outcome(ended.findings, ended.standings)
        display.show_next(where, trained=settings.table is None)


@app.command()
def worker(
    study: StudyName,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes.", show_default=False)] = None,
    overrides: Overrides = None,
    allow_code: Trusted = False,
) -> None:
    """Join a study from this machine and carry out its jobs until it is done; any number may.

    Example: filter-search worker studies/digits --workers 2

    STUDY may be a name alone where FILTER_SEARCH_STORAGE names the storage.
    """
    from search import display
    from search.apart import Apart
    from search.device import count_workers
    from search.livedisplay import live
    from search.opening import joinable, plan_of
    from search.run import join_study
    from search.trust import kept_config

    given = [f"compute.workers={workers}"] * (workers is not None)
    with joinable(study) as where:
        kept = kept_config(where, [*(overrides or ()), *given], allow_code=allow_code)
        with Apart() as apart:
            plan = plan_of(kept, allow_code=allow_code, call=apart)
            processes = apart(count_workers, kept.compute)
        with live(kept, quiet=False) as show:
            ended = join_study(plan, where, workers=processes, show=show)
        if ended.stopped:
            display.show_stopped(ended.stopped, where)
    display.show_missing(ended.progress)


@app.command()
def status(
    study: StudyName,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Say where a study stands: trials, runs, best so far under each budget.

    Example: filter-search status studies/digits
    """
    from search import display, progress
    from search.cases import standings, stored_explorations
    from search.wellformed import look_at

    config, storage, where = look_at(study)
    if as_json:
        typer.echo(progress.counts_json(storage, config), nl=False)
    else:
        counts, best = progress.progress(storage), progress.best_so_far(storage, config.budgets)
        explored = [
            (each.confirm, standings(storage, each.confirm, each.cases)) for each in stored_explorations(storage)
        ]
        display.show_status(counts, best, standings(storage, config.confirm), config, explored)
        if config.table is not None and config.table.exhaustive:
            typer.echo(f"no trials: all of a table was compared; see {where / 'report.html'}")


@app.command()
def confirm(
    study: StudyName,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Another margin, a fraction.", show_default=False)
    ] = None,
    budgets: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="'params <= 2000'", help="Another budget; repeatable.", show_default=False),
    ] = None,
    looks: Annotated[
        str | None, typer.Option("--looks", metavar="N,N", help="Other planned looks.", show_default=False)
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print verdict.json instead of tables.")] = False,
    allow_code: Trusted = False,
) -> None:
    """Judge a finished study on other terms, with further runs; such verdicts are marked exploratory.

    Example: filter-search confirm studies/digits --margin 0.01 --budget 'params <= 2000'

    Without options one more look follows, at twice as many runs.
    """
    from search import configfile, display
    from search.apart import Apart
    from search.device import count_workers, device_memory
    from search.livedisplay import live
    from search.opening import open_study
    from search.plan import make_plan
    from search.run import explore

    with Apart() as apart:
        plan, _, where = open_study(study, allow_code=allow_code, call=apart, patient=True)
        asked = [f"confirm.margin={margin}"] * (margin is not None)
        asked += [f"budgets={json.dumps(budgets)}"] * bool(budgets)
        planned = plan.config.confirm.looks
        more = looks or ("" if asked else ",".join(map(str, (*planned, 2 * planned[-1]))))
        asked += [f"confirm.looks=[{more}]"] * bool(more)
        terms = make_plan(configfile.override(plan.config, asked, lambda name: apart(device_memory, name)), apart)
        processes = workers or apart(count_workers, plan.config.compute)
    with live(terms.config, quiet=as_json) as show:
        standing = explore(plan, terms, where, workers=processes, show=show)
    if as_json:
        typer.echo((where / "verdict.json").read_text(), nl=False)
    else:
        display.show_standings(standing, terms.config, exploratory=True)
        display.show_next(where, trained=plan.config.table is None)


@app.command()
def report(study: StudyName, allow_code: Trusted = False) -> None:
    """Write the report, records and verdict again.

    Example: filter-search report studies/digits
    """
    from search import outcome
    from search.opening import open_study
    from search.progress import not_confirmed

    plan, storage, where = open_study(study, allow_code=allow_code)
    if outcome.write(plan, storage, where):
        typer.echo(where / "report.html")
    else:
        said = not_confirmed(storage, where)
        typer.echo(
            f"filter-search: no report and no verdict: {said}. trials.csv and runs.csv are up to date.", err=True
        )


@app.command()
def dashboard(
    study: StudyName,
    host: Annotated[str, typer.Option("--host", help="Address to serve; beyond this machine a token is needed.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to serve; 0 for any free one.")] = 8080,
    allow_edit: Annotated[bool, typer.Option("--allow-edit", help="Let people write notes.")] = False,
    allow_code: Trusted = False,
) -> None:
    """Serve Optuna's dashboard over a study until stopped, also while it runs; nothing but notes can be changed.

    Example: filter-search dashboard studies/digits
    """
    from search import configfile
    from search.dashboard.server import serve
    from search.study import load
    from search.trust import enter

    where = enter(study)
    config = configfile.read(where / "config.yaml")
    allowed = {"edits": allow_edit, "allow_code": allow_code}
    serve(where, config, load(where, config.name), host=host, port=port, **allowed, say=typer.echo)


@app.command()
def export(study: StudyName, allow_code: Trusted = False) -> None:
    """Write the best confirmed candidate of each budget as files, and all schedules tried as leaderboard.csv.

    Example: filter-search export studies/digits
    """
    import torch

    from search import leaderboard
    from search.export import export_best
    from search.findings import by_budget, conclude
    from search.livedisplay import out
    from search.opening import open_study
    from search.progress import not_confirmed
    from search.report import write_report
    from search.worker import make_evaluator

    plan, storage, where = open_study(study, allow_code=allow_code)
    findings = conclude(plan, storage)
    if not by_budget(findings.findings):
        raise ConfigError(not_confirmed(storage, where))
    torch.set_num_threads(1)  # as in a worker, so that the weights are those of its run
    written = export_best(plan, findings, where, make_evaluator(plan))
    write_report(where, findings, storage)  # it shows what the export saw
    entries = leaderboard.write(where, findings, storage)
    out.print(leaderboard.tables(entries))
    out.print(leaderboard.note(entries, where, plan.config.confirm.confidence), markup=False)
    for path in written:
        typer.echo(path)


@app.command()
def train(
    best: Annotated[Path, typer.Argument(metavar="BEST", help="A folder below a study's best/.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint if there is one.")] = False,
    logger: Annotated[
        str | None,
        typer.Option(
            "--logger", metavar="NAME", help="csv, tensorboard, or package.module:Class.", show_default=False
        ),
    ] = None,
    allow_code: Trusted = False,
) -> None:
    """Train an exported candidate at full fidelity and score it on the test split.

    Example: filter-search train studies/digits/best/params-1500 --logger csv
    """
    from search import display
    from search.fulltraining import train_best

    with display.epochs() as show:
        trained = train_best(best, show, resume=resume, logger=logger, allow_code=allow_code)
    display.show_trained(trained)
