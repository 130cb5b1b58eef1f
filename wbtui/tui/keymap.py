"""Every key once: what it is called, what it does, where it holds. Footer, help and the README come from this table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.cells import cell_len

from wbtui.errors import UsageError
from wbtui.settings import FILE, nearest
from wbtui.tui.keynames import key_name, shown_key

if TYPE_CHECKING:
    from textual.binding import Binding


@dataclass(frozen=True)
class Key:
    """One binding."""

    id: str
    keys: tuple[str, ...]
    """Textual's names of the keys, the first one shown."""
    shown: str
    """The keys as footer and help write them."""
    action: str
    tooltip: str
    """One sentence for help."""
    group: str
    """Heading under which help lists it."""
    label: str = ""
    """Word for the footer; empty: never there."""
    rank: int = 99
    """Place in the footer; the last ones go first where it narrows, 0 stays and stands last."""


MAIN: tuple[Key, ...] = (
    Key("down", ("j", "down"), "j ↓", "down", "one feature down (in the card: one line)", "move"),
    Key("up", ("k", "up"), "k ↑", "up", "one feature up (in the card: one line)", "move"),
    Key("half-down", ("ctrl+d",), "^d", "half_page(1)", "half a page down", "move"),
    Key("half-up", ("ctrl+u",), "^u", "half_page(-1)", "half a page up", "move"),
    Key("page-down", ("pagedown", "ctrl+f"), "PgDn ^f", "page(1)", "a page down", "move"),
    Key("page-up", ("pageup", "ctrl+b"), "PgUp ^b", "page(-1)", "a page up", "move"),
    Key("next", ("n",), "n", "step(1)", "the next feature of the list, also from its page", "move"),
    Key("before", ("N",), "N", "step(-1)", "the feature before, also from its page", "move"),
    Key("top", ("g", "home"), "g Home", "edge(0)", "the first row", "move"),
    Key("bottom", ("G", "end"), "G End", "edge(1)", "the last row", "move"),
    Key(
        "jump",
        ("colon",),
        ":",
        "jump",
        "go to a feature (120, #120) or to any address (demo@L3#120; a page of Neuronpedia)",
        "move",
        "go",
        2,
    ),
    Key(
        "previous-layer",
        ("less_than_sign",),
        "<",
        "layer(-1)",
        "to its nearest feature in the SAE before it in the stream (where compared; else to that SAE)",
        "move",
    ),
    Key(
        "next-layer",
        ("greater_than_sign",),
        ">",
        "layer(1)",
        "to its nearest feature in the SAE after it in the stream (where compared; else to that SAE)",
        "move",
        "layer",
        6,
    ),
    Key(
        "back",
        ("left_square_bracket",),
        "[",
        "history(-1)",
        "back to where you were, filter and order restored",
        "move",
    ),
    Key("forward", ("right_square_bracket",), "]", "history(1)", "forward again", "move"),
    Key(
        "filter",
        ("slash",),
        "/",
        "filter",
        "filter the rows: semantic, z_max>6, a word, kind=set; ! not, | or, ( )",
        "find",
        "find",
        1,
    ),
    Key("sort-cycle", ("s",), "s", "sort_cycle", "the next of the usual orders", "find", "sort", 4),
    Key(
        "sort-choose",
        ("S",),
        "S",
        "sort_choose",
        "choose the order in the table's header: ← → Enter, + adds a key",
        "find",
    ),
    Key("sort-reverse", ("r",), "r", "sort_reverse", "the order the other way round", "find"),
    Key(
        "columns",
        ("c",),
        "c",
        "columns",
        "choose, move and sort by columns; every metric is here",
        "find",
        "columns",
        8,
    ),
    Key("open", ("enter",), "⏎", "open", "the card on the whole screen", "look", "page", 3),
    Key(
        "population",
        ("F",),
        "F",
        "population",
        "how the metric that sorts is spread over all features and noise, with a line that moves",
        "look",
        "population",
        5,
    ),
    Key(
        "heads",
        ("h",),
        "h",
        "heads",
        "which heads read the feature, as query and as key, and for which partners",
        "look",
        "heads",
        4,
    ),
    Key(
        "depth",
        ("V",),
        "V",
        "depth",
        "curves over the model's layers, with an interval a layer; a map of layers × heads",
        "look",
        "depth",
        8,
    ),
    Key(
        "ask",
        ("f",),
        "f",
        "ask",
        "find by direction, over all features: w:word, w:{a,b}-{c}, r:word, dir:v.npy@L3.resid_post, like:demo@L3#7",
        "find",
        "ask",
        6,
    ),
    Key(
        "edges",
        ("E",),
        "E",
        "edges",
        "what could feed the feature and what could read it, directly and through heads",
        "look",
        "edges",
        9,
    ),
    Key("flow", ("W",), "W", "flow", "where the feature comes from and goes to, layer by layer", "look", "flow", 10),
    Key("near", ("tilde",), "~", "near", "the nearest features, here and in other layers", "look", "near", 6),
    Key(
        "pin",
        ("p",),
        "p",
        "pin",
        "pin this feature and compare: the other follows the cursor, over layers too",
        "look",
        "compare",
        7,
    ),
    Key("compare", ("P",), "P", "compare", "back to the comparison with the pinned feature", "look"),
    Key("focus", ("tab", "shift+tab"), "Tab", "focus_next_panel", "keys go to the card or back to the table", "look"),
    Key(
        "tokens",
        ("i",),
        "i",
        "tokens",
        "single tokens with spaces and ids in the card, or merged words",
        "look",
        "ids",
        9,
    ),
    Key(
        "glossary", ("D",), "D", "glossary", "what every number means, with this feature's values", "look", "define", 7
    ),
    Key(
        "mark",
        ("m", "space"),
        "m Spc",
        "mark",
        "mark or unmark, and step down; with a range open: mark it",
        "mark",
        "mark",
        5,
    ),
    Key("range", ("v",), "v", "range", "start a range here; again: mark it", "mark"),
    Key("mark-all", ("asterisk",), "*", "mark_all", "mark every row that the filter lets through", "mark"),
    Key("set", ("M",), "M", "set_page", "the marked features as a set: words, heads, cosines, rank", "mark", "set", 7),
    Key("match", ("equals_sign",), "=", "match", "what of this SAE is found in another at the same place", "look"),
    Key("unmark", ("u",), "u", "unmark", "unmark all", "mark"),
    Key("tag", ("t",), "t", "tag", "tags of this feature; with a range open: tags for all of it", "mark", "tag", 8),
    Key("note", ("a",), "a", "note", "write a note on this feature", "mark", "note", 7),
    Key(
        "export",
        ("x",),
        "x",
        "export",
        "write marked, filtered or all rows as CSV, JSONL or Parquet",
        "mark",
        "export",
        5,
    ),
    Key("copy", ("y",), "y", "copy", "copy this feature's address to the clipboard", "mark"),
    Key("copy-page", ("Y",), "Y", "copy_page", "copy its page on Neuronpedia, where the SAE has one there", "mark"),
    Key("models", ("o",), "o", "models", "open another model or SAE", "app"),
    Key(
        "pick",
        ("O",),
        "O",
        "pick",
        "another SAE or layer by a few letters: of this model, others here, the registry",
        "app",
        "SAE",
        9,
    ),
    Key(
        "compute",
        ("C",),
        "C",
        "compute",
        "compute all that is missing, going on after you quit; asks again after a failure",
        "app",
    ),
    Key("jobs", ("J",), "J", "jobs", "running work: progress, cancel", "app", "jobs", 10),
    Key("palette", ("ctrl+p",), "^p", "palette", "find any of these by its words", "app"),
    Key("help", ("question_mark", "f1"), "?", "help", "the keys that hold here, then all others", "app", "help", 0),
    Key("escape", ("escape",), "Esc", "escape", "leave the innermost thing: picker, range, page, card, filter", "app"),
    Key("suspend", ("ctrl+z",), "^z", "suspend", "back to the shell for a while (fg returns)", "app"),
    Key("redraw", ("ctrl+l",), "^l", "redraw", "draw the whole screen again, where something disturbed it", "app"),
    Key("quit", ("q",), "q", "quit", "quit; finished blocks stay, work asked for by C goes on", "app", "quit", 11),
)
START: tuple[Key, ...] = (
    Key("start-down", ("down", "ctrl+n"), "↓", "down", "down", "start"),
    Key("start-up", ("up", "ctrl+p"), "↑", "up", "up", "start"),
    Key("start-open", ("enter",), "⏎", "open", "model: choose its SAEs; SAE: open it", "start", "open", 1),
    Key(
        "start-across",
        ("tab", "shift+tab", "right", "left"),
        "Tab ← →",
        "across",
        "models or SAEs",
        "start",
        "models/SAEs",
        2,
    ),
    Key("start-back", ("escape",), "Esc", "back", "clear the filter; back to the models; leave", "start", "back", 3),
    Key(
        "start-last",
        ("ctrl+l",),
        "^l",
        "last",
        "the last session: its place, filter, order and columns",
        "start",
        "last",
        3,
    ),
    Key(
        "start-download",
        ("ctrl+d",),
        "^d",
        "download",
        "download what the cursor is on (registry) into the Hub cache",
        "start",
        "download",
        4,
    ),
    Key("start-cancel", ("ctrl+x",), "^x", "cancel_download", "cancel the download; what has arrived is kept", "start"),
    Key("start-help", ("question_mark", "f1"), "?", "help", "all keys", "start", "help", 0),
    Key("start-quit", ("ctrl+q",), "^q", "quit", "quit (letters go to the filter here)", "start", "quit", 5),
)
PICK: tuple[Key, ...] = (
    Key("pick-down", ("down", "ctrl+n"), "↓", "move(1)", "down", "pick an SAE"),
    Key("pick-up", ("up", "ctrl+p"), "↑", "move(-1)", "up", "pick an SAE"),
    Key("pick-page-down", ("pagedown",), "PgDn", "page(1)", "a page down", "pick an SAE"),
    Key("pick-page-up", ("pageup",), "PgUp", "page(-1)", "a page up", "pick an SAE"),
    Key("pick-open", ("enter",), "⏎", "open", "open it; behind #67, at that feature", "pick an SAE", "open", 1),
    Key("pick-download", ("ctrl+d",), "^d", "download", "download it (registry) into the Hub cache", "pick an SAE",
        "download", 2),
    Key("pick-cancel", ("ctrl+x",), "^x", "cancel_download", "cancel the download; what has arrived is kept",
        "pick an SAE"),
    Key("pick-help", ("question_mark", "f1"), "?", "help", "all keys", "pick an SAE", "help", 3),
    Key("pick-back", ("escape",), "Esc", "back", "clear the letters; leave", "pick an SAE", "back", 0),
)  # fmt: skip
JOBS: tuple[Key, ...] = (
    Key("jobs-down", ("j", "down"), "j ↓", "down", "down", "jobs"),
    Key("jobs-up", ("k", "up"), "k ↑", "up", "up", "jobs"),
    Key("jobs-cancel", ("x", "delete"), "x", "cancel", "cancel the job; what is finished stays", "jobs", "cancel", 1),
    Key("jobs-restart", ("R",), "R", "restart", "restart the service; finished shards stay", "jobs", "restart", 2),
    Key("jobs-retry", ("r",), "r", "retry", "ask again for what a job that has ended was to do", "jobs", "retry", 3),
    Key("jobs-log", ("l", "enter"), "l", "log", "the end of the service's log, and the whole error", "jobs", "log", 4),
    Key("jobs-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "jobs"),
    Key("jobs-help", ("question_mark", "f1"), "?", "help", "all keys", "jobs", "help", 9),
    Key("jobs-back", ("escape", "q", "J"), "Esc", "back", "back", "jobs", "back", 0),
)
CHOOSE: tuple[Key, ...] = (
    Key("choose-toggle", ("enter",), "⏎", "show", "show or hide the column", "columns", "show/hide", 1),
    Key("choose-sort", ("ctrl+s",), "^s", "sort", "sort by it; again: the other way round", "columns", "sort by", 2),
    Key(
        "choose-left", ("ctrl+left", "left"), "←", "shift(-1)", "the column one place to the left", "columns", "left", 3
    ),
    Key("choose-right", ("ctrl+right", "right"), "→", "shift(1)", "one place to the right", "columns", "right", 4),
    Key("choose-reset", ("ctrl+r",), "^r", "reset", "back to the usual columns", "columns", "usual", 5),
    Key("choose-down", ("down", "ctrl+n"), "↓", "down", "down", "columns"),
    Key("choose-up", ("up", "ctrl+p"), "↑", "up", "up", "columns"),
    Key("choose-back", ("escape",), "Esc", "back", "done", "columns", "done", 0),
)
EXPORT: tuple[Key, ...] = (
    Key("export-write", ("enter",), "⏎", "write", "write the file", "export", "write", 1),
    Key("export-rows", ("f2", "ctrl+r"), "F2", "rows", "which rows: marked, filtered, all", "export", "rows", 2),
    Key("export-format", ("f3", "ctrl+t"), "F3", "format", "csv, jsonl or parquet", "export", "format", 3),
    Key(
        "export-columns",
        ("f4", "ctrl+l"),
        "F4",
        "columns",
        "the table's columns, or every metric",
        "export",
        "columns",
        4,
    ),
    Key("export-back", ("escape",), "Esc", "back", "leave without writing", "export", "back", 0),
)
POPULATION: tuple[Key, ...] = (
    Key(
        "pop-left",
        ("left",),
        "←→",
        "shift_line(-1)",
        "the line one bin to the left; → to the right",
        "population",
        "move",
        1,
    ),
    Key("pop-right", ("right",), "→", "shift_line(1)", "the line one bin to the right", "population"),
    Key("pop-left-fast", ("shift+left", "ctrl+left"), "⇧← ^←", "fast(-1)", "five bins to the left", "population"),
    Key("pop-right-fast", ("shift+right", "ctrl+right"), "⇧→ ^→", "fast(1)", "five bins to the right", "population"),
    Key("pop-reset", ("0",), "0", "reset", "the line back to 99 % of noise", "population", "reset", 2),
    Key(
        "pop-rows",
        ("enter",),
        "⏎",
        "rows",
        "the features of the bin under the line, as a filtered table",
        "population",
        "features",
        3,
    ),
    Key("pop-metric", ("m",), "m", "metric(1)", "the next metric", "population", "metric", 4),
    Key("pop-metric-back", ("M",), "M", "metric(-1)", "the metric before", "population"),
    Key(
        "pop-groups",
        ("g",),
        "g",
        "groups",
        "other groups: semantic by writes, reads, either, both; coherent; promotes; classes",
        "population",
        "groups",
        5,
    ),
    Key("pop-log", ("l",), "l", "log", "logarithmic axis, or linear again", "population", "log", 7),
    Key("pop-cumulative", ("c",), "c", "cumulative", "shares at or below, or per bin", "population", "cumulative", 8),
    Key("pop-export", ("e",), "e", "export", "write counts, statistics and picture", "population", "export", 6),
    Key("pop-glossary", ("D",), "D", "glossary", "what every number means", "population", "define", 9),
    Key("pop-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "population"),
    Key("pop-help", ("question_mark", "f1"), "?", "help", "all keys", "population", "help", 10),
    Key("pop-back", ("escape", "q", "F"), "Esc", "back", "back", "population", "back", 0),
)
HEADS: tuple[Key, ...] = (
    Key("heads-left", ("left",), "←→↑↓", "move(-1, 0)", "the head before", "heads", "head", 1),
    Key("heads-right", ("right",), "→", "move(1, 0)", "the next head", "heads"),
    Key("heads-up", ("up",), "↑", "move(0, -1)", "the line above: other heads, or the layer before", "heads"),
    Key("heads-down", ("down",), "↓", "move(0, 1)", "the line below", "heads"),
    Key("heads-side", ("tab", "shift+tab"), "Tab", "side", "as query or as key", "heads", "query/key", 2),
    Key("heads-pick", ("j",), "j k", "pick(1)", "the next of the list", "heads", "list", 4),
    Key("heads-pick-up", ("k",), "k", "pick(-1)", "the one before", "heads"),
    Key(
        "heads-enter",
        ("enter",),
        "⏎",
        "enter",
        "the head's own page: what it reads most, what it writes; from a list, the feature under the arrow",
        "heads",
        "open",
        3,
    ),
    Key("heads-head", ("p",), "p", "head", "the head's own page, or back to the grids", "heads", "page of the head", 6),
    Key(
        "heads-links",
        ("w",),
        "w",
        "links",
        "the arrow to what the head's output becomes, and back to the list",
        "heads",
        "what it writes",
        5,
    ),
    Key("heads-later", ("L",), "L", "later", "compute the heads of the next later layer", "heads", "later layers", 7),
    Key(
        "heads-statistic",
        ("s",),
        "s",
        "statistic",
        "peak, rms, upper quartile, cosine or gain in the grids",
        "heads",
        "statistic",
        8,
    ),
    Key("heads-next", ("n",), "n", "step(1)", "the next feature of the table", "heads"),
    Key("heads-before", ("N",), "N", "step(-1)", "the feature before", "heads"),
    Key("heads-past", ("left_square_bracket",), "[", "history(-1)", "back to the feature before", "heads", "past", 9),
    Key("heads-future", ("right_square_bracket",), "]", "history(1)", "forward again", "heads"),
    Key("heads-export", ("e",), "e", "export", "write the grids as CSV and the page as SVG", "heads", "export", 7),
    Key("heads-compute", ("C",), "C", "compute", "look again, and compute what is missing", "heads"),
    Key("heads-glossary", ("D",), "D", "glossary", "what every number means", "heads", "define", 8),
    Key("heads-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "heads"),
    Key("heads-help", ("question_mark", "f1"), "?", "help", "all keys", "heads", "help", 10),
    Key("heads-back", ("escape", "q", "h"), "Esc", "back", "back", "heads", "back", 0),
)
DEPTH: tuple[Key, ...] = (
    Key(
        "depth-left", ("left", "h"), "←→↑↓", "move(-1, 0)", "the curve before; on the map nothing", "depth", "curve", 1
    ),
    Key("depth-right", ("right", "l"), "→", "move(1, 0)", "the next curve", "depth"),
    Key("depth-up", ("up", "k"), "↑", "move(0, -1)", "the curve above, or the layer before", "depth"),
    Key("depth-down", ("down", "j"), "↓", "move(0, 1)", "the curve below, or the layer after", "depth"),
    Key("depth-map", ("m",), "m", "map", "layers × heads, or the curves again", "depth", "map", 2),
    Key("depth-side", ("tab", "shift+tab"), "Tab", "side", "the map as query or as key", "depth", "query/key", 5),
    Key(
        "depth-statistic",
        ("s",),
        "s",
        "statistic",
        "rms, peak, upper quartile or gain in heads",
        "depth",
        "statistic",
        3,
    ),
    Key(
        "depth-threshold",
        ("t",),
        "t",
        "threshold",
        "shares in heads by noise, by P75 over all layers, by P75 of each layer (which is refused)",
        "depth",
        "threshold",
        4,
    ),
    Key("depth-open", ("enter",), "⏎", "open", "the SAE that the map's arrow stands at", "depth", "open", 6),
    Key("depth-export", ("e",), "e", "export", "write every point as CSV and the page as SVG", "depth", "export", 7),
    Key("depth-look", ("C",), "C", "look", "look again what is computed", "depth"),
    Key("depth-glossary", ("D",), "D", "glossary", "what every number means", "depth", "define", 8),
    Key("depth-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "depth"),
    Key("depth-help", ("question_mark", "f1"), "?", "help", "all keys", "depth", "help", 9),
    Key("depth-back", ("escape", "q", "V"), "Esc", "back", "back", "depth", "back", 0),
)
SET: tuple[Key, ...] = (
    Key("set-down", ("j", "down"), "j ↓", "down", "a line down", "set", "scroll", 3),
    Key("set-up", ("k", "up"), "k ↑", "up", "a line up", "set"),
    Key("set-page-down", ("pagedown", "ctrl+d", "space"), "PgDn", "page(1)", "a page down", "set"),
    Key("set-page-up", ("pageup", "ctrl+u"), "PgUp", "page(-1)", "a page up", "set"),
    Key("set-show", ("enter",), "⏎", "show", "only these features in the table", "set", "in the table", 1),
    Key("set-export", ("e",), "e", "export", "write features, words, heads, cosines as CSV, the page as SVG", "set",
        "export", 2),
    Key("set-glossary", ("D",), "D", "glossary", "what every number means", "set", "define", 4),
    Key("set-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "set"),
    Key("set-help", ("question_mark", "f1"), "?", "help", "all keys", "set", "help", 5),
    Key("set-back", ("escape", "q", "M"), "Esc", "back", "back", "set", "back", 0),
)  # fmt: skip
MATCH: tuple[Key, ...] = (
    Key("match-down", ("j", "down"), "j ↓", "down", "one down", "match"),
    Key("match-up", ("k", "up"), "k ↑", "up", "one up", "match"),
    Key("match-page-down", ("pagedown", "ctrl+d"), "PgDn", "page(1)", "a page down", "match"),
    Key("match-page-up", ("pageup", "ctrl+u"), "PgUp", "page(-1)", "a page up", "match"),
    Key("match-top", ("g", "home"), "g", "edge(0)", "the first", "match"),
    Key("match-bottom", ("G", "end"), "G", "edge(1)", "the last", "match"),
    Key("match-open", ("enter",), "⏎", "open", "choose the SAE; open the feature of the line", "match", "open", 1),
    Key("match-partner", ("o",), "o", "partner", "open the other feature of the line", "match", "its partner", 3),
    Key("match-list", ("tab",), "Tab", "list(1)", "matched, lost, new or split features", "match", "list", 2),
    Key("match-list-back", ("shift+tab",), "⇧Tab", "list(-1)", "the list before", "match"),
    Key("match-less", ("left",), "← →", "bar(-1)", "a lower bar on the cosine", "match", "bar", 4),
    Key("match-more", ("right",), "→", "bar(1)", "a higher bar", "match"),
    Key("match-show", ("f",), "f", "show", "the list's features as a filtered table", "match", "in the table", 5),
    Key("match-other", ("b",), "b", "other", "choose another SAE to match with", "match", "other SAE", 7),
    Key("match-export", ("e",), "e", "export", "write figures and lists as JSON and CSV", "match", "export", 6),
    Key("match-glossary", ("D",), "D", "glossary", "what every number means", "match", "define", 9),
    Key("match-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "match"),
    Key("match-help", ("question_mark", "f1"), "?", "help", "all keys", "match", "help", 8),
    Key("match-back", ("escape", "q", "equals_sign"), "Esc", "back", "back", "match", "back", 0),
)
NEAR: tuple[Key, ...] = (
    Key("near-down", ("j", "down"), "j ↓", "down", "down", "nearest features"),
    Key("near-up", ("k", "up"), "k ↑", "up", "up", "nearest features"),
    Key("near-go", ("enter",), "⏎", "go", "go to the feature", "nearest features", "go to", 1),
    Key("near-pin", ("p",), "p", "pin", "compare with it", "nearest features", "compare", 2),
    Key("near-side", ("tab", "shift+tab"), "Tab", "side", "by decoder or by encoder", "nearest features", "encoder", 3),
    Key("near-all", ("C",), "C", "all", "compare with every SAE of the model", "nearest features", "every SAE", 4),
    Key("near-help", ("question_mark", "f1"), "?", "help", "all keys", "nearest features", "help", 5),
    Key("near-back", ("escape", "q", "tilde"), "Esc", "back", "back", "nearest features", "back", 0),
)
READING: tuple[Key, ...] = (
    Key("read-down", ("j", "down"), "j ↓", "down", "down", "help and glossary"),
    Key("read-up", ("k", "up"), "k ↑", "up", "up", "help and glossary"),
    Key(
        "read-page-down",
        ("pagedown", "ctrl+d", "space"),
        "PgDn",
        "page(1)",
        "a page down",
        "help and glossary",
        "page",
        1,
    ),
    Key("read-page-up", ("pageup", "ctrl+u"), "PgUp", "page(-1)", "a page up", "help and glossary"),
    Key(
        "read-back", ("escape", "q", "question_mark", "D", "f1"), "Esc", "back", "back", "help and glossary", "back", 0
    ),
)
NOTE: tuple[Key, ...] = (
    Key("note-keep", ("enter",), "⏎", "keep", "keep the note", "note", "keep", 1),
    Key("note-line", ("ctrl+j", "shift+enter"), "^j", "new_line", "a new line", "note", "new line", 2),
    Key("note-leave", ("escape",), "Esc", "leave", "leave; asked once more if it changed", "note", "back", 0),
)
ANSWER: tuple[Key, ...] = (
    Key("answer-down", ("j", "down"), "j ↓", "down", "down", "find and edges"),
    Key("answer-up", ("k", "up"), "k ↑", "up", "up", "find and edges"),
    Key("answer-page-down", ("pagedown", "ctrl+d"), "PgDn", "page(1)", "a page down", "find and edges"),
    Key("answer-page-up", ("pageup", "ctrl+u"), "PgUp", "page(-1)", "a page up", "find and edges"),
    Key("answer-top", ("g", "home"), "g Home", "edge(0)", "the first row", "find and edges"),
    Key("answer-bottom", ("G", "end"), "G End", "edge(1)", "the last row", "find and edges"),
    Key("answer-open", ("enter",), "⏎", "open", "go to the feature; [ leads back", "find and edges", "go to", 1),
    Key("answer-ask", ("f",), "f", "ask", "ask another question", "find and edges", "ask", 3),
    Key("answer-layers", ("A",), "A", "layers", "one SAE, or one of every hook of the model", "find and edges",
        "layers", 4),
    Key("answer-edges", ("E", "right"), "E →", "edges", "the edges of the feature under the arrow", "find and edges",
        "its edges", 5),
    Key("answer-back-edge", ("left_square_bracket", "left"), "[ ←", "history(-1)", "back to the feature before",
        "find and edges", "back", 6),
    Key("answer-forward", ("right_square_bracket",), "]", "history(1)", "forward again", "find and edges"),
    Key("answer-lists", ("tab",), "Tab", "lists", "edges: the strongest of every list, or up, down, heads alone",
        "find and edges", "lists", 5),
    Key("answer-sort", ("s",), "s", "sort", "order by the next column", "find and edges", "sort", 7),
    Key("answer-reverse", ("r",), "r", "reverse", "the order the other way round", "find and edges"),
    Key("answer-filter", ("slash",), "/", "filter", "filter the rows: rank<=5, tail<.001, layer=3, a word, semantic",
        "find and edges", "filter", 2),
    Key("answer-mark", ("m", "space"), "m Spc", "mark", "mark or unmark, step down", "find and edges", "mark", 8),
    Key("answer-set", ("M",), "M", "set_page", "the marked rows as a set, also over layers: words, heads, cosines",
        "find and edges", "set", 9),
    Key("answer-export", ("x",), "x", "export", "write marked rows, or all shown, as CSV", "find and edges",
        "export", 10),
    Key("answer-copy", ("y",), "y", "copy", "copy the address", "find and edges"),
    Key("answer-glossary", ("D",), "D", "glossary", "what every number means", "find and edges", "define", 11),
    Key("answer-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "find and edges"),
    Key("answer-help", ("question_mark", "f1"), "?", "help", "all keys", "find and edges", "help", 12),
    Key("answer-back", ("escape", "q"), "Esc", "back", "stop what is asked; leave", "find and edges", "leave", 0),
)  # fmt: skip
FLOW: tuple[Key, ...] = (
    Key("flow-down", ("j", "down"), "j ↓", "down", "down", "flow"),
    Key("flow-up", ("k", "up"), "k ↑", "up", "up", "flow"),
    Key("flow-open", ("enter",), "⏎", "open", "go to the feature; [ leads back", "flow", "go to", 1),
    Key("flow-which", ("tab",), "Tab", "which", "which threshold ← → moves: r, m or a", "flow", "threshold", 2),
    Key("flow-less", ("left",), "←→", "shift_bar(-1)", "the threshold lower; → higher", "flow", "move it", 3),
    Key("flow-more", ("right",), "→", "shift_bar(1)", "the threshold higher", "flow"),
    Key("flow-reset", ("0",), "0", "reset", "thresholds back to 0.5, 0.25, 0.25", "flow", "reset", 4),
    Key("flow-export", ("x",), "x", "export", "write the chain as SVG and JSON", "flow", "export", 5),
    Key("flow-palette", ("ctrl+p",), "^p", "palette", "find a key by its words", "flow"),
    Key("flow-help", ("question_mark", "f1"), "?", "help", "all keys", "flow", "help", 6),
    Key("flow-back", ("escape", "q", "W"), "Esc", "back", "back", "flow", "back", 0),
)
TYPED = ("start", "pick", "columns", "export", "note")
"""Contexts with a line of text in focus."""
CONTEXTS: dict[str, tuple[Key, ...]] = {
    "main": MAIN,
    "start": START,
    "pick": PICK,
    "jobs": JOBS,
    "columns": CHOOSE,
    "export": EXPORT,
    "note": NOTE,
    "population": POPULATION,
    "heads": HEADS,
    "set": SET,
    "match": MATCH,
    "depth": DEPTH,
    "answer": ANSWER,
    "flow": FLOW,
    "near": NEAR,
    "reading": READING,
}


ALWAYS = ("ctrl+c", "ctrl+q")
"""Keys that quit wherever one is; they cannot be given away."""
_active: dict[str, tuple[Key, ...]] = CONTEXTS


def current() -> dict[str, tuple[Key, ...]]:
    """The keys that hold now: the usual ones, or with the user's own in their place."""
    return _active


def use(user: Mapping[str, Sequence[str]], *, ascii: bool = False) -> dict[str, str]:
    """Let the user's keys hold from now on in footer, help and palette.

    Args:
        user: binding id -> keys, from ``[keys]`` of ``config.toml``; empty: the usual ones again.
        ascii: write keys without arrows and signs beyond ASCII.

    Returns:
        dict: id -> keys in Textual's form, for ``App.set_keymap``.

    Raises:
        UsageError: see :func:`checked`.
    """
    global _active
    _active = checked(user) if user else CONTEXTS
    if ascii:
        _active = {context: tuple(map(_in_ascii, keys)) for context, keys in _active.items()}
    return {key.id: ",".join(key.keys) for keys in _active.values() for key in keys if key.id in user}


def _in_ascii(key: Key) -> Key:
    if key.shown.isascii():
        return key
    return replace(key, shown=" ".join(shown_key(name, ascii=True) for name in key.keys[: len(key.shown.split())]))


def checked(user: Mapping[str, Sequence[str]]) -> dict[str, tuple[Key, ...]]:
    """Every context with the user's keys in place of the usual ones.

    Raises:
        UsageError: an unknown id (with the nearest), no such key, or a key that two actions of a context would share.
    """
    known = {key.id for keys in CONTEXTS.values() for key in keys}
    named: dict[str, tuple[str, ...]] = {}
    for id, texts in user.items():
        where = f"{FILE}: keys.{id}"
        if id not in known:
            near = nearest(id, known)
            raise UsageError(f"{where}: no such action", f"{near!r}" if near else "an id of `wbtui keys`")
        named[id] = tuple(dict.fromkeys(key_name(text, where) for text in texts))
    out: dict[str, tuple[Key, ...]] = {}
    for context, keys in CONTEXTS.items():
        mine = tuple(
            replace(k, keys=named[k.id], shown=" ".join(map(shown_key, named[k.id]))) if k.id in named else k
            for k in keys
        )
        holder: dict[str, str] = dict.fromkeys(ALWAYS, "quit, everywhere")
        for key in sorted(mine, key=lambda k: k.id in named):  # the user's come last: the line names them
            for name in key.keys:
                if name in holder and (key.id in named or holder[name] in named):
                    raise UsageError(
                        f"{FILE}: keys.{key.id} = {shown_key(name)!r}, which is {holder[name]!r} in {context}",
                        "a free key",
                        "give the other one another key too, or choose another",
                    )
                holder[name] = key.id
        out[context] = mine
    return out


def bindings(context: str) -> list[Binding]:
    """A context's keys as Textual bindings, for a screen's ``BINDINGS``.

    Where a line of text has the focus all the time, keys that are no letters come before it.
    """
    from textual.binding import Binding

    return [
        Binding(
            ",".join(key.keys),
            key.action,
            key.label or key.tooltip,
            show=False,
            tooltip=key.tooltip,
            id=key.id,
            priority=context in TYPED,
        )
        for key in CONTEXTS[context]
    ]


PAGE_LABELS = {
    "escape": ("back", 1), "down": ("scroll", 2), "next": ("next feature", 3), "before": ("the one before", 4),
    "tokens": ("ids", 5), "mark": ("mark", 6), "copy": ("copy address", 7), "glossary": ("define", 8),
    "help": ("help", 0),
}  # fmt: skip
"""Footer of the main screen while the card has all of it: key id -> (word, rank)."""
COMPARE_LABELS = {
    "escape": ("back", 1), "down": ("move the other", 2), "pin": ("pin the other", 3), "next-layer": ("layer", 4),
    "near": ("near", 5), "filter": ("find", 6), "mark": ("mark", 7), "copy": ("copy address", 8), "help": ("help", 0),
}  # fmt: skip
"""The same while two features are compared."""


def footer(context: str, width: int) -> list[tuple[str, str]]:
    """(keys, word) for the footer of a context, of ``page`` or ``compare``: by rank as many as fit, rank 0 last."""
    keys = _active.get(context, _active["main"])
    labels = {"page": PAGE_LABELS, "compare": COMPARE_LABELS}.get(context)
    if labels is not None:
        keys = tuple(replace(k, label=labels[k.id][0], rank=labels[k.id][1]) for k in keys if k.id in labels)
    labelled = sorted((k for k in keys if k.label), key=lambda k: k.rank)
    chosen: list[Key] = []
    used = 0
    for key in labelled:
        cells = cell_len(key.shown.split()[0]) + 1 + cell_len(key.label) + 2
        if used + cells > width:
            break
        used += cells
        chosen.append(key)
    chosen.sort(key=lambda k: k.rank or 100)
    return [(key.shown.split()[0], key.label) for key in chosen]


def panel_keys(panel: str) -> list[Key]:
    """The keys of the main screen that mean something else while the card (or its page) has them."""
    ids = PAGE_LABELS if panel == "page" else (*CARD_IDS, "focus", "escape")
    return [key for key in _active["main"] if key.id in ids]


CARD_IDS = ("down", "up", "half-down", "half-up", "page-down", "page-up", "top", "bottom", "next", "before")
"""Keys that scroll the card while it has the focus; ``next`` and ``before`` go on in the table."""


def groups(first: str = "") -> Iterator[tuple[str, list[Key]]]:
    """(heading, keys) over all contexts, in the order of help, the keys of context ``first`` before the others."""
    for context in sorted(_active, key=lambda c: c != first):
        keys = _active[context]
        seen: dict[str, list[Key]] = {}
        for key in keys:
            seen.setdefault(key.group, []).append(key)
        yield from seen.items()


def markdown() -> str:
    """The keys as Markdown: the main screen's as one table, the other screens' folded away."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    def rows(context: str) -> list[str]:
        return [f"| `{cell(key.shown)}` | `{key.id}` | {cell(key.tooltip)} |" for key in _active[context]]

    head = ["| key | id | what it does |", "|---|---|---|"]
    out = [*head, *rows("main"), "", "<details><summary>Keys of the other screens</summary>", ""]
    for context in _active:
        if context != "main":
            out += [f"**{context}**", "", *head, *rows(context), ""]
    return "\n".join([*out, "</details>"])
