"""The tag of an RTL project: bits that travel with each patch and leave beside its result."""

from hls.project.test_bench import render

_MEANING = {
    "verilog": "\n// in_tag     {0} bits of the user's, taken with the patch; out_tag has them beside its result",
    "vhdl": "\n-- in_tag     {0} bits of the user's, taken with the patch; out_tag has them beside its result",
}
_PORTS = {
    "verilog": ("    input [{0}-1:0] in_tag,\n", "    output reg [{0}-1:0] out_tag,\n"),
    "vhdl": (
        "    in_tag : in std_logic_vector({0} - 1 downto 0);\n",
        "    out_tag : out std_logic_vector({0} - 1 downto 0);\n",
    ),
}
#: Of the test bench: signals, ports, what is sent with the patch of a number, the check beside the result.
_BENCH = {
    "verilog": (
        "    reg [{0}-1:0] in_tag = 0;\n    wire [{0}-1:0] out_tag;\n",
        ",\n        .in_tag(in_tag), .out_tag(out_tag)",
        "                    in_tag <= {{{2}sent[0 +: {1}]}};\n",
        "                if (out_tag !== {{{2}received[0 +: {1}]}}) begin\n"
        '                    $display("FAIL: result %0d has the tag %h", received, out_tag);\n'
        "                    $fatal(1);\n"
        "                end\n",
    ),
    "vhdl": (
        "    signal in_tag, out_tag : std_logic_vector({0} - 1 downto 0) := (others => '0');\n",
        ",\n        in_tag => in_tag, out_tag => out_tag",
        "                    in_tag <= std_logic_vector(to_unsigned(sent mod 2 ** {3}, {0}));\n",
        "                assert unsigned(out_tag) = received mod 2 ** {3}\n"
        '                    report "FAIL: result " & integer\'image(received) & " has the tag " & to_hstring(out_tag)'
        " severity failure;\n",
    ),
}
#: Bits of a simulator's integer that the test bench uses for tags; the others are 0.
_COUNTED = {"verilog": 31, "vhdl": 30}


def tag_texts(bits: int, language: str) -> dict[str, str]:
    """What the templates of the top module and of the test bench ask for; empty without a tag."""
    names = (
        "TAG_MEANING", "TAG_IN_PORT", "TAG_OUT_PORT", "TAG_MEMORY", "TAG_SIGNALS", "TAG_BENCH_SIGNALS",
        "TAG_CONNECTION", "TAG_SENT", "TAG_CHECKED", "TAG_NAMES", "TAG_README",
    )  # fmt: skip
    if not bits:
        return dict.fromkeys(names, "")
    counted = min(bits, _COUNTED[language])
    fill = f"{bits - counted}'d0, " if bits > counted else ""
    values = (bits, counted, fill, counted)
    suffix = "v" if language == "verilog" else "vhd"
    texts = [
        _MEANING[language], *_PORTS[language], render(f"rtl_tag.{suffix}", {"TAG": bits}),
        "" if language == "verilog" else render("rtl_tag_signals.vhd", {"TAG": bits}),
    ]  # fmt: skip
    made = [text.format(*values) if "{0}" in text else text for text in texts]
    made += [text.format(*values) for text in _BENCH[language]] + [" in_tag out_tag"]
    made.append(f"\nTag           {bits} bits: in_tag is taken with a patch, out_tag leaves beside its result")
    return dict(zip(names, made, strict=True))
