"""What a drawn figure says, for tests of figures."""

from matplotlib.image import imread
from matplotlib.text import Text

PROVENANCE = "demo: simulated data, 10,000 cells · seeds 0, 1, 2 · commit 1a2b3c4 · config 01234567"


def texts(figure):
    """Everything that is written on a figure, legends and titles included."""
    return [t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")) if t.get_text()]


def words_outside(figure):
    """Words that run out of a figure on the left or right; numbers are left out, since a tick beyond its axis has one
    that is not drawn.
    """
    figure.draw_without_rendering()
    words = figure.findobj(lambda artist: isinstance(artist, Text) and any(map(str.isalpha, artist.get_text())))
    boxes = [(text.get_text(), text.get_window_extent()) for text in words]
    return [text for text, box in boxes if box.x0 < 0 or box.x1 > figure.bbox.width]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def png_size(path):
    height, width = imread(path).shape[:2]
    return width, height
