"""Peak memory of labelling a scan that is larger than the memory it may use.

    python benchmarks/label_memory.py --output benchmarks/label_memory.json

Two measurements, each in processes of their own, with the address space of each process limited to 3 GiB:

- a scan of 512 frames of 2048 x 2048 (4 GiB as uint16; the file is small, most pixels are zero) is labelled by a local
  cluster of two workers;
- 100 shards of 20,000 made-up peaks each are joined.

The figures are the largest resident sets (ru_maxrss) of the command and of its workers, in MiB, beside that of a
process which only imports the program.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMIT = 3 * 2**30
FRAMES, SIDE, SPOTS = 512, 2048, 60
PARTS, PEAKS = 100, 20_000


def write_scan(path: Path) -> None:
    from braggnn_edge.frames.formats.braggnn import write_frames  # noqa: PLC0415

    rng = np.random.default_rng(1)
    offset = np.arange(-7, 8)
    distance2 = offset[:, None] ** 2 + offset**2

    def frames():
        for _ in range(FRAMES):
            frame = np.zeros((SIDE, SIDE), np.uint16)
            for row, col in rng.integers(20, SIDE - 20, (SPOTS, 2)):
                spot = rng.poisson(5 + rng.uniform(300, 3000) * np.exp(-distance2 / 2))
                frame[row - 7 : row + 8, col - 7 : col + 8] += spot.astype(np.uint16)
            yield frame

    write_frames(path, frames(), (FRAMES, SIDE, SIDE), np.dtype(np.uint16))


def mebibytes() -> dict[str, float]:
    return {
        "command_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "workers_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
    }


def measure(what: str, folder: Path) -> dict:
    """What a child process does: one of the measurements, under the limit."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    from braggnn_edge.label import labelling as label  # noqa: PLC0415
    from braggnn_edge.label import shard  # noqa: PLC0415
    from braggnn_edge.label.spec import PeakSpec, ScanSpec, SplitSpec  # noqa: PLC0415
    from braggnn_edge.peaks.table import PEAK  # noqa: PLC0415
    from braggnn_edge.shards import run  # noqa: PLC0415

    out = folder / what
    out.mkdir()
    began = time.monotonic()
    if what == "import":
        return mebibytes()
    if what == "scan":
        run.CLUSTER_PAYS = -1.0
        scan = ScanSpec("big", format="braggnn", path=str(folder / "big.h5"), threshold=60.0, use=("test",))
        label.run((scan,), PeakSpec(), SplitSpec(), 1, out, out, out, 2, lambda text: print(text, file=sys.stderr))
        size = {"scan_mib": FRAMES * SIDE**2 * 2 / 2**20}
    else:

        def made_up(task) -> None:
            rng = np.random.default_rng(task.start)
            rows = np.zeros(PEAKS, PEAK)
            rows["frame"], rows["maxima"], rows["voigt_converged"] = task.start, 1, True
            rows["voigt_row"] = rng.uniform(0, SIDE, PEAKS)
            with task.shard.open("wb") as stream:
                np.savez(stream, peaks=rows, crops=rng.integers(0, 9, (PEAKS, 13, 13), np.uint16))

        shard.label_shard = made_up
        path = folder / "empty.h5"
        import h5py  # noqa: PLC0415

        with h5py.File(path, "w") as file:
            file.create_dataset("frames", (PARTS * 16, 64, 64), np.uint16, chunks=(1, 64, 64))
        scan = ScanSpec("joined", format="braggnn", path=str(path), use=("test",))
        label.run((scan,), PeakSpec(), SplitSpec(), 1, out, out, out, 1, lambda text: print(text, file=sys.stderr))
        size = {"table_mib": round(PARTS * PEAKS * (PEAK.itemsize + 13 * 13 * 2) / 2**20, 1)}
    summary = json.loads((out / "summary.json").read_text())
    return size | {"seconds": round(time.monotonic() - began, 1), "peaks": summary} | mebibytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return 0
    document: dict = {"address_space_mib": LIMIT / 2**20}
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder) / "big.h5")
        for what in ("import", "scan", "join"):
            command = [sys.executable, __file__, "--measure", what, folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            document[what] = json.loads(done.stdout)
            print(what, document[what], flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
