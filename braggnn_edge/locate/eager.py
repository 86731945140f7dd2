"""The network as upstream executes it: one PyTorch operation a layer, float32; the baseline of every speed figure."""

import copy

import torch
from torch import Tensor, nn

from braggnn_edge.training.dataset import min_max
from braggnn_edge.training.model import BraggNN, pooled
from braggnn_edge.training.upstream import to_offset


class EagerNetwork(nn.Module):
    """Patches (n, size, size) in counts to offsets (n, 2) (row, col) px from the centre pixel.

    Same layers and weights as ``net``, images in torch's default memory order, the attention as two matrix products
    and a softmax, as in the published block (Liu et al., IUCrJ 9 (2022) 104-113).
    """

    def __init__(self, net: BraggNN) -> None:
        super().__init__()
        own = copy.deepcopy(net).cpu()
        self.net: BraggNN = own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # missing in the stubs

    def forward(self, patches: Tensor) -> Tensor:
        x = self.net.cnn_layers[0](min_max(patches)[:, None])
        if self.net.spec.attention:
            block = self.net.nlb
            n, _, rows, cols = x.shape
            inner = self.net.spec.inner
            theta = block.theta_layer(x).view(n, inner, -1).permute(0, 2, 1)
            phi = pooled(block.phi_layer(x), block.pool).view(n, inner, -1)
            g = pooled(block.g_layer(x), block.pool).view(n, inner, -1).permute(0, 2, 1)
            mixed = torch.matmul(torch.softmax(torch.matmul(theta, phi), -1), g)
            mixed = mixed.permute(0, 2, 1).contiguous().view(n, inner, rows, cols)
            x = x + block.out_cnn(mixed)
        x = self.net.cnn_layers[1:](x)
        return to_offset(self.net.dense_layers(x.flatten(1)), self.net.size)
