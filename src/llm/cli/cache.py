"""`manifold cache`: what is kept on disk or in Redis, seen, removed and written down while programs use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from llm.core.selection import Selection

from .errors import ExitStatus
from .kept import with_store
from .listing import Listing, newest
from .shell import ConfigOption, JsonOption, QuietOption, Shell
from .units import count_of, seconds_of, size_of
from .writing import written

if TYPE_CHECKING:
    from collections.abc import Callable

    from .kept import Store

app: typer.Typer = typer.Typer(no_args_is_help=True, short_help="List, show, remove and export answers that are kept.")

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key of an answer, or how it begins.")]
ProviderOption = Annotated[str | None, typer.Option("--provider", "-p", help="Only answers of this provider.")]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="Only answers of this model.")]
UserOption = Annotated[str | None, typer.Option("--user", "-u", help="Only what is kept for this user alone.")]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", "-t", metavar="TAG", help="Only answers with this tag; several: with each.")
]
OlderOption = Annotated[
    float | None,
    typer.Option("--older-than", metavar="AGE", parser=seconds_of, help="Only those as old: 90s, 30m, 1h, 7d."),
]


@app.callback()
def cache_group(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """List, show, remove and export the answers that are kept on disk or in Redis, while programs use them."""
    Shell.of(context, config, as_json, quiet)


@app.command(short_help="Tell where the answers are, how many and how large.")
def stats(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Tell where the answers are, how many there are, how many bytes they take, and how many may be."""
    shell = Shell.of(context, config, as_json, quiet)

    async def told(store: Store) -> dict[str, Any]:
        usage, stated = await store.usage(), store.stated
        return {
            "backend": stated.backend,
            "place": store.place,
            "entries": usage.entries,
            "max_entries": stated.max_entries,
            "bytes": usage.bytes,
            "max_bytes": stated.max_bytes,
        }

    found = with_store(shell, told)
    if shell.json:
        shell.put_json(found)
        return
    entries = f"{found['entries']:,} of {found['max_entries']:,}"
    sizes = f"{size_of(found['bytes'])} of {size_of(found['max_bytes'])}"
    shell.put_rows(("backend", "place", "entries", "size"), [(found["backend"], found["place"], entries, sizes)])


@app.command("list", short_help="List the answers, the newest first.")
def list_(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    *,
    provider: ProviderOption = None,
    model: ModelOption = None,
    user: UserOption = None,
    tag: TagOption = None,
    older_than: OlderOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all, in the store's order.")
    ] = 100,
    content: Annotated[bool, typer.Option("--content", help="Show how the answers begin, too.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the answers, the newest first: key, provider, model, user, age, time left, size.

    What they say may be private, so that is shown with --content only.
    """
    shell = Shell.of(context, config, as_json, quiet)
    chosen = Selection(provider, model, user, tuple(tag or ()), older_than or 0.0)
    listing = Listing(shell, content=content)

    async def listed(store: Store) -> int:
        if not limit:
            async for kept in store.scan(chosen):
                listing.add(listing.read(kept))
            return listing.number
        shown, found = await newest(store, chosen, limit, listing)
        for facts in shown:
            listing.add(facts)
        return found

    listing.end(of=with_store(shell, listed))


@app.command(short_help="Show one answer in full.")
def get(
    context: typer.Context,
    key: KeyArgument,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show one answer in full: its text, or with --json all that is kept; exit status 1 where there is none."""
    shell = Shell.of(context, config, as_json, quiet)
    kept = with_store(shell, lambda store: store.find(key))
    if kept is None:
        _no_such(shell, key)
    if shell.json:
        shell.put_json(kept.whole)
        return
    answer = kept.answer
    if answer is None:
        shell.error("the entry is damaged, or of another version; programs ask again, and replace it")
        raise typer.Exit(ExitStatus.FAILED)
    if not answer.response.content:
        shell.remark("the answer has no text; --json shows all of it")
    shell.put(answer.response.content)


@app.command(short_help="Remove one answer, or those that fit.")
def invalidate(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="The key of one, or how it begins.")] = None,
    *,
    provider: ProviderOption = None,
    model: ModelOption = None,
    user: UserOption = None,
    tag: TagOption = None,
    older_than: OlderOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and remove none.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove one answer by its key, or all that fit every option; programs ask for them again.

    An unknown KEY is exit status 1.
    """
    shell = Shell.of(context, config, as_json, quiet)
    chosen = Selection(provider, model, user, tuple(tag or ()), older_than or 0.0)
    if bool(chosen) == (key is not None):
        shell.error(
            "a KEY names one answer; leave out the other options, or the KEY"
            if chosen
            else "nothing says which answers; pass a KEY, --provider, --model, --user, --tag or --older-than; "
            "`manifold cache clear` removes all"
        )
        raise typer.Exit(ExitStatus.USAGE)

    async def removed(store: Store) -> int:
        if key is not None:
            kept = await store.find(key)
            if kept is None:
                _no_such(shell, key)
            return 1 if dry_run else int(await store.delete(kept.key))
        return await (store.count(chosen) if dry_run else store.remove(chosen))

    _tell(shell, "would_be_removed" if dry_run else "removed", with_store(shell, removed))


@app.command(short_help="Remove all answers.")
def clear(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove all answers; asks before it does."""
    shell = Shell.of(context, config, as_json, quiet)

    number = with_store(shell, _entries)
    if not yes:
        shell.ask(f"Remove {count_of(number, 'answer')}?")
    with_store(shell, lambda store: store.clear())
    _tell(shell, "removed", number)


@app.command(short_help="Write the answers to a file, a line of JSON each.")
def export(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file, or - for stdout.")],
    *,
    provider: ProviderOption = None,
    model: ModelOption = None,
    user: UserOption = None,
    tag: TagOption = None,
    older_than: OlderOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the answers that fit to FILE, a line of JSON each: what `manifold cache get --json` shows of one.

    The file appears when it is whole, in place of what was there, and only its owner may read it.
    """
    shell = Shell.of(context, config, as_json, quiet)
    chosen = Selection(provider, model, user, tuple(tag or ()), older_than or 0.0)

    async def exported(store: Store, put: Callable[[str], object]) -> int:
        number = 0
        async for kept in store.scan(chosen):
            put(json.dumps(kept.whole, ensure_ascii=False))
            number += 1
        return number

    if file == "-":
        with_store(shell, lambda store: exported(store, shell.put))
        return
    with written(Path(file)) as out:
        number = with_store(shell, lambda store: exported(store, lambda line: out.write(f"{line}\n")))
    if shell.json:
        shell.put_json({"file": file, "exported": number})
    else:
        shell.remark(f"{count_of(number, 'answer')} written to {file}")


async def _entries(store: Store) -> int:
    return (await store.usage()).entries


def _no_such(shell: Shell, key: str) -> NoReturn:
    shell.error(f"no answer is kept whose key is or begins with {key!r}; `manifold cache list` shows what is kept")
    raise typer.Exit(ExitStatus.FAILED)


def _tell(shell: Shell, what: str, number: int) -> None:
    if shell.json:
        shell.put_json({what: number})
    else:
        shell.put(f"{count_of(number, 'answer')} {what.replace('_', ' ')}")
