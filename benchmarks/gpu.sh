#!/bin/sh
# Reference inference on a GPU, measured by one command in at most 8 minutes:
#
#     benchmarks/gpu.sh OUT                               # OUT: a folder for gpu.json and the logs of the steps
#     benchmarks/gpu.sh OUT --device cpu --rehearsal      # the same steps, tiny, on a CPU
#
# It needs this repository and a Python ($PYTHON, else python3) with torch, numpy, scipy, h5py, onnx and onnxruntime;
# triton and cupy where there is a GPU. See benchmarks/README.md.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$root/benchmarks/gpu/run.py" "$@"
