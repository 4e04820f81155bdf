"""`manifold keys`: the gateway's keys, made, listed and revoked. A key is shown once; only its hash is kept."""

from __future__ import annotations

import re
from contextlib import closing, nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .errors import ExitStatus
from .shell import ConfigOption, JsonOption, QuietOption, Shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from llm.core.config import GatewayKey

app: typer.Typer = typer.Typer(no_args_is_help=True, short_help="Make, list and revoke the gateway's keys.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The key's name, as under gateway.api_keys.")]
WriteOption = Annotated[
    bool, typer.Option("--write", help="Change the configuration file; all else in it stays as it stands.")
]

_PATH: Final = ("gateway", "api_keys")
_NEW_FILE: Final = Path("llm.yaml")
_DAYS: Final = re.compile(r"(\d{1,5})d")
_SHOWN: Final = 12  # digits of a hash
_COLUMNS: Final = ("name", "user", "models", "expires", "hash")
_YOURSELF: Final = "change it yourself, as `manifold keys` says when you leave --write out"
_FOLLOW: Final = "a gateway that runs takes it over at SIGHUP"


@app.callback()
def keys_group(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Make, list and revoke the keys with which programs call the gateway (`manifold serve`)."""
    Shell.of(context, config, as_json, quiet)


def _expiry(text: str) -> date:
    """Return the day that `2027-12-31` names, or that is so many days from today (UTC): `90d`."""
    try:
        days = _DAYS.fullmatch(text)
        day = _today() + timedelta(days=int(days[1])) if days else date.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no day; write such as 2027-12-31, or 90d for in 90 days") from error
    if day < _today():
        raise typer.BadParameter(f"{day} is over already")
    return day


@app.command(short_help="Print a new key, once, and its entry in the configuration.")
def create(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    name: NameArgument,
    *,
    user: Annotated[
        str | None, typer.Option("--user", help="User whose limits and budget its calls count on; default: NAME.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--models", metavar="MODEL", help="Models that it may name, commas between; default: all."),
    ] = None,
    expires: Annotated[
        date | None,
        typer.Option(
            "--expires", metavar="DAY", parser=_expiry, help="Last day (UTC), such as 2027-12-31, or 90d: in 90 days."
        ),
    ] = None,
    operator: Annotated[
        bool, typer.Option("--operator", help="Its dashboard shows the calls of all users, and costs.")
    ] = False,
    write: WriteOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print a new key on stdout, and on stderr the entry by which the configuration knows it. It is shown only now."""
    shell = Shell.of(context, config, as_json, quiet)
    _check_name(name)
    named = [model.strip() for given in models or () for model in given.split(",") if model.strip()]
    if models and not named:  # a variable of the shell that is not set, for one, which must not allow all
        raise typer.BadParameter("names no model; leave it out to allow all", param_hint="'--models'")
    entry: dict[str, Any] = {"user": user or name, "models": named or ["*"]}
    if expires is not None:
        entry["expires"] = expires
    if operator:
        entry["operator"] = True
    with _turn(shell) if write else nullcontext():
        if name in shell.load_config().gateway.api_keys:
            raise typer.BadParameter(
                f"{name!r} has a key; choose another name, or revoke that first", param_hint="NAME"
            )
        _create(shell, name, entry, write=write)


def create_first(shell: Shell, name: str) -> None:
    """Do as `keys create NAME --write` where the configuration has no keys, and nothing where it has.

    However many processes do so at the same time, one key is made, an operator's.

    Raises:
        LLMConfigurationError: The configuration is wrong.
        typer.BadParameter: The name cannot be read, or the file cannot be changed.
    """
    _check_name(name)
    if shell.load_config().gateway.api_keys:
        return
    with _turn(shell):
        if not shell.load_config().gateway.api_keys:
            _create(shell, name, {"user": name, "models": ["*"], "operator": True}, write=True)


def _create(shell: Shell, name: str, entry: dict[str, Any], *, write: bool) -> None:
    from llm.utils.gateway_key import hash_of, new_key

    from .editing import line_of, with_entry

    key = new_key()
    entry = {"key_hash": hash_of(key), **entry}
    file = _changed(shell, lambda text: with_entry(text, _PATH, name, entry)) if write else None
    if shell.json:
        day: date | None = entry.get("expires")
        told = {**entry, "expires": None if day is None else day.isoformat()}
        shell.put_json({"name": name, "key": key, "entry": told, "file": None if file is None else str(file)})
        return
    shell.put(key)
    if file is not None:
        shell.remark(f"{file} has its hash as gateway.api_keys.{name}; {_FOLLOW}")
    else:
        shell.remark(f"\nAdd to the configuration:\n\ngateway:\n  api_keys:\n    {line_of(name, entry)}\n")
    shell.remark("keep the key now: it is not shown again")


@app.command("list", short_help="List the keys: names, users, models, last days.")
def list_(
    context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """List the keys that the configuration has, with the beginning of each one's hash."""
    shell = Shell.of(context, config, as_json, quiet)
    keys = shell.load_config().gateway.api_keys
    rows = [_row(name, key) for name, key in keys.items()]
    if shell.json:
        shell.put_json(rows)
        return
    if not rows:
        shell.remark("there are no keys: the gateway answers anyone on this machine, and listens on loopback alone")
        return
    shell.put_rows(_COLUMNS, map(_cells, rows))


@app.command(short_help="Take a key out of the configuration.")
def revoke(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    name: NameArgument,
    *,
    write: WriteOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say which entry to take out of the configuration, or with --write take it out."""
    shell = Shell.of(context, config, as_json, quiet)
    from .editing import without_entry

    with _turn(shell) if write else nullcontext():
        keys = shell.load_config().gateway.api_keys
        if name not in keys:
            shell.error(f"there is no key {name!r}; there are: {', '.join(keys) or 'none'}")
            raise typer.Exit(ExitStatus.FAILED)
        file = _changed(shell, lambda text: without_entry(text, _PATH, name)) if write else None
    if shell.json:
        shell.put_json({"name": name, "revoked": write, "file": None if file is None else str(file)})
        return
    if file is None:
        shell.put(f"take gateway.api_keys.{name} out of {_file(shell) or 'the environment'}; {_FOLLOW}")
        return
    shell.remark(f"{file} no longer has gateway.api_keys.{name}; {_FOLLOW}")
    if len(keys) == 1:
        shell.remark("that was the last one: the gateway now answers anyone on this machine, and no other")


def _check_name(name: str) -> None:
    if not name.strip() or not name.isprintable():
        raise typer.BadParameter("write a name that can be read", param_hint="NAME")


def _row(name: str, key: GatewayKey) -> dict[str, Any]:
    return {
        "name": name,
        "user": key.user or name,
        "models": list(key.models),
        "expires": None if key.expires is None else key.expires.isoformat(),
        "expired": key.expires is not None and key.expires < _today(),
        "operator": key.operator,
        "hash": str(key.key_hash).removeprefix("sha256:")[:_SHOWN],
    }


def _cells(row: dict[str, Any]) -> list[str]:
    day = "never" if row["expires"] is None else f"{row['expires']}{' (expired)' if row['expired'] else ''}"
    return [row["name"], row["user"], ", ".join(row["models"]), day, row["hash"]]


def _today() -> date:
    from llm.utils.clock import SystemClock

    return datetime.fromtimestamp(SystemClock().wall(), UTC).date()


def _file(shell: Shell) -> Path | None:
    from llm.core.config import file_of

    return file_of(shell.config)


def _turn(shell: Shell) -> AbstractContextManager[object]:
    """Wait until no other process changes the configuration file."""
    from .writing import Turn

    file = _file(shell) or _NEW_FILE
    try:
        return closing(Turn(file))
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be changed: {error.strerror}; {_YOURSELF}") from error


def _changed(shell: Shell, change: Callable[[str], str]) -> Path:
    """Change the configuration file, whole or not at all; returns which it is."""
    from .editing import FormError
    from .writing import replaced

    file = _file(shell) or _NEW_FILE
    text = file.read_bytes().decode("utf-8") if file.exists() else ""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    try:
        after = change(text.removeprefix(mark))
    except FormError:
        raise typer.BadParameter(
            f"{file} has a form that is not changed in place, such as `gateway: {{…}}` on one line; {_YOURSELF}"
        ) from None
    replaced(file, mark + after)
    return file
