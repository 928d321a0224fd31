"""Pages to explore with the hand: one HTML file each, with sliders, that needs no network."""

from attnembed.explore.pages import PAGES, ExplorePage, render, save_page

__all__ = ["PAGES", "ExplorePage", "render", "save_page"]
