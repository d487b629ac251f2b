"""Text of unknown origin in Markdown: shown as it is, whatever it holds; parsed by an independent CommonMark parser."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import tiny_preset
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.inference.lineage import Lineage
from pipeline.inference.model_card import Described, Measured, model_card
from pipeline.metrics import METRICS
from pipeline.models.generators import SRVGGNetCompact
from pipeline.tracking.markdown import as_code, as_markdown
from pipeline.tracking.registry import Place

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NASTY = (
    "[click](javascript:alert(1))",
    "![](https://evil.example/p.png)",
    "<img src=x onerror=alert(1)>",
    "</code><script>alert(1)</script>",
    "a | b |",
    "# title",
    "- item",
    "1. item",
    "> quoted",
    "---",
    "``` sh",
    "`code`",
    "\\`",
    "``a`",
    "ends in \\",
    "a`|`b",
    "*bold* __init__ ~~gone~~ _x_",
    "&lt;b&gt; &#60;b&#62;",
    "[x]: https://evil.example",
    "[x][y] <https://evil.example>",
    "two\n\n# lines\n| a |\n| - |",
    "\r\n<div>\u2028\u202e\x00\udcff",
    "    indented",
    "",
)
PLACES = ("{}", "# {}", "* {}", "* name: {}", "before {} after, {}", "| a | b |\n| - | - |\n| {} | c |", "[{}](#/run)")
_CHARACTERS = tuple("\\`*_{}[]()<>#+-.!|~:@$&\"'=/ ab1\n\té\udcff")


def read(markdown: str) -> tuple[list[str], str]:
    """Return the structure of a document, and all its text."""
    found = [one for block in PARSER.parse(markdown) for one in (block, *(block.children or ()))]
    return [one.type for one in found if not is_text(one)], "".join(one.content for one in found if is_text(one))


def is_text(one: Token) -> bool:
    return one.type in {"text", "code_inline", "fence"}


def on_one_line(text: str) -> str:
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text.strip())


def texts() -> list[str]:
    draws = np.random.default_rng(20)
    return [*NASTY, *("".join(draws.choice(_CHARACTERS, draws.integers(1, 12))) for _ in range(1000))]


@pytest.mark.parametrize("place", PLACES)
def test_text_in_any_place_is_shown_and_changes_no_structure(place: str) -> None:
    structure, shown = read(place.replace("{}", "§"))
    for text in filter(str.strip, texts()):
        assert read(place.replace("{}", as_markdown(text))) == (structure, shown.replace("§", on_one_line(text))), text


@pytest.mark.parametrize("place", PLACES[:5])
def test_text_as_code_in_any_place_is_one_span(place: str) -> None:
    structure, shown = read(place.replace("{}", "`§`"))
    for text in filter(str.strip, texts()):
        assert read(place.replace("{}", as_code(text))) == (structure, shown.replace("§", on_one_line(text))), text


@pytest.mark.parametrize("text", ["https://a.example", "www.a.example", "me@a.example", "@team", ":smile:", "$x$"])
def test_addresses_and_mentions_are_none_to_renderers_that_look_for_them(text: str) -> None:
    assert not any(mark in as_markdown(text) for mark in ("://", "www.", "@", ":smile", "$"))
    assert read(as_markdown(text))[1] == text


def test_usual_names_are_readable_in_the_source() -> None:
    for name in ("Set5", "photos_x4-2.1", "open_clip:RN50, layer 1", "/data/a b/LRx4", "é"):
        assert as_markdown(name) == name
    assert as_code("runs/a_b") == "`runs/a_b`"


@pytest.mark.parametrize("render", [as_markdown, as_code])
def test_endless_text_is_cut(render: Callable[[str], str]) -> None:
    assert len(render("x" * 10**6)) < 2100


def card(text: str, tmp_path: Path) -> str:
    """A card whose every foreign value is the text."""
    config = tiny_preset(tmp_path, **{"losses.perceptual_weight": 1.0}).train
    config = dataclasses.replace(
        config, run_dir=Path(text), semantics=dataclasses.replace(config.semantics, architecture=f"timm:{text}")
    )
    lineage = Lineage(config, text, text, (text,), (text,), {text: {"recipe": text}}, {text: text})
    psnr = METRICS["psnr_y"]
    measured = Measured([psnr], {"psnr_y": 30.0}, [Path("sets") / text.replace("/", "")], 5, "a rule", "is champion")
    described = Described(SRVGGNetCompact(8, 1, 4), text, text, lineage, measured)
    return model_card(Place(text, "1", text, text), described)


@pytest.mark.parametrize("text", [text for text in NASTY if text.strip() and "\n" not in text])
def test_card_has_the_structure_of_any_other_whatever_names_and_metadata_hold(text: str, tmp_path: Path) -> None:
    structure, _ = read(card("name", tmp_path))
    found, shown = read(card(text, tmp_path))
    assert found == structure
    assert f"{text.strip()} version 1" in shown
    assert [one.attrs["href"] for one in links(card(text, tmp_path))] == [run_link(text)]


def links(markdown: str) -> list[Token]:
    return [one for block in PARSER.parse(markdown) for one in block.children or () if one.type == "link_open"]


def run_link(text: str) -> str:
    return Place(text, "1", text, text).run_link
