"""The pages by name, and writing them to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType

from attnembed._files import make_folder, write_text
from attnembed._validation import RNGLike, check_choice
from attnembed.explore.basins import basins_page
from attnembed.explore.scaling import scaling_page
from attnembed.explore.selection import selection_page

__all__ = ["PAGES", "ExplorePage", "render", "save_page"]


@dataclass(frozen=True)
class ExplorePage:
    """A page: its name, a one-line summary, and the function that computes it."""

    name: str
    summary: str
    build: Callable[[bool, RNGLike], str]


PAGES: Mapping[str, ExplorePage] = MappingProxyType(
    {
        page.name: page
        for page in (
            ExplorePage("selection", "tokens that p selects, by step size and time", selection_page),
            ExplorePage("basins", "local optimum in which the flow ends, by its start", basins_page),
            ExplorePage("scaling", "share of correct labels by the scale of W, epoch by epoch", scaling_page),
        )
    }
)


def render(name: str, *, quick: bool = False, rng: RNGLike = 0) -> str:
    """A page as HTML text: `selection`, `basins` or `scaling`.

    Parameters
    ----------
    name : one of `PAGES`
    quick : a coarser page, in a few seconds, marked as such
    rng : seed of the data, the initial parameters and the order of training

    Raises
    ------
    InputError : for an unknown name

    >>> from attnembed.explore import render
    >>> render("basins", quick=True).startswith("<!DOCTYPE html>")
    True
    """
    return PAGES[check_choice("name", name, PAGES)].build(quick, rng)


def save_page(name: str, out: str | PathLike[str], *, quick: bool = False, rng: RNGLike = 0) -> Path:
    """Write a page to one HTML file, which then needs neither the package nor a network; returns its path.

    The parameters are those of `render`; the folder is created if missing, and the file replaced atomically.
    """
    text = render(name, quick=quick, rng=rng)
    path = Path(out)
    make_folder(path.parent)
    write_text(path, text)
    return path
