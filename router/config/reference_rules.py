"""The part of the reference page that no model tells: rules and their conditions.

Owns the words about what `rules.parse` reads; names and limits come from there.
"""

from router.dicom.values import MANY_PARTS
from rules.actions import MAX_WEIGHT, TAG
from rules.rule import FACTS, Send
from rules.sending import MAX_PRIORITY, PRIORITIES
from rules.subjects import MAX_STEPS
from rules.uids import SHORT_NAMES

_SUBJECTS = {
    "calling_ae": "the AE title that the peer gave as its own",
    "called_ae": "the AE title that it called",
    "remote": "the name under `remotes` by which the peer was recognised",
    "source": "the peer's address: an address, or a network such as `10.1.0.0/16`",
    "sop_class": "the SOP class: UID or keyword, `*ImageStorage` too",
    "transfer_syntax": "the transfer syntax that it was received in: UID, keyword or short name",
    "tag": "a label that an earlier rule gave (`tag`)",
}
_RULES = """\
## rules

A list. For each instance the rules are asked from the top; each that matches adds its
destinations, until one says `final: true`. A destination named by several rules is sent to once,
with the options of the first. What no rule matches is held, visibly. The decision is stored with
the instance: a restart or a later change of the rules does not route it anew.

| key | meaning |
|---|---|
| `name` | For logs and messages; `rule 3` by its position when absent. No two rules share one. |
| `when` | [Conditions](#when), all of which must hold; left out, the rule matches everything. |
| `to` | [Where to send](#to): each remote must have a `host`. |
| `send` | [How to send](#send). |
| `tag` | A label, or a list of them, for later rules, the queue and metrics: {label}. |
| `keep` | For how long an instance stays in the spool once all its destinations are settled, such \
as `30d`; of all rules that match, final or not, the longest counts, and in place of \
`spool.keep_settled`. Above `spool.high_water` it goes earlier. |
| `final` | `true`: no later rule is asked once this one matched. |
| `discard` | `true`, or the reason: acknowledge and drop. Counts only while no rule has routed \
the instance; then it ends the matter. |
| `hold` | `true`, or the reason: keep it, visibly, until somebody decides. Counts as \
`discard` does. |
| `disabled` | The reason for which the rule is passed over, whatever its conditions say. |
| `valid` | `{{from: 2026-11-01, until: 2027-01-01}}`, one of them or both: dates, or dates with a \
time (`2026-11-01T18:00`), in `timezone`. The rule counts from `from` on, and from `until` on no \
more. |

A rule has at most one of `to`, `discard` and `hold`. One with `tag` or `keep` alone does that and
lets the next rule be asked.

Rules see a data set up to its first tag above all those that any rule asks for. Where a sender puts
elements out of order (against PS3.5 §7.1) one that stands behind such a tag counts as absent:
rather `hold` than `discard` what lacks an attribute.

An item `include: rules.d/*.yaml` (or a list of such names) stands for the rules of those files, in
its place of the order; the files of a pattern are sorted by name. Each holds a list of rules as it
would stand here, without `rules:` above it, and includes no other. Names are taken from the
directory of the configuration file. A pattern that no file matches is a mistake.

The keys `edit`, and `as` and `limit` of `send`, are reserved: this version refuses them.

### to

| written | sends to |
|---|---|
| `to: pacs` | that remote |
| `to: [pacs, archive]` | each of them |
| `to: {{failover: [a, b]}}` | the first that is up; back to an earlier one when it recovers |
| `to: {{first_available: [a, b]}}` | the first that is up, and there it stays while that \
one is up |
| `to: {{balance: [a, b], by: study, weights: [2, 1]}}` | one of them, always the same for one \
`study` (the default), `patient` or `instance` while it is up; `weights` from 1 to {weight} are \
their shares, equal when left out |

A list may mix names and such mappings. Within a rule no remote is named twice. Beside `failover`,
`first_available` and `balance` may stand

| key | meaning |
|---|---|
| `keep: study` | Whole studies: where a member has taken some of a study, the rest waits for \
that member, however long it is down, and what comes later goes there too. |
| `on_refusal: next` | What a member refuses for good goes to another one, and is dead \
only when all have refused it; with `dead`, the default, at once. |

### send

| key | meaning |
|---|---|
| `after` | `at-once` (the default), `study-complete` or `series-complete`: wait until the \
study or series is there. |
| `quiet` | It is complete when nothing of it came for this long ({quiet} by default) and no open \
association has sent to it; one that stays open holds it for `quiet` and `wait` in all. |
| `expect` | `expect: pacs`, or `{{archive: pacs, wait: 30m}}`: with `study-complete`, ask that \
archive how many instances the study has, and wait for them, `wait` at the most ({wait} by \
default). |
| `schedule` | A name of [schedules](#schedulesname): send only while it is open. |
| `priority` | {priorities}, or a whole number from -{limit} to {limit}; higher goes first. |

Instances that come when their study was already sent follow in the same way, as a supplement.

### when

| condition | compared with |
|---|---|
{subjects}
| `Modality`, any keyword of PS3.6 | that attribute of the data set |
| `(0019,1010)`, `00191010` | the attribute of that tag; inside braces the first form needs quotes |
| `(0019,"GEMS_ACQU_01",10)` | the private element of that creator, wherever its block is |
| `RequestAttributesSequence.ScheduledProcedureStepID` | the attribute in any item of the \
sequence, {steps} steps deep at the most |
| `ImageType[3]` | one of its values, counted from 1 |

Besides these a condition is one of

| condition | holds when |
|---|---|
| `received: "mon-fri 18:00-07:00"` | the instance is received in that window of `timezone`, or \
in one of a list |
| `received: {{in: after-hours}}` | it is received while that one of \
[schedules](#schedulesname) is open |
| `is: head CT` | the condition of that name under `conditions` holds; of a list, any |
| `any: [{{...}}, {{...}}]` | any of the mappings holds |
| `all: [{{...}}, {{...}}]` | all of them hold |
| `not: {{...}}` | the mapping does not hold |

They nest. Within each mapping all keys must hold.

### Values

| written | holds for |
|---|---|
| `CT` | that value |
| `[CT, MR]` | any of these; each may be any form of this table but `!=` |
| `"CT*"` | any run of characters for `*`, exactly one for `?` |
| `/^T[12]/`, `/head/i` | a regular expression (RE2), found anywhere in the value; `i`: letter \
case does not count |
| `"!= CT"` | a value, and none that is this one |
| `"< 1.5"`, `<=`, `>`, `>=` | numbers, dates, times and ages by their order |
| `1..5`, `2026-01-01..2026-06-30` | from the one to the other, both included |
| `today`, `today-7d`, `today+1w` | where a date stands: reckoned from the day on which the \
instance is received |
| `"= a*b"` | the text behind the equals sign, whatever is in it |

A private attribute, and one that the dictionary of PS3.6 does not have, is compared as text by \
all but the comparisons and `between`: `1.50` is not `1.5` there, and `">= 1.5"` holds for both.

Of an attribute with more than {parts} different values, or with values longer than 64 KiB, none \
is compared: an instance in which an active rule looks at one is held, and the reason names it.

Or a mapping of operators, all of which must hold:

| operator | holds when |
|---|---|
| `equals`, `not` | a value is this or one of a list; no value is |
| `glob`, `regex`, `starts`, `ends`, `contains` | a value is such, for one or one of a list |
| `less`, `at_most`, `more`, `at_least` | as `<`, `<=`, `>`, `>=` |
| `between: [1, 5]` | as `1..5` |
| `present: true`, `absent: true` | the data set has the attribute, with a value or without; it \
lacks it |
| `empty: true` | it has the attribute without a value; `empty: false` asks for a value |
| `count: 3`, `count: "> 3"`, `count: 2..4` | it has so many values |
| `same_as: Attribute` | a value of the one equals a value of the other |
| `in: NAME` | a value is in that one of [lists](#listsname), or in one of several |
| `ignore_case: true` | upper and lower case are the same for the operators beside it |

An attribute with several values matches when any of them does. On one that the data set lacks no
comparison holds, and neither does `!=`: for its absence write `{{absent: true}}` or
`not: {{Modality: "*"}}`.

Values are compared decoded, without padding, and letter case counts but for person names (PN),
which are compared as PS3.4 §C.2.2.2.1 has it: letter case, trailing `^` and empty components do not
count, and any component group may match. Numbers (DS, IS, US and their like) are compared as
numbers, so that `1.50` equals `1.5`; DA, TM, DT and AS as dates, times and ages.

### Names of transfer syntaxes

Besides UIDs and the keywords of PS3.6: {short}.
"""


def rules_section() -> str:
    """What the page says of ``rules:``."""
    send = Send()
    return _RULES.format(
        label=f"`{TAG.pattern}`",
        weight=MAX_WEIGHT,
        quiet=f"`{send.quiet / 60:g}m`",
        wait=f"`{send.wait / 60:g}m`",
        priorities=", ".join(f"`{name}` ({value})" for name, value in PRIORITIES.items()),
        limit=MAX_PRIORITY,
        subjects="\n".join(f"| `{fact}` | {_SUBJECTS[fact]} |" for fact in FACTS),
        steps=MAX_STEPS,
        parts=MANY_PARTS,
        short=", ".join(f"`{name}`" for name in SHORT_NAMES),
    )
