"""The pictures of results/ are drawn from the logs, and every line says what it is."""

import itertools
import sys

import pytest

from helpers import ROOT

pytest.importorskip('matplotlib', reason='Matplotlib is not installed')
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def test_labels_stand_at_the_ends_of_the_lines(monkeypatch):
    monkeypatch.setattr(sys, 'path', [f'{ROOT}/results', *sys.path])
    from figures import CURVES, plot_recipe

    axes = Figure(figsize=(9, 4), layout='tight').subplots()
    plot_recipe(axes)
    FigureCanvasAgg(axes.figure).draw()
    assert [label.get_text() for label in axes.texts] == [*CURVES.values()]
    assert len(axes.texts) == len(axes.lines) and axes.get_legend() is None
    for label, line in zip(axes.texts, axes.lines):
        assert label.get_color() == line.get_color()
        assert tuple(label.xy) == tuple(line.get_xydata()[-1])
    boxes = [label.get_window_extent() for label in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x1 <= axes.figure.bbox.x1 for box in boxes)
