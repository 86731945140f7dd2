"""Work of the command ``merge``: a list of peaks from a file to lists of reflections in files."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from braggnn_edge.core.errors import UserError
from braggnn_edge.frames.omega import frame_omega
from braggnn_edge.peaks import peak_file
from braggnn_edge.peaks.layouts import Context, beam_center, writers
from braggnn_edge.peaks.merge import Merged, MergeSpec, merge
from braggnn_edge.peaks.peak_file import About
from braggnn_edge.peaks.peak_list import PeakFlag
from braggnn_edge.peaks.rotation import Frames

Say = Callable[[str], None]

#: A spot that is seen in a larger share of all frames is no reflection. Fewer frames than FEW say nothing about that.
_DEFECT, _FEW = 0.5, 20


def work(arguments: Namespace, say: Say) -> None:
    """The command: read the list, merge it, write the outputs, and say what is in them."""
    spec = MergeSpec(arguments.radius, arguments.gap, arguments.valley, arguments.same_frame)
    outputs = writers(arguments.output, "reflections")
    center = beam_center(arguments.beam_center)
    if arguments.peaks.absolute() in (path.absolute() for path, _ in outputs):
        raise UserError(f"output {arguments.peaks} is the list that is merged; give the result another name")
    peaks, about = _turned(*peak_file.load(arguments.peaks), arguments)
    # The file knows the rotation of one scan's frames; that of others is taken from their peaks.
    known = {0: Frames(about.omega.mean(axis=1), about.bad_frames)} if len(about.omega) else {}
    merged = merge(peaks, spec, known)
    settings = about.settings | {"merge": asdict(spec)}
    context = Context(replace(about, settings=settings, program="braggnn-edge merge"), center)
    for path, writing in outputs:
        with writing(path, context) as append:
            append(merged.reflections)
    for line in (*described(merged, about.shape[0]), *no_grains(about)):
        say(f"  {line}")
    say("finished: " + ", ".join(str(path) for path, _ in outputs))


def _turned(peaks: NDArray[np.void], about: About, arguments: Namespace) -> tuple[NDArray[np.void], About]:
    """The list with the omega of ``--omega-start`` and ``--omega-step``, where these are given."""
    start, step = arguments.omega_start, arguments.omega_step
    if start is None and step is None:
        return peaks, about
    if len(peaks) and (peaks["scan"] != 0).any():
        raise UserError(
            f"--omega-start {start}: {arguments.peaks} holds peaks of several scans, whose frames turn each in its own "
            "way; give them to `locate`, scan by scan"
        )
    omega, _ = frame_omega(None, start, step, about.shape[0])
    if omega is None:
        raise ValueError("two numbers give the omega of every frame")
    turned = peaks.copy()
    turned["omega"] = omega.mean(axis=1)[peaks["frame"]]
    return turned, replace(about, omega=omega)


def no_grains(about: About) -> Iterator[str]:
    """Sentences on what `braggnn-edge grains` would refuse, while it is easy to mend."""
    if len(about.scans) > 1:
        yield (
            f"NO GRAINS: the list is of {len(about.scans)} scans, and `braggnn-edge grains` refuses such a list; where "
            "grains are wanted, locate and merge each scan alone"
        )
    elif not len(about.omega) or not np.isfinite(about.omega).all():
        yield (
            "NO GRAINS: omega is not known, and `braggnn-edge grains` refuses such a list; where grains are wanted, "
            "merge again with --omega-start DEG --omega-step DEG"
        )


def described(merged: Merged, frames: int) -> Iterator[str]:
    """Sentences for the user. frames: of the scan."""
    found = merged.reflections
    yield from merged.remarks
    if not len(found):
        yield "no peaks, so no reflections; the list is empty"
        return
    seen = found["frames"]
    yield (
        f"{len(merged.of):,} peaks make {len(found):,} reflections, seen in {np.median(seen):.0f} frames (median) and "
        f"in {seen.max():,} at most; {np.mean(seen == 1):.0%} in one alone"
    )
    if cut := int(((found["flags"] & PeakFlag.CUT) != 0).sum()):
        yield f"CUT: {cut:,} reach an end of the scan and may go on outside it; their omega and intensity are cut short"
    defects = seen > _DEFECT * frames
    if frames >= _FEW and defects.any():
        first = found[int(defects.argmax())]
        yield (
            f"{int(defects.sum()):,} are seen in more than half of the frames, such as that at ({first['row']:.0f}, "
            f"{first['col']:.0f}): hot pixels or the beam, no reflections; mask them"
        )
