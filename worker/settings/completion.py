"""What may come next on a command line, for bash, zsh and kubectl. Pure.

One answer serves all three: a line for each word, with a tab and what it means, and at last `:` and a number.
That is how kubectl asks its plugins (`kubectl_complete-NAME`; cobra's `ShellCompDirective`): 4 says that no file is
meant, 0 that one is. The scripts ask the program itself, so they are never behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.settings.arguments import COMMANDS, COMPLETION, PROG, SHELLS, UsageError, options_of

_NO_FILE, _FILE = 4, 0
_CHOICES = {
    "output": {"json": "for scripts", "table": "for people"},
    "tenant-failures": {"fail": "exit code 1", "report": "left to conditions and alerts"},
}
_PAGE = {"html": "one page that stands alone"}

_BASH = """\
# bash completion of PROG, for bash 4 and newer. Load it by: source <(PROG completion bash)
_openai_key_rotator() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    case "$line" in
      :0) compopt -o default ;;
      :*) ;;
      *) COMPREPLY+=("${line%%$'\\t'*}") ;;
    esac
  done < <("${COMP_WORDS[0]}" completion -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _openai_key_rotator PROG
"""
_ZSH = """\
#compdef PROG
# zsh completion of PROG. Load it by: source <(PROG completion zsh)
_openai_key_rotator() {
  local -a lines found
  local line
  lines=("${(@f)$("${words[1]}" completion -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  for line in "${lines[@]}"; do
    case "$line" in
      :0) _files; return ;;
      :*) ;;
      *) found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}") ;;
    esac
  done
  _describe 'PROG' found
}
compdef _openai_key_rotator PROG
"""


def answer(arguments: Sequence[str]) -> str:
    """What `completion …` prints: a shell's script, or, after `--`, what may come next. Raises UsageError."""
    match list(arguments):
        case ["--", *words]:
            return suggestions(words)
        case ["bash"]:
            return _BASH.replace("PROG", PROG)
        case ["zsh"]:
            return _ZSH.replace("PROG", PROG)
    usage = f"usage: {PROG} {COMPLETION} {'|'.join(SHELLS)}\n"
    raise UsageError([f"{COMPLETION}: needs the name of a shell: {' or '.join(SHELLS)}"], usage)


def suggestions(words: Sequence[str]) -> str:
    """The answer to these words after the program's name; the last one is being typed, and may be empty."""
    *before, typed = words or [""]
    found, directive = _next(before, typed)
    lines = [f"{word}\t{meaning}" for word, meaning in found.items() if word.startswith(typed) or typed == "="]
    return "\n".join([*lines, f":{directive}\n"])


def _next(before: list[str], typed: str) -> tuple[dict[str, str], int]:
    """What each word means that may stand at the end, and whether it may be a file instead."""
    if not before:
        return {**COMMANDS, COMPLETION: "a script that completes this in a shell"}, _NO_FILE
    command, *given = before
    if command == COMPLETION:
        return ({} if given else dict.fromkeys(SHELLS, "for this shell")), _NO_FILE
    if command not in COMMANDS:
        return {}, _NO_FILE
    options = {flag: option for option in options_of(command) for flag in option.flags}
    # bash takes `--output=js` for three words, zsh and kubectl for one.
    if typed == "=" or (given and given[-1] == "="):
        given = given[:-1] if typed != "=" else given
        return _values(command, given[-1] if given else "", "")
    flag, equals, _ = typed.partition("=")
    if equals:
        return _values(command, flag, f"{flag}=")
    waiting = options.get(given[-1]) if given else None
    if waiting is not None and not waiting.flag:
        return _values(command, given[-1], "")
    if not typed.startswith("-") and command in ("adopt", "revoke"):
        return {}, _NO_FILE  # the name of a Secret
    open_ones = {
        f"--{option.name}": option.help
        for option in options_of(command)
        if option.many or not set(option.flags) & set(given)
    }
    return open_ones, _NO_FILE


def _values(command: str, flag: str, before: str) -> tuple[dict[str, str], int]:
    """The values of an option. `before`: what is written in front of them in the same word."""
    option = next((option for option in options_of(command) if flag in option.flags), None)
    if option is None or option.flag:
        return {}, _NO_FILE
    if option.metavar == "FILE":
        return {}, _FILE
    choices = _CHOICES.get(option.name, {})
    if (command, option.name) == ("audit", "output"):
        choices = choices | _PAGE
    return {before + choice: meaning for choice, meaning in choices.items()}, _NO_FILE
