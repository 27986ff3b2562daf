"""Starts adapters from a LoRA file: with kohya's names, or with diffusers' of any release.

A LoRA of a smaller rank fills the first ranks, and the others begin as ever, so they change nothing at first. The
file's alphas are folded in: the adapters begin as the file has them, whatever lora_rank and lora_alpha are.
"""

from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from dreamloom.base.errors import UserError
from dreamloom.train.adapter_kinds import KINDS, AdapterKind
from dreamloom.train.config import TrainConfig
from dreamloom.train.model.family import learning_text_encoders
from dreamloom.train.model.lora_file import find_adapters, read_peft_settings
from dreamloom.train.model.lora_layers import ADAPTER_NAME, kohya_name
from dreamloom.train.model.model import Model


def load_adapters(model: Model, config: TrainConfig) -> None:
    """Copies the adapters of init_lora into those of a model, which have just been added.

    Args:
        model: its adapters are of config.lora_kind and config.lora_rank.
        config: the run's.

    Raises:
        UserError: the file's adapters are not this model's.
    """
    assert config.init_lora is not None
    file, kind = config.init_lora, KINDS[config.lora_kind]
    found = find_adapters(file, config)
    tensors, settings, places = load_file(file), read_peft_settings(file), _layers_by_name(model, kind)
    for name, adapter in found.items():
        if name not in places:
            raise UserError(f"init_lora {file} adapts {name}, {_why_unknown(name, model, config)}.")
        part, layers = places[name]
        values = {tensor: tensors[stored].float() for tensor, stored in adapter.items()}
        values.setdefault("alpha", Tensor([settings.get(f"{part}.lora_alpha", _rank(values))]))
        try:
            for layer, own in zip(layers, split_joined(values, len(layers)), strict=True):
                _fill(layer, own, kind)
        except RuntimeError as error:
            raise UserError(
                f"init_lora {file} is of another base or rank: {name} has another shape; name its base, and set "
                "lora_rank to its rank."
            ) from error


def split_joined(values: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Divides the adapter of a joined layer, such as query, key and value in one, among its parts.

    Ranks of which a part has only zeros are another part's, if that goes for all of them.

    Args:
        values: the adapter's tensors by their names in dreamloom.train.adapter_kinds, and its alpha.
        count: number of parts.
    """
    if count == 1:
        return [dict(values)]
    parts = [{name: value for name, value in values.items() if name == "alpha"} for _ in range(count)]
    for outputs, inputs in (("lora_B", "lora_A"), ("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b")):
        if outputs not in values:
            continue
        rows = values[outputs].chunk(count)
        rank = len(values[inputs])
        own = [range(n * rank // count, (n + 1) * rank // count) for n in range(count)]
        is_apart = rank % count == 0 and all(
            not row[:, : ranks.start].any() and not row[:, ranks.stop :].any()
            for row, ranks in zip(rows, own, strict=True)
        )
        for part, row, ranks in zip(parts, rows, own, strict=True):
            chosen = slice(ranks.start, ranks.stop) if is_apart else slice(None)
            part |= {outputs: row[:, chosen], inputs: values[inputs][chosen]}
            if is_apart:
                part["alpha"] = values["alpha"] / count
    if "lora_magnitude_vector" in values:
        for part, norms in zip(parts, values["lora_magnitude_vector"].chunk(count), strict=True):
            part["lora_magnitude_vector"] = norms
    return parts


def _rank(values: Mapping[str, Tensor]) -> int:
    """The rank of an adapter; 1 where it has none, as a LoKr whose matrices are whole."""
    inputs = ("lora_A", "hada_w1_b", "lokr_w2_b")
    return next((len(values[name]) for name in inputs if name in values), 1)


def _fill(layer: Any, values: Mapping[str, Tensor], kind: AdapterKind) -> None:
    """Fills a layer's adapter; of a LoRA the first ranks. Those left over keep lora_A, and have 0 in lora_B."""
    has_rank = "lokr_w2" not in values
    scale = float(values["alpha"]) / _rank(values) if has_rank else 1.0
    scaled = kind.scaled_tensor(values)
    for tensor, value in values.items():
        if tensor == "alpha":
            continue
        own = _tensor(layer, tensor)
        if tensor == scaled:
            value = value * (scale / layer.scaling[ADAPTER_NAME])
        if tensor == "lora_A":
            own[: len(value)].flatten(1).copy_(value.flatten(1))
        elif tensor == "lora_B":
            own[:, : value.shape[1]].copy_(value.reshape(*value.shape[:2], *own.shape[2:]))
        elif own.numel() == value.numel():  # a 1 × 1 convolution may be a matrix
            own.copy_(value.reshape(own.shape))
        else:
            raise RuntimeError(f"{tensor} has another shape")


def _tensor(layer: Any, name: str) -> Tensor:
    held = getattr(layer, name)[ADAPTER_NAME]
    tensor = held.weight if isinstance(held, nn.Module) else held
    assert isinstance(tensor, Tensor)
    return tensor.data


def _layers_by_name(model: Model, kind: AdapterKind) -> dict[str, tuple[str, list[Any]]]:
    """Returns component and layers by each name that files have for them; a joined one is several."""
    places: dict[str, tuple[str, list[Any]]] = {}
    first = next(iter(kind.tensors))
    for part, beginning in model.family.kohya_parts.items():
        adapted = {name: layer for name, layer in model.components[part].named_modules() if hasattr(layer, first)}
        for layer, name in model.kohya_names(part, adapted).items():
            places.setdefault(name, (part, []))[1].append(adapted[layer])
        for name, layer in adapted.items():
            bare = name.removeprefix("text_model.")
            for each in (f"{part}.{bare}", f"{part}.text_model.{bare}", kohya_name(beginning, name)):
                places[each] = (part, [layer])
    return places


def _why_unknown(name: str, model: Model, config: TrainConfig) -> str:
    learning = learning_text_encoders(config, model.family)
    for part in model.text_encoders.keys() & model.family.kohya_parts:  # T5 has no adapters
        if part not in learning and name.startswith((f"{part}.", model.family.kohya_parts[part])):
            return f"but the {part.replace('_', ' ')} is not trained; set {part}_learning_rate"
    return "which gets no adapter here; name a LoRA of the same layers (lora_convolutions), and its base"
