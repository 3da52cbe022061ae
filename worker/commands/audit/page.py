"""An audit as one HTML page that stands alone: no script, font or picture from elsewhere. Pure.

Guarantees: every text is escaped, and no text becomes part of the script or the style.
The page forbids the browser to load anything, and to run another script than its own.
Without a script the page shows everything; the script only hides what a filter leaves out.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby

from worker.commands.audit.findings import ADVICE, Finding
from worker.commands.audit.report import Audit, AuditedAdminKey, AuditedLine, summary
from worker.commands.audit.timeline import Stage, Timeline, timeline_of
from worker.commands.audit.words import LAST_USE, about, ago, by_whom, counted, ends, place, scopes, state, used
from worker.model.hidden import redacted
from worker.model.times import format_time
from worker.model.values import Ref
from worker.report.table import age

_STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --paper: #fff; --shade: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 24px; color: var(--ink); background: var(--paper);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 32px 0 8px; }
h3 { font-size: 14px; margin: 0 0 8px; }
p { margin: 4px 0 8px; }
.soft { color: var(--soft); }
.mono, td.mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 8px; margin: 16px 0; padding: 0; list-style: none; }
.tiles li { border: 1px solid var(--line); border-radius: 6px; padding: 8px 14px; min-width: 96px; }
.tiles b { display: block; font-size: 20px; }
.tiles .bad { border-color: #cf222e; color: #a40e26; }
.filters { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 16px; align-items: center;
  padding: 10px 14px; background: var(--shade); border: 1px solid var(--line); border-radius: 6px; }
select { font: inherit; padding: 2px 4px; max-width: 320px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: 12px; white-space: nowrap; }
td.mono { line-height: 20px; min-width: 130px; }
section { overflow-x: auto; }
td.tight { white-space: nowrap; }
.kind { display: inline-block; padding: 0 7px; margin: 0 3px 2px 0; border: 1px solid #cf222e; border-radius: 10px;
  color: #a40e26; font-size: 12px; white-space: nowrap; }
.card { border: 1px solid var(--line); border-radius: 6px; padding: 12px 14px; margin: 0 0 10px;
  content-visibility: auto; contain-intrinsic-size: auto 110px; }
.lane { display: grid; grid-template-columns: 190px 1fr 300px; gap: 12px; align-items: center; min-height: 24px; }
.lane svg { width: 100%; height: 16px; display: block; background: var(--shade); }
.axis { color: var(--soft); font-size: 11px; }
.axis div { display: flex; justify-content: space-between; }
.unpublished { fill: #8c959f; }
.current { fill: #1a7f37; }
.superseded { fill: #d4a72c; }
.held { fill: #bc4c00; }
.gone { fill: none; stroke: #cf222e; stroke-width: 2; stroke-dasharray: 5 3; }
.legend { display: flex; flex-wrap: wrap; gap: 16px; margin: 4px 0 12px; color: var(--soft); font-size: 12px; }
.legend svg { width: 26px; height: 12px; vertical-align: -1px; margin-right: 5px; }
#keys table { table-layout: fixed; min-width: 1100px; overflow-wrap: anywhere; }
#keys th:nth-child(n+5):nth-child(-n+8) { width: 84px; }
#keys th:nth-child(4) { width: 232px; }
#keys th:nth-child(9) { width: 170px; }
[hidden] { display: none !important; }
@media (max-width: 800px) { .lane { grid-template-columns: 1fr; gap: 2px; margin-bottom: 8px; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10px; }
  .filters { display: none; }
  section { overflow-x: visible; }
  td.mono { min-width: 0; }
  #keys table { min-width: 0; table-layout: auto; }
  .card { content-visibility: visible; break-inside: avoid; }
  .lane { grid-template-columns: 120px 1fr 190px; }
  tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  thead { display: table-header-group; }
  svg, .kind { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
_SCRIPT = """
(function () {
  var namespace = document.getElementById("namespace"), kind = document.getElementById("finding");
  var items = Array.prototype.slice.call(document.querySelectorAll("[data-ns]"));
  var sections = Array.prototype.slice.call(document.querySelectorAll("section[data-filtered]"));
  function show() {
    items.forEach(function (item) {
      var fits = namespace.value === "*" || item.dataset.ns === namespace.value;
      var kinds = " " + item.dataset.kinds + " ";
      item.hidden = !(fits && (kind.value === "*" || kinds.indexOf(" " + kind.value + " ") >= 0));
    });
    sections.forEach(function (section) {
      var all = section.querySelectorAll("[data-ns]").length;
      var left = section.querySelectorAll("[data-ns]:not([hidden])").length;
      section.querySelector(".count").textContent = left === all ? String(all) : left + " of " + all;
    });
    Array.prototype.forEach.call(document.querySelectorAll("tbody[data-kind]"), function (group) {
      group.hidden = group.querySelector("[data-ns]:not([hidden])") === null;
    });
  }
  namespace.addEventListener("change", show);
  kind.addEventListener("change", show);
  document.getElementById("filters").hidden = false;
  show();
})();
"""
_LEGEND = (
    (Stage.UNPUBLISHED, "asked for, not published"),
    (Stage.CURRENT, "current: in the Secret"),
    (Stage.SUPERSEDED, "superseded"),
    (Stage.HELD, "superseded, and somebody holds it"),
)
_COLUMNS = ("Target", "Account", "State", "Key", "Age", "Last used", "Ends", "Scopes", "Findings")
_NO_TARGET = "no target"


def page_pieces(audit: Audit) -> Iterator[str]:
    """The page, piece by piece."""
    by_target: defaultdict[Ref, list[AuditedLine]] = defaultdict(list)
    for item in audit.lines:
        if item.line.target is not None:
            by_target[item.line.target].append(item)
    yield from _head(audit)
    yield from _findings(audit)
    yield from _targets(audit, by_target)
    yield from _keys(audit)
    yield from _admin_keys(audit)
    yield from _unknown(audit)
    yield f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def _head(audit: Audit) -> Iterator[str]:
    policy = f"default-src 'none'; style-src '{_hash(_STYLE)}'; script-src '{_hash(_SCRIPT)}'; base-uri 'none'"
    title = f"OpenAI keys: audit of {format_time(audit.at)}"
    counts = summary(audit)
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>OpenAI keys: audit</h1>\n<p>{_text(counted(audit))}.</p>\n<p class=soft>{_text(_scope(audit))}</p>\n"
    )
    tiles = [(counts["findings"], "finding" + "s" * (counts["findings"] != 1), bool(counts["findings"]))]
    tiles += [(number, kind, True) for kind, number in counts["by_finding"].items()]
    plain = [(counts["accounts"], "account"), (counts["keys"], "key"), (counts["projects"], "project")]
    tiles += [(number, word + "s" * (number != 1), False) for number, word in plain]
    tiles.append((counts["projects_not_asked"], "not asked", True))
    shown = [(number, word, bad) for number, word, bad in tiles if number or not bad]
    cells = "".join(f"<li{' class=bad' * bad}><b>{number}</b>{_text(word)}</li>" for number, word, bad in shown)
    yield f'<ul class="tiles">{cells}</ul>\n'
    namespaces = {item.namespace for item in audit.lines} | {admin.ref.secret.namespace for admin in audit.admin_keys}
    namespaces |= {ref.namespace for ref in audit.entries}
    places = "".join(
        f'<option value="{_text(name)}">{_text(name or _NO_TARGET)}</option>' for name in sorted(namespaces)
    )
    kinds = "".join(f"<option>{_text(kind)}</option>" for kind in counts["by_finding"])
    yield (
        '<div class="filters" id="filters" hidden>\n'
        f'<label>Namespace <select id="namespace"><option value="*">all</option>{places}</select></label>\n'
        f'<label>Finding <select id="finding"><option value="*">all</option>{kinds}</select></label>\n</div>\n'
    )


def _scope(audit: Audit) -> str:
    """When and what was looked at."""
    parts = [f"Looked at {format_time(audit.at)}", f"ledger in namespace {audit.ledger}"]
    parts.append(f"unused means: not used for {age(audit.unused)}")
    if audit.since is not None:
        parts.append(f"audit log asked from {format_time(audit.since)} on")
    return "; ".join(parts) + "."


def _findings(audit: Audit) -> Iterator[str]:
    yield _section("findings", "Findings")
    groups = [(kind, list(group)) for kind, group in groupby(audit.findings, key=lambda found: found[0])]
    if not groups:
        yield "<p>Nothing was found.</p>\n</section>\n"
        return
    yield "<table>\n"
    for kind, found in groups:
        yield (
            f'<tbody data-kind="{kind.value}"><tr><td colspan=3><span class="kind">{kind.value}</span> '
            f"{_text(ADVICE[kind])}</td></tr>\n"
        )
        for _, item, finding in found:
            whose = _whose(item)
            told = "; ".join(by_whom(item)) if isinstance(item, AuditedLine) else ""
            yield (
                f'<tr data-ns="{_text(whose)}" data-kinds="{kind.value}"><td class="mono">{_text(about(item))}</td>'
                f"<td>{_text(finding.message)}</td><td>{_text(told)}</td></tr>\n"
            )
        yield "</tbody>\n"
    yield "</table>\n</section>\n"


def _targets(audit: Audit, by_target: Mapping[Ref, list[AuditedLine]]) -> Iterator[str]:
    yield _section("targets", "Keys of each target over time")
    legend = "".join(
        f'<span><svg><rect class="{stage}" width="26" height="12"/></svg>{_text(words)}</span>'
        for stage, words in _LEGEND
    )
    gone = '<span><svg><rect class="gone" x="1" y="1" width="24" height="10"/></svg>not at OpenAI</span>'
    yield f'<div class="legend">{legend}{gone}</div>\n'
    for ref in sorted({*by_target, *audit.entries}):
        lines, entry = by_target.get(ref, []), audit.entries.get(ref)
        timeline = timeline_of(entry, lines, audit.at) if entry is not None else None
        found = tuple(finding for item in lines for finding in item.findings)
        yield f'<div class="card" data-ns="{_text(ref.namespace)}" data-kinds="{_kinds(found)}">\n'
        yield f"<h3>{_text(str(ref))} {_badges(found)}</h3>\n"
        yield from _picture(timeline) if timeline is not None else ["<p class=soft>No account is recorded.</p>\n"]
        yield "</div>\n"
    yield "</section>\n"


def _picture(timeline: Timeline) -> Iterator[str]:
    for lane in timeline.lanes:
        bars = ""
        for span in lane.spans:
            left, right = 100 * timeline.place(span.begin), 100 * timeline.place(span.end)
            if span.end > span.begin:
                times = f"{span.stage.value}: {format_time(span.begin)} to {format_time(span.end)}"
                # At least so wide that it can be seen, and inside the picture.
                width = max(0.3, right - left)
                left = min(left, 100 - width)
                bars += f'<rect class="{span.stage.value}" x="{left:.2f}%" width="{width:.2f}%" height="16">'
                bars += f"<title>{_text(times)}</title></rect>"
        if lane.gone:
            left, right = 100 * timeline.place(lane.spans[0].begin), 100 * timeline.place(lane.spans[-1].end)
            bars += f'<rect class="gone" x="{left:.2f}%" y="1" width="{max(0.3, right - left):.2f}%" height="14"/>'
        yield (
            f'<div class="lane"><span class="mono">{_text(lane.name)}</span>'
            f'<svg role="img" aria-label="{_text(lane.note)}">{bars}</svg><span>{_text(lane.note)}</span></div>\n'
        )
    whole = timeline.end - timeline.begin
    ticks = [f"{age(whole * part / 4)} ago" for part in (4, 3, 2, 1)] + ["now"]
    marks = "".join(f"<span>{_text(tick)}</span>" for tick in ticks)
    yield f'<div class="lane axis"><span></span><div>{marks}</div><span></span></div>\n'


def _keys(audit: Audit) -> Iterator[str]:
    yield _section("keys", "Accounts and keys")
    now = audit.at
    for project, group in groupby(sorted(audit.lines, key=lambda item: item.line.project), lambda i: i.line.project):
        yield f"<h3>Project {_text(project.id)} <span class=soft>at {_text(project.host)}</span></h3>\n<table>\n"
        yield f"<thead><tr>{''.join(f'<th>{column}</th>' for column in _COLUMNS)}</tr></thead>\n<tbody>\n"
        for item in group:
            line = item.line
            target = str(line.target) if line.target is not None else "-"
            key = line.key.id if line.key is not None else "-"
            cells = [
                ("", target),
                ("mono", line.account_name or line.account_id or "-"),
                ("", state(line)),
                ("mono", key),
            ]
            cells += [("tight", ago(line.begun_at, now)), ("tight", used(line, now))]
            cells += [
                ("tight", ends(line.key.expires_at, now) if line.key is not None else "-"),
                ("mono", scopes(line)),
            ]
            row = "".join(
                f'<td class="{name}">{_text(text)}</td>' if name else f"<td>{_text(text)}</td>" for name, text in cells
            )
            yield f'<tr data-ns="{_text(item.namespace)}" data-kinds="{_kinds(item.findings)}">{row}'
            yield f"<td>{_badges(item.findings)}</td></tr>\n"
        yield "</tbody>\n</table>\n"
    yield "</section>\n"


def _admin_keys(audit: Audit) -> Iterator[str]:
    yield _section("admin-keys", "Admin keys")
    heads = ("Secret and key", "Id", "Age", "Last used", "Ends", "Projects", "Findings")
    yield f"<table>\n<thead><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr></thead>\n<tbody>\n"
    for item in audit.admin_keys:
        facts = item.facts
        if facts is not None:
            last = "never" if facts.last_used_at is None else f"{age(audit.at - facts.last_used_at)} ago"
            cells = [facts.id, ago(facts.created_at, audit.at), last, ends(facts.expires_at, audit.at)]
        else:
            cells = ["-", "-", "-", f"not known: {item.problem}"]
        projects = ", ".join(project.id for project in item.projects[:5]) + ", …" * (len(item.projects) > 5)
        row = "".join(f"<td>{_text(text)}</td>" for text in (place(item), *cells, projects))
        yield f'<tr data-ns="{_text(_whose(item))}" data-kinds="{_kinds(item.findings)}">{row}'
        yield f"<td>{_badges(item.findings)}</td></tr>\n"
    yield f"</tbody>\n</table>\n<p class=soft>{_text(LAST_USE.capitalize())}.</p>\n</section>\n"


def _unknown(audit: Audit) -> Iterator[str]:
    """Projects that could not be asked about, and other gaps: an empty page must not look like a clean one."""
    told = [f"project {project}: {why}" for project, why in audit.unasked] + list(audit.notes)
    if told:
        yield "<section id=unknown>\n<h2>Not known</h2>\n<ul>\n"
        yield from (f"<li>{_text(text)}</li>\n" for text in told)
        yield "</ul>\n</section>\n"


def _section(id: str, title: str) -> str:
    return f'<section id="{id}" data-filtered>\n<h2>{title} <span class="soft count"></span></h2>\n'


def _whose(item: AuditedLine | AuditedAdminKey) -> str:
    return item.ref.secret.namespace if isinstance(item, AuditedAdminKey) else item.namespace


def _kinds(findings: Collection[Finding]) -> str:
    return " ".join(sorted({finding.kind.value for finding in findings}))


def _badges(findings: Collection[Finding]) -> str:
    told = {finding.kind.value: finding.message for finding in findings}
    return "".join(f'<span class="kind" title="{_text(message)}">{kind}</span>' for kind, message in told.items())


def _text(text: str) -> str:
    """Escaped, without control characters, and without anything that looks like a key."""
    return html.escape("".join(char if char.isprintable() else "?" for char in redacted(text)))


def _hash(content: str) -> str:
    """How a Content-Security-Policy names an element by its content."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
