"""A SwiGLU whose two inner matrices read the same normalised numbers, as engines with one norm per feed-forward need.

Ternary layers bring their own norms, so in a SwiGLU of them gate and value each have gains of their own. llama.cpp,
among others, has one norm in front of both. With shared gains, one vector fewer per block, it can hold the model in
ternary weights.

Shapes: C channels (n_embd).
"""

from torch import nn

from kancourse.gpt import GPTConfig, LinearFactory, SwiGLU


class OneNormSwiGLU(SwiGLU):
    """`SwiGLU` of ternary layers with one vector of gains, (C,), for `c_gate` and `c_fc`.

    Raises:
        TypeError: `linear` makes layers without a norm of their own, which have nothing to share.
    """

    def __init__(self, config: GPTConfig, linear: LinearFactory) -> None:
        super().__init__(config, linear)
        if not hasattr(self.c_gate, "norm_weight"):
            raise TypeError(f"a {type(self.c_gate).__name__} has no norm of its own to share: use ffn 'swiglu'")
        if isinstance(self.c_gate.norm_weight, nn.Parameter):  # packed gains are fixed, and equal already
            self.c_fc.norm_weight = self.c_gate.norm_weight
