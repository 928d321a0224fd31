"""Interactive pages with sliders, each a single HTML file that needs no network."""

from attnembed.explore.pages import PAGES, ExplorePage, render, save_page

__all__ = ["PAGES", "ExplorePage", "render", "save_page"]
