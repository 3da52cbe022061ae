"""Options and environment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.builders import KEY
from worker.model.hosts import Origin
from worker.model.scopes import ScopePolicy
from worker.model.targets import AdminKeyRef
from worker.model.values import Ref
from worker.settings.arguments import UsageError, parse
from worker.settings.options import AdoptRequest, AuditRequest, Options, Settings

LISTS = ("namespace", "allow-host")


def read(*argv: str, pod: str | None = None, **environ: str) -> Settings:
    return parse(argv, environ, pod)


def mistakes(*argv: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(UsageError) as caught:
        read(*argv, **environ)
    return caught.value.mistakes


def test_without_any_option_a_run_has_the_documented_defaults() -> None:
    """`python run.py` is `run`."""
    assert read() == read("run") == Settings(
        command="run",
        options=Options(
            ledger_namespace="openai-key-rotator",
            namespaces=(),
            selector="",
            allowed_hosts=frozenset(),
            concurrency=50,
            max_wait=timedelta(minutes=5),
            unseen_hold=timedelta(hours=24),
            max_hold=None,
            look_every=timedelta(0),
            fallback_admin_key=None,
            force=False,
            dry_run=False,
        ),
        wanted=AdoptRequest(),
        without_successor=False,
        forget=False,
        admin_secret=None,
        audit=AuditRequest(),
        output=None,
        deadline=timedelta(minutes=15),
        strict=False,
        tenant_failures="fail",
        summary_file=None,
        kubeconfig=None,
        context=None,
        in_cluster=False,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["option", "option with =", "environment", "both"])
@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("namespace", "a-1", "options.namespaces", ("a-1",)),
        ("selector", "team=a,x!=y", "options.selector", "team=a,x!=y"),
        ("concurrency", "1", "options.concurrency", 1),
        ("concurrency", "1000", "options.concurrency", 1000),
        ("max-wait", "0", "options.max_wait", timedelta(0)),
        ("max-wait", "1h30m", "options.max_wait", timedelta(minutes=90)),
        ("deadline", "90s", "deadline", timedelta(seconds=90)),
        ("unseen-hold", "0s", "options.unseen_hold", timedelta(0)),
        ("look-every", "1h", "options.look_every", timedelta(hours=1)),
        ("look-every", "24h", "options.look_every", timedelta(hours=24)),
        ("allow-host", "https://proxy.corp/v1", "options.allowed_hosts", {Origin("https", "proxy.corp", 443)}),
        ("allow-host", "http://127.0.0.1:8080", "options.allowed_hosts", {Origin("http", "127.0.0.1", 8080)}),
        ("ledger-namespace", "ops", "options.ledger_namespace", "ops"),
        ("fallback-admin-key", "adm", "options.fallback_admin_key",
         AdminKeyRef(Ref("openai-key-rotator", "adm"), "api-key")),
        ("fallback-admin-key", "adm/k", "options.fallback_admin_key",
         AdminKeyRef(Ref("openai-key-rotator", "adm"), "k")),
        ("default-key-scopes", "model.request", "options.scopes.default", ("model.request",)),
        ("default-key-scopes", "b.x, a.y", "options.scopes.default", ("a.y", "b.x")),
        ("output", "json", "output", "json"),
        ("output", "table", "output", "table"),
        ("kubeconfig", "/a/b", "kubeconfig", "/a/b"),
        ("context", "kind", "context", "kind"),
    ],
)  # fmt: skip
def test_every_option_is_a_variable_too_and_the_option_wins(
    how: str, name: str, text: str, attribute: str, value: object
) -> None:
    """Spelled alike."""
    variable = "ROTATOR_" + name.upper().replace("-", "_")
    found: object = {
        "option": lambda: read(f"--{name}", text),
        "option with =": lambda: read("run", f"--{name}={text}"),
        "environment": lambda: read(**{variable: text}),
        "both": lambda: read(f"--{name}", text, **{variable: "!"}),
    }[how]()
    for part in attribute.split("."):
        found = getattr(found, part)
    assert found == value


def test_an_empty_variable_is_not_set() -> None:
    """As manifests mean it; in a pod an empty context does not turn away from the pod's own cluster."""
    settings = read(ROTATOR_CONTEXT="", ROTATOR_MAX_WAIT="", ROTATOR_NAMESPACE="")
    assert (settings.context, settings.options.max_wait, settings.options.namespaces) == (
        None,
        timedelta(minutes=5),
        (),
    )


def test_scopes_may_be_required() -> None:
    assert read("--require-key-scopes").options.scopes == ScopePolicy((), required=True)
    assert read().options.scopes == ScopePolicy()


@pytest.mark.parametrize("text", ["", ",", "A", "a b"])
def test_no_default_scopes_is_not_all_scopes(text: str) -> None:
    """A mistake, told before anything runs."""
    (mistake,) = mistakes("--default-key-scopes", text)
    assert mistake.startswith("--default-key-scopes: must be one or more scopes")


@pytest.mark.parametrize("flag", ["force", "dry-run", "strict"])
def test_flags_are_set_by_option_or_by_words(flag: str) -> None:
    """True and false in the usual spellings."""
    variable, attribute = "ROTATOR_" + flag.upper().replace("-", "_"), flag.replace("-", "_")

    def of(settings: Settings) -> object:
        return getattr(settings if flag == "strict" else settings.options, attribute)

    assert of(read(f"--{flag}")) is True
    assert of(read(f"--{flag}", **{variable: "false"})) is True
    for text in ("1", "true", "True", "yes"):
        assert of(read(**{variable: text})) is True
    for text in ("0", "false", "FALSE", "no", ""):
        assert of(read(**{variable: text})) is False
    assert mistakes(**{variable: "maybe"}) == (f"{variable}: must be true or false",)


def test_whose_failures_count_is_one_of_two_words() -> None:
    assert read("--tenant-failures", "report").tenant_failures == "report"
    assert read(ROTATOR_TENANT_FAILURES="report").tenant_failures == "report"
    assert mistakes("--tenant-failures", "hide") == ("--tenant-failures: must be fail or report",)


def test_to_spare_tenants_and_to_be_strict_contradict_each_other() -> None:
    """Also where one is a variable of the CronJob and the other an option of the day."""
    assert mistakes("--strict", ROTATOR_TENANT_FAILURES="report") == ("--tenant-failures: report contradicts --strict",)


def test_lists_are_repeated_or_separated_by_commas() -> None:
    """Without blanks, empty parts and repetitions."""
    assert read("--namespace", "b", "--namespace", "a", "--namespace", "b").options.namespaces == ("b", "a")
    assert read(ROTATOR_NAMESPACE=" a, b ,,c,").options.namespaces == ("a", "b", "c")
    assert read("--namespace", "a", ROTATOR_NAMESPACE="b").options.namespaces == ("a",)
    assert read(ROTATOR_NAMESPACE="").options.namespaces == ()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("namespace", ["A", "a/b", "-a", "a.b", "x" * 64, ""]),
        ("concurrency", ["0", "1001", "-1", "1.5", "many", "٣", "1" * 5000]),
        ("max-wait", ["soon", "-1s", "5", "1d"]),
        ("deadline", ["0", "0s", "soon"]),
        ("unseen-hold", ["soon", "-1h"]),
        ("look-every", ["soon", "-1h", "24h1s"]),
        ("allow-host", ["http://proxy.corp", "proxy.corp", "https://u@proxy.corp", "https://proxy.corp/?a"]),
        ("fallback-admin-key", ["/k", "a/"]),
        ("output", ["yaml", "JSON"]),
        ("ledger-namespace", ["A", "a_b"]),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_a_mistake_names_its_option_or_its_variable(name: str, values: list[str], by_variable: bool) -> None:
    """And says briefly what it must be."""
    for value in values:
        if by_variable and not value and name in LISTS:
            continue  # an empty list
        variable = "ROTATOR_" + name.upper().replace("-", "_")
        (mistake,) = mistakes(**{variable: value}) if by_variable else mistakes(f"--{name}={value}")
        assert mistake.startswith(f"{variable if by_variable else '--' + name}: "), value
        assert len(mistake) < 250


def test_all_mistakes_are_told_at_once() -> None:
    """Options, variables, each part of a list, unknown names: one attempt mends them all."""
    told = mistakes(
        "--namespace=A", "--namespace=ok", "--namespace=B", "--output=x", "--unheard-of", "--deadline=0",
        ROTATOR_MAX_WAIT="soon", ROTATOR_MAXWAIT="5m", ROTATOR_ALLOW_HOST="http://a.b, nonsense",
    )  # fmt: skip
    for part in ("'A'", "'B'", "--output", "--unheard-of", "--deadline", "ROTATOR_MAX_WAIT", "ROTATOR_MAXWAIT"):
        assert any(part in mistake for mistake in told), part
    assert sum("ROTATOR_ALLOW_HOST" in mistake for mistake in told) == 2


def test_an_unknown_variable_is_a_mistake_and_its_value_is_not_told() -> None:
    """Somebody may have put a key there."""
    assert mistakes(ROTATOR_ADMIN_KEY=KEY) == ("unknown variable ROTATOR_ADMIN_KEY",)


@pytest.mark.parametrize(
    "argv",
    [
        ["--admin-key", KEY],
        [f"--admin-key={KEY}"],
        ["run", KEY],
        ["status", "--x", KEY],
        ["adopt", KEY],
        ["adopt", "a/b", "--x", KEY],
        ["adopt", f"--account=x {KEY}", "a/b"],
    ],
)
def test_the_value_of_an_unknown_option_is_not_told(argv: list[str]) -> None:
    """Nor that of a stray argument."""
    told = mistakes(*argv)
    assert "CANARY" not in " ".join(told)


def test_other_variables_are_not_our_business() -> None:
    """Only those with our prefix."""
    assert read(PATH="/bin", OPENAI_API_KEY="x", rotator_force="x") == read()


def test_an_option_of_another_command_is_told_so_and_a_mistake_is_told_once() -> None:
    """As kubectl's `-n NAMESPACE NAME`, which two commands do not take."""
    of_a_target = "a target must be NAMESPACE/SECRET, such as default/openai-credentials"
    exactly_one = "revoke: needs exactly one NAMESPACE/SECRET, such as default/openai-credentials"
    known = "revoke has no option -n: it is one of run, status, adopt, audit"
    assert mistakes("revoke", "openai-credentials", "-n", "team-a") == (of_a_target, known, exactly_one)
    assert mistakes("status", "team-a") == ("status takes options alone, and here is an argument without a dash",)


@pytest.mark.parametrize(
    "argv",
    [["nonsense"], ["run", "x"], ["--nonsense"], ["--max"], ["--output"], ["status", "--force"], ["--force=1"]],
)
def test_an_unknown_command_or_option_is_a_mistake_with_usage(argv: list[str]) -> None:
    """No abbreviations: a script must not change its meaning when an option is added."""
    with pytest.raises(UsageError) as caught:
        parse(argv, {})
    assert caught.value.mistakes
    assert caught.value.usage.startswith("usage: openai-key-rotator")


def test_adopt_takes_targets_anywhere_and_accounts_of_one_of_them() -> None:
    """Without any: all targets."""
    assert read("adopt").wanted == AdoptRequest()
    creds, other = Ref("default", "creds"), Ref("team", "a.b")
    assert read("adopt", "default/creds", "--yes", "team/a.b", "default/creds").wanted == AdoptRequest(
        (creds, other), yes=True
    )
    settings = read("adopt", "--account", "user-1", "default/creds", "--account=user-2", "--namespace", "default")
    assert settings.wanted == AdoptRequest((creds,), ("user-1", "user-2"))
    assert settings.options.namespaces == ("default",)
    assert read(ROTATOR_YES="true", ROTATOR_ACCOUNT="user-1").command == "run"


@pytest.mark.parametrize(
    "argv",
    [
        ["creds"],
        ["/creds"],
        ["default/"],
        ["Default/creds"],
        ["default/a/b"],
        ["default/../x"],
        ["--account", "user-1"],
        ["--account", "user-1", "a/b", "a/c"],
        ["--account", "a/b", "a/b"],
        ["--force"],
    ],
)
def test_adopt_refuses_what_is_no_target_or_account(argv: list[str]) -> None:
    assert len(mistakes("adopt", *argv)) == 1


def test_revoke_takes_one_target() -> None:
    """And what a run may need to make its new key."""
    settings = read("revoke", "--yes", "default/creds", "--without-successor", "--allow-host", "https://eu.test")
    assert (settings.command, settings.wanted, settings.without_successor) == (
        "revoke",
        AdoptRequest((Ref("default", "creds"),), (), True),
        True,
    )
    assert settings.options.allowed_hosts


@pytest.mark.parametrize("argv", [[], ["a/b", "a/c"], ["default"], ["a/b", "--force"], ["a/b", "--account=user-1"]])
def test_revoke_refuses_what_is_not_one_target(argv: list[str]) -> None:
    assert mistakes("revoke", *argv)


@pytest.mark.parametrize(
    "argv", [["--help"], ["-h"], ["adopt", "--help"], ["revoke", "-h"], ["run", "--help"], ["status", "-h"]]
)
def test_help_is_no_mistake(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It goes to standard output."""
    with pytest.raises(SystemExit) as caught:
        parse(argv, {})
    assert caught.value.code == 0
    assert "openai-key-rotator" in capsys.readouterr().out


def test_status_takes_the_clusters_options_only() -> None:
    """A run's variables may be set all the same: a pod has them for both."""
    settings = read("status", "--output", "json", "--ledger-namespace", "ops", ROTATOR_FORCE="true")
    assert (settings.command, settings.output, settings.options.ledger_namespace) == ("status", "json", "ops")


@pytest.mark.parametrize(
    ("argv", "pod", "namespace"),
    [((), None, "openai-key-rotator"), ((), "here", "here"), (("--ledger-namespace", "there"), "here", "there")],
)
def test_the_ledger_is_where_the_pod_is_unless_said(argv: tuple[str, ...], pod: str | None, namespace: str) -> None:
    """And the fallback admin key with it."""
    options = read(*argv, "--fallback-admin-key", "adm", pod=pod).options
    assert options.ledger_namespace == namespace
    assert options.fallback_admin_key == AdminKeyRef(Ref(namespace, "adm"), "api-key")


@pytest.mark.parametrize(
    ("pod", "environ", "inside"),
    [
        ("here", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True),
        ("here", {}, False),
        (None, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ],
)
def test_a_pod_is_told_by_its_service_account_and_its_environment(
    pod: str | None, environ: dict[str, str], inside: bool
) -> None:
    """Both, as the client library needs both."""
    assert read(pod=pod, **environ).in_cluster is inside


def test_the_kubeconfig_is_found_as_kubectl_finds_it() -> None:
    """Ours first, then KUBECONFIG."""
    assert read(KUBECONFIG="/k").kubeconfig == "/k"
    assert read(KUBECONFIG="/k", ROTATOR_KUBECONFIG="/r").kubeconfig == "/r"
    assert read("--kubeconfig", "/o", KUBECONFIG="/k", ROTATOR_KUBECONFIG="/r").kubeconfig == "/o"
    assert read(KUBECONFIG="").kubeconfig is None


@pytest.mark.parametrize("command", ["status", "adopt", "revoke a/b"])
def test_the_variables_of_a_scheduled_run_are_not_in_the_way_of_a_command_by_hand(command: str) -> None:
    """In a pod of the CronJob both have one environment; what is not this command's is as if it were not there."""
    run_only = {"ROTATOR_SHARDS": "4", "ROTATOR_SELECTOR": "team=a", "ROTATOR_STRICT": "true", "ROTATOR_MAX_HOLD": "1h"}
    assert read(*command.split(), **run_only) == read(*command.split())


# --- audit


@pytest.mark.parametrize(
    ("text", "value"), [("30d", timedelta(days=30)), ("12h", timedelta(hours=12)), ("1h30m", timedelta(minutes=90))]
)
def test_an_audit_takes_days_as_well(text: str, value: timedelta) -> None:
    """Which Kubernetes' durations do not have."""
    assert read("audit", "--unused", text, "--since", text).audit == AuditRequest(value, value)
    assert read("audit", ROTATOR_UNUSED=text).audit == AuditRequest(value, None)


@pytest.mark.parametrize("text", ["0", "0d", "d", "1.5d", "-1d", "99999d", "30 d", "30D", "1d12h"])
def test_a_span_that_is_none_is_a_mistake(text: str) -> None:
    (mistake,) = mistakes("audit", f"--unused={text}")
    assert mistake.startswith("--unused: ")


def test_a_page_is_an_audits_alone() -> None:
    assert read("audit", "--output", "html").output == "html"
    assert mistakes("run", "--output", "html") == ("--output: html is for an audit alone",)
    assert mistakes("status", ROTATOR_OUTPUT="html") == ("--output: html is for an audit alone",)


def test_an_audit_knows_where_and_how_strictly_to_look() -> None:
    settings = read("audit", "--namespace", "a", "--strict", "--summary-file", "/x", "--concurrency", "7")
    assert (settings.options.namespaces, settings.strict, settings.options.concurrency) == (("a",), True, 7)
    assert mistakes("audit", "--force") == ("audit has no option --force: it is one of run",)
