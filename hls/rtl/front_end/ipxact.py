"""A front end as an IP: ``component.xml`` (IP-XACT, IEEE 1685-2009), and a script with which Vivado packages it itself.

Both have the bus interfaces s_axis, m_axis, with maps s_map, with an external locator m_patch and s_position
(AXI4-Stream), and s_axi (AXI4-Lite), clock and reset, and the memory map of
:data:`hls.rtl.front_end.registers.REGISTERS`.
"""

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from hls.rtl.front_end.registers import SPACE, Register
from hls.rtl.front_end.scripts import Port

_SPIRIT = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
VENDOR, LIBRARY, VERSION = "braggnn-edge", "detector", "1.0"

#: IP-XACT's word for an access.
_ACCESS = {"read": "read-only", "read/write": "read-write", "write": "write-only"}

#: Bus interfaces: their type and abstraction in Vivado's library, whether they are slaves, and what they are.
_BUSES = {
    "s_axis": ("axis", "axis_rtl", True, "Pixels"),
    "m_axis": ("axis", "axis_rtl", False, "Records"),
    "s_map": ("axis", "axis_rtl", True, "Dark counts and thresholds a pixel"),
    "m_patch": ("axis", "axis_rtl", False, "Counts of a patch, to the locator"),
    "s_position": ("axis", "axis_rtl", True, "Codes of a patch, from the locator"),
    "s_axi": ("aximm", "aximm_rtl", True, "Registers"),
}


def _buses(module: Sequence[Port]) -> list[str]:
    """Those of the bus interfaces whose ports the module has."""
    return [name for name in _BUSES if any(port.name.startswith(f"{name}_") for port in module)]


def component(
    top: str, module: Sequence[Port], registers: Sequence[Register], sources: Iterable[str], clock_mhz: float
) -> str:
    """The text of ``component.xml``; module: ports of the top; sources: paths of Verilog from the project's folder."""
    ElementTree.register_namespace("spirit", _SPIRIT)
    root = ElementTree.Element(_name("component"))
    for name, text in (("vendor", VENDOR), ("library", LIBRARY), ("name", top), ("version", VERSION)):
        _add(root, name, text)
    buses = _add(root, "busInterfaces")
    for name in _buses(module):
        kind, abstraction, slave, text = _BUSES[name]
        of = [port for port in module if port.name.startswith(f"{name}_")]
        parameters = _stream_parameters(of) if kind == "axis" else {"DATA_WIDTH": "32", "PROTOCOL": "AXI4LITE"}
        maps = {port.name.removeprefix(f"{name}_").upper(): port.name for port in of}
        memory = name if kind == "aximm" else ""
        _bus(buses, name, f"interface:{kind}", f"interface:{abstraction}", slave, maps, parameters, text, memory)
    clocked = {
        "ASSOCIATED_BUSIF": ":".join(_buses(module)), "ASSOCIATED_RESET": "rst", "FREQ_HZ": str(round(clock_mhz * 1e6)),
    }  # fmt: skip
    _bus(buses, "clk", "signal:clock", "signal:clock_rtl", True, {"CLK": "clk"}, clocked, "Clock")
    high = {"POLARITY": "ACTIVE_HIGH"}
    _bus(buses, "rst", "signal:reset", "signal:reset_rtl", True, {"RST": "rst"}, high, "Reset, synchronous")
    _memory(_add(root, "memoryMaps"), registers)
    _model(_add(root, "model"), top, module)
    sets = _add(root, "fileSets")
    for name, kind, files in (
        ("sources", "verilogSource", sorted(sources)), ("constraints", "xdc", [f"constraints/{top}.xdc"]),
    ):  # fmt: skip
        of_set = _add(sets, "fileSet")
        _add(of_set, "name", name)
        for path in files:
            file = _add(of_set, "file")
            _add(file, "name", path)
            # "xdc" is not among the standard's types of files: Vivado takes it as one of the user's own.
            _add(file, "fileType" if kind == "verilogSource" else "userFileType", kind)
    _add(root, "description", "Pixels of a detector in, records of Bragg peaks out.")
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _name(name: str) -> str:
    return f"{{{_SPIRIT}}}{name}"


def _add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> ElementTree.Element:
    """A child in the standard's namespace, as its attributes are."""
    child = ElementTree.SubElement(parent, _name(tag), {_name(key): value for key, value in attributes.items()})
    if text:
        child.text = text
    return child


def _bus(
    parent: ElementTree.Element, name: str, kind: str, abstraction: str, slave: bool, maps: dict[str, str],
    parameters: dict[str, str], text: str, memory: str = "",
) -> None:  # fmt: skip
    """A bus interface; kind, abstraction: library and name in Vivado's library; maps: logical to physical port."""
    bus = _add(parent, "busInterface")
    _add(bus, "name", name)
    _add(bus, "description", text)
    for element, vlnv in (("busType", kind), ("abstractionType", abstraction)):
        library, own = vlnv.split(":")
        _add(bus, element, vendor="xilinx.com", library=library, name=own, version="1.0")
    role = _add(bus, "slave" if slave else "master")
    if memory:
        _add(role, "memoryMapRef", memoryMapRef=memory)
    ports = _add(bus, "portMaps")
    for logical, physical in maps.items():
        one = _add(ports, "portMap")
        _add(_add(one, "logicalPort"), "name", logical)
        _add(_add(one, "physicalPort"), "name", physical)
    held = _add(bus, "parameters")
    for key, value in parameters.items():
        one = _add(held, "parameter")
        _add(one, "name", key)
        _add(one, "value", value, id=f"BUSIFPARAM_VALUE.{name.upper()}.{key}")


def _stream_parameters(of: Sequence[Port]) -> dict[str, str]:
    widths = {port.name.split("_")[-1]: port.bits for port in of}
    return {
        "TDATA_NUM_BYTES": str(widths["tdata"] // 8), "TUSER_WIDTH": str(widths.get("tuser", 0)),
        "HAS_TLAST": str(int("tlast" in widths)),
        "HAS_TREADY": "1", "HAS_TKEEP": "0", "HAS_TSTRB": "0", "TID_WIDTH": "0", "TDEST_WIDTH": "0",
    }  # fmt: skip


def _memory(parent: ElementTree.Element, registers: Sequence[Register]) -> None:
    memory = _add(parent, "memoryMap")
    _add(memory, "name", "s_axi")
    block = _add(memory, "addressBlock")
    for name, text in (("name", "registers"), ("baseAddress", "0x0"), ("range", f"{SPACE}"), ("width", "32")):
        _add(block, name, text)
    _add(block, "usage", "register")
    for one in registers:
        register = _add(block, "register")
        _add(register, "name", one.name)
        _add(register, "description", one.text)
        _add(register, "addressOffset", f"0x{one.offset:02X}")
        _add(register, "size", "32")
        _add(register, "volatile", "false" if one.access == "read/write" else "true")
        _add(register, "access", _ACCESS[one.access])
        if one.access == "read/write":
            reset = _add(register, "reset")
            _add(reset, "value", one.reset)
            _add(reset, "mask", "0xFFFFFFFF")
        for name, low, bits in one.fields or ((one.name, 0, one.bits),):
            field = _add(register, "field")
            _add(field, "name", name)
            _add(field, "bitOffset", str(low))
            _add(field, "bitWidth", str(bits))


def _model(parent: ElementTree.Element, top: str, module: Sequence[Port]) -> None:
    views = _add(parent, "views")
    for name, purpose, sets in (
        ("synthesis", "synthesis", ("sources", "constraints")), ("simulation", "simulation", ("sources",)),
    ):  # fmt: skip
        view = _add(views, "view")
        _add(view, "name", name)
        _add(view, "envIdentifier", f"verilogSource:vivado.xilinx.com:{purpose}")
        _add(view, "language", "verilog")
        _add(view, "modelName", top)
        for of_set in sets:
            _add(_add(view, "fileSetRef"), "localName", of_set)
    held = _add(parent, "ports")
    for port in module:
        one = _add(held, "port")
        _add(one, "name", port.name)
        wire = _add(one, "wire")
        _add(wire, "direction", port.direction)
        if port.bits > 1:
            vector = _add(wire, "vector")
            _add(vector, "left", str(port.bits - 1))
            _add(vector, "right", "0")


def package_script(
    top: str, module: Sequence[Port], registers: Sequence[Register], part: str, clock_mhz: float
) -> str:  # fmt: skip
    """The Tcl with which Vivado packages the sources in ``ip/``, interfaces and registers named."""
    lines = [
        _PACKAGE.format(
            top=top,
            part=part,
            vendor=VENDOR,
            library=LIBRARY,
            version=VERSION,
            space=SPACE,
            buses=" ".join(_buses(module)),
        )
    ]
    for one in registers:
        lines.append(f"register {one.name} 0x{one.offset:02X} {_ACCESS[one.access]} {{{one.text}}}")
        lines += [f"field {name} {low} {bits}" for name, low, bits in one.fields or ((one.name, 0, one.bits),)]
    return "\n".join([*lines, _PACKAGE_END.format(hz=round(clock_mhz * 1e6), top=top)])


_PACKAGE = """\
# vivado -mode batch -source package_ip.tcl: packs the front end as an IP in ip/, for the IP catalogue of a project:
#     set_property ip_repo_paths <this folder>/ip [current_project]; update_ip_catalog
# The exit status is 0 only if the IP has all interfaces and passes Vivado's own check of integrity.
set here [file normalize [file dirname [info script]]]
create_project -in_memory -part {part}
read_verilog [lsort [glob $here/src/*.v]]
set_property top {top} [current_fileset]
file delete -force $here/ip
ipx::package_project -root_dir $here/ip -vendor {vendor} -library {library} -import_files -taxonomy /UserIP
set core [ipx::current_core]
set_property name {top} $core
set_property version {version} $core
set_property display_name "Bragg peaks: pixels in, records out" $core
foreach bus {{{buses}}} {{
    if {{![llength [ipx::get_bus_interfaces $bus -of_objects $core]]}} {{
        puts "ERROR: {top}: Vivado did not infer the interface $bus from the names of its ports"
        exit 1
    }}
    ipx::associate_bus_interfaces -busif $bus -clock clk $core
}}
foreach found [ipx::get_memory_maps -quiet -of_objects $core] {{
    ipx::remove_memory_map [get_property name $found] $core
}}
set map [ipx::add_memory_map s_axi $core]
set_property slave_memory_map_ref s_axi [ipx::get_bus_interfaces s_axi -of_objects $core]
set block [ipx::add_address_block registers $map]
set_property range {space} $block
set_property width 32 $block
set_property usage register $block
proc register {{name offset access text}} {{
    global block last
    set last [ipx::add_register $name $block]
    set_property address_offset $offset $last
    set_property size 32 $last
    set_property access $access $last
    set_property description $text $last
}}
proc field {{name low bits}} {{
    global last
    set made [ipx::add_field $name $last]
    set_property bit_offset $low $made
    set_property bit_width $bits $made
}}
"""

_PACKAGE_END = """\

proc parameter {{bus name value}} {{
    global core
    set interface [ipx::get_bus_interfaces $bus -of_objects $core]
    set made [ipx::get_bus_parameters -quiet $name -of_objects $interface]
    if {{![llength $made]}} {{ set made [ipx::add_bus_parameter $name $interface] }}
    set_property value $value $made
}}
parameter clk FREQ_HZ {hz}
parameter clk ASSOCIATED_RESET rst
parameter rst POLARITY ACTIVE_HIGH
ipx::create_xgui_files $core
ipx::update_checksums $core
if {{![ipx::check_integrity $core]}} {{
    puts "ERROR: {top}: Vivado's check of the packaged IP failed"
    exit 1
}}
ipx::save_core $core
puts "{top} is packaged in $here/ip"
"""
