"""The queue of peaks before the fit's lanes and the records behind them."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braggnn_edge.fit.levenberg_marquardt import Lanes

# Vector instructions treat the last few elements of an array differently; a multiple of 64 has no such tail.
LANE_STEP = 64


class Queue:
    """Peaks waiting for a lane: data, used and below (n, p), start, low and high (n, 8), in this order.

    damping: what a peak starts with.
    """

    def __init__(self, *arrays: NDArray, damping: float = 1e-2) -> None:
        self._arrays = arrays
        self._damping = damping
        self._count = len(arrays[0])
        self._next = 0

    def open(self, chunk: int, device: torch.device, dtype: torch.dtype) -> Lanes:
        """Lanes for ``chunk`` peaks, rounded up to a multiple of LANE_STEP, filled while there are peaks."""
        width = LANE_STEP * max(1, math.ceil(min(chunk, self._count) / LANE_STEP))
        pixels = self._arrays[0].shape[1]

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, width, dtype=dtype, device=device)

        # A vacant lane holds a dull but finite peak.
        idle = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.5, 1.0], dtype=dtype, device=device)
        state = idle[:, None].repeat(1, width)
        lanes = Lanes(
            index=np.full(width, -1, dtype=np.int64),
            data=zeros(pixels),
            used=zeros(pixels),
            below=zeros(pixels),
            low=state.clone(),
            high=state.clone(),
            state=state,
            trial=state.clone(),
            predicted=zeros(),
            cost=zeros() + math.inf,
            slope=zeros(8),
            curvature=zeros(8, 8),
            sums=zeros(2),
            damping=zeros() + self._damping,
            count=zeros(),
        )
        return self.refill(lanes, np.ones(width, dtype=bool))

    def refill(self, lanes: Lanes, free: NDArray[np.bool_]) -> Lanes:
        """Put waiting peaks into the ``free`` lanes; give up lanes when half of them would stay vacant."""
        places = np.flatnonzero(free)
        take = min(len(places), self._count - self._next)
        chosen = np.arange(self._next, self._next + take)
        self._next += take
        lanes.index[places] = -1
        places = places[:take]
        lanes.index[places] = chosen
        if take:
            device = lanes.state.device
            where = torch.from_numpy(places).to(device)
            dtype = lanes.state.dtype
            arrays = [torch.from_numpy(a[chosen].T.astype(np.float64)).to(device, dtype) for a in self._arrays]
            data, used, below, start, low, high = arrays
            lanes.data[:, where], lanes.used[:, where], lanes.below[:, where] = data, used, below
            lanes.low[:, where], lanes.high[:, where] = low, high
            lanes.state[:, where] = lanes.trial[:, where] = start
            lanes.predicted[where] = 0.0
            lanes.cost[where] = math.inf
            lanes.damping[where] = self._damping
            lanes.count[where] = 0.0
        busy = np.flatnonzero(lanes.index >= 0)
        width = LANE_STEP * math.ceil(len(busy) / LANE_STEP)
        if 0 < width <= len(lanes.index) // 2:
            # Vacant lanes come last, so that the kept ones are all the busy ones.
            lanes = lanes.columns(np.argsort(lanes.index < 0, kind="stable")[:width])
        return lanes


class Records:
    """Solutions of n peaks in the order of the input, filled as they finish."""

    def __init__(self, count: int, parameters: int = 8) -> None:
        self.parameters = np.empty((count, parameters))
        self.information = np.empty((count, parameters, parameters))
        self.frozen = np.empty((count, parameters), dtype=bool)
        self.sums = np.empty((count, 2))
        self.iterations = np.empty(count, dtype=np.int64)
        self.converged = np.empty(count, dtype=bool)
        self.finished = 0

    def store(self, lanes: Lanes, frozen: Tensor, done: Tensor, over: NDArray[np.bool_]) -> None:
        """Take the states of the lanes ``over``."""
        where = lanes.index[over]
        self.parameters[where] = lanes.state.cpu().numpy().T[over]
        self.information[where] = lanes.curvature.cpu().numpy().transpose(2, 0, 1)[over]
        self.frozen[where] = frozen.cpu().numpy().T[over]
        self.sums[where] = lanes.sums.cpu().numpy().T[over]
        self.iterations[where] = lanes.count.cpu().numpy()[over].astype(np.int64)
        self.converged[where] = done.cpu().numpy()[over]
        self.finished += int(over.sum())
