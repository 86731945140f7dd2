"""Command "grains": lists of reflections in, grains out (:mod:`braggnn_edge.grains.finding` does the work)."""

from pathlib import Path

from braggnn_edge.core.commands import Command

GRAINS = Command(
    name="grains",
    help="find grains in lists of reflections: their positions, orientations, strains and sizes",
    writes="the files named by `-o`: HDF5, CSV, and the layouts of HEXRD and ImageD11",
    work="braggnn_edge.grains.finding:work",
    arguments={
        "lists": {
            "nargs": "+",
            "metavar": "[PANEL=]reflections.h5",
            "help": "list of reflections that `merge` wrote, one for each detector of the instrument",
        },
        "-o --output": {
            "action": "append",
            "required": True,
            "type": Path,
            "metavar": "FILE",
            "help": "the table; its suffix says how it is written: .h5, .csv, .out (HEXRD), .map (ImageD11: grains), "
            ".flt (their spots) and .par (the geometry); may be repeated",
        },
        "--instrument": {
            "type": Path,
            "required": True,
            "metavar": "FILE",
            "help": "its geometry: instrument.yml of HEXRD, .par of ImageD11, or .toml with keys of ImageD11",
        },
        "--lattice": {
            "type": float,
            "nargs": "+",
            "required": True,
            "metavar": "A",
            "help": "cell in angstrom and degrees: a (cubic), a b c (right angles), or a b c alpha beta gamma",
        },
        "--centring": {
            "choices": ("P", "A", "B", "C", "I", "F", "R"),
            "default": "P",
            "help": "of the lattice (default: %(default)s)",
        },
        "--sample": {
            "type": float,
            "default": 0.5,
            "metavar": "MM",
            "help": "no grain lies farther than this from the origin (default: %(default)s)",
        },
        "--completeness": {
            "type": float,
            "default": 0.5,
            "metavar": "SHARE",
            "help": "least share of the expected spots of the first rings that make a grain (default: %(default)s)",
        },
        "--least": {"type": int, "default": 12, "metavar": "N", "help": "spots of a grain (default: %(default)s)"},
        "--most": {"type": int, "default": 0, "metavar": "N", "help": "stop after so many grains (default: 0, never)"},
        "--indexer": {
            "choices": ("own", "imaged11"),
            "default": "own",
            "help": "what finds the grains: our indexer, or ImageD11's, which must be installed (default: %(default)s)",
        },
        "--assignment": {
            "type": Path,
            "metavar": "GRAINS.h5",
            "help": "refine these grains from the very spots that they had, found by their rows in the lists, and look "
            "for no others",
        },
        "--equal-weights": {
            "action": "store_true",
            "help": "do not use sigma: positions are the means by intensity, and all spots weigh alike",
        },
        "--flip": {
            "default": "",
            "metavar": "LETTERS",
            "help": "frames are first flipped v (up-down), h (left-right), t (transposed), in this order",
        },
        "--omega-sign": {
            "type": int,
            "choices": (1, -1),
            "help": "-1: the sample turns against the omega of the lists (default: as the instrument says, else 1)",
        },
        "--total-volume": {
            "type": float,
            "metavar": "MM3",
            "help": "of all grains together: gives their sizes in um",
        },
        "--median-size": {"type": float, "metavar": "UM", "help": "of the median grain: gives sizes in um"},
    },
    epilog="""examples:
  braggnn-edge grains reflections.h5 --instrument gold.par --lattice 4.0782 --centring F -o grains.h5 -o grains.map
  braggnn-edge grains ff1=refl1.h5 ff2=refl2.h5 --instrument instrument.yml \\
      --lattice 4.7608 4.7608 12.9957 90 90 120 --centring R -o grains.h5 -o grains.out

With --config the name stands for a stage, which takes no lists: it locates the peaks of a scenario's scan with several
networks, finds and refines grains from each, and compares them (`braggnn-edge grains --config FILE.toml --help`).

docs/how_to/grains.md leads from a scan to grains; docs/reference/grains.md describes the columns.""",
)
