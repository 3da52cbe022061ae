"""Options and environment to one frozen Settings; all mistakes at once. Nothing else reads the environment.

Every option `--some-thing` is also `ROTATOR_SOME_THING`; the option wins. Lists are separated by commas. Durations are
written as in Kubernetes (`90s`, `1h30m`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from worker.model.hosts import named_origin
from worker.model.names import ID, is_name, is_namespace
from worker.model.scopes import ScopePolicy, parse_scopes
from worker.model.shard import Shard
from worker.model.targets import AdminKeyRef
from worker.model.times import LONGEST, parse_duration
from worker.model.values import PREFIX, Ref
from worker.settings.authority import own_authority
from worker.settings.central_keys import CentralKeys, central_keys
from worker.settings.examples import COMPLETION_EXAMPLES, examples
from worker.settings.options import AdoptRequest, AuditRequest, Options, Settings
from worker.settings.proxies import DIRECT, Proxies, proxies

PROG, PLUGIN = "openai-key-rotator", "kubectl openai-keys"
"""How the program is called: by its own name, or by kubectl as a plugin."""
COMPLETION = "completion"
DEFAULT_LEDGER_NAMESPACE = "openai-key-rotator"
POD_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_TRUE, _FALSE = ("1", "true", "yes"), ("0", "false", "no", "")


class UsageError(Exception):
    """What is wrong with options and environment, all of it (exit code 2)."""

    def __init__(self, mistakes: Sequence[str], usage: str = "") -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = tuple(mistakes)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class _Option:
    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    metavar: str = ""
    many: bool = False
    flag: bool = False
    commands: tuple[str, ...] = ("run",)
    short: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """As they are written: kubectl's short form first, where there is one."""
        return (f"-{self.short}", f"--{self.name}") if self.short else (f"--{self.name}",)

    @property
    def variable(self) -> str:
        return "ROTATOR_" + self.name.upper().replace("-", "_")


def _duration(text: str) -> timedelta:
    return parse_duration(text)


def _positive(text: str) -> timedelta:
    duration = parse_duration(text)
    if not duration:
        raise ValueError("must be longer than nothing")
    return duration


def _at_most_a_day(text: str) -> timedelta:
    duration = parse_duration(text)
    if duration > timedelta(days=1):
        raise ValueError("must be 24h at most: nobody mends a broken Secret before the next look at it")
    return duration


def _days(text: str) -> timedelta:
    """A duration, or whole days: `30d`, which Kubernetes does not know."""
    days = re.fullmatch(r"([0-9]{1,4})d", text)
    try:
        duration = timedelta(days=int(days[1])) if days else parse_duration(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a duration such as 30d or 12h") from None
    if not duration or duration > LONGEST:
        raise ValueError("must be longer than nothing, and at most ten years")
    return duration


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise ValueError("must be a number from 1 to 1000")
    return int(text)


def _namespace(text: str) -> str:
    if not is_namespace(text):
        raise ValueError(f"{text[:80]!r} is not the name of a namespace")
    return text


def _output(text: str) -> str:
    if text not in ("json", "table", "html"):
        raise ValueError("must be json or table, or html for an audit")
    return text


def _several(text: str) -> int:
    if _count(text) < 2:
        raise ValueError("must be 2 at least: the current account and the one before")
    return int(text)


def _label(text: str) -> str:
    if not ID.match(text):
        raise ValueError("must be an id such as a uid: letters, digits, - and _")
    return text


def _tenant_failures(text: str) -> str:
    if text not in ("fail", "report"):
        raise ValueError("must be fail or report")
    return text


def _flag(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError("must be true or false")
    return text.lower() in _TRUE


def _secret_key(text: str) -> tuple[str, str]:
    name, slash, key = text.partition("/")
    if not name or (slash and not key):
        raise ValueError("must be SECRET or SECRET/KEY")
    return name, key or "api-key"


def _yaml(path: str) -> Any:
    from worker.settings.yaml_file import read_yaml  # needed by few, so imported by those alone

    return read_yaml(Path(path))


def _account_id(text: str) -> str:
    if not ID.match(text):
        raise ValueError("must be the id of an account at OpenAI")
    return text


def _secret(text: str) -> str:
    if not is_name(text):
        raise ValueError("must be the name of a Secret in the ledger's namespace")
    return text


def _target(text: str) -> Ref:
    namespace, slash, name = text.partition("/")
    if not slash or not is_namespace(namespace) or not is_name(name):
        raise ValueError("a target must be NAMESPACE/SECRET, such as default/openai-credentials")
    return Ref(namespace, name)


_ALL = ("run", "status", "adopt", "revoke", "audit")
_REACHING = ("run", "adopt", "revoke")
_ASKING = ("run", "adopt", "revoke", "audit")
_MANY = ("run", "adopt", "audit")
_SHOWING = ("run", "status", "adopt", "audit")
_OPTIONS = (
    _Option(
        "namespace",
        _namespace,
        (),
        "serve, or show, only this namespace (may be repeated); default: all",
        "NS",
        many=True,
        commands=_SHOWING,
        short="n",
    ),
    _Option("selector", str, "", "serve only generators with these labels", "LABELS"),
    _Option("force", _flag, False, "rotate every target, due or not", flag=True),
    _Option(
        "job",
        _label,
        "",
        "id of the Job that this run is a try of: with --force another try of it rotates nothing again",
        "ID",
    ),
    _Option("dry-run", _flag, False, "say what would be done; write nothing", flag=True, commands=("run", "revoke")),
    _Option("concurrency", _count, 50, "targets that are worked on at once; default 50", "N", commands=_MANY),
    _Option("shards", _count, 1, "share the targets among so many pods of an Indexed Job; default 1", "N"),
    _Option("max-wait", _duration, timedelta(minutes=5), "longest wait for a grace period; default 5m", "DURATION"),
    _Option(
        "deadline",
        _positive,
        timedelta(minutes=15),
        "end the run after this; default 15m",
        "DURATION",
        commands=_ASKING,
    ),
    _Option(
        "unseen-hold",
        _duration,
        timedelta(hours=24),
        "keep a superseded key this long while somebody unseen uses it; default 24h",
        "DURATION",
    ),
    _Option(
        "max-hold",
        _positive,
        None,
        "delete a superseded key after this, whoever holds it; default: while a container holds it, never",
        "DURATION",
    ),
    _Option(
        "max-accounts",
        _several,
        100,
        "accounts that a target may have; beyond them only a broken Secret gets a new key; default 100",
        "N",
    ),
    _Option(
        "look-every",
        _at_most_a_day,
        timedelta(0),
        "read a Secret that was found well again only after this, 24h at most; default: in every run",
        "DURATION",
    ),
    _Option(
        "allow-host",
        named_origin,
        (),
        "host that may receive an admin key besides OpenAI's",
        "URL",
        many=True,
        commands=_ASKING,
    ),
    _Option(
        "fallback-admin-key",
        _secret_key,
        None,
        "Secret in the ledger's namespace that deletes accounts whose admin Secret is gone",
        "SECRET[/KEY]",
        commands=_REACHING,
    ),
    _Option(
        "fallback-host",
        named_origin,
        None,
        "the only host that the fallback admin key is sent to; default: OpenAI's own",
        "URL",
        commands=_REACHING,
    ),
    _Option(
        "central-admin-keys",
        _yaml,
        None,
        "admin keys in the ledger's namespace, and which namespaces may use them for which projects",
        "FILE",
        commands=_ASKING,
    ),
    _Option(
        "strict",
        _flag,
        False,
        "exit with 1 also where a target is blocked; an audit: where something is found",
        flag=True,
        commands=("run", "audit"),
    ),
    _Option(
        "default-key-scopes",
        parse_scopes,
        (),
        f"what keys may do whose target has no annotation {PREFIX}key-scopes; default: everything",
        "SCOPE,SCOPE",
        commands=("run", "adopt", "revoke"),
    ),
    _Option(
        "require-key-scopes",
        _flag,
        False,
        "refuse targets whose keys' scopes neither an annotation nor --default-key-scopes names",
        flag=True,
        commands=("run", "adopt", "revoke"),
    ),
    _Option(
        "tenant-failures",
        _tenant_failures,
        "fail",
        "what a failure of a tenant's own does: fail gives exit code 1; report leaves it to its condition and alert",
        "fail|report",
    ),
    _Option(
        "summary-file",
        Path,
        None,
        "write the run's summary there as well, one line of JSON: /dev/termination-log is shown with the pod",
        "FILE",
        commands=("run", "audit"),
    ),
    _Option("yes", _flag, False, "do what is shown, and do not ask", flag=True, commands=("adopt", "revoke")),
    _Option(
        "without-successor",
        _flag,
        False,
        "delete all its accounts even if no new key can be made",
        flag=True,
        commands=("revoke",),
    ),
    _Option(
        "forget",
        _flag,
        False,
        "delete and make nothing: only let accounts go from the ledger whose project OpenAI says does not exist",
        flag=True,
        commands=("revoke",),
    ),
    _Option(
        "admin-secret",
        _secret,
        None,
        "replace the admin key in this Secret beside the ledger, and delete the former ones at once",
        "SECRET",
        commands=("revoke",),
    ),
    _Option(
        "account",
        _account_id,
        (),
        "record this account too, which only you know to be the target's (may be repeated)",
        "ID",
        many=True,
        commands=("adopt",),
    ),
    _Option(
        "unused",
        _days,
        timedelta(days=30),
        "a key that was not used for so long is a finding; default 30d",
        "DURATION",
        commands=("audit",),
    ),
    _Option(
        "since",
        _days,
        None,
        "ask the organisation's audit log, so far back, who made what is unrecorded and who deleted what is gone",
        "DURATION",
        commands=("audit",),
    ),
    _Option("ledger-namespace", _namespace, None, "namespace of the KeyRotation objects", "NS", commands=_ALL),
    _Option(
        "output",
        _output,
        None,
        "json or table (audit: or html); default: table on a terminal",
        "FORM",
        commands=_ALL,
        short="o",
    ),
    _Option("kubeconfig", str, None, "path of a kubeconfig; default: as kubectl", "FILE", commands=_ALL),
    _Option("context", str, None, "context of the kubeconfig", "NAME", commands=_ALL),
)


_NAMING = ("adopt", "revoke")
"""Commands that are given targets by name."""


COMMANDS = {
    "run": "rotate what is due and delete what may go",
    "status": "show every target, from the ledger",
    "adopt": "show, and with --yes record, accounts that Secrets, GeneratorStates or another ledger's entries name",
    "audit": "show every account and key at OpenAI next to the ledger; changes nothing",
    "revoke": "a key is compromised: make a new one, then delete all other accounts of the target at once",
}
SHELLS = ("bash", "zsh")


def options_of(command: str) -> tuple[_Option, ...]:
    """The options that a command takes."""
    return tuple(option for option in _OPTIONS if command in option.commands)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError([message], self.format_usage())


def _parser(prog: str) -> argparse.ArgumentParser:
    default = "" if prog == PLUGIN else " `run` is the default command."
    parser = _Parser(
        prog=prog,
        description=f"Rotates the OpenAI API keys of a cluster's workloads.{default}",
        epilog="Every option is also an environment variable: --max-wait is ROTATOR_MAX_WAIT. "
        "Exit codes: 0 well, 1 a target failed, 2 usage or configuration, 3 cluster or ledger out of reach.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command, text in COMMANDS.items():
        sub = commands.add_parser(
            command,
            help=text,
            description=text,
            epilog=examples(command, prog),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if command in _NAMING:
            whom = "these targets; default: all" if command == "adopt" else "this target"
            sub.add_argument("targets", nargs="*", metavar="NAMESPACE/SECRET", help=whom)
        for option in options_of(command):
            if option.flag:
                sub.add_argument(*option.flags, action="store_const", const="true", help=option.help)
            else:
                action = "append" if option.many else "store"
                sub.add_argument(*option.flags, action=action, metavar=option.metavar, help=option.help)
    # Only for --help: the command line serves it before it looks for a cluster.
    text = "print a script that completes this command line in bash or zsh"
    sub = commands.add_parser(
        COMPLETION,
        help=text,
        description=text,
        epilog=COMPLETION_EXAMPLES.replace("PROG", PROG),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("shell", metavar="|".join(SHELLS), help="the shell that is to complete; bash: 4 or newer")
    return parser


def parse(
    argv: Sequence[str], environ: Mapping[str, str], pod_namespace: str | None = None, *, prog: str = PROG
) -> Settings:
    """Read options and environment. `pod_namespace`: where this pod runs, None outside a pod.

    Raises UsageError with every mistake, SystemExit(0) after --help.
    """
    arguments, parser = list(argv), _parser(prog)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        if prog == PLUGIN:
            # On a laptop nothing is rotated that nobody asked for.
            raise UsageError(["the command is missing, such as status"], parser.format_help())
        arguments.insert(0, "run")
    given, unknown = parser.parse_known_args(arguments)
    named = list(getattr(given, "targets", ()))
    if given.command in _NAMING:
        # argparse takes only those before the first option for targets.
        named += [argument for argument in unknown if not argument.startswith("-")]
        unknown = [argument for argument in unknown if argument.startswith("-")]
    reader = _Reader(given, environ)
    values = reader.values()
    targets = reader.targets(named)
    reader.mistakes += [_unknown(argument, given.command) for argument in unknown]
    if given.command == "adopt" and values["account"] and len(targets) != 1:
        reader.mistakes.append("--account: needs exactly one NAMESPACE/SECRET, whose account it is")
    if given.command == "revoke" and values["admin-secret"] is not None:
        if named or values["forget"] or values["without-successor"]:
            reader.mistakes.append(
                "--admin-secret: is about no target, and takes neither --forget nor --without-successor"
            )
    elif given.command == "revoke" and len(named) != 1:
        reader.mistakes.append("revoke: needs exactly one NAMESPACE/SECRET, such as default/openai-credentials")
    if values["forget"] and values["without-successor"]:
        reader.mistakes.append("--forget: deletes nothing, so it contradicts --without-successor")
    if given.command != "audit" and values["output"] == "html":
        reader.mistakes.append("--output: html is for an audit alone")
    if values["strict"] and values["tenant-failures"] == "report":
        reader.mistakes.append("--tenant-failures: report contradicts --strict")
    reader.mistakes += _unknown_variables(environ)
    values["ledger-namespace"] = values["ledger-namespace"] or pod_namespace or DEFAULT_LEDGER_NAMESPACE
    shard = reader.shard(values["shards"])
    central, proxied, authority = reader.central(values), reader.proxies(), reader.own_authority()
    if reader.mistakes:
        raise UsageError(list(dict.fromkeys(reader.mistakes)), parser.format_usage() if unknown else "")
    return Settings(
        command=given.command,
        options=_options(values, shard, central),
        wanted=AdoptRequest(targets, tuple(dict.fromkeys(values["account"])), values["yes"]),
        without_successor=values["without-successor"],
        forget=values["forget"],
        admin_secret=values["admin-secret"],
        audit=AuditRequest(values["unused"], values["since"]),
        output=values["output"],
        deadline=values["deadline"],
        strict=values["strict"],
        tenant_failures=values["tenant-failures"],
        summary_file=values["summary-file"],
        kubeconfig=values["kubeconfig"] or environ.get("KUBECONFIG") or None,
        context=values["context"],
        in_cluster=pod_namespace is not None and bool(environ.get("KUBERNETES_SERVICE_HOST")),
        proxies=proxied,
        own_authority=authority,
    )


class _Reader:
    """Reads what was written on the command line and in the environment, and collects the mistakes in it."""

    def __init__(self, given: argparse.Namespace, environ: Mapping[str, str]) -> None:
        self._given = given
        self._environ = environ
        self.mistakes: list[str] = []

    def values(self) -> dict[str, Any]:
        """Every option's value; the default for those that the command does not take."""
        # A CronJob's variables are there for a command by hand in its pod, too: they are not looked at.
        return {
            option.name: self._value(option) if self._given.command in option.commands else option.default
            for option in _OPTIONS
        }

    def targets(self, names: Sequence[str]) -> tuple[Ref, ...]:
        targets = []
        for name in names:
            try:
                targets.append(_target(name))
            except ValueError as error:
                self.mistakes.append(str(error))
        return tuple(dict.fromkeys(targets))

    def shard(self, count: int) -> Shard:
        """This pod's shard: Kubernetes sets the variable in the pods of an Indexed Job."""
        if count == 1:
            return Shard()
        index = self._environ.get("JOB_COMPLETION_INDEX", "")
        if index.isascii() and index.isdigit() and int(index) < count:
            return Shard(int(index), count)
        self.mistakes.append(
            f"--shards={count}: JOB_COMPLETION_INDEX must be a number below that, as in an Indexed Job"
        )
        return Shard()

    def central(self, values: Mapping[str, Any]) -> CentralKeys:
        """The file's content as admin keys and who may use them."""
        document = values["central-admin-keys"]
        if document is None:
            return CentralKeys()
        try:
            return central_keys(document, values["ledger-namespace"], values["allow-host"])
        except ValueError as error:
            self.mistakes.append(f"--central-admin-keys: {error}")
            return CentralKeys()

    def own_authority(self) -> bool:
        try:
            return own_authority(self._environ)
        except ValueError as error:
            self.mistakes.append(str(error))
            return False

    def proxies(self) -> Proxies:
        try:
            return proxies(self._environ)
        except ValueError as error:
            self.mistakes.append(str(error))
            return DIRECT

    def _value(self, option: _Option) -> Any:
        """The option's value: the command line's, else the environment's, else the default."""
        where, written = f"--{option.name}", getattr(self._given, option.name.replace("-", "_"), None)
        variable = self._environ.get(option.variable)
        # A variable that is set and empty counts as not set, as manifests mean it.
        if written is None and variable:
            where = option.variable
            written = [part.strip() for part in variable.split(",") if part.strip()] if option.many else variable
        if written is None:
            return option.default
        values = []
        for part in written if option.many else [written]:
            try:
                values.append(option.parse(part))
            except ValueError as error:
                self.mistakes.append(f"{where}: {error}")
        if option.many:
            return tuple(values)
        return values[0] if values else option.default


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {option.variable for option in _OPTIONS}
    unknown = (name for name in sorted(environ) if name.startswith("ROTATOR_") and name not in known)
    return [f"unknown variable {name}" for name in unknown]


def _options(values: Mapping[str, Any], shard: Shard, central: CentralKeys) -> Options:
    namespace, fallback = values["ledger-namespace"], values["fallback-admin-key"]
    return Options(
        ledger_namespace=namespace,
        namespaces=tuple(dict.fromkeys(values["namespace"])),
        selector=values["selector"],
        allowed_hosts=frozenset(values["allow-host"]),
        concurrency=values["concurrency"],
        max_wait=values["max-wait"],
        unseen_hold=values["unseen-hold"],
        max_hold=values["max-hold"],
        max_accounts=values["max-accounts"],
        look_every=values["look-every"],
        fallback_host=values["fallback-host"],
        fallback_admin_key=AdminKeyRef(Ref(namespace, fallback[0]), fallback[1]) if fallback else None,
        central_keys=central,
        scopes=ScopePolicy(values["default-key-scopes"], values["require-key-scopes"]),
        shard=shard,
        force=values["force"],
        dry_run=values["dry-run"],
        job=values["job"],
    )


def _unknown(argument: str, command: str) -> str:
    """Its name alone: what follows may be a key that somebody meant to give."""
    if not argument.startswith("-"):
        return f"{command} takes options alone, and here is an argument without a dash"
    name, _, _ = argument.partition("=")
    # One of kubectl's or of another command's is no typing error: say where it is known.
    taking = [other for option in _OPTIONS if name in option.flags for other in option.commands]
    if taking:
        return f"{command} has no option {name}: it is one of {', '.join(taking)}"
    return f"unknown option {name[:40]}"
