from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from router.web.markup import Markup, element, join, text


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.values = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data):
        self.texts.append(data)


PRINTABLE = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="\x7f")
)


@given(PRINTABLE, PRINTABLE)
def test_text_and_attributes_come_back_as_they_went_in(content, value):
    collector = Collector()
    collector.feed(element("p", element("b", content), title=value))
    collector.close()
    assert collector.tags == ["p", "b"]
    assert "".join(collector.texts) == content
    assert collector.values == [value]


def test_markup_is_not_escaped_twice():
    assert element("p", element("b", "<")) == "<p><b>&lt;</b></p>"
    assert join("<", Markup("<br>"), 5) == "&lt;<br>5"
    assert text("&") == "&amp;"


def test_what_is_made_of_markup_by_string_operations_is_text_again():
    assert element("p", Markup("<b>") + "<i>") == "<p>&lt;b&gt;&lt;i&gt;</p>"


def test_names_of_attributes():
    assert element("meta", http_equiv="refresh") == '<meta http-equiv="refresh">'
    assert element("td", class_="n") == '<td class="n"></td>'
