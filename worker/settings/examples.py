"""The examples below each command's `--help`. Pure. tests/settings/test_completion.py reads every one of them."""

from __future__ import annotations

_EXAMPLES = {
    "run": (
        ("say what would be done, and do nothing", "run --dry-run"),
        ("rotate what is due in one namespace, and do not wait for grace periods", "run -n team-a --max-wait 0s"),
        ("rotate everything that one label selects, due or not", "run --selector app=search --force"),
    ),
    "status": (
        ("which account waits for what, and who holds it", "status"),
        ("the same of one namespace, for a script", "status -n team-a -o json"),
        ("of another cluster", "status --context production"),
    ),
    "adopt": (
        ("show what a lost ledger does not record", "adopt"),
        ("record the accounts of one Secret", "adopt team-a/openai-credentials --yes"),
        ("record an account that nothing names", "adopt team-a/openai-credentials --account user-abc123 --yes"),
    ),
    "audit": (
        ("every account and key at OpenAI next to the ledger", "audit"),
        ("a page to read, with who made what in the last month", "audit --since 30d -o html"),
        ("fail where a key was not used for a fortnight", "audit --unused 14d --strict"),
    ),
    "revoke": (
        ("show who would lose its key, and do nothing", "revoke team-a/openai-credentials --dry-run"),
        ("a new key, then all others of this Secret go at once", "revoke team-a/openai-credentials"),
        ("an admin key of the operator's own is compromised", "revoke --admin-secret openai-admin"),
        ("let go of the accounts of a project that was deleted", "revoke --forget team-a/openai-credentials"),
    ),
}

COMPLETION_EXAMPLES = """\
examples:
  # in this shell
  source <(PROG completion bash)

  # in every zsh from now on; ~/.zshrc calls compinit before
  echo 'source <(PROG completion zsh)' >> ~/.zshrc"""
"""`PROG`: the name of the command. kubectl asks for its plugins by itself, and needs no script."""


def examples(command: str, prog: str) -> str:
    """The text of a command's examples. `prog`: how the program was called."""
    lines = ["examples:"]
    for what, arguments in _EXAMPLES[command]:
        lines += [f"  # {what}", f"  {prog} {arguments}", ""]
    return "\n".join(lines[:-1])
