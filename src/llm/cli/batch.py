"""`manifold batch`: a file of requests in, a file of answers out, whatever happens between."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated, Final

import typer

from .job import Job
from .shell import ConfigOption, JsonOption, ModelOption, ProviderOption, QuietOption, Shell

EPILOG: Final = """
\b
Examples:
  manifold batch questions.jsonl -o answers.jsonl --dry-run
  manifold batch questions.jsonl -o answers.jsonl
  manifold batch questions.jsonl.gz -o answers.jsonl -m openai/gpt-4o-mini --ordered
  manifold batch reviews.csv -o answers.jsonl --id number --prompt "Summarise: {text}"
  produce | manifold batch - -o answers.jsonl
  manifold batch questions.jsonl -o answers.jsonl --engine openai-batch
  RAY_ADDRESS=auto manifold batch questions.jsonl -o answers.jsonl --engine ray

\b
A line of IN is a request as OpenAI's Batch API takes it:
  {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
   "body": {"messages": [{"role": "user", "content": "Hi"}]}}

\b
Exit status: 0 every row is answered, 1 some have no answer (the errors file says why) or a file
cannot be written, 2 wrong usage or configuration, 3 the provider does not serve, 130 Ctrl-C,
143 SIGTERM. In each case all that was answered is kept, and the same command, without
--restart, goes on. With --engine openai-batch or anthropic-batch what was submitted goes on at
the vendor meanwhile: the same command collects it, and with --cancel ends it.
"""


class EngineChoice(StrEnum):
    """Who answers the rows: calls of this program, of workers on a cluster of Ray, or a vendor's own batch API."""

    LOCAL = "local"
    RAY = "ray"
    OPENAI_BATCH = "openai-batch"
    ANTHROPIC_BATCH = "anthropic-batch"


def batch(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="JSON Lines, plain or .gz; a table: .csv, .tsv, .parquet; - for stdin."),
    ],
    *,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="OUT", help="The file of answers, in JSON Lines.")
    ] = None,
    errors: Annotated[
        str | None, typer.Option("--errors", metavar="F", help="The file of errors; default: OUT with .errors.jsonl.")
    ] = None,
    provider: ProviderOption = None,
    model: ModelOption = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", metavar="N", min=1, help="Calls at once; with --engine ray, of each worker.")
    ] = 64,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on where the last run ended, or ask everything anew.")
    ] = True,
    ordered: Annotated[bool, typer.Option("--ordered", help="Sort OUT at the end into the order of IN.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell rows, tokens, cost and the time it takes at best; send nothing.")
    ] = False,
    engine: Annotated[
        EngineChoice,
        typer.Option(
            "--engine",
            help="Calls of our own, from here or from many machines (ray), or a vendor's batch API: half the price, "
            "within a day.",
        ),
    ] = EngineChoice.LOCAL,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help="With --engine ray: default one for each processor."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="A",
            envvar="RAY_ADDRESS",
            help="With --engine ray: the cluster to join, auto or host:port; default: one is started here.",
        ),
    ] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End the batches that are at the vendor, and keep what was answered.")
    ] = False,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEMPLATE", help="Of a table: what to ask; {column} is a cell.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Of a table: the column of the rows' ids.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="S", help="Of a table: instructions; {column} is a cell.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Answer a file of requests, and go on after anything that ends it: run the same command again.

    OUT gets a line for each row as it is answered. Rows that were answered before are passed over, known by their
    custom_id. Failures go to the errors file; a later run asks those again that may have passed, such as a server's,
    and looks anew at rows that could not be sent. Rows that name no model are asked of --model.
    """
    shell = Shell.of(context, config, as_json, quiet)
    job = Job(
        shell=shell,
        source=source,
        output=output,
        errors=errors,
        provider=provider,
        model=model,
        concurrency=concurrency,
        restart=not resume,
        ordered=ordered,
        engine=engine.value,
        workers=workers,
        ray_address=ray_address,
        cancel=cancel,
        prompt=prompt,
        system=system,
        id_column=id_column,
    )
    job.check(dry_run=dry_run)
    if dry_run:
        from .foretelling import foretell as work
    elif engine is EngineChoice.LOCAL:
        from .running import run as work
    elif engine is EngineChoice.RAY:
        from .distributed import run as work
    else:
        from .remote import run as work
    raise typer.Exit(asyncio.run(work(job)))
