"""The table ``[csim]``: how many patches the forms are compared on."""

from dataclasses import dataclass

from braggnn_edge.core.errors import UserError


@dataclass(frozen=True)
class CsimSpec:
    """patches: peaks compared code for code at least, test peaks first, then the others of the scans, then random
    input; corner cases come on top. chunk: patches of the C simulation at a time. software: patches for QONNX, whose
    executor takes a millisecond each, 0 for all. netlist: of a circuit, patches of those that the mapped netlist is
    simulated on, 0 for no netlist.
    """

    patches: int = 20_000
    chunk: int = 500
    software: int = 0
    netlist: int = 1000

    def __post_init__(self) -> None:
        if self.patches < 1 or self.chunk < 1:
            raise UserError(f"csim: patches {self.patches} and chunk {self.chunk} must be at least 1")
        if self.software < 0 or self.netlist < 0:
            raise UserError(f"csim: software {self.software} and netlist {self.netlist} must be at least 0")
