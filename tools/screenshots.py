"""Pictures of the real app on the built-in demo: ``python tools/screenshots.py [folder]``.

Every screen at 80×24, 120×40 and 200×50, as SVG, and as PNG where ``rsvg-convert`` or the package ``cairosvg`` is
there (smaller ones where Pillow is there too). What is not computed yet is computed first: every SAE of the demo, for
pages that compare layers.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PNG_WIDTH = 1024
COLOURS = 256
SIZES = ((80, 24), (120, 40), (200, 50))
SHOTS: dict[str, tuple[str | None, Sequence[str]]] = {
    "start": ("demo", ()),
    "pick": ("demo@L3", ("O", *"9b", "space", *"l20", "space", *"131")),
    "main": ("demo@L5", ("j", "m", "j", "m", "j")),
    "filter": ("demo@L5", ("slash", *"class", "equals_sign", *"coherent", "space", *"z_max", "greater_than_sign", "8")),
    "page": ("demo@L5", ("enter",)),
    "heads": ("demo@L3#748", ("h",)),
    "depth": ("demo@L3", ("V",)),
    "population": ("demo@L3", ("F", "right", "right")),
    "compare": ("demo@L3#748", ("p", "j", "j")),
    "find": ("demo@L3", ("f", *"king", "enter")),
    "edges": ("demo@L3#748", ("E",)),
    "flow": ("demo@L3#748", ("W",)),
    "set": ("demo@L3", (*("m" * 12), "M")),
    "match": ("demo@L3", ("equals_sign", "down", "enter")),
    "glossary": ("demo@L5", ("D",)),
    "help": ("demo@L5", ("question_mark",)),
}
"""Name -> address, keys pressed before the picture."""


def to_png(svg: Path) -> bool:
    """An SVG as PNG beside it; False where nothing here can do that."""
    png = svg.with_suffix(".png")
    if tool := shutil.which("rsvg-convert"):
        subprocess.run(
            [tool, "--width", str(PNG_WIDTH), "--keep-aspect-ratio", "--output", str(png), str(svg)], check=True
        )
        to_palette(png)
        return True
    try:
        import cairosvg  # type: ignore[import-not-found]
    except ImportError:
        return False
    cairosvg.svg2png(url=str(svg), write_to=str(png), output_width=PNG_WIDTH)
    to_palette(png)
    return True


def to_palette(png: Path) -> None:
    """A picture with a palette, a third of its size, where the package Pillow is there; as it is elsewhere."""
    try:
        from PIL import Image  # type: ignore[import-not-found]
    except ImportError:
        return
    with Image.open(png) as picture:
        ground = Image.new("RGB", picture.size, "white")
        ground.paste(picture, mask=picture.getchannel("A"))
    ground.quantize(COLOURS, dither=Image.Dither.NONE).save(png, optimize=True)


def main(argv: Sequence[str]) -> int:
    """Make them all."""
    from wbtui.errors import WbtuiError
    from wbtui.tui.run import make_screenshot

    folder = Path(argv[0]) if argv else Path(__file__).resolve().parent.parent / "screenshots"
    pictures = True
    whole = [sys.executable, "-m", "wbtui", "compute", "demo", "--all-layers", "--analysis", "all", "-q"]
    if code := subprocess.run(whole, stdout=subprocess.DEVNULL, check=False).returncode:
        return code
    for name, (address, keys) in SHOTS.items():
        for size in SIZES:
            svg = folder / f"{name}-{size[0]}x{size[1]}.svg"
            try:
                make_screenshot(address, size, svg, keys)
            except WbtuiError as error:
                print(f"{svg.name}: {error.line()}", file=sys.stderr)
                return error.exit_code
            pictures = to_png(svg) and pictures
            print(svg)
    if not pictures:
        print("no PNG: neither rsvg-convert nor the package cairosvg is here", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
