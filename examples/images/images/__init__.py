"""A pipeline of pictures: check, shrink to several widths, publish."""
