"""Safetensors files of any content, also such as no library writes; and what one says, read without a library."""

import json
from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
NAMES = (*DTYPES.values(), "I8", "I16", "U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F4", "C64", "F8_E8M0", "", "F31")
LENGTHS = (0, 1, 2, 3, 5, 8, 2**16, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1, 2**64, -1)


def header_of(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
    """(header, data) of a file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    data = b""
    for key, tensor in state.items():
        content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[key] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    return header, data


def packed(header: str, data: bytes, length: int | None = None) -> bytes:
    """The file; `length` is what it says of its header's length, which may be a lie."""
    encoded = header.encode()
    return (len(encoded) if length is None else length % 2**64).to_bytes(8, "little") + encoded + data


def unpacked(content: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, data) of a file that a library could read."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def said(content: bytes) -> dict[str, bytes]:
    """The bytes of each tensor, as the header says where they are."""
    header, data = unpacked(content)
    return {key: data[slice(*told["data_offsets"])] for key, told in header.items() if key != "__metadata__"}


def lie(header: dict[str, Any], chance: Random) -> None:
    """Change what the header says of one tensor, in place."""
    key = chance.choice([key for key in header if key != "__metadata__"])
    told = header[key]
    field = chance.choice((*told, "key", "gone", "extra"))
    if field == "dtype":
        told["dtype"] = chance.choice((*NAMES, 5, None))
    elif field == "shape" and told["shape"]:
        first, *rest = told["shape"]
        other = chance.choice(([*rest, first], [first, *rest, 1], rest, [chance.choice(LENGTHS), *rest], [0, 2**40]))
        told["shape"] = other
    elif field == "data_offsets":
        told["data_offsets"] = [end + chance.choice((0, 0, -1, 1, 4, -(2**63), 2**63)) for end in told["data_offsets"]]
    elif field == "key":
        header[chance.choice(("", "x", key + ".", key.upper(), "a" * 5000, key + "\0", "\u00e9" + key))] = header.pop(
            key
        )
    elif field == "gone":
        told.pop(chance.choice(("dtype", "shape", "data_offsets")), None)
    else:
        header["__metadata__"] = chance.choice(({"a": 5}, [], "x", {"tcd.method": "tcd", "tcd.gamma": "nan"}, None))


def repeated(header: dict[str, Any], chance: Random) -> str:
    """The header's JSON with one key twice, of which the second entry may say something else."""
    key = chance.choice(list(header))
    again = json.loads(json.dumps(header[key]))
    if isinstance(again, dict) and "shape" in again and chance.random() < 0.5:
        again["shape"] = again["shape"][::-1]
    first, second = (json.dumps({key: told})[1:-1] for told in (header[key], again))
    rest = json.dumps({name: told for name, told in header.items() if name != key})[1:-1]
    return "{" + ", ".join(filter(None, chance.sample([first, rest, second], 3))) + "}"


def lying(state: Mapping[str, Tensor], metadata: Mapping[str, str], chance: Random) -> bytes:
    """A file whose header does not fit its content."""
    header, data = header_of(state, metadata)
    kind = chance.choice(("lie", "lie", "lie", "lies", "repeated", "length", "data", "huge"))
    if kind in ("lie", "lies"):
        for _ in range(3 if kind == "lies" else 1):
            lie(header, chance)
    if kind == "repeated":
        return packed(repeated(header, chance), data)
    if kind == "length":
        return packed(json.dumps(header), data, chance.choice((*LENGTHS, len(json.dumps(header)) - 1)))
    if kind == "data":
        return packed(json.dumps(header), data + bytes(chance.randrange(1, 9)) if chance.random() < 0.5 else data[:-1])
    if kind == "huge":
        return packed(json.dumps(header) + " " * chance.choice((1, 7, 4096, 2**20)), data)
    return packed(json.dumps(header), data)
