"""Writes a GGUF file's weights in another type: `python -m benchmarks.local.gguf_file FILE NEW BF16|Q8_0`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

if TYPE_CHECKING:
    from gguf import ReaderField

_FILE_TYPES: Final = {"BF16": LlamaFileType.MOSTLY_BF16, "Q8_0": LlamaFileType.MOSTLY_Q8_0}


def main(source: str, target: str, kind: str) -> None:
    """Write all that `source` holds into `target`; matrices in the type named, vectors as they are.

    Weights are rounded to bf16 first, so that all engines have the same ones before any is rounded further.
    """
    reader = GGUFReader(source)
    architecture: str = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(target, architecture)
    for field in reader.fields.values():
        _copy(field, writer)
    writer.add_file_type(_FILE_TYPES[kind])
    bf16 = GGMLQuantizationType.BF16
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        if weights.ndim > 1:
            rounded = quantize(weights, bf16)
            chosen = GGMLQuantizationType[kind]
            data = rounded if chosen == bf16 else quantize(dequantize(rounded, bf16), chosen)
            writer.add_tensor(tensor.name, data, raw_dtype=chosen)
        else:
            writer.add_tensor(tensor.name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy(field: ReaderField, writer: GGUFWriter) -> None:
    name = field.name
    if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
        return  # the writer says these itself
    kind = field.types[0]
    element = field.types[-1] if kind == GGUFValueType.ARRAY else None
    value: Any = field.contents()
    writer.add_key_value(name, value, kind, element)


if __name__ == "__main__":
    main(*sys.argv[1:])
