"""The page at ``/rules``: what is in force, in the order in which it is asked.

Owns its wording.  The words of each rule, and what of them may be shown, are `outline`'s.
"""

from router.web.markup import Content, Markup, document, element, join
from router.web.page import REFRESH, STYLE, bad, moment, table
from router.web.sources import ListState, RuleLine, RulesView


def render(view: RulesView) -> str:
    """The page, as HTML."""
    return document(
        "dcmrouter: rules",
        STYLE,
        element("h1", "Rules"),
        _headline(view),
        table(
            ("", "rule", "when", "what it does"),
            ([n, *_cells(rule)] for n, rule in enumerate(view.rules, 1)),
            "no rules: everything that is received is held",
            numbers={0},
        ),
        element(
            "p",
            "Every rule that holds adds its destinations, from the first to one that ends the "
            "decision. Values that could identify a patient are not shown here: dcmrouter rules "
            "show has them.",
            class_="soft",
        ),
        _lists(view.lists),
        refresh=REFRESH,
    )


def _headline(view: RulesView) -> Markup:
    number = f", kept as version {view.number}" if view.number else ""
    parts: list[Content] = [
        element("p", f"Rules {view.version}{number}, in force since {moment(view.since)}. "),
        element("p", element("a", "The gateway at a glance", href="./")),
    ]
    if view.reload_error:
        parts.append(
            element("p", bad("What lies on the disk is not in force: "), view.reload_error)
        )
    if view.trouble:
        parts.append(element("p", bad("Versions: "), view.trouble))
    return join(*parts)


def _cells(rule: RuleLine) -> tuple[Content, ...]:
    when: Content = rule.when or element("span", "always", class_="soft")
    does = join(*(element("div", text) for text in rule.does))
    if rule.state:
        return rule.name, when, join(element("div", rule.state, class_="bad"), does)
    return rule.name, when, does


def _lists(lists: tuple[ListState, ...]) -> Markup:
    if not lists:
        return Markup("")
    rows = (
        (
            each.name,
            each.values,
            bad("its file cannot be read: an old state") if each.failed else "",
        )
        for each in lists
    )
    return join(element("h2", "Lists"), table(("list", "values", ""), rows, "", numbers={1}))
