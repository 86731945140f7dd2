"""Stage "hls": the HLS projects of the quantized locator."""

from braggnn_edge.core.config import Config
from braggnn_edge.core.errors import UserError
from braggnn_edge.core.stages import Context, Stage, resolve
from hls.project.spec import BACKENDS, BoardSpec, HlsSpec, settings_of
from quant.training.circuit_spec import FrontEndSpec


def _check(context: Context) -> None:
    """Refuse what no project can be written for: now, not after the training."""
    cfg = context.cfg
    refuse_front_end(cfg)
    spec: HlsSpec = cfg["hls"]
    shapes = _shapes(cfg)
    convolutions = sum(kind == "conv2d" for _, kind, _, _ in shapes)
    every: tuple[HlsSpec | BoardSpec, ...] = (spec, *spec.boards)
    for table in every:
        if isinstance(table.reuse, tuple) and len(table.reuse) != len(shapes):
            raise UserError(
                f"hls: reuse has {len(table.reuse)} entries, but the network has {len(shapes)} layers with weights "
                f"({convolutions} convolutions, {len(shapes) - convolutions - 1} hidden dense layers, the last one); "
                "give one number for all or one for each, in this order"
            )
    if spec.boards and not _is_bare(cfg):
        raise UserError(BOARDS_REFUSED)
    for board in (None, *spec.boards):
        # A trained circuit has lost the units that never fire: its blocks are not known yet, its most products are.
        if settings_of(spec, board).strategy == "Latency" or cfg["qat"].network != "circuit":
            _check_factors(spec, board, shapes)


def refuse_front_end(cfg: Config) -> None:
    """Refuse ``[rtl.front_end]`` with a network for which none can be written: a window of another size, layers inside
    of it, or a locator outside of it whose project has no streams."""
    front, name, spec = cfg["rtl"].front_end, cfg["qat"].network, cfg["hls"]
    if not front.pixels:
        return
    if not (front.external or cfg["qat"].is_circuit):
        raise UserError(
            f"rtl.front_end: layers do not fit inside of a front end, and the network is {name!r} ([qat] network); set "
            'external = true for one whose locator is the project of `make hls`, or network = "shipped_circuit"'
        )
    if front.external and ("io_stream" not in spec.io_types or spec.backend not in BACKENDS):
        raise UserError(
            'rtl.front_end: an external locator is the project in io_stream; add "io_stream" to io_types in [hls], '
            f"with backend {' or '.join(BACKENDS)}"
        )
    if name in ("circuit", "universal"):
        front.geometry(cfg["circuit" if name == "circuit" else "universal_layers"].front_end.window)
    elif not cfg["qat"].is_shipped:
        front.geometry(cfg["peaks"].size)


def has_rtl(cfg: Config) -> bool:
    """Whether the stage rtl has something to write: a circuit's project, or a front end with the locator outside."""
    return bool(cfg["qat"].is_circuit or (cfg["rtl"].front_end.pixels and cfg["rtl"].front_end.external))


#: Why the boards of a locator that is more than layers behind a normalizer are refused.
BOARDS_REFUSED = (
    "hls.boards: not offered for locators with a centroid, a window, an exponent or sigma; set target in [hls], and "
    "use another run for each board"
)


def _check_factors(spec: HlsSpec, board: BoardSpec | None, shapes: list[tuple[str, str, int, int]]) -> None:
    """Factors beyond a layer's products, or that do not cut its weights into equal blocks."""
    if not (spec.reuse or (board is not None and board.reuse)):
        return  # chosen when the network is there
    settings = settings_of(spec, board)
    reuse = settings.reuse if isinstance(settings.reuse, tuple) else (settings.reuse,) * len(shapes)
    made = [resolve("hls.project.reuse:Shape")(*shape) for shape in shapes]
    for io_type in (board.io_types if board is not None else ()) or spec.io_types:
        resolve("hls.project.reuse:check_shapes")(made, reuse, settings.strategy, io_type)


def _shapes(cfg: Config) -> list[tuple[str, str, int, int]]:
    """Of each convolution and dense layer of the firmware's network: name, kind, outputs, inputs of each output.

    Of a circuit that is still to be trained they are the most that it can have.
    """
    name = cfg["qat"].network
    if cfg["qat"].is_shipped:
        found: list[tuple[str, str, int, int]] = resolve("quant.shipped:shapes_of")(name)
        return found
    if name == "universal":
        return _chain((), 1, _inputs(cfg["universal_layers"].front_end), 1, cfg["universal"].dense, 4)
    if name == "circuit":
        spec = cfg["circuit"]
        network, front_end = spec.network, spec.front_end
        inputs = _inputs(front_end)
        return _chain(network.conv, network.kernel, inputs, front_end.window, network.dense, 4 if spec.sigma else 2)
    network = cfg[name].network
    return _chain(network.conv, 3, cfg["peaks"].size ** 2, cfg["peaks"].size, network.dense, 2)


def _inputs(front_end: FrontEndSpec) -> int:
    """Of a network: pixels, and the codes of the exponent if it takes them."""
    return int(front_end.window**2 + (front_end.count_bits if front_end.exponent else 0))


def _chain(
    conv: tuple[int, ...], kernel: int, inputs: int, side: int, dense: tuple[int, ...], outputs: int
) -> list[tuple[str, str, int, int]]:
    """Convolutions without padding on side x side pixels, then dense layers; ``inputs`` counts where there are none."""
    found = []
    for index, (before, channels) in enumerate(zip((1, *conv), conv, strict=False)):
        found.append((f"conv{index}", "conv2d", channels, before * kernel**2))
        side -= kernel - 1
        inputs = channels * side**2
    for index, width in enumerate((*dense, outputs)):
        found.append((f"dense{index}", "dense", width, inputs))
        inputs = width
    return found


def _is_bare(cfg: Config) -> bool:
    """Whether the locator will be layers behind a normalizer and nothing else, as ``IntegerLocator.is_bare`` says."""
    name = cfg["qat"].network
    if cfg["qat"].quantizes:
        return not cfg[name].network.centroid
    if name == "circuit":
        front_end = cfg["circuit"].front_end
        more = front_end.centroid != "none" or front_end.exponent or cfg["circuit"].sigma
        return not more and front_end.window == cfg["peaks"].size
    return False


HLS = Stage(
    name="hls",
    help="hls4ml projects with exact types, test bench and golden vectors",
    writes="one HLS project for each io type, and for further boards",
    work="hls.project.build:work",
    tables={"hls": HlsSpec},
    needs=lambda cfg: ("label", "qat"),
    check=_check,
    editable=("build_opt.tcl",),  # which steps the vendor's tool makes
)
