"""The table ``[csim]``: how many patches the forms are compared on."""

from dataclasses import dataclass

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class CsimSpec:
    """How many patches the forms are compared on."""

    patches: int = 20_000  # compared code for code in RTL and C simulation at least; corner cases come on top
    chunk: int = 500  # patches of the C simulation at a time
    software: int = 0  # of them for QONNX
    netlist: int = 1000  # of them for the mapped netlist; 0: no synthesis

    def __post_init__(self) -> None:
        if self.patches < 1 or self.chunk < 1:
            raise UserError(f"csim: patches {self.patches} and chunk {self.chunk} must be at least 1")
        if self.software < 0 or self.netlist < 0:
            raise UserError(f"csim: software {self.software} and netlist {self.netlist} must be at least 0")
