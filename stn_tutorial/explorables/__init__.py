"""Explorables: pictures that answer to sliders, in a notebook and in the book's static pages.

Each is an `anywidget` in a module of its own, beside its front end, an ES module of the same name;
what they share is in `base`, `pictures`, `stills`, `words`, `poses` and `chains`, and in `ui.js`,
`maths.js`, `warps.js`, `dragging.js`, `nets.js`, `poses.js`. `bundle` joins an explorable's files
into one when it is imported. Shown by a notebook's cell it leaves two things in the cell's output:
the live widget, and HTML that stands for it where no kernel runs. The book's Sphinx extension
brings that HTML to life; GitHub, and a browser without JavaScript, show the picture in it.

Pictures are kept and shown as 8-bit values; the front end computes in double precision.
"""

from stn_tutorial.explorables.base import Explorable
from stn_tutorial.explorables.bilinear import BilinearExplorer
from stn_tutorial.explorables.corners import CornersExplorer
from stn_tutorial.explorables.descent import DescentExplorer
from stn_tutorial.explorables.localise import LocaliseExplorer
from stn_tutorial.explorables.mapping import MappingExplorer
from stn_tutorial.explorables.network import NetworkExplorer
from stn_tutorial.explorables.pair import PairExplorer
from stn_tutorial.explorables.pooling import PoolingExplorer
from stn_tutorial.explorables.question import Question
from stn_tutorial.explorables.regions import RegionsExplorer
from stn_tutorial.explorables.spline import SplineExplorer
from stn_tutorial.explorables.theta import ThetaExplorer
from stn_tutorial.explorables.windows import WindowsExplorer
from stn_tutorial.explorables.words import describe

__all__ = [
    "EXPLORABLES",
    "BilinearExplorer",
    "CornersExplorer",
    "DescentExplorer",
    "LocaliseExplorer",
    "MappingExplorer",
    "NetworkExplorer",
    "PairExplorer",
    "PoolingExplorer",
    "Question",
    "RegionsExplorer",
    "SplineExplorer",
    "ThetaExplorer",
    "WindowsExplorer",
    "describe",
]

EXPLORABLES: dict[str, type[Explorable]] = {
    one.kind: one
    for one in (
        ThetaExplorer,
        PoolingExplorer,
        MappingExplorer,
        BilinearExplorer,
        DescentExplorer,
        CornersExplorer,
        SplineExplorer,
        NetworkExplorer,
        LocaliseExplorer,
        PairExplorer,
        WindowsExplorer,
        RegionsExplorer,
        Question,
    )
}
"""By the name that a page calls them: what the book's directive takes."""
