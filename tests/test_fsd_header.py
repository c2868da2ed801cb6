"""fsd_npu.h as a hardware team meets it: it compiles everywhere, and the binding is laid out as it says."""

import ctypes
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from fsd_drivers import STRICT, compiler, program

from firmware_shims.fsd.c_abi import layout
from firmware_shims.fsd.driver import HEADER
from firmware_shims.fsd.interface import Code

PAGE = Path(__file__).parent.parent / "docs" / "fsd-driver.md"
STRUCTS = {
    "fsd_npu_open_params": layout.OpenParams,
    "fsd_npu_capabilities": layout.RawCapabilities,
    "fsd_npu_description": layout.RawDescription,
    "fsd_npu_tensor": layout.RawTensor,
    "fsd_npu_buffer": layout.RawBuffer,
    "fsd_npu_completion": layout.RawCompletion,
}
NUMBERS = {
    "FSD_NPU_ABI_VERSION": layout.MAJOR << 16 | layout.MINOR,
    "FSD_NPU_MAX_NPUS": layout.MAX_NPUS,
    "FSD_NPU_MAX_TENSORS": layout.MAX_TENSORS,
    "FSD_NPU_MAX_DIMS": layout.MAX_DIMS,
    "FSD_NPU_FOREVER": layout.FOREVER,
    "FSD_NPU_UNKNOWN": layout.UNKNOWN,
    "FSD_NPU_CAPABILITIES_1_0_BYTES": layout.RawCapabilities.bytes_in_1_0(),
    "FSD_NPU_COMPLETION_1_0_BYTES": layout.RawCompletion.bytes_in_1_0(),
    **{f"FSD_NPU_{code.name}": code.value for code in Code},
    **{f"FSD_NPU_{name}": number for number, (name, _) in layout.DATATYPES.items()},
    **{f"FSD_NPU_ENERGY_{name.upper()}": number for number, name in layout.ENERGY_SOURCES.items()},
}


def answered(folder: Path, questions: Mapping[str, int]) -> dict[str, int]:
    """What a C compiler makes of each expression, the header included twice."""
    lines = [f'printf("%llu\\n", (unsigned long long)({each}));' for each in questions]
    source = folder / "ask.c"
    source.write_text(
        f'#include "{HEADER}"\n#include "{HEADER}"\n#include <stdio.h>\nint main(void) {{ {" ".join(lines)} }}'
    )
    subprocess.run([compiler("cc"), "-std=c11", *STRICT, "-o", folder / "ask", source], check=True)
    said = subprocess.run([folder / "ask"], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(questions, map(int, said), strict=True))


@pytest.mark.parametrize(("name", "language"), [("cc", "c11"), ("g++", "c++11"), ("g++", "c++20")])
def test_the_header_compiles_without_a_warning(name: str, language: str) -> None:
    kind = "c++" if "++" in language else "c"
    subprocess.run(
        [compiler(name), f"-std={language}", *STRICT, "-fsyntax-only", "-x", kind, HEADER], check=True
    )


def test_every_number_of_the_header_is_the_bindings(tmp_path: Path) -> None:
    assert answered(tmp_path, NUMBERS) == NUMBERS


def test_every_enumerator_of_the_header_is_known_to_the_binding() -> None:
    named = set(re.findall(r"^ +(FSD_NPU_\w+) = \d+", HEADER.read_text(), re.MULTILINE))
    assert named
    assert named <= NUMBERS.keys()


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_lies_where_the_header_has_it(name: str, tmp_path: Path) -> None:
    struct = STRUCTS[name]
    wanted = {f"sizeof(struct {name})": ctypes.sizeof(struct)}
    for field, *_ in struct._fields_:
        place = getattr(struct, field)
        wanted[f"offsetof(struct {name}, {field})"] = place.offset
        wanted[f"sizeof(((struct {name} *)0)->{field})"] = place.size
    assert answered(tmp_path, wanted) == wanted


@pytest.mark.parametrize("name", STRUCTS)
def test_no_struct_has_padding_in_which_a_newer_field_could_hide(name: str) -> None:
    struct = STRUCTS[name]
    assert sum(getattr(struct, field).size for field, *_ in struct._fields_) == ctypes.sizeof(struct)


def test_the_binding_knows_every_function_of_the_header() -> None:
    declared = set(
        re.findall(r"\bfsd_npu_(\w+)\(", "".join(re.findall(r"FSD_NPU_API [^;]+;", HEADER.read_text())))
    )
    assert declared == layout.FUNCTIONS.keys()


def test_the_authors_page_shows_how_to_try_a_driver(
    reference_library: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "program"
    file.write_bytes(program("3x4", ms=1))
    block = block.replace("./libfsd.so", str(reference_library)).replace("./program", str(file))
    exec(compile(block, str(PAGE), "exec"), {})  # noqa: S102 - the page's own lines
    said = capsys.readouterr().out
    assert "name='reference'" in said
    assert "Completion(device_ns=" in said


def test_the_authors_page_fills_structs_as_the_binding_asks(tmp_path: Path) -> None:
    (block,) = re.findall(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)
    source = tmp_path / "answer.c"
    source.write_text(block)
    library = tmp_path / "libanswer.so"
    command = [
        compiler("cc"),
        "-std=c11",
        *STRICT,
        "-Wno-unused-function",
        "-shared",
        "-fPIC",
        f"-I{HEADER.parent}",
    ]
    subprocess.run([*command, "-o", library, source], check=True)
