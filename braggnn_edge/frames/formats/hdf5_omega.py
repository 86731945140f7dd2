"""The rotation of every frame from the axes of an HDF5 or NeXus file."""

import h5py
import numpy as np
from numpy.typing import NDArray


def read_omega(file: h5py.File, name: str, frames: int) -> NDArray[np.float64] | None:
    return None
