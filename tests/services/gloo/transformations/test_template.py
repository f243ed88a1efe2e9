"""Templates: what they are parsed to, and where their mistakes are."""

from __future__ import annotations

import pytest

from services.gloo.transformations.template import BadTemplate, Surroundings, Template, parse_template


def parse(text: str, *, advanced: bool = False, response: bool = True) -> Template:
    return parse_template(
        text, Surroundings(advanced=advanced, response=response, extractors=frozenset({"id"}))
    )


def test_a_template_is_texts_and_nodes() -> None:
    assert parse("a {{ b.c }}{% if d %}e{% else %}f{% endif %}").nodes == [
        "a ",
        ["=", ["name", ["b", "c"]]],
        ["if", [[["name", ["d"]], ["e"]]], ["f"]],
    ]
    assert parse("{% for k, v in x %}{{ k }}{% endfor %}{% set y = 1 %}").nodes == [
        ["for", ["k", "v"], ["name", ["x"]], [["=", ["name", ["k"]]]]],
        ["set", "y", ["value", 1]],
    ]


def test_operators_bind_as_in_inja() -> None:
    assert parse("{{ a or b and 1 + 2 * 3 == -7 }}").nodes[0][1] == [
        *("op", "or", ["name", ["a"]]),
        [
            *("op", "and", ["name", ["b"]]),
            [
                *("op", "==", ["op", "+", ["value", 1], ["op", "*", ["value", 2], ["value", 3]]]),
                ["value", -7],
            ],
        ],
    ]
    assert parse("{{ not a in b }}").nodes[0][1][0] == "not"


def test_names_go_deeper_by_dots_or_with_advanced_templates_by_slashes() -> None:
    assert parse("{{ a.b-c.0 }}").nodes == [["=", ["name", ["a", "b-c", "0"]]]]
    assert parse("{{ a.b/c }}", advanced=True).nodes == [["=", ["name", ["a.b", "c"]]]]


def test_what_a_template_needs_is_known() -> None:
    assert parse("{{ body() }}").reads_body
    assert parse('{{ request_header("X-User") }}').request_headers == {"x-user"}
    assert not parse('{{ request_header("X-User") }}', response=False).request_headers


def test_white_space_goes_where_a_dash_says() -> None:
    assert parse("a \n{{- 1 -}} \n b{#- c #} d").nodes == ["a", ["=", ["value", 1]], "b", " d"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{ foo(1) }}", "line 1, column 4: unknown function foo; there are at, base64_decode"),
        (
            '{{ env("A") }}',
            "line 1, column 4: unknown function env; Envoy's environment is not for templates",
        ),
        ("a\nbc {{ x", "line 2, column 4: {{ is not closed"),
        ("{{ x }", "line 1, column 1: {{ is not closed"),
        ("a {# b", "line 1, column 3: no #}"),
        ("{{ x y }}", "line 1, column 6: y is one too many"),
        ("{{ }}", "line 1, column 4: expected a value"),
        ("{{ and }}", "line 1, column 4: expected a value"),
        ("{{ (1 }}", "line 1, column 7: expected )"),
        ("{{ [1 2] }}", "line 1, column 7: expected ,"),
        ("{{ [1", "line 1, column 1: {{ is not closed"),
        ("{{ {a: 1} }}", "line 1, column 5: expected a name in quotes"),
        ("{{ 'x' }}", "line 1, column 4: ' is not understood here"),
        ('{{ "\\q" }}', "line 1, column 4: a text with an escape that JSON does not have"),
        ('{{ {"\\q": 1} }}', "line 1, column 5: a text with an escape that JSON does not have"),
        ('{{ "\\ud800" }}', "line 1, column 4: a text with an escape that JSON does not have"),
        ("{{ 1e999 }}", "line 1, column 4: a number too large"),
        ("{{ " + "1" * 5000 + " }}", "line 1, column 4: a number too large"),
        ("{{ upper() }}", "line 1, column 4: upper takes 1 arguments, not 0"),
        ('{{ extraction("no") }}', "line 1, column 4: there is no extractor no"),
        ("{{ request_header(x) }}", "line 1, column 4: request_header takes a name in quotes"),
        ("{{ a/b }}", "line 1, column 4: / goes deeper with advancedTemplates only; here . does"),
        ("{% if a %}", "line 1, column 1: no {% endif %}"),
        ("{% if a %}{% endfor %}", "line 1, column 11: endfor is no statement that can stand here"),
        ("{% for 1 in x %}{% endfor %}", "line 1, column 8: expected a name"),
        ("{% for a of x %}{% endfor %}", "line 1, column 10: expected in"),
        ("{% set a.b = 1 %}", "line 1, column 8: a.b is no name for a value of one's own"),
        ("{% include x %}", "line 1, column 1: include is no statement that can stand here"),
        ("a\n  ## if x", "line 2, column 3: a line that begins with ## is a statement to Inja"),
        ("{{ " + "(" * 60, "line 1, column 1: {{ is not closed"),
        ("{{ " + "(" * 60 + "}}", "line 1, column 34: nested more than 30 deep"),
        ("{{ 1" + " + 1" * 1000 + " }}", "line 1, column 1: too many operators in a row"),
        ("{% if a %}" * 40, "line 1, column 307: nested more than 30 deep"),
    ],
)
def test_a_mistake_has_a_place(text: str, problem: str) -> None:
    with pytest.raises(BadTemplate) as caught:
        parse(text)

    assert str(caught.value).startswith(problem)
