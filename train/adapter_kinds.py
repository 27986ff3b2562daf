"""The kinds of adapters: what they are made of, and what files call it. Imports no torch.

LoRA (Hu et al. 2021, arXiv 2106.09685), DoRA (Liu et al. 2024, arXiv 2402.09353), LoHa (Hyeon-Woo et al. 2021, FedPara,
arXiv 2108.06098) and LoKr (Yeh et al. 2023, LyCORIS, arXiv 2309.14859). peft computes them; names of tensors are peft's
in memory, kohya's and LyCORIS' in files.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isqrt, prod

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class AdapterKind:
    """A kind of adapter that a config can name."""

    name: str
    """How project.yaml and the command line spell it."""
    title: str
    """For people."""
    tensors: Mapping[str, str]
    """Tensor of an adapter, as peft calls it → as kohya's files do; a layer may lack some."""
    zero: tuple[str, ...]
    """Those that begin at zero, so that the adapter changes nothing at first."""
    algorithm: str | None = None
    """What LyCORIS calls it; None: sd-scripts has it by itself."""

    def is_whole(self, tensors: set[str]) -> bool:
        """Tells whether these are all tensors of an adapter, by peft's names."""
        if self is LOKR:
            return tensors in ({"lokr_w1", "lokr_w2"}, {"lokr_w1", "lokr_w2_a", "lokr_w2_b"})
        return tensors == self.tensors.keys()

    def scaled_tensor(self, tensors: Collection[str]) -> str:
        """Returns which of an adapter's tensors a scale is folded into."""
        return "lokr_w2" if "lokr_w2" in tensors else _SCALED[self.name]

    def count_parameters(self, shape: Shape, rank: int) -> int:
        """Counts the parameters of a layer's adapter.

        Args:
            shape: of the layer's weight: [out, in], or [out, in, h, w].
            rank: the adapter's.
        """
        outputs, inputs = shape[0], prod(shape[1:])
        if self is LOKR:
            (out_1, out_2), (in_1, in_2) = _factors(outputs), _factors(shape[1])
            second = out_2 * in_2 * prod(shape[2:])
            is_full = rank >= max(out_2, in_2) / 2
            return out_1 * in_1 + (second if is_full else rank * (out_2 + in_2 * prod(shape[2:])))
        matrices = rank * (outputs + inputs)
        return {"loha": 2 * matrices, "dora": matrices + outputs}.get(self.name, matrices)


_MATRICES = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight"}
LORA = AdapterKind("lora", "LoRA", _MATRICES, zero=("lora_B",))
DORA = AdapterKind("dora", "DoRA", {**_MATRICES, "lora_magnitude_vector": "dora_scale"}, zero=("lora_B",))
LOHA = AdapterKind(
    "loha",
    "LoHa",
    {name: name for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    zero=("hada_w2_b",),
    algorithm="loha",
)
LOKR = AdapterKind(
    "lokr",
    "LoKr",
    {name: name for name in ("lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b")},
    zero=("lokr_w2", "lokr_w2_b"),
    algorithm="lokr",
)
KINDS: Mapping[str, AdapterKind] = {kind.name: kind for kind in (LORA, DORA, LOHA, LOKR)}
"""Name → kind."""
_SCALED = {"lora": "lora_B", "dora": "lora_B", "loha": "hada_w2_b", "lokr": "lokr_w1"}


def _factors(dimension: int) -> tuple[int, int]:
    """Divides a dimension as evenly as can be, the smaller factor first, as LyCORIS does without a factor given."""
    smaller = next(n for n in range(isqrt(dimension), 0, -1) if dimension % n == 0)
    return smaller, dimension // smaller
