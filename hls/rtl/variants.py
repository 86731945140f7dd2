"""Small modules with a form of their own for a device family, where Yosys finds none; what a user gets is "any"."""

from importlib.resources import files as package_files

#: Modules by the end of their names, and their templates: ``_ports``, ``_any``, and a family's where it has one.
_TEMPLATES = {"ternary_adder": "ternary", "less_than": "less"}

#: What the forms are for; the project has "any".
_VARIANTS = ("any", "ultrascale+", "ecp5")


def kind(module: str) -> str | None:
    """Which of the small modules a module is by its name, ``DESIGN_KIND``; None: none of them."""
    return next((one for one in _TEMPLATES if module == one or module.endswith(f"_{one}")), None)


def source(module: str, variant: str = "any") -> str:
    """The Verilog of ``module``, a name with one of the known ends, for any tool, or for Yosys on "ultrascale+" or
    "ecp5"."""
    if variant not in _VARIANTS:
        raise ValueError(f"variant {variant!r}; expected one of {', '.join(_VARIANTS)}")
    name = kind(module)
    if name is None:
        raise ValueError(f"module {module!r}; expected a name that ends in one of {', '.join(_TEMPLATES)}")
    folder = package_files("hls") / "templates"
    form = folder / f"{_TEMPLATES[name]}_{variant.rstrip('+')}.v"
    if not form.is_file():
        form = folder / f"{_TEMPLATES[name]}_any.v"
    return ((folder / f"{_TEMPLATES[name]}_ports.v").read_text() + form.read_text()).replace(name, module)
