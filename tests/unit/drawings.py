"""What a drawn figure says, for tests of figures."""

from matplotlib.image import imread

PROVENANCE = "demo: simulated data, 10,000 cells · seeds 0, 1, 2 · commit 1a2b3c4 · config 01234567"


def texts(figure):
    """Everything that is written on a figure, legends and titles included."""
    return [t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")) if t.get_text()]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def png_size(path):
    height, width = imread(path).shape[:2]
    return width, height
