"""The program that converts one GGUF file, run by path in a process of its own: `python gguf_script.py FILE FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path


def main(gguf: Path, folder: Path) -> None:
    """Write bf16 safetensors, tokenizer and chat template of `gguf` into `folder`; progress bars go to stderr."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(gguf.parent), gguf.name
    network = AutoModelForCausalLM.from_pretrained(
        where,
        gguf_file=name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        local_files_only=True,
    )
    if hasattr(network.config, "quantization_config"):  # the weights are plain now; a reload must not look for blocks
        del network.config.quantization_config
    network.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(where, gguf_file=name, local_files_only=True).save_pretrained(str(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
