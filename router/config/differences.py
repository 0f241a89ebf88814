"""What differs between two configurations, for people: file by file, and rule by rule in words.

Owns the wording.  Must not know where configurations are kept.
"""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import fields

from router.config.versions import File
from rules import Rule
from rules.rule import Send, Target
from rules.words import span_words

MAX_LINES = 20_000
"""Files longer than this are not compared line by line: that could take minutes."""


def of_files(old: Sequence[File], new: Sequence[File], old_name: str, new_name: str) -> str:
    """A unified diff of all files, "" when they are the same."""
    before = {file.name: file.data for file in old}
    after = {file.name: file.data for file in new}
    # The configuration file comes first, whatever it was called.
    if old and new and old[0].name not in after and new[0].name not in before:
        before[new[0].name] = before.pop(old[0].name)
    return "".join(
        _of_file(name, before.get(name), after.get(name), old_name, new_name)
        for name in dict.fromkeys((*after, *before))
    )


def _of_file(name: str, old: bytes | None, new: bytes | None, old_name: str, new_name: str) -> str:
    if old == new:
        return ""
    before, after = _lines(old), _lines(new)
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    old_head = "/dev/null" if old is None else f"{old_name}/{shown}"
    new_head = "/dev/null" if new is None else f"{new_name}/{shown}"
    if max(len(before), len(after)) > MAX_LINES:
        return f"{old_head} and {new_head} differ; they are too long to be compared here\n"
    lines = difflib.unified_diff(before, after, old_head, new_head)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(data: bytes | None) -> list[str]:
    text = (data or b"").decode("utf-8", "backslashreplace")
    # Not splitlines(), which knows a dozen more ends of lines than editors do.
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def of_rules(old: Sequence[Rule], new: Sequence[Rule]) -> list[str]:
    """Which rules were added, removed, changed, renamed and moved; [] when they mean the same."""
    before = {rule.name: rule for rule in old}
    after = {rule.name: rule for rule in new}
    renamed = dict(_renamed(before, after))
    said = [f"rule {before_name!r} is now called {name!r}" for name, before_name in renamed.items()]
    gone = before.keys() - after.keys() - set(renamed.values())
    said += [f"rule {name!r} was removed: {_does(before[name])}" for name in before if name in gone]
    for name, rule in after.items():
        if name in renamed:
            continue
        if name not in before:
            said.append(f"rule {name!r} was added{_place(rule, new)}: {_does(rule)}")
        elif what := list(_changes(before[name], rule)):
            said.append(f"rule {name!r} was changed: {'; '.join(what)}")
    return said + list(_moved(before, after, renamed))


def _renamed(before: dict[str, Rule], after: dict[str, Rule]) -> Iterator[tuple[str, str]]:
    """New and old names of rules that are the same but for the name."""
    gone = [rule for name, rule in before.items() if name not in after]
    for name, rule in after.items():
        if name in before:
            continue
        for one in gone:
            if not _differing(one, rule) - {"name"}:
                gone.remove(one)
                yield name, one.name
                break


def _differing(old: Rule, new: Rule) -> set[str]:
    return {
        field.name
        for field in fields(Rule)
        if field.compare and getattr(old, field.name) != getattr(new, field.name)
    }


def _moved(
    before: dict[str, Rule], after: dict[str, Rule], renamed: dict[str, str]
) -> Iterator[str]:
    """Those that are not in the longest common order."""
    order = [renamed.get(name, name) for name in after]
    both = [name for name in before if name in set(order)]
    now = [name for name in order if name in before]
    matcher = difflib.SequenceMatcher(None, both, now, autojunk=False)
    stayed = {both[m.a + i] for m in matcher.get_matching_blocks() for i in range(m.size)}
    called = {old: new for new, old in renamed.items()}
    for place, name in enumerate(now):
        if name not in stayed:
            behind = f"behind {called.get(now[place - 1], now[place - 1])!r}" if place else "first"
            yield f"rule {called.get(name, name)!r} was moved: it now comes {behind}"


def _place(rule: Rule, rules: Sequence[Rule]) -> str:
    place = next(n for n, one in enumerate(rules) if one.name == rule.name)
    return f" behind {rules[place - 1].name!r}" if place else " as the first"


_WORDS = {
    "condition": "its condition is another",
    "tags": "its tag",
    "final": "whether it is final",
}


def _changes(old: Rule, new: Rule) -> Iterator[str]:
    different = _differing(old, new)
    if "condition" in different:
        yield _WORDS["condition"]
    if different & {"targets", "discard", "hold", "tags", "final", "keep_for"}:
        yield f"it {_does(new)}, before it {_does(old)}"
    if "send" in different:
        yield f"it is sent {sending(new.send)}, before {sending(old.send)}"
    if "disabled" in different:
        yield "it counts again" if new.disabled is None else f"it is disabled: {new.disabled}"
    for name, word in (("valid_from", "from"), ("until", "until")):
        if name in different:
            when = getattr(new, name)
            yield (
                f"it is valid {word} {when.isoformat(' ', 'minutes')}"
                if when
                else (f"it has no {word} any more")
            )
    known = {"condition", "targets", "discard", "hold", "tags", "final", "send", "disabled"}
    known.add("keep_for")
    for name in sorted(different - known - {"valid_from", "until", "name"}):
        yield f"its {name} is another"


def _does(rule: Rule) -> str:
    return "; ".join(effects(rule))


def effects(rule: Rule) -> list[str]:
    """What a rule does to an instance, in words: ``sends to pacs``."""
    words = []
    if rule.targets:
        words.append(f"sends to {', '.join(map(target, rule.targets))}")
    if rule.discard is not None:
        words.append(f"discards{_because(rule.discard)}")
    if rule.hold is not None:
        words.append(f"holds{_because(rule.hold)}")
    if rule.tags:
        words.append(f"labels {', '.join(rule.tags)}")
    if rule.keep_for:
        words.append(f"keeps it for {span_words(rule.keep_for)}")
    if rule.final:
        words.append("ends the decision")
    return words


def target(value: Target) -> str:
    """Where a rule sends, in words: ``pacs``, ``the first of a, b that is up``."""
    more = ", whole studies" if value.keep else ""
    more += ", the next on refusal" if value.on_refusal == "next" else ""
    return _members(value) + more


def _members(value: Target) -> str:
    members = ", ".join(value.members)
    match value.mode:
        case "one":
            return members
        case "failover":
            return f"the first of ({members}) that is up"
        case "first_available":
            return f"the first of ({members}) that is up, and there it stays"
        case "balance":
            weights = value.weights if len(set(value.weights)) > 1 else ()
            ratio = f" {':'.join(map(str, weights))}" if weights else ""
            return f"one of ({members}){ratio} by {value.by}"


def sending(send: Send) -> str:
    """When and how, in words: ``at once``, ``when the study is complete``."""
    words = []
    if send.after == "at-once":
        words.append("at once")
    else:
        what = "study" if send.after == "study-complete" else "series"
        words.append(f"when the {what} is complete (quiet for {send.quiet:g} s)")
        if send.expect:
            words.append(f"as many as {send.expect} knows, for {send.wait:g} s at most")
    if send.schedule:
        words.append(f"while {send.schedule} is open")
    if send.priority:
        words.append(f"with priority {send.priority}")
    return ", ".join(words)


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
