"""Whose omega do the frames of the ruby scan agree with: that of our grains, or that of HEXRD's grains.out?

    braggnn-edge locate .../mruby-0129_000004_ff1_000012-cachefile.npz --threshold 150 --min-area 6 --gain 2 \\
        --read-noise 8 --saturation 15800 -o ff1_peaks.h5         # the same for ff2
    braggnn-edge merge ff1_peaks.h5 -o ff1.h5                      # the same for ff2
    braggnn-edge grains ff1=ff1.h5 ff2=ff2.h5 --instrument .../dexelas_id3a_20200130_comp.yml \\
        --lattice 4.7608 4.7608 12.99568 90 90 120 --centring R -o grains.h5
    python benchmarks/grains_ruby_omega.py --data FOLDER --lists . [--output benchmarks/grains_ruby_omega.json]

Our grains are turned by 0.15 degrees about the axis of rotation against those of grains.out. Most spots of these nearly
perfect crystals are in one frame of 0.25 degrees. So their true omega lies between the start and the end of that frame,
however omega is averaged, and a set of grains can be asked in how many cases its own does. The frames' omega is that of
the file. The third result, the calibration crystals of instrument.yml, is HEXRD's too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from grains_ruby import GEOMETRIES, PANELS, RUBY, parts, theirs
from scipy.spatial.transform import Rotation

from braggnn_edge.grains import grain_file, instrument
from braggnn_edge.grains.geometry import nearest
from braggnn_edge.grains.instrument import FROM_HEXRD
from braggnn_edge.peaks import peak_file

STEP = 0.25  # degrees a frame
OFFSETS = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


def crystals(path: Path) -> list[np.ndarray]:
    """Orientations of the calibration crystals of an instrument's file, in our axes."""
    found = yaml.safe_load(path.read_text())["calibration_crystal"].values()
    return [FROM_HEXRD @ Rotation.from_rotvec(one["orientation"]).as_matrix() for one in found]


def turn(reference: np.ndarray, found: list[np.ndarray]) -> tuple[int, list[float]]:
    """Which orientation is the nearest one, and its turn against the reference about x, y and z, degrees."""
    number = int(np.argmin([RUBY.misorientation(one, reference) for one in found]))
    turns = [Rotation.from_matrix(found[number] @ equal @ reference.T) for equal in RUBY.symmetry]
    return number, np.degrees(min(turns, key=lambda one: one.magnitude()).as_rotvec()).round(4).tolist()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lists", type=Path, required=True, help="folder with ff1.h5, ff2.h5 and grains.h5, see above")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/grains_ruby_omega.json"))
    arguments = parser.parse_args()
    folder = arguments.data / "chess_ruby"
    geometry = instrument.read(folder / GEOMETRIES["composite"])
    result = grain_file.load(arguments.lists / "grains.h5")
    lists = [peak_file.load(arguments.lists / f"{panel}.h5", "reflections")[0] for panel in PANELS]
    ours, other = parts(result), crystals(folder / "instrument.yml")
    document: dict[str, Any] = {"step_deg": STEP, "offsets_deg": list(OFFSETS), "grains": []}
    for number, hexrd in enumerate(theirs(folder / "grains.out")):
        mine, ours_turn = turn(hexrd["u"], [one["u"] for one in ours])
        of_crystal, crystal_turn = turn(hexrd["u"], other)
        spots = result.spots[result.spots["grain"] == ours[mine]["row"]["grain"]]
        rows = np.array([lists[spot["list"]][spot["reflection"]] for spot in spots])
        alone = rows["frames"] == 1
        hkl = np.stack([spots[name] for name in "hkl"], 1)[alone]
        # The same reflections by another name where the two programs chose another of the equal orientations.
        equal = min(
            (np.linalg.inv(RUBY.a_matrix) @ s @ RUBY.a_matrix for s in RUBY.symmetry),
            key=lambda w: np.linalg.norm(ours[mine]["u"] @ RUBY.a_matrix @ w - hexrd["u"] @ RUBY.a_matrix),
        )
        share = {}
        for name, grain, indices in (("ours", ours[mine], hkl), ("grains.out", hexrd, hkl @ equal)):
            edges = (np.eye(3) + grain["strain"]) @ grain["u"] @ RUBY.a_matrix
            own = geometry.omegas(indices @ np.linalg.inv(edges))
            away = np.degrees(nearest(own, np.radians(rows["omega"][alone]))) - rows["omega"][alone]
            share[name] = [round(float((np.abs(away + offset) < STEP / 2).mean()), 3) for offset in OFFSETS]
        document["grains"].append({
            "grain": number, "spots_in_one_frame": int(alone.sum()), "ours_to_grains_out_deg": ours_turn,
            "instrument_yml_to_grains_out_deg": crystal_turn,
            "ours_to_instrument_yml_deg": turn(other[of_crystal], [ours[mine]["u"]])[1],
            "share_in_its_frame_by_offset": share,
        })  # fmt: skip
    arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
