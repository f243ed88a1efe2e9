"""Generate the Python classes of the contract, of Envoy's API, and the contract's schema table.

``python -m protos.generate`` writes ``protos/_generated``:

* betterproto2 classes of our ``.proto`` files, compiled by protoc;
* betterproto2 classes of the Envoy messages listed in ``envoy.txt`` and of all they refer to, taken
  from the descriptors that the package ``xds-protos`` carries (there are no ``.proto`` files to compile);
* ``schema.py``: fields, types and oneofs of the contract as one literal, for readers that check
  documents without importing a message class (``glooctl`` starts in a fraction of the time);
* ``construct.py``, a copy of the one here, which the classes are made with.

``--contract-only`` leaves Envoy's messages out, for the roles that never see them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pprint
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGET = HERE / "_generated"
PACKAGES = ("gateway.solo.io", "gloo.solo.io")
ALWAYS = ("google/protobuf/timestamp.proto",)  # the codec knows it, though only Envoy's messages use it
WRAPPERS = {
    "google.protobuf.StringValue": "string",
    "google.protobuf.BoolValue": "bool",
    "google.protobuf.Int32Value": "int32",
    "google.protobuf.Int64Value": "int64",
    "google.protobuf.UInt32Value": "uint32",
    "google.protobuf.UInt64Value": "uint64",
    "google.protobuf.FloatValue": "float",
    "google.protobuf.DoubleValue": "double",
    "google.protobuf.BytesValue": "bytes",
}

OUR_DATACLASS = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from protos._generated.construct import dataclass
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m protos.generate", description="Generate message classes."
    )
    parser.add_argument("--contract-only", action="store_true", help="leave Envoy's messages out")
    generate(contract_only=parser.parse_args().contract_only)


def generate(*, contract_only: bool = False, target: Path = TARGET) -> None:
    """Write all generated code to *target*, replacing what stood there."""
    files = contract_descriptors()
    table = schema(file for file in files if file.package in PACKAGES)
    if not contract_only:
        known = {file.name for file in files}
        files += [file for file in envoy_descriptors() if file.name not in known]
    written = run_plugin(files)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        root = Path(scratch) / "out"
        for name, content in written:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content.replace("from dataclasses import dataclass\n", OUR_DATACLASS))
        for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
            (folder / "__init__.py").touch()
        (root / "schema.py").write_text(render_schema(table))
        shutil.copy(HERE / "construct.py", root)
        if target.exists():
            target.rename(Path(scratch) / "before")  # readers miss it for a moment only
        root.rename(target)


def is_current(target: Path = TARGET) -> bool:
    """Whether *target* was generated after the last edit of what it is made from."""
    sources = [*HERE.rglob("*.proto"), HERE / "envoy.txt", HERE / "construct.py", Path(__file__)]
    made = target / "schema.py"
    return made.exists() and made.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def contract_descriptors() -> list[Any]:
    """The file descriptors of our own ``.proto`` files, dependencies first."""
    from google.protobuf import descriptor_pb2

    sources = sorted(str(path.relative_to(HERE.parent)) for path in HERE.rglob("*.proto"))
    with tempfile.NamedTemporaryFile() as out:
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE.parent}", "--include_imports"]
        command += ["--include_source_info", f"--descriptor_set_out={out.name}", *sources, *ALWAYS]
        subprocess.run(command, check=True)
        return list(descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file)


def envoy_descriptors() -> list[Any]:
    """The file descriptors behind ``envoy.txt`` and all they import, dependencies first."""
    from google.protobuf import descriptor_pb2

    found: dict[str, Any] = {}

    def visit(file: Any) -> None:
        if file.name in found:
            return
        for dependency in file.dependencies:
            visit(dependency)
        copy = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copy)
        copy.source_code_info.SetInParent()  # the plugin expects it to be there
        clear_deprecations(copy)
        found[file.name] = copy

    for line in (HERE / "envoy.txt").read_text().splitlines():
        if name := line.partition("#")[0].strip():
            module = name.removesuffix(".proto").replace("/", ".").replace("-", "_") + "_pb2"
            visit(importlib.import_module(module).DESCRIPTOR)
    return list(found.values())


def clear_deprecations(declaration: Any) -> None:
    """Forget what *declaration* and those inside it say of being deprecated.

    betterproto2 would look for deprecated fields whenever a message is made, and warn of those that are
    set: several times the cost of the message itself, for warnings that no user can do anything about.
    """
    declaration.options.ClearField("deprecated")
    for inside in ("message_type", "nested_type", "enum_type", "field", "value"):
        for each in getattr(declaration, inside, ()):
            clear_deprecations(each)


def run_plugin(files: list[Any]) -> Iterator[tuple[str, str]]:
    """Hand *files* to betterproto2's compiler; give the names and texts of the files it makes."""
    from google.protobuf.compiler import plugin_pb2

    options = "client_generation=none,server_generation=none"
    request = plugin_pb2.CodeGeneratorRequest(parameter=options, proto_file=files)
    request.file_to_generate.extend(file.name for file in files)
    plugin = [sys.executable, "-c", "from betterproto2_compiler.plugin.main import main; main()"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it calls ruff by name
    environment = {**os.environ, "PATH": path}
    done = subprocess.run(
        plugin, input=request.SerializeToString(), capture_output=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(f"betterproto2's compiler failed:\n{done.stderr.decode()}")
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    if response.error:
        raise SystemExit(f"betterproto2's compiler failed: {response.error}")
    for file in response.file:
        yield file.name, file.content


def schema(files: Iterable[Any]) -> dict[str, Any]:
    """The contract as plain data: ``{message: {jsonName: field}}`` and ``{enum: {name: number}}``.

    A field is ``(attribute, kind, type, oneof, shape)``: *kind* is ``scalar``, ``wrapper``, ``enum``,
    ``message`` or a well-known one (``duration``, ``struct``, ``any``, ``empty``, ``value``); *shape* is
    ``one``, ``list`` or ``map``. Names of messages and enums are full ones, as ``gloo.solo.io.Upstream``.
    """
    messages: dict[str, Any] = {}
    enums: dict[str, Any] = {}
    for file in files:
        for message in file.message_type:
            add_message(f"{file.package}.{message.name}", message, messages, enums)
        for enum in file.enum_type:
            enums[f"{file.package}.{enum.name}"] = {value.name: value.number for value in enum.value}
    return {"messages": messages, "enums": enums}


def add_message(name: str, message: Any, messages: dict[str, Any], enums: dict[str, Any]) -> None:
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    for nested in message.nested_type:
        if nested.name not in entries:
            add_message(f"{name}.{nested.name}", nested, messages, enums)
    for enum in message.enum_type:
        enums[f"{name}.{enum.name}"] = {value.name: value.number for value in enum.value}
    messages[name] = {
        field.json_name: describe_field(field, name, message, entries) for field in message.field
    }


def describe_field(field: Any, owner: str, message: Any, entries: dict[str, Any]) -> tuple[str, ...]:
    entry = (
        entries.get(field.type_name.rpartition(".")[2]) if field.type_name.startswith(f".{owner}.") else None
    )
    kind, type_name = field_kind(entry.field[1] if entry else field)
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
    shape = "map" if entry else "list" if field.label == field.LABEL_REPEATED else "one"
    return field.name, kind, type_name, oneof, shape


def field_kind(field: Any) -> tuple[str, str]:
    type_name = field.type_name.removeprefix(".")
    if field.type == field.TYPE_ENUM:
        return "enum", type_name
    if field.type != field.TYPE_MESSAGE:
        return "scalar", field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if type_name in WRAPPERS:
        return "wrapper", WRAPPERS[type_name]
    if type_name.startswith("google.protobuf."):
        return type_name.removeprefix("google.protobuf.").lower(), type_name
    return "message", type_name


def render_schema(table: dict[str, Any]) -> str:
    body = "\n".join(
        f"{name.upper()} = {pprint.pformat(part, width=120, sort_dicts=True)}" for name, part in table.items()
    )
    return f'"""Generated by protos.generate; see there for the shape."""\n\n{body}\n'


if __name__ == "__main__":
    main()
